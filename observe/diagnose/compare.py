"""The question behind a sentence: which number, of what, before and after. Asked again, it gives the number again.

A sentence of a diagnosis carries such a question as the address of an API query. The answer is worked out here, from
the windows of both periods, by sums that anyone can repeat: Σ of a column over Σ of another. Numbers that only the
whole diagnosis gives (shares, onsets, correlations) have no such question; replaying the diagnosis gives those.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from urllib.parse import urlencode

import numpy as np
import polars as pl

from observe.diagnose.addresses import resolved
from observe.diagnose.attribution import traffic
from observe.diagnose.contrast import Of, rows_of, values
from observe.diagnose.graph import ENTRY_KINDS, collapsed_edges, collapsed_selfs, entries, outside_ms, picture
from observe.diagnose.levels import Periods, within
from observe.diagnose.releases import release
from observe.errors import BadRecord
from observe.frames import Frames
from observe.types import Numbers
from observe.wire import API_PREFIX, rfc3339

DIMENSIONS = ("version", "instance", "host")


@dataclass(frozen=True, slots=True)
class Question:
    """`of` is a key of UNITS; the other fields say of what, as far as it needs them."""

    of: str
    when: Periods
    service: str = ""
    callee: str = ""
    dimension: str = ""  # version, instance or host
    values: tuple[str, ...] = ()  # of the dimension
    metric: str = ""
    hw_id: str = ""
    host: str = ""
    instance: str = ""
    labels: str = ""

    @property
    def query(self) -> str:
        """The address that answers it, on the API."""
        when = self.when
        plain = ("of", "service", "callee", "dimension", "metric", "hw_id", "host", "instance", "labels")
        asked = [(name, getattr(self, name)) for name in plain if getattr(self, name)]
        asked += [("value", value) for value in self.values]
        asked += [
            ("before", f"{_short(when.before_from_ns)}/{_short(when.before_to_ns)}"),
            ("after", f"{_short(when.after_from_ns)}/{_short(when.after_to_ns)}"),
        ]
        return f"{API_PREFIX}/compare?{urlencode(asked, safe=':/')}"


def _short(time_ns: int) -> str:
    return rfc3339(time_ns).replace(".000Z", "Z")


def compare(frames: Frames, question: Question) -> Numbers:
    """The numbers that the question asks for, by name. `frames` cover both periods.

    Raises BadRecord where `of` or `dimension` is unknown.
    """
    answer = _ANSWERS.get(question.of)
    if answer is None:
        raise BadRecord(f"of = {question.of!r}: one of {', '.join(UNITS)} is allowed")
    if question.dimension and question.dimension not in DIMENSIONS:
        raise BadRecord(f"dimension = {question.dimension!r}: one of {', '.join(DIMENSIONS)} is allowed")
    near = within(frames, question.when)
    near = Frames(near.windows, near.selfs, resolved(near.edges, near.selfs), near.gauges)
    found = answer(near, question)
    return tuple((name, float(value)) for name, value in found.items() if np.isfinite(value))


# ── answers ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _self_time(frames: Frames, asked: Question) -> Mapping[str, float]:
    return _per_request(frames, asked, "self_sum_ms")


def _errors_begun(frames: Frames, asked: Question) -> Mapping[str, float]:
    return _per_request(frames, asked, "origin_errors")


def _per_request(frames: Frames, asked: Question, column: str) -> Mapping[str, float]:
    """Σ column of the service's spans that are no outgoing calls, over the requests that entered it."""
    selfs = collapsed_selfs(frames.selfs, asked.when)
    here = entries(selfs, collapsed_edges(frames.edges, asked.when)).filter(pl.col("service") == asked.service)
    own = selfs.filter((pl.col("service") == asked.service) & (pl.col("kind") != "Client"))
    return _ratios(_by_period(own, column), _by_period(here, "requests"))


def _duration(frames: Frames, asked: Question) -> Mapping[str, float]:
    edges = collapsed_edges(frames.edges, asked.when)
    here = entries(collapsed_selfs(frames.selfs, asked.when), edges).filter(pl.col("service") == asked.service)
    return _ratios(_by_period(here, "duration_sum_ms"), _by_period(here, "requests"))


def _failing(frames: Frames, asked: Question) -> Mapping[str, float]:
    here = _entering(frames, asked)
    return _ratios(_by_period(here, "errors"), _by_period(here, "requests"))


def _rate(frames: Frames, asked: Question) -> Mapping[str, float]:
    before, after = _by_period(_entering(frames, asked), "requests")
    return {"before": before / max(asked.when.before_s, 1.0), "after": after / max(asked.when.after_s, 1.0)}


def _entering(frames: Frames, asked: Question) -> pl.DataFrame:
    selfs, edges = collapsed_selfs(frames.selfs, asked.when), collapsed_edges(frames.edges, asked.when)
    return entries(selfs, edges).filter(pl.col("service") == asked.service)


def _edge_time(frames: Frames, asked: Question) -> Mapping[str, float]:
    rows = _calls(frames, asked).with_columns(outside=outside_ms())
    return _ratios(_by_period(rows, "outside"), _by_period(rows, "calls"))


def _call_errors(frames: Frames, asked: Question) -> Mapping[str, float]:
    rows = _calls(frames, asked)
    return _ratios(_by_period(rows, "errors"), _by_period(rows, "calls"))


