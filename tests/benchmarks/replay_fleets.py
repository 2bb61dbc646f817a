"""How often the first cause is right, end to end, over random fleets (`python -m tests.benchmarks.replay_fleets`).

Each case: a fleet of some seed is stored in a fresh store and replayed; the worst incident's first cause is compared
with the truth. One JSON line a case, one at the end with the totals. With `--without-store` the frames come straight
from the generator: detection and diagnosis alone.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

from observe.bench.fleet import Fleet, generate
from observe.bench.fleet_plan import FAULTS
from observe.interfaces import Store
from observe.pipeline import replay
from observe.settings import Settings
from observe.stream.otlp import count_items
from observe.types import TOPICS, WINDOW_NS, Batch, Incident, Json, Record, Signal
from tests.benchmarks.reference_frames import frames_of

START_NS = 1_790_000_000_000_000_000 // WINDOW_NS * WINDOW_NS
GRACE_NS = 120_000_000_000
BATCH_BYTES = 8 * 2**20


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    seeds = options.seeds or range(options.first, options.first + options.count)
    cases = []
    # A process a case: chDB keeps to the first folder that a process gave it.
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(options.jobs, mp_context=spawn, max_tasks_per_child=1) as pool:
        for case in pool.map(partial(_case, options=options), seeds):
            cases.append(case)
            print(json.dumps(case, ensure_ascii=False), flush=True)
    print(json.dumps(totals(cases)), flush=True)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=len(FAULTS))
    parser.add_argument("--first", type=int, default=0, help="first seed")
    parser.add_argument("--seeds", type=int, nargs="*", help="these seeds instead")
    parser.add_argument("--minutes", type=float, default=40.0)
    parser.add_argument("--kinds", default="", help=f"comma-separated, of {', '.join(FAULTS)}; default: in turn")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--without-store", action="store_true")
    parser.add_argument("--verbose", action="store_true", help="all incidents with their causes and evidence")
    return parser


def _recently(minutes: float) -> int:
    """Past, and within what a store keeps."""
    return (time.time_ns() - int((minutes + 30) * 60e9)) // WINDOW_NS * WINDOW_NS


def _case(seed: int, options: argparse.Namespace) -> Json:
    kinds = options.kinds.split(",") if options.kinds else None
    start_ns = START_NS if options.without_store else _recently(options.minutes)
    fleet = generate(seed, options.minutes, start_ns=start_ns, kind=kinds[seed % len(kinds)] if kinds else None)
    settings = Settings()
    started = time.perf_counter()
    if options.without_store:
        frames = frames_of(fleet)
        loaded = time.perf_counter()
        incidents = replay(frames.between, fleet.start_ns, fleet.end_ns, settings)
    else:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            store = _stored(fleet, Path(folder))
            loaded = time.perf_counter()
            incidents = replay(store.frames, fleet.start_ns, fleet.end_ns, settings)
            store.close()
    times = {"load_s": round(loaded - started, 1), "replay_s": round(time.perf_counter() - loaded, 1)}
    told = {"incidents": [_told(i, fleet) for i in incidents]} if options.verbose else {}
    return judged(fleet, incidents) | times | told


def _stored(fleet: Fleet, folder: Path) -> Store:
    from observe.store import ClickHouseStore, enter

    enter(str(folder))
    store: Store = ClickHouseStore(f"chdb://{folder}/store")
    store.migrate()
    for batch, items in batches(fleet.requests()):
        store.insert(batch, items)
    store.settle(fleet.end_ns + 60 * 10**9)
    return store


def batches(requests: Iterable[tuple[Signal, bytes]]) -> Iterable[tuple[Batch, int]]:
    """Requests as records of one partition per signal, in batches of some MiB; items are counted from the records."""
    waiting: dict[Signal, list[Record]] = {"spans": [], "metrics": []}
    offsets: dict[Signal, int] = {"spans": 0, "metrics": 0}
    sizes: dict[Signal, int] = {"spans": 0, "metrics": 0}

    def batch(signal: Signal) -> tuple[Batch, int]:
        records = tuple(waiting[signal])
        waiting[signal], sizes[signal] = [], 0
        return Batch(records, records[0].offset, records[-1].offset), sum(count_items(signal, r.value) for r in records)

    for signal, body in requests:
        waiting[signal].append(Record(TOPICS[signal], 0, offsets[signal], body))
        offsets[signal] += 1
        sizes[signal] += len(body)
        if sizes[signal] >= BATCH_BYTES:
            yield batch(signal)
    for signal, records in waiting.items():
        if records:
            yield batch(signal)


def judged(fleet: Fleet, incidents: Sequence[Incident]) -> Json:
    """The worst incident that overlaps the fault answers; those that lie elsewhere are false alarms."""
    truth = fleet.truth
    during = [i for i in incidents if truth.start_ns - GRACE_NS <= i.opened_ns <= truth.end_ns + GRACE_NS]
    answer = during[0] if during else None
    cause = answer.causes[0] if answer and answer.causes else None
    right = cause is not None and (cause.service in truth.services or cause.resource in truth.resources)
    if truth.kind == "none":
        right = not incidents
    if truth.kind == "traffic":
        right = all(i.causes and i.causes[0].kind == "traffic" for i in incidents)
    return {
        "seed": fleet.seed,
        "kind": truth.kind,
        "ok": right,
        "truth": [*truth.services, *truth.resources],
        "detail": truth.detail,
        "first_cause": None
        if cause is None
        else [cause.kind.value, cause.service, cause.resource, round(cause.score, 2)],
        "narrowed": bool(right and cause and truth.resources and cause.resource in truth.resources),
        "detect_delay_s": None
        if answer is None or answer.fired_ns is None
        else (answer.fired_ns - truth.start_ns) / 1e9,
        "onset_error_s": None if answer is None else (answer.onset_ns - truth.start_ns) / 1e9,
        "opened_incidents": len(incidents),
        "elsewhere": len(incidents) - len(during),
        "title": "" if answer is None else answer.title,
    }


def _told(incident: Incident, fleet: Fleet) -> Json:
    return {
        "title": incident.title,
        "state": incident.state.value,
        "fired_s": None if incident.fired_ns is None else (incident.fired_ns - fleet.truth.start_ns) / 1e9,
        "symptoms": [
            f"{s.service} {s.operation} {s.kind} {s.measure} {s.before:.4g}→{s.after:.4g}" for s in incident.symptoms
        ],
        "causes": [
            [c.kind.value, c.service, c.resource, round(c.score, 2), round(c.share, 2), [e.text for e in c.evidence]]
            for c in incident.causes
        ],
    }


def totals(cases: Sequence[Json]) -> Json:
    by_kind: dict[str, list[Json]] = {}
    for case in cases:
        by_kind.setdefault(case["kind"], []).append(case)
    faulty = [c for c in cases if c["kind"] not in ("none", "traffic")]
    delays = [c["detect_delay_s"] for c in faulty if c["detect_delay_s"] is not None]
    return {
        "cases": len(cases),
        "right": sum(c["ok"] for c in cases),
        "right_of_faults": f"{sum(c['ok'] for c in faulty)}/{len(faulty)}",
        "not_found": [c["seed"] for c in faulty if c["first_cause"] is None],
        "wrong": [c["seed"] for c in faulty if c["first_cause"] is not None and not c["ok"]],
        "false_alarms": sum(c["elsewhere"] for c in cases)
        + sum(c["opened_incidents"] for c in by_kind.get("none", [])),
        "median_delay_s": statistics.median(delays) if delays else None,
        "by_kind": {kind: f"{sum(c['ok'] for c in of)}/{len(of)}" for kind, of in sorted(by_kind.items())},
        "median_replay_s": statistics.median(c["replay_s"] for c in cases) if cases else None,
    }


if __name__ == "__main__":
    sys.exit(main())
