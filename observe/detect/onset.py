"""When a series moved: the split of its windows into two levels that the data find most likely."""

from __future__ import annotations

import numpy as np
from scipy import special

from observe.detect.evidence import Sample
from observe.detect.grid import Ranges
from observe.detect.statistics import Bools, Floats, Ints

HALF_RANK_PRECISION = 6.0  # 1 ÷ (2 × the variance of a rank)


def onsets(samples: tuple[Sample, ...], series: Ints, ranges: Ranges, directed: bool) -> Ints:
    """First window of the new level for each of the given series of samples and ranges; [len(series)].

    Two segments with rates of their own, maximum likelihood over the split, summed over the statistics (Hinkley 1970,
    doi:10.1093/biomet/57.1.1). `directed`: only splits after which the statistic is higher.
    """
    windows = samples[0].sums.shape[1]
    allowed = ranges.current[series] & (np.arange(windows) >= ranges.onset_from[series][:, None])
    gain = np.zeros(allowed.shape)
    for sample in samples:
        sums, trials = sample.sums[series] * allowed, sample.trials[series] * allowed
        gain += _gain(sums, trials, sample.law, directed)
    possible = allowed & (samples[0].trials[series] > 0)
    result: Ints = np.argmax(np.where(possible, gain, -np.inf), axis=1)
    return result


def _gain(sums: Floats, trials: Floats, law: str, directed: bool) -> Floats:
    """Log-likelihood of a split before each window, over that of no split; [series, window]."""
    total, total_n = sums.sum(axis=1, keepdims=True), trials.sum(axis=1, keepdims=True)
    before, before_n = np.cumsum(sums, axis=1) - sums, np.cumsum(trials, axis=1) - trials
    after, after_n = total - before, total_n - before_n
    gain = _fit(before, before_n, law) + _fit(after, after_n, law) - _fit(total, total_n, law)
    rose: Bools = after * before_n >= before * after_n
    return np.where(rose, gain, 0.0) if directed else gain


def _fit(sums: Floats, trials: Floats, law: str) -> Floats:
    """Log-likelihood of a segment at its own rate, up to what no split changes."""
    n = np.maximum(trials, 1e-12)
    if law == "rank":
        return HALF_RANK_PRECISION * sums**2 / n
    likelihood: Floats = special.xlogy(sums, sums / n)
    if law == "binomial":
        rest = np.maximum(trials - sums, 0.0)
        likelihood = likelihood + special.xlogy(rest, rest / n)
    return likelihood
