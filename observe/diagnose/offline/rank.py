"""One ranking from all evidence."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from observe.diagnose.offline.case import Case
from observe.diagnose.offline.felt import FALLEN, certainty, felt, surprise
from observe.diagnose.offline.news import news
from observe.diagnose.offline.places import Places, places
from observe.diagnose.offline.shifts import Shifts, shifts, wide
from observe.diagnose.offline.silence import silence
from observe.diagnose.offline.stops import stops
from observe.diagnose.offline.trees import called, trees, with_leads
from observe.diagnose.offline.waiting import waiting

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

TRUST = {
    "waiting": 0.95,
    "stops": 0.9,
    "news": 0.5,
    "resource": 0.6,
    "own": 0.6,
    "outward": 0.5,
    "silence": 0.8,
    "any": 0.02,
}
"""How far each kind of evidence is believed at most. What is seen in requests themselves comes before what pods use."""
LESS = 0.7
"""What each next metric of a service counts for, of the one before."""
MOST = 10
"""Metrics that are told."""
BESIDE_SPANS = 0.2
"""Trust in `own` and `outward` where there are spans: they measure the same, request by request."""


@dataclass(frozen=True, slots=True)
class Ranked:
    """Services from most to least suspect; `metric`, `score` and each row of `evidence` (0..1) go with them."""

    services: list[str]
    metric: list[str]  # the service's own that moved most clearly; "" where it has none
    resources: list[tuple[str, str]]  # (service, metric), most suspect first, MOST of them
    score: list[float]
    evidence: dict[str, list[float]]


def rank(case: Case) -> Ranked:
    """Every service of the case's data, ranked. Evidence is joined by noisy-or: each kind alone may accuse
    (Pearl 1988, doi:10.1016/C2009-0-27609-4, ch. 4). Ties go by name."""
    before, after = trees(case.spans_before), trees(case.spans_after)
    before, after = with_leads(before, before), with_leads(after, before)
    calls = called(before) | called(after)
    edges = calls | set(zip(case.graph["caller"].to_list(), case.graph["callee"].to_list(), strict=True))
    table = wide(case.metrics)
    moved = shifts(table, case.inject_at_s, edges)
    where = places(case, moved, calls)
    evidence = _from_metrics(moved, where)
    evidence["silence"] = silence(table, case.inject_at_s, where)
    if before.height and after.height:
        evidence["waiting"] = waiting(before, after, where.names)
        evidence["stops"] = stops(before, after, where.names)
        evidence["news"] = news(before, after, where.names)
    trust = TRUST | ({"own": BESIDE_SPANS, "outward": BESIDE_SPANS} if "waiting" in evidence else {})
    score = 1 - np.prod([1 - trust[kind] * value for kind, value in evidence.items()], axis=0)
    order = np.lexsort((where.names, -score))
    clearest = _clearest(moved)
    return Ranked(
        where.names[order].tolist(),
        _loudest(moved, where, clearest)[order].tolist(),
        _resources(moved, where, clearest, score),
        score[order].tolist(),
        {kind: value[order].tolist() for kind, value in evidence.items()},
    )


def _clearest(moved: Shifts) -> Ints:
    """Series, those that moved most clearly last; what a service does comes before what that does to requests."""
    says = np.maximum(surprise(moved.up), FALLEN * surprise(moved.down))
    cause = moved.of("resource", "network") & (certainty(moved.up) > 0.5)
    return np.asarray(np.lexsort((moved.metric, -says, ~cause))[::-1], dtype=np.int64)


def _loudest(moved: Shifts, where: Places, clearest: Ints) -> NDArray[np.str_]:
    found = np.full(len(where.names), "", dtype=moved.metric.dtype if len(moved.metric) else np.str_)
    found[where.index(moved.service[clearest])] = moved.metric[clearest]  # the last one written is the clearest
    return found


def _resources(moved: Shifts, where: Places, clearest: Ints, score: Floats) -> list[tuple[str, str]]:
    """Metrics of likely services, the clearest of each first."""
    service = where.index(moved.service[clearest[::-1]])
    place = np.zeros(len(service))
    for number in np.unique(service).tolist():
        mine = service == number
        place[mine] = np.arange(int(mine.sum()))
    order = np.argsort(-score[service] * LESS**place, kind="stable")[:MOST]
    series = clearest[::-1][order]
    return list(zip(moved.service[series].tolist(), moved.metric[series].tolist(), strict=True))


def _from_metrics(moved: Shifts, where: Places) -> dict[str, Floats]:
    felt_here = felt(moved, where)
    anything = np.zeros(len(where.names))
    np.maximum.at(anything, where.index(moved.service), certainty(np.maximum(moved.up, moved.down)))
    return {
        "own": felt_here.own,
        "resource": felt_here.resource,
        "outward": felt_here.outward,
        "any": anything * where.reached,
    }
