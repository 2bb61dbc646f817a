"""Traffic shifts: drops, surges and silence, held against the median of the baseline's minutes.

Traffic moves for reasons that are nobody's fault, and a page for it is seldom urgent. So every doubt ends the matter:
the change must beat the median, the newest ten minutes and the extremes of the baseline, and show in the whole service.
"""

from __future__ import annotations

import numpy as np

from observe.detect.evidence import Sample
from observe.detect.findings import Findings, nothing
from observe.detect.grid import Grid, Ranges
from observe.detect.statistics import Bools, Floats, block_sums, count_lower, count_upper
from observe.settings import DetectSettings
from observe.types import WINDOW_NS

MEASURES, UNIT = ("requests_per_s",), "{request}/s"
MIN_BLOCKS = 10
RECENT_BLOCKS = 10
LEAST_SPREAD = 0.1  # of the median: nobody's traffic is steadier than that for long


def traffic_shifts(grid: Grid, ranges: Ranges, settings: DetectSettings, last_window_ns: int) -> Findings:
    """`last_window_ns` is the newest window with data of anyone, settled or not.

    Windows from there on are not judged: at the end of all telemetry nobody has fallen silent.
    """
    length = 2 * grid.span.current
    end = min(grid.span.length, grid.span.index(last_window_ns))
    if end < 2 * length:
        return nothing(MEASURES, UNIT)
    baseline = ranges.baseline[:, :end] & grid.live[:end]
    level = _levels(grid.requests[:, :end], baseline, length)
    live = np.broadcast_to(grid.live[end - length : end].astype(np.float64), (grid.shape[0], length))
    current = grid.requests[:, end - length : end] * live
    mean = level.median * live.sum(axis=1) / length
    total = current.sum(axis=1)
    fell, rose = _effects(current, live, level, settings.traffic_min_change, grid)
    tested = (level.blocks >= MIN_BLOCKS) & (level.median >= settings.min_requests) & grid.asked & ranges.testable
    tested &= live.sum(axis=1) >= length / 2
    some = np.flatnonzero((fell | rose) & tested)
    if not len(some):
        return nothing(MEASURES, UNIT)
    total, mean, shape = total[some], mean[some], level.shape[some]
    p = 2.0 * np.minimum(np.where(fell[some], count_lower(total, mean, shape), 1.0),
                         np.where(rose[some], count_upper(total, mean, shape), 1.0))  # fmt: skip
    seconds = length * WINDOW_NS / 1e9
    judged = np.arange(grid.span.length) < end
    trials = np.broadcast_to(grid.live * judged * 1.0, (len(some), grid.span.length))
    return Findings(
        measures=MEASURES,
        unit=UNIT,
        series=some,
        p=np.minimum(p, 1.0),
        choice=np.zeros(len(some), dtype=np.int64),
        before=level.median[some] / seconds,
        after=total / np.maximum(live.sum(axis=1)[some], 1.0) * length / seconds,
        samples=total,
        lengths=np.where((live.sum(axis=1) == length)[some], length, 0),
        statistics=(Sample(grid.requests[some] * judged, trials, "poisson"),),
    )


class _Levels:
    """Robust location and spread of blocks of `length` windows; all [series]."""

    def __init__(self, sums: Floats, whole: Bools) -> None:
        self.blocks = whole.sum(axis=1)
        self.median = _median(sums, whole)
        self.recent = _median(sums[:, -RECENT_BLOCKS:], whole[:, -RECENT_BLOCKS:])
        self.lowest = np.where(whole, sums, np.inf).min(axis=1, initial=np.inf)
        self.highest = np.where(whole, sums, -np.inf).max(axis=1, initial=-np.inf)
        deviation = 1.4826 * _median(np.abs(sums - self.median[:, None]), whole)
        beyond = np.maximum(deviation**2 - self.median, (LEAST_SPREAD * self.median) ** 2)
        self.shape = self.median**2 / np.maximum(beyond, 1e-9)


def _levels(requests: Floats, baseline: Bools, length: int) -> _Levels:
    whole = block_sums(baseline.astype(np.float64), length) == length
    return _Levels(block_sums(requests, length), whole)


def _median(values: Floats, allowed: Bools) -> Floats:
    """Lower median of the allowed values of each row; 0 where there are none."""
    if not values.shape[1]:
        return np.zeros(len(values))
    ordered = np.sort(np.where(allowed, values, np.inf), axis=1)
    middle = np.maximum(allowed.sum(axis=1) - 1, 0) // 2
    return np.where(allowed.any(axis=1), np.take_along_axis(ordered, middle[:, None], axis=1)[:, 0], 0.0)


def _effects(current: Floats, live: Floats, level: _Levels, change: float, grid: Grid) -> tuple[Bools, Bools]:
    length = current.shape[1]

    def ratio(sums: Floats, windows: Floats, median: Floats) -> Floats:
        share: Floats = sums / np.maximum(median * windows / length, 1e-9)
        return share

    newest: tuple[Floats, Floats] = current[:, -2:].sum(axis=1), live[:, -2:].sum(axis=1)
    total: tuple[Floats, Floats] = current.sum(axis=1), live.sum(axis=1)
    lowest: Floats = current.min(axis=1)
    highest: Floats = current.max(axis=1)
    low_rest, high_rest = (total[0] - lowest, total[1] - 1.0), (total[0] - highest, total[1] - 1.0)
    whole: tuple[Floats, Floats] = grid.summed(total[0]), total[1]
    whole_median: Floats = grid.summed(level.median)
    fell, rose = np.ones(len(lowest), dtype=bool), np.ones(len(lowest), dtype=bool)
    for sums, windows in (total, newest):
        for median in (level.median, level.recent):
            fell &= ratio(sums, windows, median) <= 1.0 - change
            rose &= ratio(sums, windows, median) >= 1.0 + change
    fell &= ratio(*low_rest, level.median) <= 1.0 - change
    rose &= ratio(*high_rest, level.median) >= 1.0 + change
    fell &= (total[0] < level.lowest) & (ratio(*whole, whole_median) <= 1.0 - change / 2.0)
    rose &= (total[0] > level.highest) & (ratio(*whole, whole_median) >= 1.0 + change / 2.0)
    return fell, rose
