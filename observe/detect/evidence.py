"""How sure it is that a rate, or a place in a distribution, moved up: tests of current ranges against baselines.

A `Sample` is one statistic of all series: what was counted in each window, and out of how many. Two tests share it:

- counts (exceedances of a quantile, errors): negative binomial tail;
- ranks (where requests stand in the baseline's distribution): Student's t.

Both are widened by what the statistic varies between the baseline's own windows, by the baseline's smallness, and both
ask for persistence: the excess must show in what is left without the worst window, and must not have ended.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from observe.detect.grid import Ranges, Span
from observe.detect.statistics import (
    Bools,
    Floats,
    block_sums,
    count_upper,
    poisson_lower,
    rate_cv2,
    student_upper,
)

REST_P = 0.01
"""How unlikely the excess must still be once the worst window is taken away: a hiccup of 10 s is no shift."""
ENDED_P = 0.01
ENDED_Z = 2.33
ENDED_SHARE = 0.4
"""A shift has ended if its newest windows hold less than this part of its worst 30 s, and chance explains it by 1 %."""

WORST_WINDOWS = 3

RANK_VARIANCE = 1.0 / 12.0  # of a uniform rank; ties only lower it
PRIOR_RANK_SD = 0.03  # of the mean rank of a block, before anything is known
PRIOR_RANK_BLOCKS = 5.0


@dataclass(frozen=True, slots=True)
class Sample:
    """One statistic. `sums` is a count, or a sum of ranks centred on 0."""

    sums: Floats  # [series, window]
    trials: Floats  # [series, window] requests
    law: Literal["binomial", "rank", "poisson"] = "binomial"


@dataclass(frozen=True, slots=True)
class Current:
    """A current range of `length` windows, with past incidents left out."""

    sums: Floats  # [series, length]
    trials: Floats  # [series, length]
    total: Floats  # [series]
    n: Floats  # [series]

    @property
    def rest(self) -> tuple[Floats, Floats]:
        """Total and n without the worst window."""
        series, worst = np.arange(len(self.total)), np.argmax(self.sums, axis=1)
        return self.total - self.sums[series, worst], self.n - self.trials[series, worst]

    @property
    def worst_level(self) -> Floats:
        """The highest mean of three windows in a row; of the whole range it would be watered down."""
        sums, trials = block_sums(self.sums, WORST_WINDOWS), block_sums(self.trials, WORST_WINDOWS)
        level: Floats = (sums / np.maximum(trials, 1.0)).max(axis=1, initial=-0.5)
        return level

    @property
    def newest(self) -> list[tuple[Floats, Floats]]:
        """Total and n of the newest window, and of the newest three."""
        return [(self.sums[:, -k:].sum(axis=1), self.trials[:, -k:].sum(axis=1)) for k in (1, WORST_WINDOWS)]


def current_of(sample: Sample, ranges: Ranges, length: int) -> Current:
    allowed = ranges.current[:, -length:]
    sums, trials = sample.sums[:, -length:] * allowed, sample.trials[:, -length:] * allowed
    return Current(sums, trials, sums.sum(axis=1), trials.sum(axis=1))


def count_evidence(sample: Sample, ranges: Ranges, span: Span, baseline: tuple[Floats, Floats] | None = None) -> Floats:
    """p-values [scale, series] of an increase of sums ÷ trials; 1 where it does not persist.

    `baseline` gives counts and trials [series] where they are not those of the series' own baseline windows.
    """
    counts, trials = sample.sums * ranges.baseline, sample.trials * ranges.baseline
    before, out_of = baseline or (counts.sum(axis=1), trials.sum(axis=1))
    observed = before / np.maximum(out_of, 1.0)
    # Gumbel and von Schelling's law of exceedances: what the baseline saw once may as well be seen again.
    rate = (before + 1.0) / (out_of + 1.0)
    return np.stack([
        _count_p(current_of(sample, ranges, length), rate, before + 1.0, cv2)
        for length, cv2 in zip(span.scales, _cv2(counts, trials, observed, span), strict=True)
    ])  # fmt: skip


def _count_p(current: Current, rate: Floats, seen: Floats, cv2: Floats) -> Floats:
    shape = 1.0 / (1.0 / seen + cv2)
    p = count_upper(current.total, current.n * rate, shape)
    rest, rest_n = current.rest
    persists = count_upper(rest, rest_n * rate, shape) <= REST_P
    return np.where(persists & ~_count_ended(current, rate), p, 1.0)


def _count_ended(current: Current, rate: Floats) -> Bools:
    level = current.worst_level
    ended = np.zeros(len(level), dtype=bool)
    for total, n in current.newest:
        fallen = total - n * rate < ENDED_SHARE * n * (level - rate)
        ended |= fallen & (poisson_lower(total, n * level) < ENDED_P)
    return ended


def _cv2(counts: Floats, trials: Floats, rate: Floats, span: Span) -> list[Floats]:
    """At each range's own length, which takes in noise that lasts; [scale][series].

    A baseline holds few long blocks; what they leave open is taken from the short ones, as if all their noise lasted.
    """
    shortest, *longer = span.scales
    short_counts, short_trials = block_sums(counts, shortest), block_sums(trials, shortest)
    single = rate_cv2(short_counts, short_trials, rate)
    result = [single]
    for length in longer:
        blocks = block_sums(short_counts, length // shortest), block_sums(short_trials, length // shortest)
        own = rate_cv2(*blocks, rate, prior_cv2=single)
        result.append(np.maximum(own, single * shortest / length))
    return result


def rank_evidence(sample: Sample, ranges: Ranges, span: Span) -> Floats:
    """p-values [scale, series] of an increase of the mean rank (Wilcoxon's test with noise between windows)."""
    sums, trials = sample.sums * ranges.baseline, sample.trials * ranges.baseline
    return np.stack([
        _rank_p(current_of(sample, ranges, length), block_sums(sums, length), block_sums(trials, length))
        for length in span.scales
    ])  # fmt: skip


def _rank_p(current: Current, sums: Floats, trials: Floats) -> Floats:
    noise, degrees = _rank_noise(sums, trials)
    before = RANK_VARIANCE / np.maximum(trials.sum(axis=1), 1.0)

    def p_of(total: Floats, n: Floats) -> Floats:
        counting = RANK_VARIANCE / np.maximum(n, 1.0) + before
        t = total / np.maximum(n, 1.0) / np.sqrt(counting + noise)
        # Welch and Satterthwaite: only the noise has a variance that had to be estimated.
        return np.where(n > 0, student_upper(t, degrees * (1.0 + counting / noise) ** 2), 1.0)

    rest, rest_n = current.rest
    persists = p_of(rest, rest_n) <= REST_P
    return np.where(persists & ~_rank_ended(current), p_of(current.total, current.n), 1.0)


def _rank_noise(sums: Floats, trials: Floats) -> tuple[Floats, Floats]:
    """Variance of a block's mean rank beyond counting, and its degrees of freedom; [series]."""
    filled = trials > 0
    means = np.where(filled, sums / np.maximum(trials, 1.0), 0.0)
    weight = trials**2
    beyond = (weight * means**2 - trials * RANK_VARIANCE).sum(axis=1)
    blocks = np.maximum(filled.sum(axis=1), 1)
    prior = PRIOR_RANK_BLOCKS * np.maximum(weight.sum(axis=1), 1.0) / blocks
    noise = (np.maximum(beyond, 0.0) + prior * PRIOR_RANK_SD**2) / (weight.sum(axis=1) + prior)
    return noise, blocks + PRIOR_RANK_BLOCKS


def _rank_ended(current: Current) -> Bools:
    level = current.worst_level
    ended = np.zeros(len(level), dtype=bool)
    for total, n in current.newest:
        below = n * level - total
        ended |= (total < ENDED_SHARE * n * level) & (below > ENDED_Z * np.sqrt(n * RANK_VARIANCE)) & (n > 0)
    return ended
