"""Recorded traces and metrics through the whole pipeline: OTLP, store, windows, looks as in watching, what the
incidents name; and what is answered when somebody asks about the time of the fault."""

from __future__ import annotations

import multiprocessing
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Self

import polars as pl

from observe.asking import Asking
from observe.bench.fleet_encode import gauge_request
from observe.bench.span_requests import requests, timeline
from observe.diagnose.offline import Case, Ranked
from observe.errors import BadRecord
from observe.frames import Frames
from observe.interfaces import Store
from observe.judging import Judging
from observe.pipeline import asked_of, picture, replay
from observe.settings import Settings, changed
from observe.types import TOPICS, WINDOW_NS, Batch, CauseKind, Incident, Json, Record, Signal
from observe.verdict import horizon_ns
from observe.wire import incident_from_json

QUIET_NS = 120 * 10**9
"""Looks begin this long before the fault: what fires then is a false alarm."""
SETTLED_NS = 60 * 10**9
BATCH_BYTES = 8 * 2**20
LONGEST_STEP_S = 60.0
"""Metrics that were recorded less often are replayed faster: exporters send every minute at least."""
MOST_ASKED = 50
_TABLES = """SELECT name FROM system.tables WHERE database = currentDatabase() AND engine LIKE '%MergeTree'
AND name NOT LIKE '%migration%'"""


class Pipeline:
    """A ranker of recorded cases. Its store lives in a process of its own, as chDB keeps to the first folder that a
    process gave it, and is emptied from case to case: making all its tables costs more than a case."""

    def __init__(self) -> None:
        self._number = 0
        self._exit = ExitStack()

    def __enter__(self) -> Self:
        self._folder = self._exit.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True))
        spawn = multiprocessing.get_context("spawn")
        self._pool = self._exit.enter_context(
            ProcessPoolExecutor(1, mp_context=spawn, initializer=_opened, initargs=(self._folder,))
        )
        return self

    def __exit__(self, *why: object) -> None:
        self._exit.close()

    def __call__(self, case: Case) -> tuple[Ranked, Json]:
        """The services that the incidents name, and how it came about; `asked`: those named when somebody asks about
        the time of the fault."""
        self._number += 1
        return self._pool.submit(_of_case, case, self._folder, self._number).result()


_KEPT: list[Store] = []
"""The store of this process, which stays open from case to case."""


def _opened(folder: str) -> None:
    from observe.store import ClickHouseStore, enter

    enter(folder)
    store = ClickHouseStore(f"chdb://{Path(folder) / 'store'}")
    store.migrate()
    _KEPT.append(store)


def _of_case(case: Case, folder: str, number: int) -> tuple[Ranked, Json]:
    """With a client that remembers no windows of cases before."""
    from observe.store import ClickHouseStore

    store = ClickHouseStore(f"chdb://{Path(folder) / 'store'}")
    try:
        for table in store.query(_TABLES)["name"].to_list():
            store.execute(f"TRUNCATE TABLE `{table}`", {})
        return in_store(case, store, number)
    finally:
        store.close()


def in_store(case: Case, store: Store, partition: int = 0) -> tuple[Ranked, Json]:
    """The same with an empty store; `partition` tells its records from those of cases before."""
    began, cpu = time.perf_counter(), time.process_time()
    end_ns = (time.time_ns() - SETTLED_NS) // WINDOW_NS * WINDOW_NS
    scale = min(1.0, LONGEST_STEP_S / step_s(case.metrics))
    spans, fault_ns, last_ns = None, end_ns - _metrics_reach_ns(case, scale), end_ns
    if case.spans_after.height and case.spans_before.height:
        spans, fault_ns, last_ns = timeline(case.spans_before, case.spans_after, end_ns)
        for batch, items in batches(requests(spans), "spans", partition):
            store.insert(batch, items)
    oldest_ns = fault_ns - QUIET_NS - horizon_ns(Settings())
    points = gauge_requests(case.metrics, case.inject_at_s, fault_ns, oldest_ns, scale)
    for batch, items in batches(points, "metrics", partition):
        store.insert(batch, items)
    store.settle(time.time_ns() + SETTLED_NS)
    stored = time.perf_counter()
    settings = changed(Settings(), {"diagnose.calls": [f"{a} -> {b}" for a, b in case.graph.iter_rows()]})
    to_ns = last_ns // WINDOW_NS * WINDOW_NS
    # What looks ask about attributes, traces and logs is evidence: it changes no rank and is two thirds of their cost.
    incidents = looked_at(store, fault_ns, to_ns, changed(settings, {"diagnose.attributes": False}))
    looked = time.perf_counter()
    asked = answered(store, case, fault_ns, to_ns, settings)
    during = [i for i in incidents if (i.fired_ns or 0) > fault_ns]
    fired = [i.fired_ns for i in during if i.fired_ns is not None]
    told: Json = {
        "resource_place": None,  # incidents of traces name no metrics
        "asked": named([asked] if asked is not None else []).services,
        "spans": 0 if spans is None else spans.height,
        "fault_s": round((last_ns - fault_ns) / 1e9, 1),  # how much of the fault was recorded
        "incidents": len(during),
        "before_the_fault": len(incidents) - len(during),
        "fired_after_s": round((min(fired) - fault_ns) / 1e9, 1) if fired else None,
        "cpu_seconds": round(time.process_time() - cpu, 4),
        "store_seconds": round(stored - began, 4),
        "look_seconds": round(looked - stored, 4),
        "asked_seconds": round(time.perf_counter() - looked, 4),
    }
    return named(during), told


