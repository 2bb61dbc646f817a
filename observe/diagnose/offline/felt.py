"""What services felt and what they did: evidence from metrics.

Latency and failures travel from callee to caller, so a service answers for its own part only: what all its requests
waited or failed beyond before, less what its callees passed on. Use of processor, memory, disk and network does not
travel: it accuses where it moves, less what the moved traffic explains.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from observe.diagnose.offline.outward import EXCUSED, accused, outward_series, waits
from observe.diagnose.offline.places import Places
from observe.diagnose.offline.shifts import Shifts

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

CLEAR = 3.0
"""Robust standard deviations from which on a shift says something."""
PLAIN = 30.0
"""A shift that nobody doubts: weaker ones are not blown up where nothing stronger is to be seen."""
FALLEN = 0.5
"""What a fallen resource says beside a risen one: who is no longer asked does less, too."""
BETWEEN = 0.6
"""How far a callee is believed to be slow or failing where only its callers feel it."""
LEAST_ALIKE = 0.25
"""What is left of a suspicion where the suspect's series does not go with the symptom's."""


@dataclass(frozen=True, slots=True)
class Felt:
    """0..1 per service."""

    own: Floats  # part of the symptom that begins here, by latency and failures
    resource: Floats
    outward: Floats  # what its callers, by their own clocks, wait longer for


def surprise(z: Floats) -> Floats:
    """How much a shift says: a Student-t log likelihood ratio, so that ten times the size is one more step, not ten.

    (Lange, Little & Taylor 1989, doi:10.1080/01621459.1989.10478852)
    """
    return np.asarray(np.log1p((np.maximum(z, 0.0) / CLEAR) ** 2))


def certainty(z: Floats) -> Floats:
    """0..1: one half a little above CLEAR."""
    return _sure(surprise(z))


def _sure(clear: Floats) -> Floats:
    return np.asarray(clear / (1 + clear))


def felt(moved: Shifts, places: Places) -> Felt:
    wait = waits(moved, certainty(moved.up), places)
    excused = 1 - EXCUSED * np.nan_to_num(wait)
    return Felt(_own(moved, places) * excused, _resource(moved, places), accused(wait, places))


# ── what does not travel ────────────────────────────────────────────────────────────────────────────────────────────


def _resource(moved: Shifts, places: Places) -> Floats:
    """The most surprising resource of each service, relative to that of all services."""
    found = np.zeros(len(places.names))
    chosen = moved.of("resource", "network")
    where = places.index(moved.service[chosen])
    up = _beyond_traffic(moved.up[chosen], places.traffic_up[where])
    down = _beyond_traffic(moved.down[chosen], places.traffic_down[where])
    np.maximum.at(found, where, np.maximum(surprise(up), FALLEN * surprise(down)))
    return found / max(float(found.max(initial=0.0)), float(surprise(np.array(PLAIN))))


def _beyond_traffic(z: Floats, traffic: Floats) -> Floats:
    """A resource that moves no more clearly than the requests it serves tells nothing new."""
    return np.maximum(z - np.maximum(traffic, 0.0), 0.0)


# ── what travels ────────────────────────────────────────────────────────────────────────────────────────────────────


def _own(moved: Shifts, places: Places) -> Floats:
    found = np.zeros(len(places.names))
    pattern = _pattern(moved, places)
    inward = moved.of("latency", "success", "errors", "counts") & ~outward_series(moved)
    for name in np.unique(moved.metric[inward]):
        found = np.maximum(found, _layer(moved, np.flatnonzero(moved.metric == name), places, pattern))
    return found


def _layer(moved: Shifts, layer: Ints, places: Places, pattern: Floats | None) -> Floats:
    """One metric of all services: the part of the symptom's rise that is each service's own."""
    size = len(places.names)
    where = places.index(moved.service[layer])
    rise, clear, alike, level = np.zeros(size), np.zeros(size), np.ones(size), np.ones(size)
    rise[where] = np.maximum(moved.after_high[layer] - moved.before[layer], 0.0)
    clear[where] = surprise(moved.up[layer])
    if pattern is not None:
        alike[where] = _alike(moved, layer, pattern)
    latency = str(moved.kind[layer[0]]) == "latency"
    weight = 1.0
    if places.symptom_kind and latency != (places.symptom_kind == "latency"):
        weight = float(_sure(clear)[places.symptom])
    requests = places.requests.copy()
    requests[where[moved.kind[layer] == "counts"]] = 1.0
    amount = rise * requests
    own = np.maximum(amount - places.passed_on @ amount, 0.0)
    fits = _fits(own, amount, clear, places)
    if not places.known:
        # Nobody says what was passed on. What users feel is a large amount; and who passes it on does other things as
        # well, so the part of its time, or of its requests, that went bad is smaller than where it began.
        level[where] = np.abs(moved.before[layer]) + rise[where] if latency else 1.0
        fits = np.sqrt(fits * _relative(rise / np.maximum(level, 1e-300)))
    clearest = clear / max(float(clear.max(initial=0.0)), 1e-300)
    found = np.asarray(weight * _sure(clear) * clearest * alike * fits * places.reached)
    return _with_between(found, own, places) if places.known else found


def _with_between(found: Floats, own: Floats, places: Places) -> Floats:
    """What callers feel and the callee's own clock does not cover: its network, or its failure to answer.

    It accuses a callee by the part of all that is unexplained at its callers, and by the part of its calls that come
    from those; where that is more than any one of them can account for, they are the less suspect for it.
    """
    most = float(found.max(initial=0.0))
    accused = (found > 0) & (found >= most / len(found))
    unexplained = own * accused
    if not unexplained.any():
        return found
    covers = places.calls.T @ unexplained / unexplained.max()
    ratio = BETWEEN * covers * (places.passed_on.T @ accused)
    sure = (places.calls * found[:, None]).max(axis=0, initial=0.0)
    relieved = (places.calls * np.maximum(ratio, 1.0)).max(axis=1, initial=1.0)
    return np.asarray(np.maximum(found / relieved, np.minimum(ratio, 1.0) * sure))


def _relative(values: Floats) -> Floats:
    return np.asarray(values / max(float(values.max(initial=0.0)), 1e-300))


def _fits(own: Floats, amount: Floats, clear: Floats, places: Places) -> Floats:
    """1 where a service's own amount is all of the symptom's. Who adds more than arrived is not waited for. Where the
    symptom did not clearly move, amounts compare with the largest."""
    relative = _relative(own)
    if places.symptom < 0 or amount[places.symptom] <= 0:
        return relative
    share: Floats = own / amount[places.symptom]
    trust = float(_sure(clear)[places.symptom])
    return np.asarray(trust * np.where(share > 1, 1 / np.maximum(share, 1.0), share) + (1 - trust) * relative)


def _pattern(moved: Shifts, places: Places) -> Floats | None:
    """The symptom's own series, where somebody noticed it and it did move."""
    if places.symptom < 0:
        return None
    named = (moved.service == places.names[places.symptom]) & (moved.metric == places.symptom_metric)
    found = np.flatnonzero(named)
    if not len(found) or moved.up[found[0]] < CLEAR:
        return None
    return _recent(moved)[:, found[0]]


def _alike(moved: Shifts, layer: Ints, pattern: Floats) -> Floats:
    """Correlation with the symptom, from just before the fault on: what causes it comes and goes with it."""
    x = _recent(moved)[:, layer]
    x, y = x - x.mean(axis=0), pattern - pattern.mean()
    size = np.sqrt((x**2).sum(axis=0) * (y**2).sum())
    r = np.divide(y @ x, size, out=np.zeros(len(layer)), where=size > 0)
    return np.asarray(LEAST_ALIKE + (1 - LEAST_ALIKE) * np.maximum(r, 0.0))


def _recent(moved: Shifts) -> Floats:
    """Rows of the fault and twice as many before it."""
    begin = int(np.argmax(moved.is_after))
    return moved.values[max(0, begin - 2 * (len(moved.values) - begin)) :]
