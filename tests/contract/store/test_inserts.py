"""Batches that come twice, break off, or hold what cannot be stored; what the store remembers and accounts for."""

from __future__ import annotations

import os
import threading
import time
from dataclasses import replace

import polars as pl
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from observe.audit import REPEATED, ROLLUPS
from observe.errors import BadRecord, Unavailable
from observe.frames import (
    SPAN_SAMPLE,
    TraceQuestion,
)
from observe.settings import RetentionSettings
from observe.store import ClickHouseStore, samples
from observe.types import WINDOW_NS, Digest
from tests.contract.store.parts import SECOND, around, insert, ledger, row
from tests.fixtures.records import (
    MS,
    Span,
    batch,
    request,
)


def test_migrating_twice_changes_nothing(store: ClickHouseStore) -> None:
    """Definitions are not written again either: on a full disk they would be cut off."""
    written = "SELECT name, uuid FROM system.tables WHERE database = currentDatabase() ORDER BY name"
    before = store.query(written)
    assert store.migrate() == []
    assert store.query(written).equals(before)


@pytest.mark.parametrize(
    "fails",
    [
        "SELECT number, throwIf(number = 3000000) FROM numbers(4000000)",
        "SELECT groupArray(number) FROM numbers(100000000) SETTINGS max_memory_usage = 10000000",
        "SELECT count() FROM numbers(1000000000000) SETTINGS max_execution_time = 0.1",
    ],
)
def test_a_question_that_fails_leaves_nothing_for_the_next(store: ClickHouseStore, fails: str) -> None:
    for number in range(2):
        with pytest.raises(Exception, match="DB::Exception"):
            store.query(fails)
        assert store.query(f"SELECT {number} AS next").rows() == [(number,)]


def test_the_same_batch_twice_is_stored_once(store: ClickHouseStore, place: int, base_ns: int) -> None:
    spans = [Span(f"twice-{place}", start_ms=i * 30_000) for i in range(5)]
    for _ in range(2):
        insert(store, place, spans, base_ns)
    assert (
        store.query("SELECT count() FROM otel_traces WHERE ServiceName = {s:String}", {"s": spans[0].service}).item()
        == 5
    )
    requests = store.frames(base_ns, base_ns + 300 * SECOND).windows.filter(service=spans[0].service)["requests"].sum()
    assert requests == 5
    assert ledger(store, "otlp_spans", place)["stored"] == 5


def test_a_batch_that_broke_off_is_completed(store: ClickHouseStore, place: int, base_ns: int) -> None:
    """The spans were stored and their rollup was not: the same batch again adds the rollup alone."""
    service = f"broke-{place}"
    spans = [Span(service) for _ in range(3)]

    def stored() -> object:
        return store.query("SELECT count() FROM otel_traces WHERE ServiceName = {s:String}", {"s": service}).item()

    store.execute(f"ALTER TABLE service_windows ADD CONSTRAINT broken CHECK ServiceName != '{service}'", {})
    with pytest.raises(Unavailable, match="service_windows"):
        insert(store, place, spans, base_ns)
    store.execute("ALTER TABLE service_windows DROP CONSTRAINT broken", {})
    assert stored() == 3
    assert around(store, base_ns).windows.filter(service=service).height == 0
    insert(store, place, spans, base_ns)
    assert stored() == 3
    assert row(around(store, base_ns).windows, service=service)["requests"] == 3
    assert ledger(store, "otlp_spans", place)["stored"] == 3


