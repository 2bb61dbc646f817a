"""Which of the calls that overlap a caller really waits for.

A request waits for the longest of the calls that it makes at once, so a call can get slower without costing anybody a
millisecond. Sums over windows do not hold the order of calls, but they show what moves what: over the windows, what a
service waits for in all, A_w, follows the calls on its critical path and no others. So A_w is fitted by the times of
its calls, Σ_e β_e T_ew with 0 ≤ β_e ≤ 1 (bounded least squares: Stark & Parker 1995, Computational Statistics 10), and
β_e is the part of a call's change that reaches the caller. Only where calls overlap and several of them changed is
there anything to tell apart.
"""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.optimize import lsq_linear

from observe.diagnose.levels import summed_up

OVERLAP, SIGMAS = 0.95, 5.0
"""Calls overlap where the caller waits for less than this part of their sum, beyond so many standard errors."""
CHANGED = 0.03
"""A call whose time changed by this part of the caller's duration did change."""
MISFIT = 0.2
"""A fit that misses the caller's change by more than this part of it tells nothing."""
LEAST_WINDOWS = 10
PRIOR = 1e-5
"""Weight of "all calls alike" beside the windows: it decides what they leave open."""

Floats = NDArray[np.float64]


def candidates(
    apart: Floats, waits: Floats, counts: Floats, duration: Floats, caller: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Numbers of the services whose calls overlap and of whose calls two or more changed, both beyond noise.

    `apart` (2, services) is what they wait for in all, `waits` (2, edges) the time of their calls, 0 for those that
    nobody waits for, `counts` how many there were.
    """
    size = apart.shape[1]
    error = waits / np.sqrt(np.maximum(counts, 1.0))
    total = np.stack([np.bincount(caller, w, size) for w in waits])
    noise = np.sqrt(np.stack([np.bincount(caller, e**2, size) for e in error]))
    overlap = np.any((apart < OVERLAP * total) & (total - apart > SIGMAS * noise), axis=0)
    least = np.maximum(CHANGED * duration[caller], SIGMAS * np.sqrt((error**2).sum(axis=0)))
    moved = np.abs(waits[1] - waits[0]) > least
    return np.flatnonzero(overlap & (np.bincount(caller, moved, size) >= 2))


def reaching(
    service: str, selfs: pl.DataFrame, edges: pl.DataFrame, asked: pl.DataFrame, callees: list[str], level: float
) -> Floats | None:
    """β of the calls to each of `callees`; None where the windows do not tell.

    Tables are those of a picture: by window, with `period`, `edges` with `waited`; `level` is the part of the calls'
    time that was waited for before.
    """
    own = summed_up(
        selfs.filter((pl.col("service") == service) & (pl.col("kind") != "Client")), ["service"], ["self_sum_ms"]
    )
    here = asked.filter((pl.col("service") == service) & pl.col("period").is_not_null())
    table = here.join(own.drop("service"), on="window_start_ns").sort("window_start_ns")
    called = summed_up(edges.filter(pl.col("caller") == service), ["callee"], ["waited"])
    if table.height < max(LEAST_WINDOWS, 2 * len(callees)):
        return None
    n = np.maximum(table["requests"].to_numpy(), 1.0)
    waited = (table["duration_sum_ms"] - table["self_sum_ms"]).to_numpy() / n
    number = {callee: i for i, callee in enumerate(callees)}
    window = {at: i for i, at in enumerate(table["window_start_ns"].to_list())}
    times = np.zeros((table.height, len(callees)))
    for callee, at, total in called.select("callee", "window_start_ns", "waited").iter_rows():
        if callee in number and at in window:
            times[window[at], number[callee]] = total / n[window[at]]
    beta = _fitted(times, waited, n, level)
    return beta if _holds(beta, times, waited, n, table["period"].to_numpy() == 1) else None


def _fitted(times: Floats, waited: Floats, n: Floats, level: float) -> Floats:
    weight = np.sqrt(n)[:, None]
    firm = np.sqrt(PRIOR * float(((times * weight) ** 2).sum(axis=0).mean()))
    rows = np.vstack([times * weight, firm * np.eye(times.shape[1])])
    target = np.concatenate([waited * weight[:, 0], np.full(times.shape[1], firm * level)])
    return np.asarray(lsq_linear(rows, target, bounds=(0.0, 1.0)).x, np.float64)


def _holds(beta: Floats, times: Floats, waited: Floats, n: Floats, after: NDArray[np.bool_]) -> bool:
    """Whether the fit gives the change of what is waited for."""
    if after.all() or not after.any():
        return False
    change, fitted = (_mean(x, n, after) - _mean(x, n, ~after) for x in (waited, times @ beta))
    return abs(fitted - change) <= MISFIT * abs(change) + CHANGED * _mean(waited, n, np.ones(len(n), bool))


def _mean(values: Floats, n: Floats, some: NDArray[np.bool_]) -> float:
    return float(np.average(values[some], weights=n[some]))
