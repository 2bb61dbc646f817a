"""The diagnosis as one would write it first: the same questions, row by row and suspect by suspect, in plain Python.

Self times and edges with their noise over windows, every path from every symptom, and for each suspect its onset, its
correlation with the symptom, and which instance and host carry the excess. It leaves out what the sets that it is
measured on do not need: tails, errors, traffic, releases, devices. No numpy, no group-by, no bounds but the patience.
"""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from observe.bench.large import Large
from observe.types import WINDOW_NS

PATIENCE_S = 60.0
"""After this it is stopped, and its figure is a lower bound."""
LEAST = 1e-4
"""A path is followed no further than where less of a request than this arrives."""
BEFORE_NS, GUARD_NS = 120 * WINDOW_NS, 2 * WINDOW_NS
SIGMAS = 2.0

Cells = dict[int, list[float]]
"""Count and total by window."""


@dataclass
class _Sums:
    """What one pass over the rows leaves: cells by key."""

    own: dict[str, Cells] = field(default_factory=dict)  # service
    lasted: dict[str, Cells] = field(default_factory=dict)
    places: dict[str, dict[tuple[str, str], Cells]] = field(default_factory=dict)  # service → (instance, host)
    way: dict[tuple[str, str], Cells] = field(default_factory=dict)  # caller, callee


def by_hand(given: Large) -> tuple[list[str], bool]:
    """Services by confidence, and whether all paths were walked within PATIENCE_S of processor time."""
    stop_s = time.process_time() + PATIENCE_S
    onset_ns = min(s.onset_ns for s in given.shifts)
    sums = _read(given, onset_ns)
    rises = {name: _change(cells, onset_ns) for name, cells in sums.own.items()}
    ways = {pair: _change(cells, onset_ns) for pair, cells in sums.way.items()}
    calls = _calls_per_request(sums, onset_ns)
    scores: dict[str, float] = defaultdict(float)
    for shift in given.shifts:
        blame, finished = _walked(shift.service, rises, ways, calls, stop_s)
        if not finished:
            return _ranked(scores), False
        total = sum(blame.values())
        symptom = _means(sums.lasted.get(shift.service, {}))
        for name, amount in blame.items():
            if total and amount > 0.01 * total:
                scores[name] += amount / total * _bears_out(_means(sums.own.get(name, {})), symptom, onset_ns)
    for name in _ranked(scores)[:5]:
        _narrowed(sums.places.get(name, {}), onset_ns)
    return _ranked(scores), True


def _read(given: Large, onset_ns: int) -> _Sums:
    sums, first_ns = _Sums(), onset_ns - GUARD_NS - BEFORE_NS
    columns = ("window_start_ns", "service", "instance", "host", "requests", "self_sum_ms", "duration_sum_ms")
    for at_ns, service, instance, host, n, own, lasted in given.frames.selfs.select(columns).iter_rows():
        if at_ns >= first_ns:
            _add(sums.own.setdefault(service, {}), at_ns, n, own)
            _add(sums.lasted.setdefault(service, {}), at_ns, n, lasted)
            _add(sums.places.setdefault(service, {}).setdefault((instance, host), {}), at_ns, n, own)
    ends = ("window_start_ns", "caller", "callee", "calls", "client_sum_ms", "server_sum_ms")
    for at_ns, caller, callee, n, client, server in given.frames.edges.select(ends).iter_rows():
        if at_ns >= first_ns:
            _add(sums.way.setdefault((caller, callee), {}), at_ns, n, client - server)
    return sums


def _add(cells: Cells, at_ns: int, count: float, total: float) -> None:
    cell = cells.setdefault(at_ns, [0.0, 0.0])
    cell[0] += count
    cell[1] += total


def _level(cells: Iterable[Sequence[float]]) -> tuple[float, float, float]:
    """(count, mean, variance of the mean) of cells, the windows' own spread included."""
    cells = list(cells)
    n, total = sum(c[0] for c in cells), sum(c[1] for c in cells)
    if not n:
        return 0.0, 0.0, 0.0
    mean = total / n
    spread = sum(c[0] * (c[1] / c[0] - mean) ** 2 for c in cells if c[0]) / max(len(cells) - 1, 1)
    return n, mean, spread / n