def test_windows_that_lack_a_batch_are_found(store: ClickHouseStore, place: int) -> None:
    def differing() -> list[tuple[object, ...]]:
        return store.query(ROLLUPS).filter(pl.col("difference").abs() == 3).rows()

    base_ns = (time.time_ns() - 120 * SECOND) // WINDOW_NS * WINDOW_NS
    insert(store, place, [Span(f"lacks-{place}", duration_ms=5_000 + i) for i in range(3)], base_ns)
    assert differing() == []
    lost = "ALTER TABLE service_windows DELETE WHERE ServiceName = {service:String} SETTINGS mutations_sync = 2"
    store.execute(lost, {"service": f"lacks-{place}"})
    assert differing() == [(base_ns // SECOND, -3)]


def test_bad_spans_are_rejected_with_their_reason_and_the_rest_is_stored(
    store: ClickHouseStore, place: int, base_ns: int
) -> None:
    service = f"bad-{place}"
    now_ns, year_2200_ns = time.time_ns(), 7_258_118_400 * SECOND
    good = Span(service, "good")
    spans = [
        good,
        Span(service, "t15", trace_id=b"x" * 15),
        Span(service, "s7", span_id=b"x" * 7),
        Span(service, "p3", parent=Span("x", span_id=b"abc")),
        Span(service, "negative", duration_ms=-1),
        Span(service, "1970", start_ms=-(base_ns - 1000) / MS),
        Span(service, "2200", start_ms=(year_2200_ns - base_ns) / MS),
        Span(service, "future", start_ms=(now_ns + 2 * 3600 * SECOND - base_ns) / MS),
        Span(service, "past", start_ms=-15 * 86_400_000),
    ]
    insert(store, place, spans, base_ns)
    stored = store.query("SELECT SpanName FROM otel_traces WHERE ServiceName = {s:String}", {"s": service})
    assert stored.to_series().to_list() == ["good"]
    reasons = store.query("SELECT Name, Reason FROM rejected WHERE ServiceName = {s:String}", {"s": service})
    assert dict(reasons.iter_rows()) == {
        "t15": "trace_id_length", "s7": "span_id_length", "p3": "parent_span_id_length",
        "negative": "negative_duration", "1970": "time_out_of_range", "2200": "time_out_of_range",
        "future": "time_out_of_range", "past": "time_out_of_range",
    }  # fmt: skip
    counted = ledger(store, "otlp_spans", place)
    assert (counted["accepted"], counted["stored"], counted["rejected"]) == (9, 1, 8)


def test_times_at_the_ends_of_their_range_break_nothing(store: ClickHouseStore, place: int, base_ns: int) -> None:
    message = ExportTraceServiceRequest.FromString(request([Span(f"ends-{place}") for _ in range(4)], base_ns))
    spans = [r.scope_spans[0].spans[0] for r in message.resource_spans]
    spans[0].end_time_unix_nano = 2**64 - 1
    spans[1].start_time_unix_nano = 0
    spans[2].start_time_unix_nano = spans[2].end_time_unix_nano = 2**63
    for time_ns in (0, 1, 2**63, 2**64 - 1):
        spans[3].events.add(time_unix_nano=time_ns, name="event")
    store.insert(batch("otlp_spans", place, 0, message.SerializeToString()), 4)
    counted = ledger(store, "otlp_spans", place)
    assert (counted["stored"], counted["rejected"]) == (1, 3)


@pytest.mark.parametrize("body", [b"\xff\xff\xff", b"\x0a\xff\x01garbage", b"truncated"])
def test_bytes_that_are_no_request_are_a_bad_record(
    store: ClickHouseStore, place: int, base_ns: int, body: bytes
) -> None:
    value = request([Span("x")], base_ns)[:-3] if body == b"truncated" else body
    with pytest.raises(BadRecord, match=r"Code: \d+|code: \d+"):
        store.insert(batch("otlp_spans", place, 0, value), 1)


def test_an_empty_request_is_accepted(store: ClickHouseStore, place: int) -> None:
    store.insert(batch("otlp_spans", place, 0, b""), 0)
    assert ledger(store, "otlp_spans", place)["next_offset"] == 1


def test_times_are_judged_by_when_the_stream_took_the_record(store: ClickHouseStore, place: int) -> None:
    """A batch that comes again after a crash must be judged as it was the first time."""
    sent_ms = time.time_ns() // MS - 5 * 86_400_000
    kept = RetentionSettings().traces_days * 86_400_000
    spans = [Span("aged", start_ms=sent_ms - kept + 60_000), Span("ahead", start_ms=sent_ms + 2 * 3_600_000)]
    whole = batch("otlp_spans", place, 0, request(spans, 0))
    record = replace(whole.records[0], timestamp_ms=sent_ms)
    store.insert(replace(whole, records=(record,)), 2)
    got = ledger(store, "otlp_spans", place)
    assert (got["stored"], got["rejected"]) == (1, 1)
    reasons = store.query("SELECT ServiceName, Reason FROM rejected WHERE Partition = {p:Int32}", {"p": place})
    assert reasons.rows() == [("ahead", "time_out_of_range")]


def test_digests_that_are_saved_again_are_there_once(store: ClickHouseStore, place: int) -> None:
    whole = batch("otlp_spans", place, 10, b"a", b"b", b"c")
    found = [Digest(10, 5_000, b"\x00" * 16), Digest(11, 6_000, b"\xff" * 16), Digest(12, 7_000, b"\x00" * 16, 3)]
    for _ in range(2):
        store.save_digests(whole, found)
    store.save_digests(whole, [])
    assert store.digests("otlp_spans", place, 13, 0) == found[:2]
    assert store.digests("otlp_spans", place, 11, 0) == found[:1]
    assert store.digests("otlp_spans", place, 13, 5_500) == found[1:2]
    assert store.digests("otlp_logs", place, 13, 0) == []


def test_digests_that_an_earlier_attempt_lost_are_there_after_the_next(store: ClickHouseStore, place: int) -> None:
    """A server that is killed between noting a token and its rows takes the next insert with it for done."""
    whole = batch("otlp_spans", place, 10, b"a", b"b")
    found = [Digest(10, 5_000, b"\x00" * 16), Digest(11, 6_000, b"\xff" * 16)]
    store.save_digests(whole, found[:1])
    store.save_digests(whole, found)
    assert store.digests("otlp_spans", place, 12, 0) == found


def test_items_left_out_are_counted_once(store: ClickHouseStore, place: int) -> None:
    before = dict(store.query(REPEATED).rows())
    for _ in range(2):
        store.save_digests(batch("otlp_metrics", place, 5, b"a"), [Digest(5, 5_000, bytes(16), 3)])
    assert dict(store.query(REPEATED).rows())["otlp_metrics"] == before.get("otlp_metrics", 0) + 3


def test_the_ledger_shows_gaps_and_overlaps(store: ClickHouseStore, place: int, base_ns: int) -> None:
    value = request([Span("x")], base_ns)
    for first, count in ((0, 2), (2, 1), (5, 2), (6, 1)):
        store.insert(batch("otlp_spans", place, first, *[value] * count), count)
    counted = ledger(store, "otlp_spans", place)
    assert (counted["first_offset"], counted["next_offset"]) == (0, 7)
    assert (counted["gaps"], counted["overlaps"]) == (1, 1)


def test_whole_traces_of_before_and_after_are_sampled(
    store: ClickHouseStore, place: int, base_ns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def traces(count: int, at_ms: int) -> list[Span]:
        found = []
        for _ in range(count):
            web = Span(f"web-{place}", "GET /", at_ms, 9, trace_id=os.urandom(16))
            found += [web, Span(f"api-{place}", "POST /x", at_ms + 1, 5, web, trace_id=web.trace_id)]
        return found

    insert(store, place, [*traces(6, 0), *traces(4, 60_000)], base_ns)
    moments = (base_ns, base_ns + 30 * SECOND, base_ns + 60 * SECOND, base_ns + 90 * SECOND)
    question = TraceQuestion(f"api-{place}", *moments, 10)
    found = store.sampled(question)
    assert found.schema == SPAN_SAMPLE
    sizes = found.group_by("period", "trace_id").len()
    assert sizes["len"].to_list() == [2] * 10
    assert sorted(sizes["period"]) == [0] * 6 + [1] * 4
    roots = found.filter(parent_span_id=0)
    assert set(roots["service"]) == {f"web-{place}"}
    assert set(found.filter(pl.col("parent_span_id") != 0)["parent_span_id"]) == set(roots["span_id"])
    monkeypatch.setattr(samples, "MAX_TRACES", 3)
    some = store.sampled(question)
    assert sorted(some["period"]) == [0] * 6 + [1] * 6
    assert some.equals(store.sampled(question))
    assert store.sampled(TraceQuestion(f"none-{place}", *moments, 0)).is_empty()


def test_threads_write_and_read_at_once(store: ClickHouseStore, place: int, base_ns: int) -> None:
    service = f"threads-{place}"
    failures: list[BaseException] = []

    def write(offset: int) -> None:
        try:
            insert(store, place, [Span(service)], base_ns, offset)
            around(store, base_ns)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=write, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert row(around(store, base_ns).windows, service=service)["requests"] == 6
    assert ledger(store, "otlp_spans", place)["gaps"] == 0
