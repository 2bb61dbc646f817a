"""Which services could have a shift to tell of: cheap tests that let through more than the exact ones would tell.

Each condition is a weaker form of one that `observe.detect.detect` asks for: a smaller effect, at quantiles a little
lower, with evidence of 3 in 100,000 where it asks for one in millions, and no allowance for noise between windows.
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from observe.detect.grid import METRIC, Fleet
from observe.detect.memory import QUANTILES, Memory, Reference
from observe.detect.statistics import Bools, Floats, Ints
from observe.settings import DetectSettings
from observe.types import WINDOW_NS

Numbers = NDArray[np.floating]

LOG_P = float(np.log(3e-5))
RANK_Z = 4.0
KNOWN = 60.0  # requests of the reference from which on it says something
LOG_REST_P = float(np.log(0.02))  # of what is left without the worst window
REST_Z = 2.0
SLACK = 0.8  # part of the smallest change of traffic that is let through
MINUTE = 6  # windows


@dataclass(frozen=True, slots=True)
class Screened:
    """Services to test, and what the exact tests must know of all the others."""

    services: frozenset[str]
    fleet: Fleet


def screen(memory: Memory, settings: DetectSettings, always: Set[str] = frozenset()) -> Screened:
    """`always` are services that are tested in any case: their past holds incidents, which are no reference.

    Services that are too young for a reference pass as soon as they have `min_requests`.
    """
    of_spans = (memory.keys["kind"] != METRIC).to_numpy()
    reference = memory.reference()
    known = np.zeros(memory.series, dtype=bool)
    known[: len(reference.requests)] = reference.requests >= KNOWN
    found = _moved(memory, reference, known, settings) | _traffic(memory, settings)
    service = memory.keys["service"]
    named = set(service.filter(found).to_list()) | (set(always) & set(service.to_list()))
    tests = int(3 * of_spans.sum() + (~of_spans).sum())
    live_from_ns = (memory.end - memory.length) * WINDOW_NS
    return Screened(frozenset(named), Fleet(tests, memory.live, live_from_ns, memory.last * WINDOW_NS))


def chernoff(count: Numbers, mean: Numbers) -> Numbers:
    """Bound from above on ln P(X ≥ count) for a Poisson X; 0 where the count is no more than its mean.

    >>> bool(chernoff(np.array(10.0), np.array(2.0)) > np.log(4.6e-5))
    True
    """
    return np.where(count > mean, _poisson_bound(count, mean), 0.0)


def _poisson_bound(count: Numbers, mean: Numbers) -> Numbers:
    """The same on the side of the mean where the count lies."""
    with np.errstate(divide="ignore"):
        bound: Numbers = count - mean - np.where(count > 0, count * np.log(np.maximum(count, 1e-9) / mean), 0.0)
    return bound


class _Range:
    """Sums over the newest windows, one window further back at a time, and what the worst window holds of them."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self.length = 0
        self.n = np.zeros(memory.series, np.float32)
        # Errors, two exceedances, ranks, and what lies beyond the smallest effect; [statistic, series].
        self.sums = np.zeros((2 + memory.beyond.shape[0], memory.series), np.float32)
        self.worst = np.zeros((2 + len(QUANTILES), memory.series), np.float32)

    def extend(self, row: int) -> None:
        memory = self._memory
        self.length += 1
        self.n += memory.requests[(memory.end - self.length) % memory.length]
        counted = len(QUANTILES)
        parts = (memory.errors[row], *memory.beyond[:counted, row], memory.rank_sums[row])
        for number, part in enumerate(parts):
            self.sums[number] += part
            np.maximum(self.worst[number], part, out=self.worst[number])
        self.sums[len(parts) :] += memory.beyond[counted:, row]


def _moved(memory: Memory, reference: Reference, known: Bools, settings: DetectSettings) -> Bools:
    """Latency or errors, over any of the lengths; [series]."""
    series = memory.series
    shares = _wide(reference.shares, series)
    errors, requests = _wide(reference.errors, series), np.maximum(_wide(reference.requests, series), 1.0)
    ratio, rate = errors / requests, (errors + 1.0) / (requests + 1.0)
    effects = np.array([0.01, 0.05, 0.50])[:, None]  # of the requests lie beyond what P99, P95 and P50 would be
    reach, found = _Range(memory), np.zeros(series, dtype=bool)
    for row in memory.newest_rows().tolist():  # a loop over windows
        reach.extend(row)
        if reach.length not in memory.scales:
            continue
        enough = reach.n >= settings.min_requests
        larger = (reach.sums[2 + len(QUANTILES) :] >= 0.99 * effects * reach.n) & enough & known
        at = np.flatnonzero(larger.any(axis=0))
        expected = np.maximum(reach.n[at] * shares[:, at], 1e-3)
        evident = np.concatenate([_counted(reach, slice(1, 3), expected, at), _placed(reach, at)[None]])
        found[at] |= (larger[:, at] & evident).any(axis=0)
        more = reach.sums[0] / np.maximum(reach.n, 1.0) - ratio >= settings.error_min_increase / 2.0
        failing = more & (reach.sums[0] > reach.worst[0]) & enough
        at = np.flatnonzero(failing & known)
        found[at] |= _counted(reach, slice(0, 1), (reach.n[at] * rate[at])[None], at)[0]
        found |= failing & ~known
    return found | (~known & (reach.n >= settings.min_requests))


