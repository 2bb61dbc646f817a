"""Services of a case: who calls whom, how often, and how far from where the trouble was noticed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from observe.diagnose.offline.case import Case
from observe.diagnose.offline.names import kind_of
from observe.diagnose.offline.shifts import Shifts

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

UNREACHED = 0.2
"""What is left of a suspicion against a service that the symptom does not depend on, as far as the graph knows."""


@dataclass(frozen=True, slots=True)
class Places:
    """`names` are sorted; arrays have one entry per name, `calls` and `passed_on` are caller × callee."""

    names: NDArray[np.str_]
    calls: NDArray[np.bool_]
    known: bool  # whether anybody said who calls whom; else the symptom stands for a caller of all
    passed_on: Floats  # the part of a callee's requests that this caller makes
    requests: Floats  # per step, 1 where unknown
    traffic_up: Floats
    traffic_down: Floats
    reached: Floats  # 1 where the symptom depends on it
    symptom: int  # -1 where unknown
    symptom_kind: str
    symptom_metric: str

    def index(self, services: NDArray[np.str_]) -> Ints:
        return np.asarray(np.searchsorted(self.names, services), dtype=np.int64)


def places(case: Case, moved: Shifts, pairs: set[tuple[str, str]]) -> Places:
    """`pairs` are calls seen in spans; they join those of the case's graph."""
    edges = pairs | set(zip(case.graph["caller"].to_list(), case.graph["callee"].to_list(), strict=True))
    names = np.array(sorted({*case.services(), *(end for edge in edges for end in edge)}), dtype=np.str_)
    at = {name: i for i, name in enumerate(names.tolist())}
    calls = np.zeros((len(names), len(names)), dtype=np.bool_)
    for caller, callee in edges:
        calls[at[caller], at[callee]] = caller != callee
    requests, up, down = _traffic(names, moved)
    symptom = at.get(case.symptom_service, -1) if case.symptom_service else _entry(calls)
    told = (moved.service == case.symptom_service) & (moved.metric == case.symptom_metric)
    metric = case.symptom_metric if told.any() else _loudest(names, symptom, moved)
    reached = reach(calls, symptom) if symptom >= 0 else np.ones(len(names), dtype=np.bool_)
    known = bool(calls.any())
    if symptom >= 0 and not known:  # nobody knows the graph: the symptom may wait for anybody
        reached[:] = True
        calls[symptom] = np.arange(len(names)) != symptom
    weight = calls * requests[:, None]
    return Places(
        names,
        calls,
        known,
        weight / np.maximum(weight.sum(axis=0), 1e-300),
        requests,
        up,
        down,
        np.where(reached, 1.0, UNREACHED),
        symptom,
        _kind(metric, moved),
        metric,
    )


def _kind(metric: str, moved: Shifts) -> str:
    same = np.flatnonzero(moved.metric == metric)
    return str(moved.kind[same[0]]) if len(same) else kind_of(metric) if metric else ""


def _entry(calls: NDArray[np.bool_]) -> int:
    """Where users would notice, if nobody said: the service that nobody calls and that depends on the most; -1 where
    two do, or none."""
    tops = np.flatnonzero(calls.any(axis=1) & ~calls.any(axis=0))
    below = [int(reach(calls, int(top)).sum()) for top in tops]
    most = max(below, default=0)
    return int(tops[below.index(most)]) if below.count(most) == 1 else -1


def _loudest(names: NDArray[np.str_], symptom: int, moved: Shifts) -> str:
    """The latency or failure metric of the symptom's service that rose most clearly."""
    if symptom < 0:
        return ""
    felt = np.flatnonzero((moved.service == names[symptom]) & moved.of("latency", "success", "errors", "counts"))
    return str(moved.metric[felt[np.argmax(moved.up[felt])]]) if len(felt) else ""


def reach(calls: NDArray[np.bool_], start: int) -> NDArray[np.bool_]:
    """Which nodes `start` depends on, itself included. Each round adds callees of what was found, so cycles end."""
    found = np.zeros(len(calls), dtype=np.bool_)
    found[start] = True
    while True:
        more = found | calls[found].any(axis=0)
        if (more == found).all():
            return found
        found = more


def _traffic(names: NDArray[np.str_], moved: Shifts) -> tuple[Floats, Floats, Floats]:
    """Requests per step after the fault began, and how clearly they rose and fell."""
    requests, up, down = np.full(len(names), np.nan), np.zeros(len(names)), np.zeros(len(names))
    chosen = moved.of("traffic")
    where = np.searchsorted(names, moved.service[chosen])
    level = (moved.after_high[chosen] + moved.after_low[chosen]) / 2
    np.fmax.at(requests, where, np.maximum(level, 0.0))
    np.maximum.at(up, where, moved.up[chosen])
    np.maximum.at(down, where, moved.down[chosen])
    if np.isnan(requests).all():
        return np.ones(len(names)), up, down
    return np.where(np.isfinite(requests), requests, np.nanmedian(requests)), up, down
