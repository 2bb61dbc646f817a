"""Recorded traces through the whole pipeline: OTLP, store, windows, looks as in watching, what the incidents name."""

from __future__ import annotations

import multiprocessing
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from observe.asking import Asking
from observe.bench.public import Labelled
from observe.bench.span_requests import requests, timeline
from observe.diagnose.offline import Case, Ranked
from observe.frames import Frames
from observe.interfaces import Store
from observe.pipeline import picture, replay
from observe.settings import Settings
from observe.types import TOPICS, WINDOW_NS, Batch, CauseKind, Incident, Json, Record

QUIET_NS = 120 * 10**9
"""Looks begin this long before the fault: what fires then is a false alarm."""
SETTLED_NS = 60 * 10**9
BATCH_BYTES = 8 * 2**20


def ranked(case: Case) -> tuple[Ranked, Json]:
    """The services that the incidents name, and how it came about. In a process of its own: chDB keeps to the first
    folder that a process gave it."""
    spawn = multiprocessing.get_context("spawn")
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,
        ProcessPoolExecutor(1, mp_context=spawn) as pool,
    ):
        return pool.submit(in_store, case, folder).result()


def in_store(case: Case, folder: str) -> tuple[Ranked, Json]:
    """The same in this process, with a new store in `folder`."""
    from observe.store import ClickHouseStore, enter

    began = time.perf_counter()
    end_ns = (time.time_ns() - SETTLED_NS) // WINDOW_NS * WINDOW_NS
    spans, fault_ns, last_ns = timeline(case.spans_before, case.spans_after, end_ns)
    enter(folder)
    store = ClickHouseStore(f"chdb://{Path(folder) / 'store'}")
    try:
        store.migrate()
        for batch, items in batches(requests(spans)):
            store.insert(batch, items)
        store.settle(time.time_ns() + SETTLED_NS)
        stored = time.perf_counter()
        incidents = looked_at(store, fault_ns, last_ns // WINDOW_NS * WINDOW_NS)
    finally:
        store.close()
    during = [i for i in incidents if (i.fired_ns or 0) > fault_ns]
    fired = [i.fired_ns for i in during if i.fired_ns is not None]
    told: Json = {
        "resource_place": None,  # incidents of traces name no metrics
        "spans": spans.height,
        "fault_s": round((last_ns - fault_ns) / 1e9, 1),  # how much of the fault was recorded
        "incidents": len(during),
        "before_the_fault": len(incidents) - len(during),
        "fired_after_s": round((min(fired) - fault_ns) / 1e9, 1) if fired else None,
        "store_seconds": round(stored - began, 4),
        "look_seconds": round(time.perf_counter() - stored, 4),
    }
    return named(during), told


def batches(given: Iterable[tuple[bytes, int]]) -> Iterator[tuple[Batch, int]]:
    """Requests as records of one partition, in batches of some MiB."""
    records: list[Record] = []
    size = items = 0
    for offset, (body, count) in enumerate(given):
        records.append(Record(TOPICS["spans"], 0, offset, body))
        size, items = size + len(body), items + count
        if size >= BATCH_BYTES:
            yield Batch(tuple(records), records[0].offset, offset), items
            records, size, items = [], 0, 0
    if records:
        yield Batch(tuple(records), records[0].offset, records[-1].offset), items


def looked_at(store: Store, fault_ns: int, to_ns: int) -> list[Incident]:
    """What watching would have told until `to_ns`, the end of the last whole window; worst first."""
    settings = Settings()

    def read(first_ns: int, last_ns: int) -> Frames:
        return picture(store, first_ns, last_ns, settings)

    ask = Asking(store)({}) if settings.diagnose.attributes else None
    return replay(read, fault_ns - QUIET_NS, to_ns, settings, ask=ask)


def named(incidents: Sequence[Incident]) -> Ranked:
    """Services in the order in which a reader meets them: the worst incident's causes first. `unknown` names none."""
    scores: dict[str, float] = {}
    for incident in incidents:
        for cause in sorted(incident.causes, key=lambda cause: cause.rank):
            name = cause.service or cause.resource
            if name and cause.kind is not CauseKind.UNKNOWN:
                scores.setdefault(name, cause.score)
    return Ranked(list(scores), [], [], list(scores.values()), {})


def with_traces(given: Iterable[Labelled]) -> Iterator[Labelled]:
    """The cases that have spans of the fault and of before."""
    return (one for one in given if one.case.spans_after.height and one.case.spans_before.height)
