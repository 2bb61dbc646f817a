"""Latency as callers measure it (client side): it accuses whom they call, not them.

A service whose own clock and whose calls got slower alike only waits. Where the calls are known, whom every slow caller
calls is the likeliest: it answers for the part of the slow calls that may have gone to it, and for the part of its
callers that are slow. Who waits for somebody itself passes the blame on.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from observe.diagnose.offline.names import is_outward
from observe.diagnose.offline.places import Places
from observe.diagnose.offline.shifts import Shifts

Floats = NDArray[np.float64]

EXCUSED = 0.7
"""What a service that clearly waits for others is excused from, of what its own clock says."""


def outward_series(moved: Shifts) -> NDArray[np.bool_]:
    """Latencies of calls that the service makes; [series]."""
    named = {metric: is_outward(metric) for metric in np.unique(moved.metric).tolist()}
    told = np.array([named[metric] for metric in moved.metric.tolist()], dtype=np.bool_)
    return np.asarray(told & moved.of("latency"))


def waits(moved: Shifts, certain: Floats, places: Places) -> Floats:
    """How surely each service waits longer for those it calls, 0..1; nan where nobody measured it. `certain` is that of
    each series' rise."""
    found = np.full(len(places.names), np.nan)
    chosen = outward_series(moved)
    np.fmax.at(found, places.index(moved.service[chosen]), certain[chosen])
    return found


def accused(wait: Floats, places: Places) -> Floats:
    """0..1 per service: how far it explains what its callers wait for."""
    told = np.isfinite(wait)
    slow = np.where(told, wait, 0.0)
    if not places.known or not slow.any():
        return np.zeros(len(wait))
    callers = places.calls & told[:, None]
    felt = callers * slow[:, None]
    covers = felt.sum(axis=0) / max(float((slow * places.calls.any(axis=1)).sum()), 1e-300)
    alike = felt.sum(axis=0) / np.maximum(callers.sum(axis=0), 1)
    passes_on = np.where(places.calls.any(axis=1), slow, 0.0)
    return np.asarray(np.minimum(covers, 1.0) * alike * felt.max(axis=0, initial=0.0) * (1 - passes_on))
