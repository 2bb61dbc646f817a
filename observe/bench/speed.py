"""Seconds from what was noticed to ranked causes, by size of the fleet, beside what one would write first."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np

from observe.bench.brute import by_hand
from observe.bench.large import Large, large
from observe.diagnose import diagnose
from observe.settings import DiagnoseSettings
from observe.types import Json

SIZES = ((100, 500), (1_000, 5_000))
"""Services and edges."""
REPEATS = 3


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
    ranked, finished = by_hand(given)
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


def text(result: Json) -> str:
    """The result as lines for people."""
    return "\n".join(
        f"{entry['services']:6} services, {entry['edges']:6} edges, {entry['symptoms']:4} symptoms: "
        f"{entry['seconds']:.2f} s ({entry['cpu_seconds']:.2f} s of processor), "
        f"{'right' if entry['first_right'] else 'wrong'}; row by row in Python {entry['plain_cpu_seconds']:.1f} s"
        + ("" if entry["plain_finished"] else ", stopped")
        for entry in result["sizes"]
    )