def _counted(reach: _Range, which: slice, expected: Numbers, at: Ints) -> Bools:
    """Whether counts are many, and many still without the worst window; [statistic, series]."""
    total, worst = reach.sums[which, at], reach.worst[which, at]
    rest = expected * (1.0 - 1.0 / reach.length)
    counted: Bools = (chernoff(total, expected) <= LOG_P) & (chernoff(total - worst, rest) <= LOG_REST_P)
    return counted


def _placed(reach: _Range, at: Ints) -> Bools:
    """Whether ranks are high, and high still without the worst window; [series]."""
    rank = 1 + len(QUANTILES)
    total, worst, n = reach.sums[rank, at], reach.worst[rank, at], reach.n[at]
    rest = np.sqrt(n * (1.0 - 1.0 / reach.length) / 12.0)
    placed: Bools = (total >= RANK_Z * np.sqrt(n / 12.0)) & (total - worst >= REST_Z * rest)
    return placed


def _traffic(memory: Memory, settings: DetectSettings) -> Bools:
    """More or less in the newest minute than in any minute before; [series]."""
    end = min(memory.end, memory.last)
    minutes = min(memory.length, memory.length - (memory.end - end)) // MINUTE
    if minutes < 2:
        return np.zeros(memory.series, dtype=bool)
    rows = memory.rows(minutes * MINUTE, end).reshape(minutes, MINUTE)
    starts = end - minutes * MINUTE + MINUTE * np.arange(minutes)
    whole: Bools = np.asarray(memory.live[rows_of(starts, memory)].all(axis=1))
    least, most = np.full(memory.series, np.inf, np.float32), np.zeros(memory.series, np.float32)
    now = _sum(memory, rows[-1])
    before = max(1, minutes - memory.newest // MINUTE)  # as many as the widest guard leaves: no fault of minutes
    for minute in range(before):  # a loop over windows
        if whole[minute]:
            total = _sum(memory, rows[minute])
            least = np.where(memory.first <= starts[minute], np.minimum(least, total), least)
            most = np.maximum(most, total)
    part = SLACK * settings.traffic_min_change
    fell: Bools = np.asarray(now < least)
    rose: Bools = np.asarray(now > most)
    at = np.flatnonzero((fell | rose) & (most >= settings.min_requests))
    found = np.zeros(memory.series, dtype=bool)
    usual = _usual(memory, rows[:before][whole[:before]], starts[:before][whole[:before]], at)
    changed = np.where(fell[at], now[at] <= (1.0 - part) * usual, now[at] >= (1.0 + part) * usual)
    found[at] = changed & (_poisson_bound(now[at], np.maximum(usual, 1e-3)) <= LOG_P)
    return found


def rows_of(starts: Ints, memory: Memory) -> Ints:
    """Positions in `Memory.live` of the minutes that start at these windows; [minute, window]."""
    position: Ints = starts[:, None] + np.arange(MINUTE) - (memory.end - memory.length)
    return position


def _sum(memory: Memory, rows: Ints) -> Numbers:
    total: Numbers = memory.requests[rows[0]].astype(np.float32)
    for row in rows[1:].tolist():
        total += memory.requests[row]
    return total


def _usual(memory: Memory, rows: Ints, starts: Ints, series: Ints) -> Floats:
    """Median minute of the given series since each was first seen."""
    if not len(series) or not len(rows):
        return np.zeros(len(series))
    minutes = memory.requests[np.ix_(rows.ravel(), series)].reshape(len(rows), MINUTE, len(series)).sum(axis=1)
    seen = np.where(memory.first[series] <= starts[:, None], minutes, np.nan)
    lacking = np.isnan(seen).all(axis=0)
    seen[0, lacking] = 0.0
    median: Floats = np.nanmedian(seen, axis=0)
    return median


def _wide(values: Numbers, series: int) -> Numbers:
    """Series that the reference does not know are 0 in it."""
    wide: Numbers = np.zeros((*values.shape[:-1], series), values.dtype)
    wide[..., : values.shape[-1]] = values
    return wide