def _change(cells: Cells, onset_ns: int) -> tuple[float, float]:
    """(change of the mean, its standard error)."""
    _, before, noise = _level(c for at, c in cells.items() if at < onset_ns - GUARD_NS)
    _, after, more = _level(c for at, c in cells.items() if at >= onset_ns)
    return after - before, math.sqrt(noise + more)


def _calls_per_request(sums: _Sums, onset_ns: int) -> Mapping[str, Mapping[str, float]]:
    requests = {name: sum(c[0] for at, c in cells.items() if at < onset_ns) for name, cells in sums.own.items()}
    found: dict[str, dict[str, float]] = defaultdict(dict)
    for (caller, callee), cells in sums.way.items():
        count = sum(c[0] for at, c in cells.items() if at < onset_ns)
        found[caller][callee] = count / max(requests.get(caller, 0.0), 1.0)
    return found


def _walked(
    service: str,
    rises: Mapping[str, tuple[float, float]],
    ways: Mapping[tuple[str, str], tuple[float, float]],
    calls: Mapping[str, Mapping[str, float]],
    stop_s: float,
) -> tuple[Mapping[str, float], bool]:
    """What each service adds along every path of calls from `service`, beyond noise."""
    blame: dict[str, float] = defaultdict(float)
    pending = [(service, 1.0)]
    while pending:
        if time.process_time() > stop_s:
            return blame, False
        name, weight = pending.pop()
        rise, error = rises.get(name, (0.0, 0.0))
        blame[name] += max(weight * (rise - SIGMAS * error), 0.0)
        for callee, count in calls.get(name, {}).items():
            if weight * count > LEAST:
                rise, error = ways[name, callee]
                blame[callee] += max(weight * count * (rise - SIGMAS * error), 0.0)
                pending.append((callee, weight * count))
    return blame, True


def _means(cells: Cells) -> list[tuple[int, float]]:
    return [(at, c[1] / c[0]) for at, c in sorted(cells.items()) if c[0]]


def _bears_out(own: list[tuple[int, float]], symptom: list[tuple[int, float]], onset_ns: int) -> float:
    """How far a suspect's series speaks for it: it moved no later than the symptom, and goes with it."""
    started = _split(own)
    late = 0.0 if started is None else max(0.0, (started - onset_ns) / WINDOW_NS - 1)
    return max(0.3, 1 - 0.15 * late) * (0.7 + 0.3 * max(0.0, _correlation(dict(own), dict(symptom))))


def _split(series: list[tuple[int, float]]) -> int | None:
    """Where the series is cut best into two levels: every cut is tried."""
    best, at = 0.0, None
    for i in range(1, len(series)):
        left, right = [x for _, x in series[:i]], [x for _, x in series[i:]]
        rise = sum(right) / len(right) - sum(left) / len(left)
        gain = rise * abs(rise) * len(left) * len(right)
        if gain > best:
            best, at = gain, series[i][0]
    return at


def _correlation(one: Mapping[int, float], other: Mapping[int, float]) -> float:
    both = [(one[at], other[at]) for at in one if at in other]
    if len(both) < 5:
        return 0.0
    a = sum(x for x, _ in both) / len(both)
    b = sum(y for _, y in both) / len(both)
    size = math.sqrt(sum((x - a) ** 2 for x, _ in both) * sum((y - b) ** 2 for _, y in both))
    return sum((x - a) * (y - b) for x, y in both) / size if size else 0.0


def _narrowed(places: Mapping[tuple[str, str], Cells], onset_ns: int) -> tuple[str, str]:
    """The instance and host whose mean rose most."""
    return max(places, key=lambda place: (_change(places[place], onset_ns)[0], place), default=("", ""))


def _ranked(scores: Mapping[str, float]) -> list[str]:
    return sorted(scores, key=lambda name: (-scores[name], name))
