"""One univariate gauge, point by point, each judged by what came before it: how surprising it is.

Five statistics (below) are compared each with its own past. What exceeds its 98 % quantile has an exponential tail
fitted to it, the simplest form of peaks over threshold (Siffer et al. 2017, doi:10.1145/3097983.3098144), so that no
scale, threshold or season is set by hand. Surprise is −ln of the smallest of the five tail probabilities, times five
(Bonferroni).
"""

from __future__ import annotations

import numpy as np
import polars as pl

from observe.detect.statistics import SMALLEST_P, Bools, Floats, Ints

HORIZONS = (4, 16, 64)  # points whose mean is compared with the reference
REFERENCE = 1024  # points before them, whose median is the usual level: days where gauges come every five minutes
SPREAD = 16  # points over which the standard deviation is taken
ENOUGH = 64  # points of the reference that must be there
WARM_UP = 128  # points before the first that is judged
PAST = 20_000  # points that a tail is fitted to, at most
REFIT = 48  # points between two fits
RARE = 0.02  # share of the past beyond which the tail begins
LEVEL = 0.002  # probability below which a point is told
QUIET = 64  # points after one that is told in which nothing else is
FLOOR_OF_TAIL = 0.01  # of the quantile where it begins: nothing falls off faster
LARGEST = 1e150  # what is larger counts as missing: its square is no number
FLOOR_OF_VALUE = 1e-6  # of the largest value seen: below that is rounding


def surprises(value: Floats) -> Floats:
    """−ln of a tail probability, [point]; 0 where the point is usual, missing, or too early to judge.

    No look-ahead: the first k answers depend on the first k values only.
    """
    present = np.abs(value) < LARGEST  # not NaN either
    series = pl.Series(np.where(present, value, np.nan)).fill_nan(None).forward_fill().fill_null(0.0)
    largest = np.maximum.accumulate(np.abs(series.to_numpy())) if len(value) else value
    statistics = [_step(series), _spread(series), *(_level(series, horizon) for horizon in HORIZONS)]
    worst = np.max([_surprise(statistic, FLOOR_OF_VALUE * largest) for statistic in statistics], axis=0)
    return np.where(present, np.maximum(worst - np.log(len(statistics)), 0.0), 0.0)


def told(surprise: Floats, first: int = 0, level: float = LEVEL) -> Ints:
    """Points that are told: beyond the level, from `first` on, and QUIET points after the one before."""
    beyond = np.flatnonzero(surprise > -np.log(level))
    at, points = int(np.searchsorted(beyond, first)), []
    while at < len(beyond):
        points.append(int(beyond[at]))
        at = int(np.searchsorted(beyond, beyond[at] + QUIET, "right"))
    return np.array(points, dtype=np.int64)


def _step(series: pl.Series) -> Floats:
    """From one point to the next."""
    return _size(series.diff())


def _level(series: pl.Series, horizon: int) -> Floats:
    """The mean of the newest points against the median of the reference before them."""
    return _size(series.rolling_mean(horizon, min_samples=1) - _usual(series, horizon))


def _spread(series: pl.Series) -> Floats:
    """How much the newest points vary against how much is usual: noise that came, or a signal that froze."""
    spread = series.rolling_std(SPREAD, min_samples=SPREAD)
    return _size(spread - _usual(spread, SPREAD))


def _usual(series: pl.Series, horizon: int) -> pl.Series:
    return series.shift(horizon).rolling_median(REFERENCE, min_samples=ENOUGH)


def _size(difference: pl.Series) -> Floats:
    size: Floats = difference.abs().cast(pl.Float64).fill_null(0.0).to_numpy()
    return np.nan_to_num(size)


def _surprise(statistic: Floats, floor: Floats) -> Floats:
    """By the tail of the statistic's own past, fitted anew every REFIT points."""
    result = np.zeros(len(statistic))
    for start in range(WARM_UP, len(statistic), REFIT):
        past, new = statistic[max(0, start - PAST) : start], statistic[start : start + REFIT]
        begins = float(np.quantile(past, 1.0 - RARE))
        beyond: Bools = past > begins
        mean = float((past[beyond] - begins).mean()) if beyond.any() else 0.0
        mean = max(mean, FLOOR_OF_TAIL * begins, float(floor[start - 1]), 1e-300)
        excess = np.minimum((new - begins) / mean, -np.log(SMALLEST_P))
        result[start : start + REFIT] = np.where(new > begins, excess - np.log(RARE), 0.0)
    return result
