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
    Ints,
    binomial_upper,
    block_sums,
    chi_square_upper,
    count_upper,
    poisson_lower,
    rate_cv2,
    sliding_sums,
    student_upper,
)

REST_P = 1e-4
REST_RATIO = 1.5
"""How unlikely, and how much more than usual, the excess must still be once the worst window is taken away: a hiccup
of 10 s is no shift. The second matters where traffic is high: there the noise of any two windows is significant."""
EXTREME = 1.2
EXTREME_QUANTILE = 0.98
"""The rate must be that much above all but the worst of the baseline's own stretches of the same length: noise that
lasts for minutes has a longer tail than the mixture that p-values rest on."""
TRIMMED_P = 0.01
MANY = 3.0
UNEVEN_P = 0.01
"""Where a window holds MANY counts or more, or counts lie more unevenly than chance explains, the excess must also show
without the worst third of the windows: two hiccups within four minutes are none either. Few counts that lie as chance
would have them are no hiccups, and a third of the windows may hold most of them."""
LASTING_P = 0.01
"""How unlikely it must be that as many requests lie beyond the smallest effect without the worst window: where a
quantile lies between two modes, chance alone moves it by more than that."""
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

    def of(self, series: Ints) -> Sample:
        return Sample(self.sums[series], self.trials[series], self.law)


@dataclass(frozen=True, slots=True)
class Current:
    """A current range of `length` windows, with past incidents left out."""

    sums: Floats  # [series, length]
    trials: Floats  # [series, length]
    total: Floats  # [series]
    n: Floats  # [series]

    def without_worst(self) -> list[tuple[Floats, Floats]]:
        """Total and n without the window that holds most, and without the third of the windows that do."""
        series = np.arange(len(self.total))[:, None]
        worst = np.argsort(-self.sums, axis=1, kind="stable")
        return [
            (self.total - self.sums[series, some].sum(axis=1), self.n - self.trials[series, some].sum(axis=1))
            for some in (worst[:, :1], worst[:, : max(1, round(self.sums.shape[1] / 3))])
        ]

    @property
    def trimmable(self) -> Bools:
        """Whether what lasts must show without the worst third of the windows, too."""
        windows = self.sums.shape[1]
        expected = self.total[:, None] * self.trials / np.maximum(self.n, 1.0)[:, None]
        beyond = ((self.sums - expected) ** 2 / np.maximum(expected, 1e-9)).sum(axis=1)
        uneven = chi_square_upper(beyond, windows - 1.0) <= UNEVEN_P
        trimmable: Bools = uneven | (self.total >= MANY * windows)
        return trimmable

    @property
    def worst_level(self) -> Floats:
        """The highest mean of three windows in a row; of the whole range it would be watered down."""
        windows = min(WORST_WINDOWS, self.sums.shape[1])
        sums, trials = sliding_sums(self.sums, windows), sliding_sums(self.trials, windows)
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


def lasting(sample: Sample, ranges: Ranges, length: int, share: float, usual: Floats) -> Bools:
    """Whether more than `share` of the trials still count without the worst window of the range, and more than the
    `usual` share [series] explains by chance; [series].

    Where many count, or unevenly, more than `share` without the worst third of the windows, too.
    """
    current = current_of(sample, ranges, length)
    (rest, rest_n), (trimmed, trimmed_n) = current.without_worst()
    most: Bools = (trimmed > share * trimmed_n) | ~current.trimmable
    return (rest > share * rest_n) & most & (binomial_upper(rest, rest_n, usual) <= LASTING_P)


def descriptive(p: Floats, span: Span, rare: float) -> Ints:
    """Which range tells best what a series does now, from p-values [scale, series]; [series].

    The shortest that is certain by itself and no shorter than the usual one; else the most certain.
    """
    alone = (p <= rare) & (np.array(span.scales)[:, None] >= span.current)
    scale: Ints = np.where(alone.any(axis=0), np.argmax(alone, axis=0), np.argmin(p, axis=0))
    return scale


