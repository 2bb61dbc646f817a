"""Tail probabilities, combination and correction of p-values, dispersion. Pure functions on arrays; docs/detection.md.

Arrays broadcast; the last axis is the windows where one is named. Probabilities below 1e-300 are reported as 1e-300.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import special

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]
Numbers = NDArray[np.floating]

SMALLEST_P = 1e-300

PRIOR_CV2 = 0.1
PRIOR_BLOCKS = 5.0
PRIOR_COUNTS2 = 2.0
"""Before anything is known, rates of a series are taken to vary by a squared coefficient of variation of 0.1; the
baseline's blocks outweigh that after five of them, but only where they hold counts to learn from."""


def count_upper(count: Floats, mean: Floats, shape: Floats) -> Floats:
    """P(X ≥ count) for a negative binomial X with this mean, and variance mean + mean²/shape.

    The mixture of Poisson counts over gamma-distributed rates; Poisson for shape → ∞, geometric for shape = 1.

    >>> round(float(count_upper(np.float64(1), np.float64(0.5), np.float64(1.0))), 6)
    0.333333
    """
    mean, shape = np.maximum(mean, 1e-12), np.maximum(shape, 1e-9)
    tail = special.betainc(np.maximum(count, 1e-9), shape, mean / (mean + shape))
    return _bounded(np.where(count <= 0, 1.0, tail))


def count_lower(count: Floats, mean: Floats, shape: Floats) -> Floats:
    """P(X ≤ count) of the same distribution."""
    mean, shape = np.maximum(mean, 1e-12), np.maximum(shape, 1e-9)
    return _bounded(special.betainc(shape, np.maximum(count, 0.0) + 1.0, shape / (mean + shape)))


def poisson_lower(count: Floats, mean: Floats) -> Floats:
    """P(X ≤ count) for a Poisson X; 1 where the mean is 0."""
    return _bounded(special.pdtr(np.maximum(count, 0.0), np.maximum(mean, 0.0)))


def binomial_upper(count: Floats, trials: Floats, share: Floats) -> Floats:
    """P(X ≥ count) of `trials` that count with probability `share` each.

    >>> round(float(binomial_upper(np.float64(2), np.float64(3), np.float64(0.5))), 6)
    0.5
    """
    tail = special.betainc(np.maximum(count, 1e-9), np.maximum(trials - count + 1.0, 1e-9), share)
    return _bounded(np.where(count <= 0, 1.0, tail))


def chernoff(count: Numbers, mean: Numbers) -> Numbers:
    """Bound from above on ln P(X ≥ count) for a Poisson X; 0 where the count is no more than its mean.

    >>> bool(chernoff(np.array(10.0), np.array(2.0)) > np.log(4.6e-5))
    True
    """
    return np.where(count > mean, poisson_bound(count, mean), 0.0)


def poisson_bound(count: Numbers, mean: Numbers) -> Numbers:
    """The same on the side of the mean where the count lies."""
    with np.errstate(divide="ignore", invalid="ignore"):
        bound: Numbers = count - mean - np.where(count > 0, count * np.log(np.maximum(count, 1e-9) / mean), 0.0)
    return bound


def chi_square_upper(square: Floats, degrees: float) -> Floats:
    """P(X ≥ square) of Pearson's statistic; 1 without degrees of freedom."""
    return _bounded(special.chdtrc(degrees, square)) if degrees > 0 else np.ones_like(square)


def student_upper(t: Floats, degrees: Floats) -> Floats:
    """P(T ≥ t) for Student's distribution."""
    return _bounded(special.stdtr(np.clip(degrees, 1.0, 1e9), -t))


def combined(p: Floats, axis: int | tuple[int, ...] = -1) -> Floats:
    """Harmonic mean p-value of dependent tests of one hypothesis (Wilson 2019, doi:10.1073/pnas.1814092116).

    Between the smallest p and k times it (Bonferroni); for p ≪ 1 valid whatever the dependence.

    >>> float(combined(np.array([0.01, 1.0, 1.0, 1.0]))) < 0.04
    True
    """
    return _bounded(1.0 / np.mean(1.0 / p, axis=axis))


def adjusted(p: Floats, tests: int | None = None) -> Floats:
    """Benjamini and Hochberg's adjusted p-values (1995, doi:10.1111/j.2517-6161.1995.tb02031.x) of one family.

    `tests` is the family's size where only its smallest p-values are given.

    >>> adjusted(np.array([0.01, 0.04, 0.03, 0.5])).round(4).tolist()
    [0.04, 0.0533, 0.0533, 0.5]
    """
    order = np.argsort(p, kind="stable")
    scaled = p[order] * (len(p) if tests is None else max(tests, len(p))) / np.arange(1, len(p) + 1)
    result = np.empty_like(p)
    result[order] = np.minimum.accumulate(scaled[::-1])[::-1]
    return np.minimum(result, 1.0)


def block_sums(per_window: Floats, length: int) -> Floats:
    """Sums of consecutive blocks of `length` windows, [series, windows // length]; the oldest rest is left out."""
    series, windows = per_window.shape
    blocks = windows // length
    newest = per_window[:, windows - blocks * length :]
    sums: Floats = newest.reshape(series, blocks, length).sum(axis=2)
    return sums


def sliding_sums(per_window: Floats, length: int) -> Floats:
    """Sums of every `length` consecutive windows, [series, windows − length + 1].

    >>> sliding_sums(np.array([[1.0, 2.0, 3.0, 4.0]]), 3).tolist()
    [[6.0, 9.0]]
    """
    sums = np.cumsum(per_window, axis=1)
    result: Floats = sums[:, length - 1 :].copy()
    result[:, 1:] -= sums[:, :-length]
    return result


def rate_cv2(counts: Floats, trials: Floats, rate: Floats, prior_cv2: Floats | float = PRIOR_CV2) -> Floats:
    """Squared coefficient of variation of a rate between blocks, beyond what counting explains; [series].

    Method of moments on `counts` and `trials` [series, blocks], shrunk towards `prior_cv2` where little is seen.
    """
    expected = trials * rate[:, None]
    excess = ((counts - expected) ** 2 - expected * (1.0 - rate[:, None])).sum(axis=1)
    blocks = np.maximum((trials > 0).sum(axis=1), 1)
    information = (expected**2).sum(axis=1)
    prior = PRIOR_COUNTS2 + PRIOR_BLOCKS * information / blocks
    cv2: Floats = (np.maximum(excess, 0.0) + prior_cv2 * prior) / (information + prior)
    return cv2


def _bounded(p: Floats) -> Floats:
    return np.clip(p, SMALLEST_P, 1.0)
