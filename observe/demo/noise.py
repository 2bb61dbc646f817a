"""Chance, seeded: service times, token counts and arrivals that are as untidy as real ones."""

from __future__ import annotations

import math
import random
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

DRIFT_STEP_S = 5.0


@dataclass(slots=True)
class Latency:
    """Lognormal service times whose level drifts slowly, with rare pauses (garbage collection, a page fault)."""

    median_ms: float
    rng: random.Random
    sigma: float = 0.35
    drift: float = 0.05  # standard deviation of the level's logarithm
    pause_ratio: float = 0.004
    pause_ms: float = 40.0
    _level: float = 0.0
    _drifted_s: float = field(default=-math.inf)

    def sample_s(self, now_s: float, factor: float = 1.0) -> float:
        """Seconds that the work of one request takes, begun at `now_s`; `factor` multiplies the median."""
        if now_s - self._drifted_s >= DRIFT_STEP_S:
            self._drifted_s = now_s
            self._level = 0.9 * self._level + self.rng.gauss(0, self.drift * math.sqrt(1 - 0.9**2))
        work_ms = self.median_ms * factor * math.exp(self._level + self.rng.gauss(0, self.sigma))
        pause_ms = self.rng.expovariate(1 / self.pause_ms) if self.rng.random() < self.pause_ratio else 0.0
        return (work_ms + pause_ms) / 1000


@dataclass(frozen=True, slots=True)
class Quantiles:
    """A distribution given by some of its quantiles, log-linear between them."""

    levels: Sequence[float]
    values: Sequence[float]

    def at(self, level: float) -> int:
        """
        >>> OUTPUT_TOKENS.at(0.5)
        26
        """
        right = min(max(bisect_right(self.levels, level), 1), len(self.levels) - 1)
        low, high = self.levels[right - 1], self.levels[right]
        part = (level - low) / (high - low)
        return round(math.exp((1 - part) * math.log(self.values[right - 1]) + part * math.log(self.values[right])))

    def sample(self, rng: random.Random) -> int:
        return self.at(rng.random())


# Our own numbers, between the two kinds of traffic described in Splitwise (arXiv:2311.18677): long prompts, because
# passages are put before the question, and short answers. Shape only; nothing is taken from a trace.
PROMPT_TOKENS = Quantiles((0, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99, 1), (60, 310, 520, 840, 1350, 1900, 2900, 3400))
OUTPUT_TOKENS = Quantiles((0, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99, 1), (3, 9, 16, 26, 40, 54, 80, 96))


def arrivals(rate_per_s: float, rng: random.Random, shape: float = 25.0, hold_s: float = 5.0) -> Iterator[float]:
    """Times of requests in seconds from 0 on, without end.

    Users come in waves: a Poisson process whose rate is drawn anew from a gamma distribution (mean `rate_per_s`,
    relative variance 1/`shape`) every `hold_s` seconds, which makes counts negative binomial (Greenwood and Yule,
    1920, doi:10.2307/2341080).
    """
    start_s = 0.0
    while True:
        rate = rng.gammavariate(shape, rate_per_s / shape)
        at_s = start_s + rng.expovariate(rate)
        while at_s < start_s + hold_s:
            yield at_s
            at_s += rng.expovariate(rate)
        start_s += hold_s
