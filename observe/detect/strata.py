"""Stratified comparison of two groups: scores of requests are compared within strata only, and added up over them.

With a score of 0 or 1 this is the test of Cochran (1954, doi:10.2307/3001616) and of Mantel and Haenszel (1959,
doi:10.1093/jnci/22.4.719), with ranks that of van Elteren (1960). The variance is that of random labels within strata,
widened by what the difference varies from block to block of time beyond it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import special

from observe.detect.grid import HIGHEST_BUCKET, LOWEST_BUCKET
from observe.detect.statistics import Bools, Floats, Ints, student_upper

BOUND = 0.95
BOUND_Z = 1.645
PRIOR_BLOCKS = 5.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """Sums over the requests of each cell, [block, operation, version]; version 0 is the baseline."""

    sums: Floats  # of the scores
    squares: Floats  # of the scores' squares


@dataclass(frozen=True, slots=True)
class Result:
    before: float  # mean score, at the same weights of strata
    after: float
    p: float  # that labels drawn at random give a difference as large as this; one-sided
    p_better: float
    upper: float  # bound of `after`, 95 %


@dataclass(frozen=True, slots=True)
class Strata:
    n: Floats  # requests [block, operation, version]
    errors: Floats
    histograms: Floats  # [block, operation, version, bucket]
    lowest: int  # bucket number of column 0

    @classmethod
    def of(
        cls,
        block: Ints,
        operation: Ints,
        version: Ints,
        requests: Floats,
        errors: Floats,
        bucket_block: Ints,
        bucket_operation: Ints,
        bucket_version: Ints,
        bucket: Ints,
        count: Floats,
    ) -> Strata:
        """From rows of windows, and from their buckets with the same keys; a stratum needs both versions."""
        shape = (int(block.max()) + 1, int(operation.max()) + 1, 2) if len(block) else (0, 0, 2)
        bucket = np.clip(bucket, LOWEST_BUCKET, HIGHEST_BUCKET)
        lowest = int(bucket.min()) if len(bucket) else 0
        width = int(bucket.max()) - lowest + 1 if len(bucket) else 1
        n, wrong, histograms = np.zeros(shape), np.zeros(shape), np.zeros((*shape, width))
        np.add.at(n, (block, operation, version), requests)
        np.add.at(wrong, (block, operation, version), errors)
        np.add.at(histograms, (bucket_block, bucket_operation, bucket_version, bucket - lowest), count)
        both: Bools = np.asarray((n > 0).all(axis=2))[..., None]
        return cls(n * both, wrong * both, histograms * both[..., None], lowest)

    @property
    def requests(self) -> tuple[float, float]:
        total = self.n.sum(axis=(0, 1))
        return float(total[0]), float(total[1])

    @property
    def weights(self) -> Floats:
        """What each stratum can tell, [block, operation]: baseline × candidate ÷ all."""
        weight: Floats = self.n.prod(axis=2) / np.maximum(self.n.sum(axis=2), 1.0)
        return weight

    def error_outcome(self) -> Outcome:
        return Outcome(self.errors, self.errors)

    def outcome(self, score: Floats) -> Outcome:
        """Of a score per operation and bucket."""
        weighted = self.histograms * score[:, None, :]
        return Outcome(weighted.sum(axis=3), (weighted * score[:, None, :]).sum(axis=3))

    def standardised(self) -> Floats:
        """Both versions' histograms at the same weights of strata, [version, bucket]."""
        share = self.weights[..., None] / np.maximum(self.n, 1.0)
        histogram: Floats = (self.histograms * share[..., None]).sum(axis=(0, 1))
        return histogram


def compared(strata: Strata, outcome: Outcome) -> Result:
    """Whether the candidate's scores are higher. p = 1 where nothing can be compared."""
    weight = strata.weights
    total = float(weight.sum())
    if total <= 0.0:
        return Result(0.0, 0.0, 1.0, 1.0, 1.0)
    mean = outcome.sums / np.maximum(strata.n, 1.0)
    before, after = (float((weight * mean[..., version]).sum()) / total for version in (0, 1))
    excess = weight * (mean[..., 1] - mean[..., 0])  # = observed − expected of the candidate's sum
    all_n, all_sum = strata.n.sum(axis=2), outcome.sums.sum(axis=2)
    spread = outcome.squares.sum(axis=2) - all_sum**2 / np.maximum(all_n, 1.0)
    variance = weight * np.maximum(spread, 0.0) / np.maximum(all_n - 1.0, 1.0)
    by_block, per_block = excess.sum(axis=1), variance.sum(axis=1)
    wide, degrees = _dispersion(by_block, per_block)
    error = float(np.sqrt(per_block.sum() * wide))
    t = float(by_block.sum()) / max(error, 1e-12)
    if error == 0.0:
        return Result(before, after, 1.0, 1.0, after)
    p, better = (float(student_upper(np.array(sign * t), np.array(degrees))) for sign in (1.0, -1.0))
    return Result(before, after, p, better, after + BOUND_Z * error / total)


def share_upper(strata: Strata, outcome: Outcome) -> float:
    """Upper bound (95 %) of the candidate's mean of a score of 0 or 1 (Clopper and Pearson 1934,
    doi:10.1093/biomet/26.4.404); 1 without requests."""
    n = strata.requests[1]
    if n <= 0.0:
        return 1.0
    weight = strata.weights
    mean = outcome.sums[..., 1] / np.maximum(strata.n[..., 1], 1.0)
    share = float((weight * mean).sum() / weight.sum())
    return float(special.betaincinv(share * n + 1.0, max(n * (1.0 - share), 1e-9), BOUND))


def _dispersion(excess: Floats, variance: Floats) -> tuple[float, float]:
    """How much more the blocks' differences vary than random labels explain (≥ 1), and the degrees of freedom; as if
    PRIOR_BLOCKS blocks had been seen before in which nothing did."""
    informed = variance > 0
    blocks = int(informed.sum())
    if not blocks:
        return 1.0, PRIOR_BLOCKS
    excess, variance = excess[informed], variance[informed]
    common = excess.sum() / variance.sum()
    squares = float(((excess - common * variance) ** 2 / variance).sum())
    degrees = blocks - 1.0 + PRIOR_BLOCKS
    return max(1.0, (squares + PRIOR_BLOCKS) / degrees), degrees
