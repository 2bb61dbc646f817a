"""Windows kept from the read before: whatever comes in between, the answer is that of a store that reads everything."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from dataclasses import fields
from typing import Any

import polars as pl
import pytest

from observe.frames import Frames
from observe.store import ClickHouseStore, recent, windows
from observe.types import WINDOW_NS
from tests.fixtures.records import CLIENT, Span, batch, metrics, request
from tests.fixtures.stores import Opened

MINUTE_NS = 60 * 10**9
HORIZON_NS = 6 * MINUTE_NS


@pytest.fixture(scope="module")
def store(opened_store: Opened) -> Iterator[ClickHouseStore]:
    with opened_store("chdb") as store:
        yield store


class Telemetry:
    """Spans and points of all kinds at random times of a minute, each insert with an offset of its own."""

    def __init__(self, store: ClickHouseStore, seed: int) -> None:
        self._store = store
        self._place = seed  # a partition that no other test writes to
        self._random = random.Random(seed)
        self._offset = 0
        self._total = 0

    def send(self, from_ns: int, span_ns: int = MINUTE_NS) -> None:
        times_ns = sorted(from_ns + self._random.randrange(span_ns) for _ in range(12))
        spans = [span for time_ns in times_ns for span in self._calls((time_ns - from_ns) / 1e6)]
        message = self._points(times_ns)
        self._store.insert(batch("otlp_spans", self._place, self._offset, request(spans, from_ns)), len(spans))
        self._store.insert(batch("otlp_metrics", self._place, self._offset, message), 1)
        self._offset += 1

    def _calls(self, start_ms: float) -> list[Span]:
        tokens = {"gen_ai.request.model": "m", "gen_ai.usage.output_tokens": self._random.randrange(1, 900)}
        root = Span(self._random.choice(("web", "shop")), "op", start_ms, self._random.uniform(1, 900))
        call = Span(root.service, "ask", start_ms + 1, root.duration_ms / 2, root, CLIENT, attributes=tokens)
        return [root, call, Span("api", "serve", start_ms + 2, root.duration_ms / 3, call, error=start_ms % 7 < 1)]

    def _points(self, times_ns: list[int]) -> bytes:
        message, found = metrics("engine")
        for time_ns in times_ns:
            self._total += self._random.randrange(1, 9)
            found.add(name="cache").gauge.data_points.add(time_unix_nano=time_ns, as_double=self._random.random())
            total: Any = found.add(name="requests").sum
            total.is_monotonic, total.aggregation_temporality = True, 2
            total.data_points.add(time_unix_nano=time_ns, as_int=self._total)
            waits: Any = found.add(name="wait", unit="s").histogram
            waits.aggregation_temporality = 2
            counts = [0, self._total, self._total]
            waits.data_points.add(
                time_unix_nano=time_ns, count=2 * self._total, sum=1.5, bucket_counts=counts, explicit_bounds=[0.5, 1]
            )
        return bytes(message.SerializeToString())


def same_as_all_read(store: ClickHouseStore, from_ns: int, to_ns: int) -> Frames:
    """What the store answers, after it was found to be what it answers when nothing is kept."""
    got, wanted = store.frames(from_ns, to_ns), windows.read(store, from_ns, to_ns)
    for field in fields(Frames):
        ours, theirs = getattr(got, field.name), getattr(wanted, field.name)
        assert ours.schema == theirs.schema, field.name
        assert ours.equals(theirs), field.name
    return got


def test_what_is_kept_changes_no_answer(store: ClickHouseStore) -> None:
    base_ns = time.time_ns() // MINUTE_NS * MINUTE_NS - 90 * MINUTE_NS
    telemetry, random_ = Telemetry(store, 3), random.Random(5)
    for minute in range(4):
        telemetry.send(base_ns + minute * MINUTE_NS)
    for minute in range(4, 9):
        now_ns = base_ns + minute * MINUTE_NS
        if minute != 6:
            telemetry.send(now_ns - MINUTE_NS)
        if minute % 2:
            telemetry.send(base_ns + random_.randrange(2, minute) * MINUTE_NS, WINDOW_NS)  # late
        if minute in (4, 7):
            assert store.settle(now_ns) > 0
        seen = same_as_all_read(store, now_ns - HORIZON_NS // 2, now_ns)
        assert all(getattr(seen, name).height for name in ("windows", "selfs", "edges", "gauges", "tokens"))
        assert set(seen.windows["kind"]) == {"Server", "Client", "Metric"}
    early_ns = base_ns + random_.randrange(3 * MINUTE_NS)
    same_as_all_read(store, early_ns, early_ns + MINUTE_NS)  # a question beside the looks
    assert same_as_all_read(store, now_ns - HORIZON_NS, now_ns).windows.height > seen.windows.height
    same_as_all_read(store, now_ns + 90 * MINUTE_NS, now_ns + 100 * MINUTE_NS)


def test_rows_that_went_are_gone(store: ClickHouseStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "_recent", recent.Recent())
    base_ns = time.time_ns() // MINUTE_NS * MINUTE_NS - 2 * 24 * 60 * MINUTE_NS
    Telemetry(store, 7).send(base_ns)
    assert same_as_all_read(store, base_ns, base_ns + MINUTE_NS).gauges.height
    tables = ("service_windows", "token_windows", "otel_metrics_gauge", "otel_metrics_sum", "otel_metrics_histogram")
    for table in (*tables, "settled", "otel_traces"):
        before = f"Window < toDateTime({base_ns // 10**9 + 60}, 'UTC')"
        store.execute(f"ALTER TABLE {table} DELETE WHERE {before} SETTINGS mutations_sync = 1", {})
    gone = same_as_all_read(store, base_ns, base_ns + MINUTE_NS)
    assert not any(getattr(gone, field.name).height for field in fields(Frames))


def test_only_what_changed_is_read(store: ClickHouseStore, monkeypatch: pytest.MonkeyPatch) -> None:
    base_ns = time.time_ns() // MINUTE_NS * MINUTE_NS - 20 * MINUTE_NS
    telemetry = Telemetry(store, 11)
    telemetry.send(base_ns)
    telemetry.send(base_ns + 4 * MINUTE_NS)
    now_ns = base_ns + 5 * MINUTE_NS
    store.settle(base_ns + 10 * MINUTE_NS)
    asked: list[tuple[str, int, int]] = []
    query = ClickHouseStore.query

    def watched(self: ClickHouseStore, sql: str, parameters: Any = None, /) -> pl.DataFrame:
        if "window_start_ns" in sql:
            asked.append((sql, parameters["from"], parameters["to"]))
        return query(self, sql, parameters)

    monkeypatch.setattr(ClickHouseStore, "query", watched)
    monkeypatch.setattr(store, "_recent", recent.Recent())
    store.frames(base_ns, now_ns)
    assert min(a for _, a, _ in asked) == base_ns // 10**9
    asked.clear()
    store.frames(base_ns, now_ns)
    assert asked == []
    telemetry.send(now_ns - WINDOW_NS, WINDOW_NS)
    store.settle(base_ns + 10 * MINUTE_NS)
    same = store.frames(base_ns, now_ns)
    assert min(a for _, a, _ in asked) >= now_ns // 10**9 - 60
    assert same.windows.equals(windows.read(store, base_ns, now_ns).windows)


def test_large_pictures_and_shorter_ones_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    frame = pl.DataFrame({"window_start_ns": [0]})
    tables = {"windows": recent.Table(frame, {0: (1,)})}
    kept = recent.Recent(max_bytes=int(frame.estimated_size()) - 1)
    kept.keep(0, 3600, tables)
    assert kept.tables() == {}
    kept = recent.Recent()
    kept.keep(0, 3600, tables)
    assert kept.tables() == tables
    for from_s, to_s in ((0, 3590), (3000, 3700)):
        kept.keep(from_s, to_s, {})
        assert kept.tables() == tables
    with monkeypatch.context() as patch:
        patch.setattr(recent, "IDLE_S", 0)
        kept.keep(3000, 3100, {})
    assert kept.tables() == {}


def test_few_ranges_hold_all_windows() -> None:
    assert recent.runs([], 10) == []
    assert recent.runs([0, 10, 60, 200], 10) == [(0, 70), (200, 210)]
    scattered = list(range(0, 10_000, 500))
    assert recent.runs(scattered, 10) == [(0, 9_510)]
