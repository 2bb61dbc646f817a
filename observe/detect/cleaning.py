"""Incidents in the baseline that nobody knows of: from before the first look, or while nobody looked.

What happened once in the trailing hour, for a minute or longer, and is over, is taken out of the baseline; what
happened twice is what the series does, and stays in. So a baseline neither hides the next incident like that, nor gets
calmer than the series is.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from observe.detect.grid import Entries, Grid, Ranges
from observe.detect.latency import beyond, quantiles_ms, ranks
from observe.detect.statistics import Bools, Floats, Ints, block_sums
from observe.frames import BUCKETS_PER_OCTAVE
from observe.settings import DetectSettings

LEAST = 6  # windows: shorter ones are hiccups, which a baseline should know of
CALM = 6  # windows after it, without which it is no incident that is over but a new level
LARGEST = 0.4  # of the baseline; what takes more of it may as well be how things are
RATIO = 2.0  # of the rates that are told apart
SURE = 25.0  # log-likelihood ratio; e⁻²⁵ for the best of some ten thousand stretches of a series
AGAIN = 0.25  # part of it at which a second stretch makes both a habit
QUANTILE = 0.95
BLOCK = 12  # windows
CALMER = 1.5
ANY = 1e-3  # rate of something that was never seen in the calm half


def cleaned(grid: Grid, ranges: Ranges, settings: DetectSettings) -> Ranges:
    """The ranges without the one stretch of each series' baseline that was an incident, if there was one."""
    if not grid.shape[0] or not ranges.baseline.any():
        return ranges
    requests = grid.requests * ranges.baseline
    errors = grid.errors * ranges.baseline
    failing = _once(errors, requests, _calm_rate(errors, requests), ranges.baseline, settings.error_min_increase)
    bad = failing
    some = _candidates(grid.entries, requests, ranges.baseline)
    if len(some):
        entries, baseline = grid.entries.of(some, grid.shape[0]), ranges.baseline[some]
        slow, usual = _slow(entries, requests[some], baseline, settings)
        bad[some] |= _once(slow, requests[some], usual, baseline, 1.0 - QUANTILE)
    return replace(ranges, baseline=ranges.baseline & ~bad) if bad.any() else ranges


def _calm_rate(counts: Floats, trials: Floats) -> Floats:
    """Counts per trial in the half of the blocks that has the lower rates; [series]."""
    of, n = block_sums(counts, BLOCK), block_sums(trials, BLOCK)
    calm = _lower_half(of, n)
    found: Floats = (of * calm).sum(axis=1) / np.maximum((n * calm).sum(axis=1), 1.0)
    return found


def _lower_half(sums: Floats, trials: Floats) -> Bools:
    """The half of the blocks that hold anything with the lower sums ÷ trials; [series, block]."""
    level = np.where(trials > 0, sums / np.maximum(trials, 1.0), np.inf)
    place = np.argsort(np.argsort(level, axis=1, kind="stable"), axis=1)
    half: Bools = (place < -(-(trials > 0).sum(axis=1) // 2)[:, None]) & (trials > 0)
    return half


def _candidates(entries: Entries, requests: Floats, baseline: Bools) -> Ints:
    """Series in which the baseline's slowest requests lie together; of few of them more is asked."""
    whole = entries.histogram(len(requests), baseline)
    slowest = entries.flagged([beyond(whole, QUANTILE)], requests.shape)[0] * baseline
    score = _scored(slowest, requests, _calm_rate(slowest, requests), 0.0)
    return np.flatnonzero(_best(score)[2] >= SURE)


def _slow(entries: Entries, requests: Floats, baseline: Bools, settings: DetectSettings) -> tuple[Floats, Floats]:
    """Requests slower than what would be told of the calm half's P95, [series, window], and their rate there."""
    shape = requests.shape
    whole = entries.histogram(shape[0], baseline)
    calm = _calm_windows(entries.scored(ranks(whole), shape) * baseline, requests)
    level = quantiles_ms(entries.histogram(shape[0], calm), (QUANTILE,), entries.lowest)[0]
    least = level + np.maximum(settings.p99_min_increase * level, settings.p99_min_increase_ms)
    edge = np.rint(BUCKETS_PER_OCTAVE * np.log2(np.maximum(least, 1e-3))) - entries.lowest
    slow = entries.flagged([np.arange(entries.width) >= edge[:, None]], shape)[0] * baseline
    usual = (slow * calm).sum(axis=1) / np.maximum((requests * calm).sum(axis=1), 1.0)
    return slow, usual


def _calm_windows(placed: Floats, requests: Floats) -> Bools:
    """Windows of the blocks whose requests stand lower in the distribution than those of the other half."""
    calm = _lower_half(block_sums(placed, BLOCK), block_sums(requests, BLOCK))
    found = np.zeros(requests.shape, dtype=bool)
    found[:, requests.shape[1] % BLOCK :] = np.repeat(calm, BLOCK, axis=1)
    return found


def _once(counts: Floats, trials: Floats, usual: Floats, baseline: Bools, least_rise: float) -> Bools:
    """The windows of the stretch that had more, where it is one and over; [series, window].

    The stretch with the largest log-likelihood of a rate worth telling against the usual one: the maximal segment of a
    sum (Levin and Kline 1985, doi:10.1002/sim.4780040411), as CUSUM finds it.
    """
    score = _scored(counts, trials, usual, least_rise)
    first, end, best = _best(score)
    index = np.arange(counts.shape[1])
    inside: Bools = (index >= first[:, None]) & (index < end[:, None])
    n = (trials * inside).sum(axis=1)
    level = (counts * inside).sum(axis=1) / np.maximum(n, 1.0)
    rose = (level >= usual + least_rise) & (level >= RATIO * usual)
    around = (index >= first[:, None] - 1) & (index <= end[:, None])
    again = _best(np.where(around, -np.inf, score))[2]
    size, whole = (inside & baseline).sum(axis=1), baseline.sum(axis=1)
    last = np.where(baseline, index, -1).max(axis=1)
    single = (best >= SURE) & rose & (again < np.maximum(AGAIN * best, 1.0))
    single &= (size >= LEAST) & (size <= LARGEST * whole) & (end + CALM <= last + 1)
    found: Bools = inside & single[:, None]
    return found


def _scored(counts: Floats, trials: Floats, usual: Floats, least_rise: float) -> Floats:
    """Log-likelihood of more than the usual rate in each window, over that of the usual one; [series, window].

    The calmer half of anything has a lower rate than the whole: CALMER makes up for that.
    """
    rate = np.maximum(CALMER * usual, ANY)[:, None]
    more = np.maximum(RATIO * rate, rate + least_rise)
    score: Floats = counts * np.log(more / rate) - trials * (more - rate)
    return score


def _best(score: Floats) -> tuple[Floats, Floats, Floats]:
    """First window, end, and sum of the stretch with the largest sum of each row."""
    finite = np.where(np.isfinite(score), score, -1e12)
    total = np.concatenate([np.zeros((len(score), 1)), np.cumsum(finite, axis=1)], axis=1)
    lowest = np.minimum.accumulate(total, axis=1)
    rise = total - lowest
    end = rise.argmax(axis=1)
    rows = np.arange(len(score))
    at = np.arange(total.shape[1])
    # The lowest total so far was first reached where the running minimum last came down.
    came = np.maximum.accumulate(np.where(total <= lowest, at, 0), axis=1)
    first = came[rows, end]
    return first.astype(np.float64), end.astype(np.float64), rise[rows, end]