def _metrics_reach_ns(case: Case, scale: float) -> int:
    """How long the metrics of a fault go on, on whole windows."""
    last_s = case.metrics["time_s"].max()
    after_s = 0.0 if not isinstance(last_s, float) else max(last_s - case.inject_at_s, 0.0) * scale
    return int(after_s * 1e9) // WINDOW_NS * WINDOW_NS + WINDOW_NS


def step_s(metrics: pl.DataFrame) -> float:
    """What lies between two values of a series, usually."""
    gaps = metrics["time_s"].unique().sort().diff().drop_nulls()
    middle = gaps.median()
    return float(middle) if isinstance(middle, float) and middle > 0 else 1.0


def gauge_requests(
    metrics: pl.DataFrame, inject_at_s: float, fault_ns: int, oldest_ns: int, scale: float
) -> Iterator[tuple[bytes, int]]:
    """Metrics as gauges of their services under the names of the record, an export per service and time."""
    at = fault_ns + ((pl.col("time_s") - inject_at_s) * scale * 1e9).cast(pl.Int64)
    rows = metrics.filter(pl.col("value").is_finite()).with_columns(at=at).filter(pl.col("at") >= oldest_ns)
    for (at_ns, service), part in rows.sort("at").partition_by("at", "service", as_dict=True).items():
        points = [(name, "", value, dict[str, str]()) for name, value in part.select("metric", "value").iter_rows()]
        yield gauge_request({"service.name": str(service)}, points, int(at_ns)), len(points)


def batches(given: Iterable[tuple[bytes, int]], signal: Signal, partition: int) -> Iterator[tuple[Batch, int]]:
    """Requests as records of one partition, in batches of some MiB."""
    records: list[Record] = []
    size = items = 0
    for offset, (body, count) in enumerate(given):
        records.append(Record(TOPICS[signal], partition, offset, body))
        size, items = size + len(body), items + count
        if size >= BATCH_BYTES:
            yield Batch(tuple(records), records[0].offset, offset), items
            records, size, items = [], 0, 0
    if records:
        yield Batch(tuple(records), records[0].offset, records[-1].offset), items


def looked_at(store: Store, fault_ns: int, to_ns: int, settings: Settings) -> list[Incident]:
    """What watching would have told until `to_ns`, the end of the last whole window; worst first."""

    def read(first_ns: int, last_ns: int) -> Frames:
        return picture(store, first_ns, last_ns, settings)

    asked = asked_of(Asking(store), settings)
    return replay(read, fault_ns - QUIET_NS, to_ns, settings, asked=asked)


def answered(store: Store, case: Case, fault_ns: int, to_ns: int, settings: Settings) -> Incident | None:
    """What is said to somebody who asks about the time of the fault and the service where it was noticed, with all
    services ranked; None where nothing can be said."""
    wide = changed(settings, {"diagnose.max_causes": MOST_ASKED})
    try:
        answer = Judging(store, wide).asked(fault_ns, case.symptom_service, to_ns)
    except BadRecord:
        return None
    return incident_from_json(answer)


def named(incidents: Sequence[Incident]) -> Ranked:
    """Services in the order in which a reader meets them: the worst incident's causes first. `unknown` names none."""
    scores: dict[str, float] = {}
    for incident in incidents:
        for cause in sorted(incident.causes, key=lambda cause: cause.rank):
            name = cause.service or cause.resource
            if name and cause.kind is not CauseKind.UNKNOWN:
                scores.setdefault(name, cause.score)
    return Ranked(list(scores), [], [], list(scores.values()), {})
