"""From rows of windows to matrices [series, window]: the one shape that every test reads.

Series are (service, operation, kind), versions added up. Histograms stay in long form (one entry per non-empty bucket)
and are folded over buckets or over windows as a test needs them; a cube of series × windows × buckets never exists.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from observe.detect.statistics import Bools, Floats, Ints
from observe.settings import DetectSettings
from observe.types import WINDOW_NS, Interval

KEYS = ["service", "operation", "kind"]
METRIC = "Metric"
SERVING = ("Server", "Consumer")

LOWEST_BUCKET, HIGHEST_BUCKET = -160, 400  # 1 µs … 9 h; hostile bucket numbers must not cost memory
SCALES = (2 / 3, 1, 4 / 3, 2, 8 / 3, 4, 16 / 3, 8)  # multiples of current_s that a shift is looked for in
WARM_UP_WINDOWS = 3  # first windows of a series' life, left out of its baseline where there are enough others


@dataclass(frozen=True, slots=True)
class Span:
    """The settled windows that a look reads: `length` of them from `first_ns` on, the newest last."""

    first_ns: int
    length: int
    scales: tuple[int, ...]  # candidate lengths of the current range, in windows, rising
    min_baseline: int  # windows
    current: int = 1  # windows of the usual current range

    @property
    def end_ns(self) -> int:
        return self.first_ns + self.length * WINDOW_NS

    def index(self, at_ns: int) -> int:
        """The window that holds `at_ns`, relative to the first; outside [0, length) it is another span's."""
        return (at_ns - self.first_ns) // WINDOW_NS


def span_of(now_ns: int, settings: DetectSettings) -> Span:
    settled_ns = (now_ns - int(settings.settle_s * 10**9)) // WINDOW_NS * WINDOW_NS
    current = current_windows(settings)
    length = current + math.ceil(settings.baseline_s * 10**9 / WINDOW_NS)
    return Span(
        first_ns=settled_ns - length * WINDOW_NS,
        length=length,
        scales=scales_of(current),
        min_baseline=math.ceil(settings.min_baseline_s * 10**9 / WINDOW_NS),
        current=current,
    )


def current_windows(settings: DetectSettings) -> int:
    return max(1, round(settings.current_s * 10**9 / WINDOW_NS))


def scales_of(current: int) -> tuple[int, ...]:
    """Lengths in windows of the ranges that a shift is looked for in.

    >>> scales_of(3)
    (2, 3, 4, 6, 8, 12, 16, 24)
    """
    return tuple(sorted({max(1, round(current * scale)) for scale in SCALES}))


@dataclass(frozen=True, slots=True)
class Fleet:
    """What the test of a few series must know of all."""

    tests: int  # that all series stand for: one of latency each, and of errors and traffic where they are spans
    live: Bools  # [window] whether anybody sent anything, oldest first
    live_from_ns: int  # start of its first window
    last_ns: int  # newest window with data of anyone, settled or not

    def of(self, tests: int) -> Fleet:
        """The same fleet with more or fewer series."""
        return dataclasses.replace(self, tests=tests)

    def live_in(self, span: Span) -> Bools:
        """Of the span's windows; what is not known was not live."""
        at = np.arange(span.length) + (span.first_ns - self.live_from_ns) // WINDOW_NS
        inside = (at >= 0) & (at < len(self.live))
        live: Bools = np.zeros(span.length, dtype=bool)
        live[inside] = self.live[at[inside]]
        return live