def count_evidence(
    sample: Sample,
    ranges: Ranges,
    span: Span,
    asked: Bools,
    rare: float,
    baseline: tuple[Floats, Floats] | None = None,
    rest_increase: float = 0.0,
) -> Floats:
    """p-values [scale, series] of an increase of sums ÷ trials; 1 where it does not persist, where it is not `asked`
    for [scale, series], and above `rare`: what is not rare in any range tells nothing.

    `baseline` gives counts and trials [series] where they are not those of the series' own baseline windows.
    `rest_increase` is by how much the ratio must have risen without the worst window.
    """
    evidence = np.ones(asked.shape)
    some = np.flatnonzero(asked.any(axis=0))
    if not len(some):
        return evidence
    sample, ranges = sample.of(some), ranges.of(some)
    counts, trials = sample.sums * ranges.baseline, sample.trials * ranges.baseline
    before, out_of = (counts.sum(axis=1), trials.sum(axis=1)) if baseline is None else (b[some] for b in baseline)
    observed = before / np.maximum(out_of, 1.0)
    # Gumbel and von Schelling's law of exceedances: what the baseline saw once may as well be seen again.
    rate = (before + 1.0) / (out_of + 1.0)
    single = rate_cv2(block_sums(counts, span.current), block_sums(trials, span.current), observed)
    for nth, length in enumerate(span.scales):
        if not asked[nth].any():
            continue
        current = current_of(sample, ranges, length)
        blocks = block_sums(counts, length), block_sums(trials, length)
        shape = 1.0 / (1.0 / (before + 1.0) + _cv2(*blocks, observed, single, span.current / length))
        p = count_upper(current.total, current.n * rate, shape)
        told = asked[nth, some] & (p <= rare)
        if told.any():
            told &= _persists(current, rate, shape, rest_increase) & _beyond_extremes(current, *blocks)
        evidence[nth, some] = np.where(told, p, 1.0)
    return evidence


def _persists(current: Current, rate: Floats, shape: Floats, rest_increase: float) -> Bools:
    (rest, rest_n), (trimmed, trimmed_n) = current.without_worst()
    persists: Bools = count_upper(rest, rest_n * rate, shape) <= REST_P
    persists &= rest >= rest_n * np.maximum(REST_RATIO * rate, rate + rest_increase)
    lasts = (count_upper(trimmed, trimmed_n * rate, shape) <= TRIMMED_P) & (trimmed >= REST_RATIO * trimmed_n * rate)
    persists &= lasts | ~current.trimmable
    return persists & ~_count_ended(current, rate)


def _beyond_extremes(current: Current, blocks: Floats, out_of: Floats) -> Bools:
    """Whether the rate lies above those of nearly all blocks of the baseline; [series]."""
    enough = out_of >= current.n[:, None] / 2.0
    rates = np.sort(np.where(enough, blocks / np.maximum(out_of, 1.0), 0.0), axis=1)
    if not rates.shape[1]:
        return np.ones(len(rates), dtype=bool)
    extreme = rates[:, int(EXTREME_QUANTILE * (rates.shape[1] - 1))]
    beyond: Bools = current.total >= EXTREME * extreme * current.n
    return beyond


def _count_ended(current: Current, rate: Floats) -> Bools:
    level = current.worst_level
    ended = np.zeros(len(level), dtype=bool)
    for total, n in current.newest:
        fallen = total - n * rate < ENDED_SHARE * n * (level - rate)
        ended |= fallen & (poisson_lower(total, n * level) < ENDED_P)
    return ended


def _cv2(blocks: Floats, out_of: Floats, rate: Floats, single: Floats, part: float) -> Floats:
    """At the range's own length, which takes in noise that lasts; [series].

    A baseline holds few long blocks; what they leave open is taken from those of the usual length, `part` of this one,
    as if all their noise (`single`) lasted.
    """
    return np.maximum(rate_cv2(blocks, out_of, rate, prior_cv2=single), single * min(1.0, part))


def rank_evidence(sample: Sample, ranges: Ranges, span: Span, asked: Bools, rare: float) -> Floats:
    """p-values [scale, series] of an increase of the mean rank (Wilcoxon's test with noise between windows); 1 as in
    `count_evidence`."""
    evidence = np.ones(asked.shape)
    some = np.flatnonzero(asked.any(axis=0))
    sample, ranges = sample.of(some), ranges.of(some)
    sums, trials = sample.sums * ranges.baseline, sample.trials * ranges.baseline
    for nth, length in enumerate(span.scales):
        if not asked[nth].any():
            continue
        p = _rank_p(current_of(sample, ranges, length), block_sums(sums, length), block_sums(trials, length), rare)
        evidence[nth, some] = np.where(asked[nth, some], p, 1.0)
    return evidence


def _rank_p(current: Current, sums: Floats, trials: Floats, rare: float) -> Floats:
    noise, degrees = _rank_noise(sums, trials)
    before = RANK_VARIANCE / np.maximum(trials.sum(axis=1), 1.0)

    def p_of(total: Floats, n: Floats) -> Floats:
        counting = RANK_VARIANCE / np.maximum(n, 1.0) + before
        t = total / np.maximum(n, 1.0) / np.sqrt(counting + noise)
        # Welch and Satterthwaite: only the noise has a variance that had to be estimated.
        return np.where(n > 0, student_upper(t, degrees * (1.0 + counting / noise) ** 2), 1.0)

    p = p_of(current.total, current.n)
    told = p <= rare
    if told.any():
        told &= (p_of(*current.without_worst()[0]) <= REST_P) & ~_rank_ended(current)
    return np.where(told, p, 1.0)


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
