"""Seconds from what was noticed to ranked causes, by size of the fleet, beside what one would write first."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Sequence

import numpy as np

from observe.bench.large import Large, large
from observe.diagnose import diagnose
from observe.settings import DiagnoseSettings
from observe.types import Json

SIZES = ((100, 500), (1_000, 5_000))
"""Services and edges."""
REPEATS = 3
PATIENCE_S = 60.0
"""After this the plain version is stopped, and its figure is a lower bound."""
LEAST = 1e-4
"""The plain version follows a path no further than where less of a request than this arrives."""


def speed(sizes: Sequence[tuple[int, int]] = SIZES, progress: Callable[[int], None] = lambda done: None) -> Json:
    """One entry per size, an hour of 1,000 requests a second each; medians of REPEATS looks.

    Reading the frames from a store is not in it: the watcher has them when it decides to diagnose.
    """
    entries = []
    for services, edges in sizes:
        entries.append(_measured(large(services, edges)))
        progress(services)
    return {"requests_per_s": 1000.0, "windows": 360, "sizes": entries}


def _measured(given: Large) -> Json:
    looks, first = [], ""
    for _ in range(REPEATS):
        wall, cpu = time.perf_counter(), time.process_time()
        found = diagnose(given.shifts, given.frames, given.now_ns, DiagnoseSettings())
        looks.append((time.perf_counter() - wall, time.process_time() - cpu))
        first = found[0].causes[0].service if found else ""
    seconds, cpu_seconds = np.median(looks, axis=0).tolist()
    cpu = time.process_time()
    ranked, finished = by_paths(given)
    plain_s = time.process_time() - cpu
    return {
        "services": given.services,
        "edges": given.edges,
        "requests": given.requests,
        "rows": given.frames.selfs.height + given.frames.edges.height,
        "symptoms": len(given.shifts),
        "seconds": round(seconds, 3),
        "cpu_seconds": round(cpu_seconds, 3),
        "first_right": first == given.guilty,
        "plain_cpu_seconds": round(plain_s, 3),
        "plain_finished": finished,
        "plain_first_right": bool(ranked) and ranked[0] == given.guilty,
        "plain_over_ours": round(plain_s / cpu_seconds, 1),
    }


def by_paths(given: Large) -> tuple[list[str], bool]:
    """Services by what they add to the symptoms along every path of calls, row by row in Python; and whether all paths
    were walked."""
    stop_s = time.process_time() + PATIENCE_S
    onset_ns = min(s.onset_ns for s in given.shifts)
    count: dict[tuple[str, bool], float] = defaultdict(float)
    spent: dict[tuple[str, bool], float] = defaultdict(float)
    for at_ns, service, n, ms in given.frames.selfs.select(
        "window_start_ns", "service", "requests", "self_sum_ms"
    ).iter_rows():
        count[service, at_ns >= onset_ns] += n
        spent[service, at_ns >= onset_ns] += ms
    calls: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for at_ns, caller, callee, n in given.frames.edges.select(
        "window_start_ns", "caller", "callee", "calls"
    ).iter_rows():
        if at_ns < onset_ns:
            calls[caller][callee] += n / max(count[caller, False], 1.0)
    rise = {
        service: spent[service, True] / n - spent[service, False] / max(count[service, False], 1.0)
        for (service, after), n in count.items()
        if after and n
    }
    blame: dict[str, float] = defaultdict(float)
    for shift in given.shifts:
        pending = [(shift.service, 1.0)]
        while pending:
            if time.process_time() > stop_s:
                return _ranked(blame), False
            service, weight = pending.pop()
            blame[service] += weight * max(rise.get(service, 0.0), 0.0) / max(shift.after - shift.before, 1e-9)
            pending += [(callee, weight * k) for callee, k in calls[service].items() if weight * k > LEAST]
    return _ranked(blame), True


def _ranked(blame: dict[str, float]) -> list[str]:
    return sorted(blame, key=lambda service: (-blame[service], service))


def text(result: Json) -> str:
    """The result as lines for people."""
    return "\n".join(
        f"{entry['services']:6} services, {entry['edges']:6} edges, {entry['symptoms']:4} symptoms: "
        f"{entry['seconds']:.2f} s ({entry['cpu_seconds']:.2f} s of processor), "
        f"{'right' if entry['first_right'] else 'wrong'}; plain paths {entry['plain_cpu_seconds']:.1f} s"
        + ("" if entry["plain_finished"] else ", stopped")
        for entry in result["sizes"]
    )
