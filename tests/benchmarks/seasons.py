"""Nightly jobs with and without `detect.seasons`: `python -m tests.benchmarks.seasons [--services 10] [--seed 1]`.

Each service has a job at two that begins up to 3 min earlier or later and takes 20 min: latency, errors or traffic
move by a factor of its own, on top of a daily cycle of traffic. A week is known. Replays say how often people are told
of the job as it always is, of a fault as large again within it (0 s: of the job before it), and of a first fault at
another time, and after how long.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from statistics import median

import numpy as np

from observe.settings import load
from observe.types import Incident, Json, State
from tests.unit.days import DAY_NS, MINUTE_NS, MONDAY_NS, Now, Past

JOB_NS, LENGTH_NS = 120 * MINUTE_NS, 20 * MINUTE_NS
KNOWN_NS = 7 * DAY_NS + 120 * MINUTE_NS
WATCHED_NS = 5 * MINUTE_NS
KINDS = ("latency", "errors", "traffic")


@dataclass(frozen=True, slots=True)
class Service:
    kind: str
    requests: float  # in a window
    daily: float
    factor: float
    late_ns: dict[int, int]  # by day

    def moved(self, now: Now, by: float) -> Now:
        if self.kind == "latency":
            return replace(now, median_ms=now.median_ms * by)
        if self.kind == "errors":
            return replace(now, errors=min(1.0, now.errors + 0.04 * by))
        return replace(now, requests=round(now.requests * by))

    def usual(self, at_ns: int, job: bool = True) -> Now:
        day, since = divmod(at_ns, DAY_NS)
        cycle = 1.0 + self.daily * np.sin(2 * np.pi * since / DAY_NS)
        now = Now(requests=round(self.requests * cycle), errors=0.003)
        began = JOB_NS + self.late_ns[day]
        return self.moved(now, self.factor) if job and began <= since < began + LENGTH_NS else now


def drawn(rng: np.random.Generator, kind: str) -> Service:
    days = range(MONDAY_NS // DAY_NS - 9, MONDAY_NS // DAY_NS + 2)
    late = {day: int(rng.uniform(-3, 3) * MINUTE_NS) for day in days}
    late[MONDAY_NS // DAY_NS] = 0
    return Service(kind, rng.uniform(50, 300), rng.uniform(0, 0.8), rng.uniform(2.5, 5.0), late)


def cases(service: Service) -> dict[str, tuple[int, Callable[[int], Now]]]:
    """Onset of each case, and what the service does."""
    job, noon = MONDAY_NS + JOB_NS, MONDAY_NS + 6 * JOB_NS
    within = job + 6 * MINUTE_NS

    def once(from_ns: int) -> Callable[[int], Now]:
        def behaves(at_ns: int) -> Now:
            now = service.usual(at_ns)
            return service.moved(now, service.factor) if at_ns >= from_ns else now

        return behaves

    return {"job as usual": (job, service.usual), "fault within the job": (within, once(within)),
            "fault at noon": (noon, once(noon)), "nothing": (noon + 60 * MINUTE_NS, service.usual)}  # fmt: skip


def told(incidents: list[Incident], onset_ns: int) -> float | None:
    """Seconds from the onset until people knew of one."""
    fired = [i.fired_ns for i in incidents if i.fired_ns and i.state != State.PENDING]
    return min((max(0.0, (at - onset_ns) / 1e9) for at in fired), default=None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--services", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    began = time.process_time()
    delays: dict[tuple[str, bool], list[float | None]] = {}
    for number in range(options.services):
        for case, (onset_ns, behaves) in cases(drawn(rng, KINDS[number % len(KINDS)])).items():
            past = Past(behaves, MONDAY_NS - KNOWN_NS, company=True)
            for on in (False, True):
                settings = load(environ={}, options={"detect.seasons": on})
                first_ns = min(onset_ns, MONDAY_NS + JOB_NS) if case == "fault within the job" else onset_ns
                found = past.replay(first_ns - MINUTE_NS, onset_ns + WATCHED_NS, settings)
                delays.setdefault((case, on), []).append(told(found, onset_ns))
    print(json.dumps([_row(case, on, found) for (case, on), found in delays.items()], indent=1))
    print(json.dumps({"cpu_s": round(time.process_time() - began, 1)}))


def _row(case: str, on: bool, found: list[float | None]) -> Json:
    known = [delay for delay in found if delay is not None]
    middle = round(median(known), 1) if known else None
    return {"case": case, "seasons": on, "of": len(found), "told": len(known), "median_delay_s": middle}


if __name__ == "__main__":
    main()