def fleet_of(windows: pl.DataFrame, span: Span) -> Fleet:
    """Of frames that hold every series."""
    started = windows["window_start_ns"]
    seen = windows.filter(pl.col("window_start_ns").is_between(span.first_ns, span.end_ns - 1))
    at = ((seen.filter(pl.col("requests") > 0)["window_start_ns"].unique() - span.first_ns) // WINDOW_NS).to_numpy()
    live: Bools = np.zeros(span.length, dtype=bool)
    live[at] = True
    keys = seen.select(KEYS).unique()
    metrics = int((keys["kind"] == METRIC).sum())
    return Fleet(3 * keys.height - 2 * metrics, live, span.first_ns, int(started.max()))  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class Entries:
    """The non-empty buckets of all histograms, sorted by window."""

    series: Ints  # [rows]
    window: Ints  # [rows]
    first: Ints  # [rows] index of the row's first bucket
    size: Ints  # [rows] non-empty buckets
    row: NDArray[np.int32]  # [buckets]
    cell: Ints  # [buckets] series × width + bucket
    count: Floats  # [buckets]
    lowest: int  # bucket number of column 0
    width: int  # buckets per series

    def histogram(self, series: int, windows: Bools | None = None, since: int = 0) -> Floats:
        """Counts per series and bucket over the masked windows ([series, window]), or over all from `since` on."""
        row = int(np.searchsorted(self.window, since))
        start = int(self.first[row]) if row < len(self.first) else len(self.cell)
        weights = self.count[start:]
        if windows is not None:
            allowed = windows[self.series[row:], self.window[row:]].astype(np.float64)
            weights = weights * np.repeat(allowed, self.size[row:])
        folded = np.bincount(self.cell[start:], weights=weights, minlength=series * self.width)
        return folded.astype(np.float64, copy=False).reshape(series, self.width)

    def of(self, series: Ints, known: int) -> Entries:
        """Those of some of the `known` series, numbered anew in their order."""
        number = np.full(known, -1, dtype=np.int64)
        number[series] = np.arange(len(series))
        rows = np.flatnonzero(number[self.series] >= 0)
        size, owner = self.size[rows], number[self.series[rows]]
        first = np.cumsum(size) - size
        entries = np.arange(int(size.sum())) + np.repeat(self.first[rows] - first, size)
        moved = np.repeat((owner - self.series[rows]) * self.width, size)
        row = np.repeat(np.arange(len(rows), dtype=np.int32), size)
        return Entries(owner, self.window[rows], first, size, row, self.cell[entries] + moved, self.count[entries],
                       self.lowest, self.width)  # fmt: skip

    def requests(self, shape: tuple[int, int]) -> Floats:
        """Counts per series and window."""
        return self._by_window(self.count, shape)

    def scored(self, score: Floats, shape: tuple[int, int]) -> Floats:
        """Sum of score × count per series and window; `score` is [series, bucket]."""
        return self._by_window(np.take(score, self.cell) * self.count, shape)

    def flagged(self, flags: Sequence[Bools], shape: tuple[int, int]) -> list[Floats]:
        """Counts per series and window of the flagged buckets ([series, bucket]), of which each list item must hold
        those of the next: few buckets are flagged, so the others are looked at once only."""
        sums, at = [], np.arange(0)
        for nth, flag in enumerate(flags):
            at = np.flatnonzero(np.take(flag, self.cell)) if nth == 0 else at[np.take(flag, self.cell[at])]
            rows = self.row[at]
            sums.append(_folded(self.series[rows], self.window[rows], self.count[at], shape))
        return sums

    def _by_window(self, values: Floats, shape: tuple[int, int]) -> Floats:
        if not len(values):
            return np.zeros(shape)
        return _folded(self.series, self.window, np.add.reduceat(values, self.first), shape)


@dataclass(frozen=True, slots=True)
class Grid:
    keys: pl.DataFrame  # [series] service, operation, kind
    group: Ints  # [series] number of its (service, kind)
    of_spans: Bools  # [series] False for histograms sent as metrics
    asked: Bools  # [series] what the service was asked; where it serves nobody (a job), whatever it does
    span: Span
    requests: Floats  # [series, window]
    errors: Floats  # [series, window]
    entries: Entries
    live: Bools  # [window] whether any series sent anything: else telemetry itself was away

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.keys), self.span.length

    def summed(self, values: Floats) -> Floats:
        """Each series' group total; [series]."""
        totals: Floats = np.bincount(self.group, weights=values).astype(np.float64)
        return totals[self.group]


def grid_of(windows: pl.DataFrame, span: Span, live: Bools | None = None) -> Grid:
    """All series that have a row in the span; rows may come in any order. `live` where others are known to be."""
    window = (windows["window_start_ns"].to_numpy() - span.first_ns) // WINDOW_NS
    inside = (window >= 0) & (window < span.length)
    if not inside.all():
        windows, window = windows.filter(inside), window[inside]
    if (window[1:] < window[:-1]).any():
        order = np.argsort(window, kind="stable")
        windows, window = windows[order], window[order]
    keys = _keys(windows)
    numbered = windows.lazy().select(KEYS).join(keys.lazy(), on=KEYS, how="left", maintain_order="left")
    series = numbered.select("series").collect()["series"].to_numpy().astype(np.int64)
    shape = (len(keys), span.length)
    requests, errors = (windows[name].to_numpy().astype(np.float64) for name in ("requests", "errors"))
    of_window = _folded(series, window, requests, shape)
    return Grid(
        keys=pl.DataFrame([keys[name] for name in KEYS]),
        group=keys["group"].to_numpy(),
        of_spans=keys["of_spans"].to_numpy(),
        asked=keys["asked"].to_numpy(),
        span=span,
        requests=of_window,
        errors=_folded(series, window, errors, shape),
        entries=_entries(series, window, windows["latency_buckets"]),
        live=np.asarray((of_window > 0).any(axis=0)) if live is None else live,
    )


def _keys(windows: pl.DataFrame) -> pl.DataFrame:
    """The series, sorted and numbered, and what `Grid` says of each."""
    serving = pl.col("kind").is_in(SERVING)
    return (
        windows.lazy()
        .select(KEYS)
        .unique()
        .sort(KEYS)
        .with_row_index("series")
        .with_columns(
            group=pl.struct("service", "kind").rank("dense").cast(pl.Int64) - 1,
            of_spans=pl.col("kind") != METRIC,
            asked=serving | (~serving.any().over("service") & (pl.col("kind") != METRIC)),
        )
        .collect()
    )


