"""Event time per source: when a window can be judged, and what came too late for it.

A source is one version of one service. It has come past a window once it sent spans that end after it, and once as much
time has gone by as it usually needs; one that fell silent is waited for no longer than usual. So a window is judged as
soon as its data are there, and slow senders hold it back for a bounded time only.
"""

from __future__ import annotations

import polars as pl

from observe.frames import PROGRESS
from observe.settings import DetectSettings
from observe.types import WINDOW_NS

SECOND_NS = 1_000_000_000
ACTIVE_NS = 60 * SECOND_NS
"""A source that sent nothing for this long is idle, and holds nothing back."""
MEMORY_NS = 600 * SECOND_NS
USUAL = 0.8
"""Share of a source's windows that were complete within its usual lag: one retry must not slow everything."""
ENOUGH = 3
MARGIN_NS = SECOND_NS
PAUSE_NS = 20 * SECOND_NS


class Watermark:
    """What was seen of every source, and when. Times are nanoseconds; `at_ns` is the clock on the wall."""

    def __init__(self, settings: DetectSettings) -> None:
        self._settle_ns = int(settings.settle_s * SECOND_NS)
        self._longest_ns = max(self._settle_ns, int(settings.max_lag_s * SECOND_NS))
        self._seen = pl.DataFrame(schema={**PROGRESS, "grown_ns": pl.Int64})
        self._asked_ns = -PAUSE_NS

    def saw(self, progress: pl.DataFrame, at_ns: int) -> None:
        """Takes note of how many items each source has sent for each window by now (PROGRESS)."""
        keys = ["source", "window_start_ns"]
        before = self._seen.select(*keys, pl.col("items").alias("before"), "grown_ns")
        joined = progress.select(list(PROGRESS)).join(before, on=keys, how="left")
        # After a pause (a start, a store that was away) nobody knows when what is new came.
        now = at_ns if at_ns - self._asked_ns <= PAUSE_NS else None
        self._asked_ns = at_ns
        grown = pl.when(pl.col("items") == pl.col("before")).then("grown_ns").otherwise(pl.lit(now, pl.Int64))
        fresh = joined.with_columns(grown_ns=grown).select(list(self._seen.columns))
        older = self._seen.join(fresh, on=keys, how="anti").filter(pl.col("window_start_ns") > at_ns - MEMORY_NS)
        self._seen = pl.concat([older, fresh])

    def passed(self, end_ns: int, at_ns: int) -> bool:
        """Whether the window that ends at `end_ns` can be judged."""
        sources = self._sources(end_ns).filter(pl.col("newest_ns") >= end_ns - ACTIVE_NS)
        if sources.is_empty():
            return at_ns >= end_ns + self._settle_ns
        beyond = pl.col("newest_ns") >= end_ns
        waited_ns = at_ns - end_ns
        done = (beyond & (pl.col("lag_ns") <= waited_ns)) | (pl.col("deadline_ns") <= waited_ns)
        return bool(sources.select(done.all()).item())

    def lags_s(self, end_ns: int) -> dict[str, float]:
        """How long each source usually needs, in seconds."""
        rows = self._sources(end_ns).select("source", pl.col("lag_ns") / SECOND_NS).sort("source").iter_rows()
        return {str(source): float(lag) for source, lag in rows}

    def _sources(self, end_ns: int) -> pl.DataFrame:
        complete = pl.col("window_start_ns") + 2 * WINDOW_NS <= end_ns
        lag = (pl.col("grown_ns") - pl.col("window_start_ns") - WINDOW_NS).filter(complete)
        known = lag.count() >= ENOUGH
        return (
            self._seen.group_by("source")
            .agg(
                newest_ns=pl.col("window_start_ns").max(),
                lag_ns=pl.when(known)
                .then(lag.quantile(USUAL, "higher").cast(pl.Int64) + MARGIN_NS)
                .otherwise(self._settle_ns),
            )
            .with_columns(pl.col("lag_ns").clip(MARGIN_NS, self._longest_ns))
            .with_columns(deadline_ns=pl.max_horizontal("lag_ns", pl.lit(self._settle_ns, pl.Int64)))
        )
