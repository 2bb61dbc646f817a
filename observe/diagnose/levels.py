"""Before and after: the two periods that a diagnosis compares, and the level of any rate or mean in each.

A level is a ratio of sums over windows, Σ total / Σ count, so it is exact whatever the windows' sizes. Its noise is
taken from the windows themselves: with window means x_w over n_w requests, Σ n_w (x_w − x̄)² / (W − 1) estimates the
variance per request *including* what all requests of a window share, which a variance over requests would miss
(over-dispersion; Cochran, Sampling Techniques, 1977, §6: ratio estimators).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from observe.frames import Frames
from observe.types import WINDOW_NS

GUARD_NS = 2 * WINDOW_NS
"""Kept out of "before": an onset is known to a window or two."""
MAX_BEFORE_NS = 120 * WINDOW_NS
"""Twenty minutes give a level; the hour before may hold another time of day, or another incident."""
UNSETTLED_NS = 2 * WINDOW_NS
"""Windows that start later than this before now lack spans that are still on their way, the slow ones above all."""


@dataclass(frozen=True, slots=True)
class Periods:
    """[before_from_ns, before_to_ns) against [after_from_ns, after_to_ns), in window starts."""

    before_from_ns: int
    before_to_ns: int
    after_from_ns: int
    after_to_ns: int

    @property
    def after_s(self) -> float:
        return (self.after_to_ns - self.after_from_ns) / 1e9

    @property
    def before_s(self) -> float:
        return (self.before_to_ns - self.before_from_ns) / 1e9

    def mark(self) -> pl.Expr:
        """0 for windows before, 1 for windows after, null for those between and outside."""
        at = pl.col("window_start_ns")
        return (
            pl.when((at >= self.before_from_ns) & (at < self.before_to_ns))
            .then(pl.lit(0, pl.Int8))
            .when((at >= self.after_from_ns) & (at < self.after_to_ns))
            .then(pl.lit(1, pl.Int8))
            .alias("period")
        )


def periods(onset_ns: int, now_ns: int, windows: pl.DataFrame) -> Periods | None:
    """The periods around an onset; None where there is nothing before it, or nothing after."""
    starts = windows["window_start_ns"]
    if not len(starts):
        return None
    first_ns, last_ns = int(starts.min()), int(starts.max())  # type: ignore[arg-type]
    settled_ns = now_ns - UNSETTLED_NS
    if settled_ns < onset_ns + WINDOW_NS:
        settled_ns = now_ns
    after_to_ns = min(settled_ns, last_ns) // WINDOW_NS * WINDOW_NS + WINDOW_NS
    before_to_ns = onset_ns - GUARD_NS
    if before_to_ns <= first_ns:
        before_to_ns = onset_ns
    onset_ns = onset_ns // WINDOW_NS * WINDOW_NS
    if before_to_ns <= first_ns or after_to_ns <= onset_ns:
        return None
    return Periods(max(first_ns, before_to_ns - MAX_BEFORE_NS), before_to_ns, onset_ns, after_to_ns)


def sides(when: Periods, longest_ns: int) -> Periods:
    """The same periods cut to `longest_ns` each, for questions to the store. The later one ends a power of two of
    windows after the onset, so that a look asks seldom anew while an incident goes on."""
    windows = min(when.after_to_ns - when.after_from_ns, longest_ns) // WINDOW_NS
    length_ns = longest_ns if windows * WINDOW_NS >= longest_ns else (1 << (windows.bit_length() - 1)) * WINDOW_NS
    before_ns = max(when.before_from_ns, when.before_to_ns - longest_ns)
    return Periods(before_ns, when.before_to_ns, when.after_from_ns, when.after_from_ns + length_ns)


def within(frames: Frames, when: Periods) -> Frames:
    """The windows of both periods and between them. Frames are sorted by time, so this copies nothing."""

    def cut(frame: pl.DataFrame) -> pl.DataFrame:
        starts = frame["window_start_ns"]
        first = int(starts.search_sorted(when.before_from_ns))
        return frame.slice(first, int(starts.search_sorted(when.after_to_ns)) - first)

    return Frames(cut(frames.windows), cut(frames.selfs), cut(frames.edges), cut(frames.gauges))


def by_window(frame: pl.DataFrame, keys: Sequence[str], columns: Sequence[str], when: Periods) -> pl.DataFrame:
    """`summed_up` with `period`; windows of neither period are left out."""
    return summed_up(frame, keys, columns).with_columns(when.mark()).filter(pl.col("period").is_not_null())


def summed_up(frame: pl.DataFrame, keys: Sequence[str], columns: Sequence[str]) -> pl.DataFrame:
    """Σ of `columns` by `keys` and window, as floats, sorted by both. A sum is null where all its values are.

    What a group-by over texts and windows gives, in half its time: texts are compared once a series, not once a row.
    """
    if not frame.height:
        return frame.select(*keys, "window_start_ns", *columns).with_columns(pl.col(columns).cast(pl.Float64))
    index = frame.lazy().select(*keys, at=pl.int_range(pl.len())).group_by(keys).agg("at").sort(keys).collect()
    series = np.empty(frame.height, np.int64)
    rows = index["at"].explode(empty_as_null=False).to_numpy()
    series[rows] = np.repeat(np.arange(index.height), index["at"].list.len().to_numpy())
    starts = frame["window_start_ns"].to_numpy()
    first, last = int(starts.min()), int(starts.max())
    count = (last - first) // WINDOW_NS + 1
    cells, at = np.unique(series * count + (starts - first) // WINDOW_NS, return_inverse=True)
    sums = {name: _sum(frame[name], at, len(cells)) for name in columns}
    window = pl.Series("window_start_ns", first + cells % count * WINDOW_NS)
    return index.select(keys)[cells // count].with_columns(window, **sums)


def _sum(values: pl.Series, at: np.ndarray, size: int) -> pl.Series:
    known = values.is_not_null()
    sums = pl.Series(np.bincount(at, values.cast(pl.Float64).fill_null(0.0).to_numpy(), size))
    if known.all():
        return sums
    some = pl.Series(np.bincount(at, known.cast(pl.Float64).to_numpy(), size) > 0)
    return pl.DataFrame({"sum": sums, "some": some}).select(pl.when("some").then("sum")).to_series()


def levels(frame: pl.DataFrame, keys: Sequence[str], count: str, total: str, also: Sequence[str] = ()) -> pl.DataFrame:
    """One row per key: n0 n1 (counts), mean0 mean1 (total/count), change, error (standard error of the change), and
    `{column}0`, `{column}1` sums of `total` and `also`.

    `frame` has one row per key and window with `period` from `Periods.mark`. Means are null where nothing was counted;
    change is null unless both are there.
    """
    also = [name for name in also if name != total]
    sums = []
    for p in (0, 1):
        here = pl.col("period") == p
        own, n = pl.col(total).filter(here), pl.col(count).filter(here)
        sums += [
            n.sum().cast(pl.Float64).alias(f"n{p}"),
            own.sum().cast(pl.Float64).alias(f"sum{p}"),
            (own**2 / n).sum().alias(f"q{p}"),
            here.sum().alias(f"w{p}"),
            *(pl.col(name).filter(here).sum().cast(pl.Float64).alias(f"{name}{p}") for name in also),
        ]
    var0 = pl.coalesce("var0", "var1")
    var1 = pl.when(pl.col("w1") >= 4).then(pl.max_horizontal("var1", "var0")).otherwise(var0)
    error = (var0 / pl.col("n0") + var1 / pl.col("n1")).sqrt()
    return (
        frame.lazy()
        .filter(pl.col("period").is_not_null() & (pl.col(count) > 0))
        .group_by(*keys, maintain_order=True)
        .agg(sums)
        .with_columns(_mean(0), _mean(1), _variance(0), _variance(1))
        .with_columns(
            pl.col("sum0").alias(f"{total}0"),
            pl.col("sum1").alias(f"{total}1"),
            change=pl.col("mean1") - pl.col("mean0"),
            error=error,
        )
        .collect()
    )


def _mean(period: int) -> pl.Expr:
    count = pl.col(f"n{period}")
    return pl.when(count > 0).then(pl.col(f"sum{period}") / count).alias(f"mean{period}")


def _variance(period: int) -> pl.Expr:
    spread = pl.col(f"q{period}") - pl.col(f"sum{period}") ** 2 / pl.col(f"n{period}")
    windows = pl.col(f"w{period}")
    return pl.when(windows >= 3).then(spread.clip(lower_bound=0) / (windows - 1)).alias(f"var{period}")