def flattened(lists: pl.Series) -> tuple[Ints, NDArray[np.int16], NDArray[np.uint64]]:
    """Histograms in long form: where the buckets of each begin, one more at the end; bucket numbers; counts.

    No histogram is an empty one. Read as Arrow lays them out, which costs as good as nothing.
    """
    array = (lists.fill_null([]) if lists.null_count() else lists).rechunk().to_arrow()
    start: Ints = np.from_dlpack(array.offsets).astype(np.int64)
    filled = slice(int(start[0]), int(start[-1]))
    # Arrow's own to_numpy() loads pandas.
    bucket: NDArray[np.int16]
    count: NDArray[np.uint64]
    bucket, count = map(np.from_dlpack, array.values.flatten())  # type: ignore[assignment]
    return start - start[0], bucket[filled], count[filled]


def _folded(series: Ints, window: Ints, values: Floats, shape: tuple[int, int]) -> Floats:
    flat = np.bincount(series * shape[1] + window, weights=values, minlength=shape[0] * shape[1])
    return flat.astype(np.float64, copy=False).reshape(shape)


def _entries(series: Ints, window: Ints, histograms: pl.Series) -> Entries:
    start, number, count = flattened(histograms)
    sizes = np.diff(start)
    filled = sizes > 0
    bucket = np.clip(number, LOWEST_BUCKET, HIGHEST_BUCKET)
    lowest, highest = (int(bucket.min()), int(bucket.max())) if len(bucket) else (0, 0)
    width = highest - lowest + 1
    series, window, sizes = series[filled], window[filled], sizes[filled]
    row = np.repeat(np.arange(len(sizes), dtype=np.int32), sizes)
    cell = np.repeat(series * width - lowest, sizes)
    cell += bucket
    first = np.cumsum(sizes) - sizes
    return Entries(series, window, first, sizes, row, cell, count.astype(np.float64), lowest, width)


@dataclass(frozen=True, slots=True)
class Ranges:
    """Which windows each series is compared with (`baseline`), and which may be looked at (`current`)."""

    baseline: Bools  # [series, window]
    guard: Ints  # [series] newest windows kept out of the baseline; no current range is longer; 0 = not testable
    current: Bools  # [series, window] False where a past incident lies
    onset_from: Ints  # [series] first window in which the onset may lie

    @property
    def testable(self) -> Bools:
        return self.guard > 0

    def of(self, series: Ints) -> Ranges:
        """Those of some series."""
        return Ranges(self.baseline[series], self.guard[series], self.current[series], self.onset_from[series])


ONSET_WINDOWS = 90  # 15 min


def ranges_of(grid: Grid, abnormal: Sequence[Interval]) -> Ranges:
    """Baseline and current windows of every series, with incidents left out.

    The guard between them is the longest current range for which twice as much baseline remains: a fault that grows
    for minutes before it is noticed must not teach the baseline.
    """
    span = grid.span
    usable, current, onset_from = _without(grid, abnormal)
    first = np.argmax(grid.requests > 0, axis=1) if grid.shape[0] else np.zeros(0, dtype=np.int64)
    index = np.arange(span.length)
    usable &= (index >= first[:, None]) & grid.live
    aged = usable[:, : span.length - span.current].sum(axis=1)
    warm_up = np.where(first > 0, np.clip(aged - span.min_baseline, 0, WARM_UP_WINDOWS), 0)
    usable &= index >= (first + warm_up)[:, None]
    guard = np.zeros(len(first), dtype=np.int64)
    for scale in span.scales:
        if scale < span.current:
            continue
        left = usable[:, : max(0, span.length - scale)].sum(axis=1)
        guard = np.where(left >= np.maximum(span.min_baseline, 2 * scale * (scale > span.current)), scale, guard)
    return Ranges(usable & (index < span.length - guard[:, None]) & (guard > 0)[:, None], guard, current, onset_from)


def _without(grid: Grid, abnormal: Sequence[Interval]) -> tuple[Bools, Bools, Ints]:
    span = grid.span
    usable, current = np.ones(grid.shape, dtype=bool), np.ones(grid.shape, dtype=bool)
    onset_from = np.full(grid.shape[0], max(0, span.length - ONSET_WINDOWS))
    newest = span.length - span.current
    for interval in abnormal:
        start = max(0, span.index(interval.start_ns))
        end = min(span.length, span.index(interval.end_ns - 1) + 1)
        if start >= end:
            continue
        of = grid.keys["service"].to_numpy() == interval.service if interval.service else slice(None)
        usable[of, start:end] = False
        if end <= newest:
            current[of, start:end] = False
        else:
            onset_from[of] = np.minimum(onset_from[of], max(0, start - span.scales[-1]))
    return usable, current, onset_from
