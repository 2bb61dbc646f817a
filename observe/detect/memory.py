"""What watching remembers of all series from one look to the next, so that a look reads new windows only.

It holds numbers for a screen (`observe.detect.screen`), not for a verdict: requests of each window; what the newest
windows hold beyond the quantiles of a *reference*; and that reference, histograms of the last three quarters of an
hour in stretches of five minutes. Who passes the screen is tested exactly, on all of their windows.

Arrays are [window, series]: a window is folded in by writing one row. About 7 kB a series at default settings.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from observe.detect.grid import HIGHEST_BUCKET, KEYS, LOWEST_BUCKET, current_windows, flattened, scales_of
from observe.detect.statistics import Bools, Floats, Ints
from observe.detect.uneven import uneven
from observe.frames import BUCKETS_PER_OCTAVE
from observe.settings import DetectSettings
from observe.types import WINDOW_NS

COARSE_BITS = 1
COARSE = 1 << COARSE_BITS  # buckets that a screen looks at as one: 9 % wide
LEAST = LOWEST_BUCKET // COARSE
WIDTH = HIGHEST_BUCKET // COARSE - LEAST + 1
STRETCHES = 12  # of the baseline; two are held back so that a fault does not teach what it is compared with
QUANTILES = (0.985, 0.94)  # a little below P99 and P95: the screen lets through more than the test
EFFECT_QUANTILES = (0.98, 0.93, 0.47)
RANK_ONE = 32_000  # ranks −½ … ½ as whole numbers
ROWS_AT_ONCE = 300_000
FEW, MANY = 2_000, 20_000  # rows up to which, and series up to which, a dictionary numbers them sooner than a join

Counts = NDArray[np.uint32]
Smalls = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Reference:
    """What each series used to look like; all [series]. `columns` hold what lies beyond them in `Memory.beyond`."""

    requests: Smalls
    errors: Smalls
    columns: NDArray[np.int16]  # [statistic, series] last coarse bucket that is not beyond
    shares: Smalls  # [quantile, series] share of the requests that lay beyond
    ranks: NDArray[np.int16]  # [series, coarse bucket]
    uneven: Bools  # [series] one stretch was much worse than the others: little to compare with
    calm: Smalls  # [2, series] share of what is beyond the second of `columns`, and of errors, in the calmest stretches


@dataclass(frozen=True, slots=True)
class Stretch:
    """Histograms of one closed stretch of windows."""

    number: int
    cells: Counts  # series × WIDTH + coarse bucket, where any
    counts: Counts
    errors: Counts  # [series]


@dataclass(frozen=True, slots=True)
class _Rows:
    """Rows of windows in numbers: of which series and window, and their buckets in long form."""

    window: Ints
    series: Ints
    requests: Counts
    errors: Counts
    entry_from: Ints  # [rows + 1] where the buckets of each row begin
    entry_cell: Ints
    entry_count: Counts

    def buckets(self, rows: slice) -> tuple[Ints, Counts]:
        """Cells and counts of some rows."""
        entries = slice(int(self.entry_from[rows.start]), int(self.entry_from[rows.stop]))
        return self.entry_cell[entries], self.entry_count[entries]


class Memory:
    """The same windows folded in the same order leave the same state; it reads no clock and no store.

    Windows have absolute numbers: `window_start_ns // WINDOW_NS`. `end` is one past the newest that was folded in.
    """

    def __init__(self, settings: DetectSettings) -> None:
        current = current_windows(settings)
        baseline = math.ceil(settings.baseline_s * 1e9 / WINDOW_NS)
        self.length = current + baseline
        self.scales = scales_of(current)
        self.newest = self.scales[-1]
        self.stretch = max(1, baseline // STRETCHES)
        # Wherever a quantile lies in its bucket, that many buckets further is less than the smallest effect.
        self.steps = max(0, int(math.log2(1.0 + settings.p99_min_increase) * BUCKETS_PER_OCTAVE / COARSE) - 1)
        self.end = 0
        self.last = 0  # newest window with data of anyone, folded in or not yet
        self._numbered = pl.DataFrame(schema=dict.fromkeys(KEYS, pl.String)).with_row_index("series")
        self._numbers_of: dict[tuple[str, ...], int] | None = None
        self._groups: Ints | None = None
        self.requests: Counts = np.zeros((self.length, 0), np.uint32)
        self.errors: Counts = np.zeros((self.newest, 0), np.uint32)
        self.beyond: Smalls = np.zeros((len(QUANTILES) + len(EFFECT_QUANTILES), self.newest, 0), np.float32)
        self.rank_sums: Smalls = np.zeros((self.newest, 0), np.float32)
        self.first: Ints = np.zeros(0, np.int64)  # number of each series' first window
        self._closed: list[Stretch] = []
        self._open: Counts = np.zeros(0, np.uint32)
        self._open_errors: Counts = np.zeros(0, np.uint32)
        self._reference: Reference | None = None
        self._live: Bools = np.zeros(self.length, dtype=bool)

    @property
    def keys(self) -> pl.DataFrame:
        """Service, operation and kind of each series."""
        return self._numbered.drop("series")

    @property
    def groups(self) -> Ints:
        """Number of each series' service and kind; [series]."""
        if self._groups is None or len(self._groups) != self.series:
            group = pl.struct("service", "kind").rank("dense").cast(pl.Int64) - 1
            self._groups = self._numbered.select(group).to_series().to_numpy()
        return self._groups

    @property
    def series(self) -> int:
        return self._numbered.height

    @property
    def bytes(self) -> int:
        """What the arrays take."""
        arrays: list[NDArray[np.generic]] = [
            self.requests,
            self.errors,
            self.beyond,
            self.rank_sums,
            self.first,
            self._open,
            self._open_errors,
        ]
        arrays += [array for s in self._closed for array in (s.cells, s.counts, s.errors)]
        known = self._reference
        arrays += [known.requests, known.errors, known.columns, known.shares, known.ranks] if known else []
        return sum(array.nbytes for array in arrays)

    @property
    def live(self) -> Bools:
        """Whether anybody sent anything, for the last `length` windows, oldest first."""
        return self._live[self.rows(self.length)]

    def rows(self, count: int, end: int | None = None) -> Ints:
        """Where the last `count` windows before `end` lie in `requests`, oldest first."""
        last = self.end if end is None else end
        return np.arange(last - count, last) % self.length

    def newest_rows(self) -> Ints:
        """Where the newest windows lie in `errors`, `beyond` and `rank_sums`, newest first."""
        return np.arange(self.end - 1, self.end - 1 - self.newest, -1) % self.newest

    def fold(self, windows: pl.DataFrame, first: int, end: int, look: int | None = None) -> None:
        """Takes in windows [first, end) as they are now; what is not in the frame was empty.

        Windows that were folded in before are replaced. Rows outside the range are not taken in, but it is remembered
        that there is data. Windows between the last one folded in and `first` count as empty. `look` is the end of
        the windows that the next look reads, where they are folded in bit by bit: only the newest before it are judged.
        """
        if self.end == 0:
            self.end = first
        first = max(min(first, self.end), end - self.length)
        skipped = np.arange(max(self.end, first - self.length), first) % self.length
        self.requests[skipped], self._live[skipped] = 0, False
        if not windows["window_start_ns"].is_sorted():
            windows = windows.sort("window_start_ns", maintain_order=True)
        bounds = windows["window_start_ns"].to_numpy() // WINDOW_NS
        if len(bounds):
            self.last = max(self.last, int(bounds[-1]))
        per_window = max(1, int(np.searchsorted(bounds, end) - np.searchsorted(bounds, first)) // max(1, end - first))
        chunk = max(1, ROWS_AT_ONCE // per_window)
        while first < end:
            stop = min(first + chunk, end, (first // self.stretch + 1) * self.stretch)
            stop = min(stop, self.end) if first < self.end else stop
            start, after = np.searchsorted(bounds, [first, stop])
            self._take(windows[int(start) : int(after)], first, stop, look or end)
            first = stop

    def reference(self) -> Reference:
        """Of the closed stretches, the newest left out."""
        if self._reference is None:
            self._reference = self._referred()
        return self._reference

    # ── folding ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def _take(self, windows: pl.DataFrame, first: int, stop: int, look: int) -> None:
        """Windows [first, stop), all of one stretch."""
        new = stop > self.end
        if new:
            self._advance(first, stop)
        rows = self._rows(windows)
        at = np.arange(first, stop) % self.length
        self.requests[at] = 0
        np.add.at(self.requests.reshape(-1), rows.window % self.length * self.series + rows.series, rows.requests)
        self._live[at] = self.requests[at].any(axis=1)
        unseen = np.flatnonzero(self.first[rows.series] < 0)
        fresh, position = np.unique(rows.series[unseen], return_index=True)  # rows go by time
        self.first[fresh] = rows.window[unseen[position]]
        if new:
            np.add.at(self._open, rows.entry_cell, rows.entry_count)
            np.add.at(self._open_errors, rows.series, rows.errors)
        for window in range(max(first, look - self.newest), stop):
            self._judge(rows, window)

    def _advance(self, first: int, stop: int) -> None:
        if first // self.stretch != (self.end - 1) // self.stretch:
            self._close((self.end - 1) // self.stretch, first // self.stretch)
        self.end = stop

    def _close(self, number: int, opened: int) -> None:
        cells = np.flatnonzero(self._open)
        if len(cells):
            counts = self._open[cells]
            self._closed.append(Stretch(number, cells.astype(np.uint32), counts, self._open_errors.copy()))
            self._open[:] = 0
            self._open_errors[:] = 0
        self._closed = [stretch for stretch in self._closed if stretch.number >= opened - STRETCHES + 2]
        self._reference = None
        self._forget()

    def _rows(self, windows: pl.DataFrame) -> _Rows:
        series = self._numbers(windows)
        entry_from, number, count = flattened(windows["latency_buckets"])
        bucket = np.clip(number, LOWEST_BUCKET, HIGHEST_BUCKET) >> COARSE_BITS
        cell = np.repeat(series * WIDTH - LEAST, np.diff(entry_from))
        cell += bucket
        return _Rows(
            windows["window_start_ns"].to_numpy() // WINDOW_NS,
            series,
            windows["requests"].to_numpy().astype(np.uint32),
            windows["errors"].to_numpy().astype(np.uint32),
            entry_from,
            cell,
            count.astype(np.uint32),
        )

    def _numbers(self, windows: pl.DataFrame) -> Ints:
        """Series of the rows; new ones are added in order of their names."""
        keys = windows.select(KEYS)
        if keys.height <= FEW and self.series <= MANY:
            known_numbers = self._looked_up()
            numbers = [known_numbers.get(key, -1) for key in zip(*(keys[name].to_list() for name in KEYS), strict=True)]
            if -1 not in numbers:
                return np.array(numbers, dtype=np.int64)
        series = keys.join(self._numbered, on=KEYS, how="left", maintain_order="left")["series"]
        if series.null_count():
            new = keys.filter(series.is_null()).unique().sort(KEYS)
            known = pl.concat([self.keys, new], rechunk=True)
            self._numbered, self._numbers_of = known.with_row_index("series"), None
            self._grow(new.height)
            return self._numbers(windows)
        return series.to_numpy().astype(np.int64)

    def _looked_up(self) -> dict[tuple[str, ...], int]:
        """Numbers by service, operation and kind."""
        if self._numbers_of is None:
            self._numbers_of = {key: number for number, key in enumerate(self.keys.iter_rows())}
        return self._numbers_of

    def _grow(self, more: int) -> None:
        def wider(array: NDArray[np.generic]) -> NDArray[np.generic]:
            return np.concatenate([array, np.zeros((*array.shape[:-1], more), array.dtype)], axis=-1)

        self.requests, self.errors = wider(self.requests), wider(self.errors)  # type: ignore[assignment]
        self.beyond, self.rank_sums = wider(self.beyond), wider(self.rank_sums)  # type: ignore[assignment]
        self._open_errors = wider(self._open_errors)  # type: ignore[assignment]
        self.first = np.concatenate([self.first, np.full(more, -1, np.int64)])
        self._open = np.concatenate([self._open, np.zeros(more * WIDTH, np.uint32)])

    def _judge(self, rows: _Rows, window: int) -> None:
        """What one of the newest windows holds beyond the reference."""
        at = window % self.newest
        of = slice(*np.searchsorted(rows.window, [window, window + 1]).tolist())
        self.errors[at] = 0
        np.add.at(self.errors[at], rows.series[of], rows.errors[of])
        self.beyond[:, at] = 0.0
        self.rank_sums[at] = 0.0
        reference = self.reference()
        known = reference.ranks.shape[0]
        cell, counted = rows.buckets(of)
        count = counted.astype(np.float64)
        series = cell // WIDTH
        old = series < known
        cell, count, series = (cell, count, series) if old.all() else (cell[old], count[old], series[old])
        bucket = cell - series * WIDTH
        for number, column in enumerate(reference.columns):
            over = bucket > column[series]
            self.beyond[number, at] = np.bincount(series[over], weights=count[over], minlength=self.series)
        ranks = np.take(reference.ranks.ravel(), cell) * count
        self.rank_sums[at] = np.bincount(series, weights=ranks, minlength=self.series) / RANK_ONE

    # ── the reference ───────────────────────────────────────────────────────────────────────────────────────────────

    def _referred(self, chunk: int = 8_192) -> Reference:
        now = (self.end - 1) // self.stretch
        used = [stretch for stretch in self._closed if stretch.number <= now - 2]
        series = self.series
        statistics = len(QUANTILES) + len(EFFECT_QUANTILES)
        total, errors = np.zeros(series, np.float32), np.zeros(series, np.float32)
        columns = np.zeros((statistics, series), np.int16)
        shares = np.zeros((len(QUANTILES), series), np.float32)
        ranks = np.zeros((series, WIDTH), np.int16)
        for stretch in used:
            errors[: len(stretch.errors)] += stretch.errors
        for start in range(0, series if used else 0, chunk):  # few passes over many series each
            part = slice(start, min(start + chunk, series))
            histogram = self._summed(used, part.start, part.stop)
            above = np.cumsum(histogram, axis=1)
            n = above[:, -1]
            total[part] = n
            for number, q in enumerate((*QUANTILES, *EFFECT_QUANTILES)):
                column = np.count_nonzero(above < q * n[:, None], axis=1)
                columns[number, part] = column + (self.steps if number >= len(QUANTILES) else 0)
                if number < len(QUANTILES):
                    at = np.minimum(column, WIDTH - 1)[:, None]
                    shares[number, part] = 1.0 - np.take_along_axis(above, at, axis=1)[:, 0] / np.maximum(n, 1)
            middle = (above - histogram / 2.0) / np.maximum(n, 1)[:, None] - 0.5
            ranks[part] = middle * RANK_ONE
        return Reference(total, errors, columns, shares, ranks, *uneven(*self._bad(used, columns[1])))

    def _bad(self, used: list[Stretch], columns: NDArray[np.int16]) -> tuple[Smalls, Smalls]:
        """Requests [stretch, series], and how many were slower than `columns`, and failed; [2, stretch, series]."""
        requests = np.zeros((len(used), self.series), np.float32)
        bad = np.zeros((2, len(used), self.series), np.float32)
        for at, stretch in enumerate(used):
            series, bucket = np.divmod(stretch.cells.astype(np.int64), WIDTH)
            over = bucket > columns[series]
            requests[at] = np.bincount(series, weights=stretch.counts, minlength=self.series)
            bad[0, at] = np.bincount(series[over], weights=stretch.counts[over], minlength=self.series)
            bad[1, at, : len(stretch.errors)] = stretch.errors
        return requests, bad

    def _summed(self, used: list[Stretch], start: int, stop: int) -> Floats:
        sums = np.zeros((stop - start) * WIDTH)
        for stretch in used:
            low, high = np.searchsorted(stretch.cells, [start * WIDTH, stop * WIDTH])
            sums[stretch.cells[low:high] - np.uint32(start * WIDTH)] += stretch.counts[low:high]
        return sums.reshape(stop - start, WIDTH)

    def _forget(self) -> None:
        """Drops series that said nothing for as long as the memory reaches, once they are many."""
        alive: Bools = np.asarray(self.requests.any(axis=0))
        if alive.sum() >= 0.75 * len(alive):
            return
        kept = np.flatnonzero(alive)
        number = np.full(self.series, -1, np.int64)
        number[kept] = np.arange(len(kept))
        self._numbered = self.keys[kept.tolist()].with_row_index("series")
        self._groups, self._numbers_of = None, None
        self.requests, self.errors = self.requests[:, kept], self.errors[:, kept]
        self.beyond, self.rank_sums = self.beyond[:, :, kept], self.rank_sums[:, kept]
        self.first, self._open_errors = self.first[kept], self._open_errors[kept]
        self._open = self._open.reshape(-1, WIDTH)[kept].ravel()
        self._closed = [_renumbered(stretch, number, kept) for stretch in self._closed]


def _renumbered(stretch: Stretch, number: Ints, kept: Ints) -> Stretch:
    series = number[stretch.cells // WIDTH]
    left = series >= 0
    cells = (series * WIDTH + stretch.cells % WIDTH)[left]
    of = kept[kept < len(stretch.errors)]
    return Stretch(stretch.number, cells.astype(np.uint32), stretch.counts[left], stretch.errors[of])