def _calls_per_request(frames: Frames, asked: Question) -> Mapping[str, float]:
    edges = collapsed_edges(frames.edges, asked.when)
    here = entries(collapsed_selfs(frames.selfs, asked.when), edges).filter(pl.col("service") == asked.service)
    return _ratios(_by_period(_calls(frames, asked), "calls"), _by_period(here, "requests"))


def _calls(frames: Frames, asked: Question) -> pl.DataFrame:
    here = (pl.col("caller") == asked.service) & (pl.col("callee") == asked.callee)
    return collapsed_edges(frames.edges.filter(here), asked.when)


def _outside(frames: Frames, asked: Question) -> Mapping[str, float]:
    rates = traffic(picture(frames, asked.when)).outside.sum(axis=1)
    return {"before": float(rates[0]), "after": float(rates[1])}


def _excess(of: Of) -> Callable[[Frames, Question], Mapping[str, float]]:
    def answer(frames: Frames, asked: Question) -> Mapping[str, float]:
        rows = rows_of(frames.selfs, [asked.service], asked.when, of)
        found = [v for v in values(rows, asked.dimension or "instance") if v.name]
        named = [v for v in found if v.name in asked.values]
        others = [v for v in found if v.name not in asked.values]
        return {
            "named": sum(v.excess * v.requests for v in named) / max(sum(v.requests for v in named), 1.0),
            "others": sum(v.excess * v.requests for v in others) / max(sum(v.requests for v in others), 1.0),
        }

    return answer


def _release(of: Of) -> Callable[[Frames, Question], Mapping[str, float]]:
    def answer(frames: Frames, asked: Question) -> Mapping[str, float]:
        rows = rows_of(frames.selfs, [asked.service], asked.when, of)
        found = release(rows, next(iter(asked.values), ""), of)
        return {} if found is None else {"excess": found.excess, "requests": found.requests}

    return answer


def _instances(frames: Frames, asked: Question) -> Mapping[str, float]:
    """Requests per second of one instance, and of the others."""
    rows = frames.selfs.filter(
        (pl.col("service") == asked.service) & pl.col("kind").is_in(list(ENTRY_KINDS)) & (pl.col("instance") != "")
    ).with_columns(asked.when.mark())
    mine = pl.col("instance").is_in(list(asked.values))
    here, rest = _by_period(rows.filter(mine), "requests"), _by_period(rows.filter(~mine), "requests")
    seconds = max(asked.when.before_s, 1.0), max(asked.when.after_s, 1.0)
    return {
        "before": here[0] / seconds[0],
        "after": here[1] / seconds[1],
        "others_before": rest[0] / seconds[0],
        "others_after": rest[1] / seconds[1],
    }


def _metric(frames: Frames, asked: Question) -> Mapping[str, float]:
    """Mean and largest value of one series' windows."""
    place = ("metric", "hw_id", "host", "instance", "labels")
    rows = frames.gauges.filter(*(pl.col(name) == getattr(asked, name) for name in place))
    rows = rows.filter(pl.col("service") == asked.service) if asked.service else rows
    rows = rows.with_columns(asked.when.mark())
    found: dict[str, float] = {}
    for period, name in enumerate(("before", "after")):
        part = rows.filter(pl.col("period") == period)
        if part.height:
            found[name] = float(part["value_avg"].to_numpy().mean())
            found[f"{name}_max"] = float(part["value_max"].to_numpy().max())
    return found


def _by_period(rows: pl.DataFrame, column: str) -> tuple[float, float]:
    before, after = (float(rows.filter(pl.col("period") == p)[column].sum() or 0.0) for p in (0, 1))
    return before, after


def _ratios(top: tuple[float, float], bottom: tuple[float, float]) -> Mapping[str, float]:
    found = {name: top[p] / max(bottom[p], 1.0) for p, name in enumerate(("before", "after"))}
    return found | {"requests_before": bottom[0], "requests_after": bottom[1]}


_ANSWERS: Mapping[str, Callable[[Frames, Question], Mapping[str, float]]] = {
    "self_time_ms": _self_time,
    "duration_ms": _duration,
    "error_ratio": _failing,
    "requests_per_s": _rate,
    "errors_begun": _errors_begun,
    "edge_time_ms": _edge_time,
    "call_errors": _call_errors,
    "calls_per_request": _calls_per_request,
    "outside_requests_per_s": _outside,
    "excess_ms": _excess("self"),
    "excess_errors": _excess("errors"),
    "release_ms": _release("self"),
    "release_errors": _release("errors"),
    "instance_requests_per_s": _instances,
    "metric": _metric,
}
UNITS: Mapping[str, str] = {
    "self_time_ms": "ms",
    "duration_ms": "ms",
    "error_ratio": "1",
    "requests_per_s": "{request}/s",
    "errors_begun": "1",
    "edge_time_ms": "ms",
    "call_errors": "1",
    "calls_per_request": "1",
    "outside_requests_per_s": "{request}/s",
    "excess_ms": "ms",
    "excess_errors": "1",
    "release_ms": "ms",
    "release_errors": "1",
    "instance_requests_per_s": "{request}/s",
    "metric": "",
}
"""What can be asked for, and the unit of the answer ("" where the metric's own)."""
