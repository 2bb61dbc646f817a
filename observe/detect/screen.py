"""Which services could have a shift to tell of: cheap tests that let through more than the exact ones would tell.

Each condition is a weaker form of one that `observe.detect.detect` asks for: a smaller effect, at quantiles a little
lower, with evidence of 3 in 100,000 where it asks for one in millions (errors: 3 in 10,000 for one in 100,000), and no
allowance for noise between windows.
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass

import numpy as np

from observe.detect.grid import METRIC, Fleet
from observe.detect.memory import QUANTILES, Counts, Memory, Reference
from observe.detect.statistics import Bools, Ints, Numbers, chernoff, poisson_bound
from observe.settings import DetectSettings
from observe.types import WINDOW_NS

LOG_P = float(np.log(3e-5))
LOG_P_ERRORS = float(np.log(3e-4))
LOG_STIRRED_P, STIRRED_Z = float(np.log(0.02)), 2.0
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


class _Reach:
    """Sums over the newest windows, and what the worst window holds of them, for every length of `Memory.scales`.

    Statistics are errors, two exceedances, ranks, and what lies beyond the smallest effect of three quantiles.
    """

    def __init__(self, memory: Memory) -> None:
        rows = memory.newest_rows()
        lengths = np.array(memory.scales)[:, None, None]
        self.rest = 1.0 - 1.0 / lengths[:, 0]  # part of the windows that is left without the worst; [scale, 1]
        self.n = _upto(memory.requests[(memory.end - 1 - np.arange(memory.newest)) % memory.length], memory.scales)
        counted = len(QUANTILES)
        parts = (memory.errors[rows], *memory.beyond[:counted, rows], memory.rank_sums[rows])
        self.sums = np.stack([_upto(part, memory.scales) for part in parts])  # [statistic, scale, series]
        self.worst = np.stack([_most(part, memory.scales) for part in parts])
        self.effects = np.stack([_upto(part, memory.scales) for part in memory.beyond[counted:, rows]])


def _upto(newest: Numbers | Counts, scales: tuple[int, ...]) -> Numbers:
    """Sums of the first `scale` rows each; [scale, series]."""
    sums: Numbers = np.cumsum(newest, axis=0, dtype=np.float32)
    reached: Numbers = sums[np.array(scales) - 1]
    return reached


def _most(newest: Numbers | Counts, scales: tuple[int, ...]) -> Numbers:
    most: Numbers = np.maximum.accumulate(newest.astype(np.float32, copy=False), axis=0)
    reached: Numbers = np.maximum(most[np.array(scales) - 1], 0.0)
    return reached


def _moved(memory: Memory, reference: Reference, known: Bools, settings: DetectSettings) -> Bools:
    """Latency or errors, over any of the lengths; [series]."""
    reach = _Reach(memory)
    enough = reach.n >= settings.min_requests
    found: Bools = (~known & enough.any(axis=0)) | _slower(reach, reference, enough & known)
    series = memory.series
    stirred = np.flatnonzero(reference.uneven)
    found[stirred[_stirred(reach, reference.calm[:, stirred], stirred, settings)]] = True
    errors, requests = _wide(reference.errors, series), np.maximum(_wide(reference.requests, series), 1.0)
    more = reach.sums[0] / np.maximum(reach.n, 1.0) - errors / requests >= settings.error_min_increase / 2.0
    scale, at = np.nonzero(more & (reach.sums[0] > reach.worst[0]) & enough & known)
    rate = (errors[at] + 1.0) / (requests[at] + 1.0)
    expected = (reach.n[scale, at] * rate)[None]
    found[at[_counted(reach, slice(0, 1), expected, scale, at, LOG_P_ERRORS)[0]]] = True
    return found | _together(reach, errors, requests, memory.groups, settings)


def _stirred(reach: _Reach, calm: Numbers, at: Ints, settings: DetectSettings) -> Bools:
    """Whether series whose reference holds an incident are unlike their `calm` stretches [slow or errors, series], or
    slow even by that reference; [series]."""
    n = reach.n[:, at]
    usual = np.maximum(n * calm[:, None], 1e-9)
    slow, failing, placed = reach.sums[len(QUANTILES)][:, at], reach.sums[0][:, at], reach.sums[-1][:, at]
    unlike = (chernoff(slow, usual[0]) <= LOG_STIRRED_P) | (chernoff(failing, usual[1]) <= LOG_STIRRED_P)
    unlike |= placed >= STIRRED_Z * np.sqrt(n / 12.0)
    stirred: Bools = np.asarray((unlike & (n >= settings.min_requests)).any(axis=0))
    return stirred


def _together(reach: _Reach, errors: Numbers, requests: Numbers, group: Ints, settings: DetectSettings) -> Bools:
    """Whether the operations of a service fail more, taken together; [series]."""
    of_several = np.flatnonzero(np.bincount(group, minlength=1)[group] > 1)
    if not len(of_several):
        return np.zeros(len(group), dtype=bool)
    order = of_several[np.argsort(group[of_several], kind="stable")]
    starts = np.flatnonzero(np.diff(group[order], prepend=-1))
    x, n = (np.add.reduceat(part[:, order], starts, axis=1) for part in (reach.sums[0], reach.n))
    before, out_of = (np.add.reduceat(part[order], starts) for part in (errors, requests))
    more = (x / np.maximum(n, 1.0) - before / out_of >= settings.error_min_increase / 2.0) & (
        n >= settings.min_requests
    )
    more &= chernoff(x, n * (before + 1.0) / (out_of + 1.0)) <= LOG_P_ERRORS
    found = np.zeros(len(group), dtype=bool)
    found[order] = np.repeat(more.any(axis=0), np.diff(np.append(starts, len(order))))
    return found


def _slower(reach: _Reach, reference: Reference, judged: Bools) -> Bools:
    """Latency, with an effect and evidence in the same of the lengths; [series]."""
    effects = np.array([0.01, 0.05, 0.50])[:, None, None]  # of the requests lie beyond what P99, P95 and P50 would be
    larger = (reach.effects >= 0.99 * effects * reach.n) & judged
    scale, at = np.nonzero(larger.any(axis=0))
    expected = np.maximum(reach.n[scale, at] * _wide(reference.shares, judged.shape[1])[:, at], 1e-3)
    evident = np.concatenate([_counted(reach, slice(1, 3), expected, scale, at), _placed(reach, scale, at)[None]])
    found: Bools = np.zeros(judged.shape[1], dtype=bool)
    found[at[(larger[:, scale, at] & evident).any(axis=0)]] = True
    return found


def _counted(reach: _Reach, which: slice, expected: Numbers, scale: Ints, at: Ints, log_p: float = LOG_P) -> Bools:
    """Whether counts are many, and many still without the worst window; [statistic, candidate]."""
    total, worst = reach.sums[which, scale, at], reach.worst[which, scale, at]
    rest = expected * reach.rest[scale, 0]
    counted: Bools = (chernoff(total, expected) <= log_p) & (chernoff(total - worst, rest) <= LOG_REST_P)
    return counted


def _placed(reach: _Reach, scale: Ints, at: Ints) -> Bools:
    """Whether ranks are high, and high still without the worst window; [candidate]."""
    rank = 1 + len(QUANTILES)
    total, worst, n = reach.sums[rank, scale, at], reach.worst[rank, scale, at], reach.n[scale, at]
    rest = np.sqrt(n * reach.rest[scale, 0] / 12.0)
    placed: Bools = (total >= RANK_Z * np.sqrt(n / 12.0)) & (total - worst >= REST_Z * rest)
    return placed


def _traffic(memory: Memory, settings: DetectSettings) -> Bools:
    """More or less in the newest minute than in any minute before; [series]."""
    end = min(memory.end, memory.last)
    minutes = min(memory.length, memory.length - (memory.end - end)) // MINUTE
    if minutes < 2:
        return np.zeros(memory.series, dtype=bool)
    starts = end - minutes * MINUTE + MINUTE * np.arange(minutes)
    before = max(1, minutes - memory.newest // MINUTE)  # as many as the widest guard leaves: no fault of minutes
    whole: Bools = np.asarray(memory.live[rows_of(starts[:before], memory)].all(axis=1))
    totals = _minutes(memory, end, minutes)
    past, now = totals[:before][whole], totals[-1]
    seen = memory.first <= starts[:before][whole][:, None]
    least = np.min(past, axis=0, initial=np.inf, where=seen)
    most = np.max(past, axis=0, initial=0.0)
    part = SLACK * settings.traffic_min_change
    fell, rose = now < least, now > most
    at = np.flatnonzero((fell | rose) & (most >= settings.min_requests))
    found = np.zeros(memory.series, dtype=bool)
    usual = _usual(past[:, at], seen[:, at])
    changed = np.where(fell[at], now[at] <= (1.0 - part) * usual, now[at] >= (1.0 + part) * usual)
    found[at] = changed & (poisson_bound(now[at], np.maximum(usual, 1e-3)) <= LOG_P)
    return found


def rows_of(starts: Ints, memory: Memory) -> Ints:
    """Positions in `Memory.live` of the minutes that start at these windows; [minute, window]."""
    position: Ints = starts[:, None] + np.arange(MINUTE) - (memory.end - memory.length)
    return position


def _minutes(memory: Memory, end: int, minutes: int) -> Numbers:
    """Requests of each whole minute before `end`, oldest first; [minute, series]."""
    totals = np.zeros((minutes, memory.series), np.float32)
    rows = memory.rows(minutes * MINUTE, end).reshape(minutes, MINUTE)
    for window in range(MINUTE):
        totals += memory.requests[rows[:, window]]
    return totals


def _usual(minutes: Numbers, seen: Bools) -> Numbers:
    """Median minute since each series was first seen; [series]."""
    if not minutes.size:
        return np.zeros(minutes.shape[1])
    ordered = np.sort(np.where(seen, minutes, np.inf), axis=0)
    count, at = seen.sum(axis=0), np.arange(minutes.shape[1])
    low, high = np.maximum(count - 1, 0) // 2, np.minimum(count // 2, len(ordered) - 1)
    median: Numbers = np.where(count > 0, (ordered[low, at] + ordered[high, at]) / 2.0, 0.0)
    return median


def _wide(values: Numbers, series: int) -> Numbers:
    """Series that the reference does not know are 0 in it."""
    wide: Numbers = np.zeros((*values.shape[:-1], series), values.dtype)
    wide[..., : values.shape[-1]] = values
    return wide
