"""The rollups that need joins: computed when asked for, kept once their windows have settled.

A window's answer depends on the spans within its *reach*: those that end up to SLACK_S after it (late children), and
back as far as its own longest span, within [REACH_S, LOOKBACK_S]. Spans are only ever added, so their number within
the reach tells whether a kept answer is still the right one. Both ways run the same SELECT, so that what is asked
never depends on whether `settle` has run.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import numpy as np
import numpy.typing as npt
import polars as pl

from observe import pods
from observe.store import operations
from observe.store.aliases import expand
from observe.types import WINDOW_NS

WINDOW_S = WINDOW_NS // 1_000_000_000
SLACK_S = 30
REACH_S = 60
LOOKBACK_S = 600
QUIET_S = 20
"""A window is settled when its reach ended this long ago."""
MAX_SPANS = 400_000
"""How many spans one SELECT joins at most, where a single window has not more; bounds memory."""

Ints = npt.NDArray[np.int64]
_PODS = {
    "pod": f"arrayFirst(name -> name != '', [{', '.join(pods.PLACE)}])",
    "node": f"arrayFirst(name -> name != '', [{', '.join(pods.NODE)}])",
    "pod metrics": ", ".join(f"'{name}'" for name in pods.METRICS),
}


@cache
def sql(name: str) -> str:
    """A query of the folder `queries`; `edge_windows` with its parts put in, attributes under all their spellings."""
    text = (files("observe.store") / "queries" / f"{name}.sql").read_text(encoding="utf-8")
    if name == "edge_windows":
        for part in ("direct_edges", "link_edges", "virtual_edges"):
            text = text.replace(f"{{{part}}}", sql(part))
    for placeholder, stands_for in _PODS.items():
        text = text.replace(f"<<{placeholder}>>", stands_for)
    return expand(text).replace("<<operation>>", operations.OF_SPAN).replace("<<of service>>", operations.of_service())


@dataclass(frozen=True, slots=True)
class Reach:
    """The windows of a range that hold spans (start, s), with what lies within their reach."""

    window_s: Ints
    spans: Ints  # in the window itself
    first_s: Ints  # oldest window within reach
    spans_in_reach: Ints

    @classmethod
    def of(cls, counts: pl.DataFrame, from_s: int, to_s: int) -> Reach:
        """From the spans and the longest duration of each window; `counts` covers LOOKBACK_S and SLACK_S around."""
        window_s = counts["window_s"].to_numpy().astype(np.int64)
        spans = counts["spans"].to_numpy().astype(np.int64)
        longest_s = (counts["duration_max_ns"].to_numpy() // 1_000_000_000).astype(np.int64)
        before = np.clip(longest_s + 2 * WINDOW_S, REACH_S, LOOKBACK_S)
        first_s = (window_s - before) // WINDOW_S * WINDOW_S
        total = np.concatenate([[0], np.cumsum(spans)])
        upper = np.searchsorted(window_s, window_s + SLACK_S, side="right")
        lower = np.searchsorted(window_s, first_s, side="left")
        mine = (window_s >= from_s) & (window_s < to_s)
        return cls(window_s[mine], spans[mine], first_s[mine], (total[upper] - total[lower])[mine])

    def where(self, keep: npt.NDArray[np.bool_]) -> Reach:
        return Reach(self.window_s[keep], self.spans[keep], self.first_s[keep], self.spans_in_reach[keep])

    def differs(self, settled: pl.DataFrame) -> npt.NDArray[np.bool_]:
        """Which windows have no kept answer, or one that more spans have come to since."""
        known = dict(settled.select("window_s", "spans").iter_rows())
        return np.array([known.get(w, -1) != n for w, n in zip(self.window_s, self.spans_in_reach, strict=True)], bool)

    def chunks(self) -> Iterator[Reach]:
        """Neighbouring windows together, as many as MAX_SPANS allows."""
        begin, total = 0, 0
        for i, spans in enumerate(self.spans.tolist()):
            apart = i > begin and self.window_s[i] - self.window_s[i - 1] > LOOKBACK_S
            if i > begin and (total + spans > MAX_SPANS or apart):
                yield self.where(_span(len(self.spans), begin, i))
                begin, total = i, 0
            total += spans
        if len(self.spans):
            yield self.where(_span(len(self.spans), begin, len(self.spans)))

    def parameters(self) -> dict[str, int]:
        """For the queries: they cover all from the first window to the last."""
        return {
            "from": int(self.window_s[0]),
            "to": int(self.window_s[-1]) + WINDOW_S,
            "first": int(self.first_s.min()),
            "slack": SLACK_S,
            "reach": REACH_S,
            "lookback": LOOKBACK_S,
        }


def _span(length: int, begin: int, end: int) -> npt.NDArray[np.bool_]:
    index = np.arange(length)
    return (index >= begin) & (index < end)
