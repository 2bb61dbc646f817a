"""What every store does, tried on ClickHouse in this process and on a server."""

from __future__ import annotations

import itertools
import json
import os
import threading
import time
from base64 import b64decode
from collections.abc import Iterator
from dataclasses import replace

import polars as pl
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from observe.audit import REPEATED
from observe.errors import BadRecord
from observe.frames import (
    EDGE_WINDOWS,
    GAUGE_WINDOWS,
    LOG_COUNTS,
    SELF_WINDOWS,
    SERVICE_WINDOWS,
    SPAN_SAMPLE,
    Frames,
    LogQuestion,
    TraceQuestion,
)
from observe.settings import RetentionSettings
from observe.store import ClickHouseStore, samples
from observe.types import WINDOW_NS, Digest, Impact, Incident, Severity, Silence, State
from tests.fixtures.records import (
    CLIENT,
    CONSUMER,
    INTERNAL,
    MS,
    PRODUCER,
    Span,
    batch,
    logs,
    metrics,
    request,
)

SECOND = 1_000_000_000
places = itertools.count(1)


@pytest.fixture(scope="module", params=["chdb", pytest.param("server", marks=pytest.mark.clickhouse)])
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClickHouseStore]:
    """One store for all tests: each works on a partition and in an hour of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.getbasetemp())
        if request.param == "chdb":
            url = f"chdb://{tmp_path_factory.mktemp('chdb')}"
        else:
            url = f"{request.getfixturevalue('clickhouse_url')}/contract_{time.time_ns()}"
        opened = ClickHouseStore(url, RetentionSettings())
        assert opened.migrate()[0] == "0001_spans"
        yield opened
        opened.close()


@pytest.fixture
def place(store: ClickHouseStore) -> int:
    """A partition that no other test writes to."""
    return next(places)


@pytest.fixture
def base_ns(place: int) -> int:
    """Start of a window, in an hour that no other test writes to."""
    now = time.time_ns() // WINDOW_NS * WINDOW_NS
    return now - (place + 1) * 3600 * SECOND


def insert(store: ClickHouseStore, place: int, spans: list[Span], base_ns: int, offset: int = 0) -> None:
    store.insert(batch("otlp_spans", place, offset, request(spans, base_ns)), len(spans))


def around(store: ClickHouseStore, base_ns: int) -> Frames:
    return store.frames(base_ns - 60 * SECOND, base_ns + 120 * SECOND)


def row(frame: pl.DataFrame, **where: object) -> dict[str, object]:
    """The only row with these values."""
    found = frame.filter(*(pl.col(k) == v for k, v in where.items()))
    assert len(found) == 1, found
    return found.to_dicts()[0]


def ledger(store: ClickHouseStore, topic: str, place: int) -> dict[str, object]:
    return row(store.ledger(), topic=topic, partition=place)


def test_migrating_twice_changes_nothing(store: ClickHouseStore) -> None:
    assert store.migrate() == []


def test_a_span_is_stored_with_all_its_fields(store: ClickHouseStore, place: int, base_ns: int) -> None:
    parent = Span("web", trace_id=b"\x01" * 16, span_id=b"\x02" * 8)
    linked = Span("queue")
    span = Span(
        f"all-{place}", "GET /x", 5, 7.5, parent, CLIENT, True,
        {
            "text": "a/b", "zero": 0, "no": False, "yes": True, "nil": 0.0, "half": 0.5, "bytes": b"\x00\xff",
            "empty": None, "list": ["a", 0, True, None, 1.5], "none": [], "map": {"k": "v", "n": 0}, "nothing": {},
            "deep": [[1]],
        },
        {"service.version": "1"}, [linked],
    )  # fmt: skip
    insert(store, place, [span], base_ns)
    got = store.query("SELECT * FROM otel_traces WHERE ServiceName = {s:String}", {"s": span.service}).to_dicts()[0]
    assert (got["TraceId"], got["SpanId"], got["ParentSpanId"]) == ("01" * 16, span.span_id.hex(), "02" * 8)
    assert (got["SpanKind"], got["StatusCode"], got["Duration"]) == ("Client", "Error", 7_500_000)
    assert int(got["Timestamp"].timestamp() * 1000) == base_ns // MS + 5
    assert dict(got["ResourceAttributes"]) == {"service.name": span.service, "service.version": "1"}
    assert got["Links.SpanId"] == [linked.span_id.hex()]
    text = dict(got["SpanAttributes"])
    deep = json.loads(text.pop("deep"))
    assert b64decode(deep[0]["otlp.array"]) == b"\x0a\x02\x18\x01"
    assert text == {
        "text": "a/b", "zero": "0", "no": "false", "yes": "true", "nil": "0", "half": "0.5", "bytes": "AP8=",
        "empty": "", "list": '["a",0,true,null,1.5]', "none": "[]", "map": '{"k":"v","n":0}', "nothing": "{}",
    }  # fmt: skip


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
    spans = [Span(f"broke-{place}") for _ in range(3)]
    store.execute("RENAME TABLE service_windows TO service_windows_away", {})
    with pytest.raises(Exception, match="service_windows"):
        insert(store, place, spans, base_ns)
    store.execute("RENAME TABLE service_windows_away TO service_windows", {})
    insert(store, place, spans, base_ns)
    assert row(around(store, base_ns).windows, service=spans[0].service)["requests"] == 3
    assert ledger(store, "otlp_spans", place)["stored"] == 3


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


def test_windows_count_spans_where_they_end(store: ClickHouseStore, place: int, base_ns: int) -> None:
    service = f"ends-{place}-a"
    spans = [
        Span(service, "slow", 9_000, 2_000, resource={"service.version": "7"}),
        Span(service, "quick", 1_000, 1.0, error=True),
        Span(service, "quick", 1_000, 1.01),
        Span(service, "quick", 1_000, 0.0),
    ]
    insert(store, place, spans, base_ns)
    windows = around(store, base_ns).windows.filter(service=service)
    assert windows.schema == SERVICE_WINDOWS
    slow = row(windows, operation="slow")
    assert (slow["window_start_ns"], slow["version"], slow["kind"]) == (base_ns + WINDOW_NS, "7", "Server")
    quick = row(windows, operation="quick")
    assert (quick["requests"], quick["errors"]) == (3, 1)
    assert quick["duration_sum_ms"] == pytest.approx(2.01)
    assert quick["latency_buckets"] == [{"bucket": b, "count": 1} for b in (-160, -1, 0)]


def test_self_time_is_what_no_child_explains(store: ClickHouseStore, place: int, base_ns: int) -> None:
    web = Span(f"web-{place}", start_ms=100, duration_ms=100, resource={"service.instance.id": "i", "host.name": "h"})
    children = [
        Span(f"db-{place}", start_ms=110, duration_ms=30, parent=web),
        Span(f"db-{place}", start_ms=120, duration_ms=30, parent=web),
        Span(f"db-{place}", start_ms=190, duration_ms=500, parent=web),
        Span(f"db-{place}", start_ms=50, duration_ms=20, parent=web),
    ]
    insert(store, place, [web, *children], base_ns)
    got = row(around(store, base_ns).selfs, service=web.service)
    assert got["self_sum_ms"] == pytest.approx(100 - 40 - 10)
    assert (got["instance"], got["host"], got["slowest_trace_id"]) == ("i", "h", web.trace_id.hex())
    assert around(store, base_ns).selfs.schema == SELF_WINDOWS


def test_an_error_is_counted_where_it_began(store: ClickHouseStore, place: int, base_ns: int) -> None:
    web = Span(f"web-{place}", error=True)
    llm = Span(f"llm-{place}", parent=web, error=True)
    insert(store, place, [web, llm, Span(f"llm-{place}", parent=llm)], base_ns)
    selfs = around(store, base_ns).selfs
    above, below = row(selfs, service=web.service), row(selfs, service=llm.service)
    assert (above["errors"], above["origin_errors"], above["error_trace_id"]) == (1, 0, "")
    assert (below["errors"], below["origin_errors"], below["error_trace_id"]) == (1, 1, web.trace_id.hex())


def test_a_call_between_services_is_an_edge(store: ClickHouseStore, place: int, base_ns: int) -> None:
    web = Span(f"web-{place}", "GET /", duration_ms=100)
    call = Span(f"web-{place}", "POST", 10, 80, web, CLIENT, attributes={"server.address": "api.internal"})
    calls = [Span(f"api-{place}", "POST /x", 20, 50, call, error=True) for _ in range(2)]
    bare = Span(f"old-{place}", "GET /y", 20, 5, web)
    inside = Span(f"api-{place}", "parse", 21, 1, calls[0], INTERNAL)
    insert(store, place, [web, call, *calls, bare, inside], base_ns)
    edges = around(store, base_ns).edges.filter(pl.col("caller") == web.service)
    assert edges.schema == EDGE_WINDOWS
    called = row(edges, callee=f"api-{place}")
    assert (called["connection"], called["caller_operation"], called["callee_operation"]) == (
        "direct",
        "POST",
        "POST /x",
    )
    assert (called["calls"], called["errors"]) == (2, 2)
    assert (called["client_sum_ms"], called["server_sum_ms"]) == (160, 100)
    direct = row(edges, callee=f"old-{place}")
    assert (direct["client_sum_ms"], direct["server_sum_ms"]) == (None, 5)
    assert len(edges) == 2
    assert around(store, base_ns).edges.filter(caller=f"api-{place}").is_empty()


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


def test_errors_in_logs_and_spans_are_counted_by_what_they_say(
    store: ClickHouseStore, place: int, base_ns: int
) -> None:
    thrown = {"exception.type": "Timeout", "exception.message": "user 7"}
    failed = Span(f"api-{place}", "POST /x", 60_000, error=True, events=[("exception", thrown), ("retry", {})])
    insert(store, place, [failed, Span(f"api-{place}", "POST /x", 0)], base_ns)
    said = ['no route to "a"\nat line 5', "no route to 'b'", "took 12 ms for ann@example.com", "", "calm"]
    records = [
        {"time_unix_nano": base_ns + (60 if i else 1) * SECOND, "severity_number": 9 if i == 4 else 17, "body": body}
        for i, body in enumerate(said)
    ]
    store.insert(batch("otlp_logs", place, 0, logs(f"web-{place}", records)), len(records))
    moments = (base_ns, base_ns + 30 * SECOND, base_ns + 60 * SECOND, base_ns + 90 * SECOND)
    found = store.logged(LogQuestion((f"web-{place}", f"api-{place}"), *moments))
    assert found.schema == LOG_COUNTS
    assert found.rows() == [
        (f"api-{place}", "throws Timeout", 0, 1),
        (f"web-{place}", "logs no route to *", 1, 1),
        (f"web-{place}", "logs took * ms for *", 0, 1),
    ]
    assert store.logged(LogQuestion((), *moments)).equals(found)
    assert store.logged(LogQuestion((f"none-{place}",), *moments)).is_empty()


def test_databases_and_outside_addresses_are_edges(store: ClickHouseStore, place: int, base_ns: int) -> None:
    web = Span(f"web-{place}")

    def call(name: str, **attributes: str) -> Span:
        plain = {k.replace("__", "."): v for k, v in attributes.items()}
        return Span(web.service, name, parent=web, kind=CLIENT, attributes=plain)

    wrapper = call("chat", gen_ai__provider__name="openai")
    wire = Span(web.service, "POST", parent=wrapper, kind=CLIENT, attributes={"url.full": "https://api.openai.com/v1"})
    spans = [
        web, wrapper, wire,
        call("SELECT", db__system__name="postgresql", server__address="pg-1", db__namespace="orders"),
        call("GET", db__system="redis"),
        call("rpc", peer__service="billing", server__address="10.0.0.1"),
        call("silent"),
    ]  # fmt: skip
    insert(store, place, spans, base_ns)
    edges = around(store, base_ns).edges.filter(caller=web.service).sort("callee")
    assert list(edges.select("callee", "connection", "callee_operation").iter_rows()) == [
        ("api.openai.com", "external", "POST"),
        ("billing", "external", "rpc"),
        ("pg-1", "database", "SELECT"),
        ("redis", "database", "GET"),
    ]
    assert edges["server_sum_ms"].null_count() == 4
    assert edges["client_sum_ms"].to_list() == [10.0] * 4


def test_messages_are_edges_by_parent_and_by_link(store: ClickHouseStore, place: int, base_ns: int) -> None:
    sent = [Span(f"shop-{place}", "send", kind=PRODUCER) for _ in range(3)]
    child = Span(f"mail-{place}", "process", 20_000, parent=sent[0], kind=CONSUMER, links=[sent[0]])
    batched = Span(f"stock-{place}", "receive", 21_000, kind=CONSUMER, links=sent[1:])
    insert(store, place, [*sent, child, batched], base_ns)
    edges = around(store, base_ns).edges.filter(caller=f"shop-{place}")
    by_parent = row(edges, callee=f"mail-{place}")
    assert (by_parent["connection"], by_parent["calls"]) == ("messaging", 1)
    assert by_parent["window_start_ns"] == base_ns + 2 * WINDOW_NS
    by_link = row(edges, callee=f"stock-{place}")
    assert (by_link["connection"], by_link["calls"], by_link["client_sum_ms"]) == ("link", 2, None)


def test_a_batch_that_is_only_received_in_a_client_span_is_an_edge(
    store: ClickHouseStore, place: int, base_ns: int
) -> None:
    sent = [Span(f"shop-{place}", "send", 20_000 + i, kind=PRODUCER) for i in range(3)]
    received = Span(f"bulk-{place}", "receive", 21_000, kind=CLIENT, links=sent)
    both = [
        Span(f"two-{place}", "receive", 21_000, kind=CLIENT, links=sent),
        *(Span(f"two-{place}", "process", 21_100, kind=CONSUMER, links=[one]) for one in sent),
    ]
    asked = Span(f"web-{place}", "GET", 20_500, kind=CLIENT)
    retried = Span(f"retry-{place}", "GET", 21_000, kind=CLIENT, links=[asked])
    insert(store, place, [*sent, received, *both, asked, retried], base_ns)
    edges = around(store, base_ns).edges
    linked = edges.filter((pl.col("connection") == "link") & pl.col("callee").str.ends_with(f"-{place}"))
    calls = linked.group_by("callee").agg(pl.col("calls").sum()).sort("callee").rows()
    assert calls == [(f"bulk-{place}", 3), (f"two-{place}", 3)]


def test_a_span_that_was_sent_twice_counts_once_in_joins(store: ClickHouseStore, place: int, base_ns: int) -> None:
    web = Span(f"web-{place}")
    api = Span(f"api-{place}", parent=web, duration_ms=4)
    for offset in range(2):
        insert(store, place, [web, api], base_ns, offset)
    got = around(store, base_ns)
    assert row(got.selfs, service=web.service)["self_sum_ms"] == 6
    assert row(got.edges, caller=web.service)["calls"] == 1


def test_frames_do_not_depend_on_settling(store: ClickHouseStore, place: int, base_ns: int) -> None:
    def traffic(minute: int) -> list[Span]:
        spans = []
        for i in range(60):
            root = Span(f"web-{place}", f"op-{i % 3}", minute * 60_000 + i * 1_000, 900, error=i % 9 == 0)
            call = Span(f"web-{place}", "call", root.start_ms + 10, 500, root, CLIENT)
            spans += [root, call, Span(f"api-{place}", "serve", root.start_ms + 20, 400, call, error=i % 9 == 0)]
        return spans

    def same(a: Frames, b: Frames) -> bool:
        pairs = ((a.windows, b.windows), (a.selfs, b.selfs), (a.edges, b.edges), (a.gauges, b.gauges))
        return all(left.equals(right) for left, right in pairs)

    def ask() -> Frames:
        return store.frames(base_ns, base_ns + 300 * SECOND)

    now_ns = base_ns + 600 * SECOND
    insert(store, place, traffic(0) + traffic(2), base_ns)
    fresh = ask()
    assert fresh.edges["calls"].sum() == 120
    assert store.settle(now_ns) >= 12
    assert store.settle(now_ns) == 0
    assert same(ask(), fresh)
    straggler = Span(f"late-{place}", "late", 5_000, 100)
    insert(store, place, [straggler], base_ns, 1)
    late = ask()
    assert row(late.selfs, service=straggler.service)["requests"] == 1
    assert not same(late, fresh)
    assert store.settle(now_ns) >= 1
    assert same(ask(), late)
    half = store.frames(base_ns + 60 * SECOND, base_ns + 180 * SECOND)
    assert same(half, late.between(base_ns + 60 * SECOND, base_ns + 180 * SECOND))


def test_a_child_that_comes_late_turns_an_outside_address_into_a_service(
    store: ClickHouseStore, place: int, base_ns: int
) -> None:
    web = Span(f"web-{place}")
    call = Span(web.service, "POST", 1, 8, web, CLIENT, attributes={"server.address": f"api-{place}.internal"})
    insert(store, place, [web, call], base_ns)
    store.settle(base_ns + 600 * SECOND)
    assert row(around(store, base_ns).edges, caller=web.service)["callee"] == f"api-{place}.internal"
    insert(store, place, [Span(f"api-{place}", "serve", 2, 5, call)], base_ns, 1)
    store.settle(base_ns + 600 * SECOND)
    assert row(around(store, base_ns).edges, caller=web.service)["callee"] == f"api-{place}"


def test_gauges_and_counters_are_windows(store: ClickHouseStore, place: int, base_ns: int) -> None:
    message, found = metrics(f"gpu-{place}", {"service.instance.id": "i", "host.name": "h"})
    for i, total in enumerate((10, 40, 5)):
        at = base_ns + i * WINDOW_NS + 1
        for value in (0.5, 1.5):
            point = found.add(name="hw.gpu.utilization", unit="1").gauge.data_points.add(
                time_unix_nano=at + int(value * 10), as_double=value
            )
            point.attributes.add(key="hw.id").value.string_value = "GPU-7"
            point.attributes.add(key="task").value.string_value = "general"
        found.add(name="absent").gauge.data_points.add(time_unix_nano=at, as_int=0x7FFFFFFFFFFFFFF2)
        found.add(name="flagged").gauge.data_points.add(time_unix_nano=at, flags=1)
        requests = found.add(name="requests").sum
        requests.is_monotonic, requests.aggregation_temporality = True, 2
        requests.data_points.add(time_unix_nano=at, as_int=total)
        delta = found.add(name="delta").sum
        delta.is_monotonic, delta.aggregation_temporality = True, 1
        delta.data_points.add(time_unix_nano=at, as_int=50)
        queue = found.add(name="queue").sum
        queue.aggregation_temporality = 2
        queue.data_points.add(time_unix_nano=at, as_int=-i)
    store.insert(batch("otlp_metrics", place, 0, message.SerializeToString()), 21)
    gauges = around(store, base_ns).gauges.filter(service=f"gpu-{place}")
    assert gauges.schema == GAUGE_WINDOWS
    first = row(gauges, metric="hw.gpu.utilization", window_start_ns=base_ns)
    assert (first["hw_id"], first["host"], first["instance"], first["labels"]) == ("GPU-7", "h", "i", "task=general")
    assert (first["samples"], first["value_avg"], first["value_min"], first["value_max"]) == (2, 1.0, 0.5, 1.5)
    rates = gauges.filter(metric="requests")
    assert (rates["kind"][0], rates["value_avg"].to_list()) == ("counter", [3.0, 0.5])
    assert gauges.filter(metric="delta")["value_avg"].to_list() == [5.0] * 3
    assert gauges.filter(metric="queue").select("kind", "value_avg").rows()[-1] == ("gauge", -2.0)
    assert gauges.filter(pl.col("metric").is_in(["absent", "flagged"])).is_empty()
    assert ledger(store, "otlp_metrics", place)["stored"] == 21


def test_durations_sent_as_histograms_are_windows(store: ClickHouseStore, place: int, base_ns: int) -> None:
    message, found = metrics(f"llm-{place}")
    for i in range(3):
        at = base_ns + i * WINDOW_NS + 1
        for name, unit, temporality, n in (("delta", "s", 1, 1), ("total", "s", 2, i + 1), ("tokens", "{token}", 1, 1)):
            histogram = found.add(name=name, unit=unit).histogram
            histogram.aggregation_temporality = temporality
            histogram.data_points.add(
                time_unix_nano=at, count=2 * n, sum=1.5 * n, bucket_counts=[0, n, n], explicit_bounds=[0.5, 1.0]
            )
        exponential = found.add(name="exponential", unit="ms").exponential_histogram
        exponential.aggregation_temporality = 1
        point = exponential.data_points.add(time_unix_nano=at, count=3, sum=9, scale=0, zero_count=1)
        point.positive.offset = 1
        point.positive.bucket_counts.extend([2])
    store.insert(batch("otlp_metrics", place, 0, message.SerializeToString()), 12)
    windows = around(store, base_ns).windows.filter(service=f"llm-{place}", kind="Metric")
    delta = row(windows, operation="delta", window_start_ns=base_ns)
    assert (delta["requests"], delta["duration_sum_ms"]) == (2, 1500)
    middle, above = (b["bucket"] for b in delta["latency_buckets"])  # type: ignore[attr-defined]
    assert 2 ** (middle / 16) < 707.2 <= 2 ** ((middle + 1) / 16)
    assert 2 ** (above / 16) < 2000 <= 2 ** ((above + 1) / 16)
    total = windows.filter(operation="total")
    assert total["window_start_ns"].to_list() == [base_ns + WINDOW_NS, base_ns + 2 * WINDOW_NS]
    assert total["requests"].to_list() == [2, 2]
    assert windows.filter(operation="tokens").is_empty()
    assert row(windows, operation="exponential", window_start_ns=base_ns)["latency_buckets"] == [
        {"bucket": -160, "count": 1},
        {"bucket": 23, "count": 2},
    ]


def test_metrics_of_all_kinds_are_stored(store: ClickHouseStore, place: int, base_ns: int) -> None:
    service = f"kinds-{place}"
    message, found = metrics(service)
    point = found.add(name="g").gauge.data_points.add(time_unix_nano=base_ns, as_int=7)
    point.exemplars.add(time_unix_nano=base_ns, as_int=3, trace_id=b"t" * 16)
    summary = found.add(name="s").summary.data_points.add(time_unix_nano=base_ns, count=2, sum=4)
    summary.quantile_values.add(quantile=0.5, value=2)
    found.add(name="1970").gauge.data_points.add(time_unix_nano=1, as_int=7)
    store.insert(batch("otlp_metrics", place, 0, message.SerializeToString()), 3)
    gauge = store.query("SELECT * FROM otel_metrics_gauge WHERE ServiceName = {s:String}", {"s": service}).to_dicts()[0]
    assert (gauge["Value"], gauge["Exemplars.Value"], gauge["Exemplars.TraceId"]) == (7.0, [3.0], [b"t".hex() * 16])
    quantiles = store.query(
        "SELECT ValueAtQuantiles.Value AS v FROM otel_metrics_summary WHERE ServiceName = {s:String}", {"s": service}
    )
    assert quantiles["v"].to_list() == [[2.0]]
    counted = ledger(store, "otlp_metrics", place)
    assert (counted["accepted"], counted["stored"], counted["rejected"]) == (3, 2, 1)


def test_logs_are_stored(store: ClickHouseStore, place: int, base_ns: int) -> None:
    service = f"logs-{place}"
    body = logs(
        service,
        [
            {"time_unix_nano": base_ns, "body": "hello", "severity_number": 9, "severity_text": "INFO",
             "trace_id": b"t" * 16, "event_name": "greeting", "attributes": {"n": 0}},
            {"observed_time_unix_nano": base_ns, "body": {"a": [1, "b"], "c": {"d": 1}}},
            {"time_unix_nano": base_ns, "trace_id": b"short"},
            {},
        ],
    )  # fmt: skip
    store.insert(batch("otlp_logs", place, 0, body), 4)
    found = store.query(
        "SELECT * FROM otel_logs WHERE ServiceName = {s:String} ORDER BY SeverityNumber", {"s": service}
    )
    nested, hello = found.to_dicts()
    assert (hello["Body"], hello["SeverityText"], hello["EventName"]) == ("hello", "INFO", "greeting")
    assert dict(hello["LogAttributes"]) == {"n": "0"}
    assert json.loads(nested["Body"]).keys() == {"a", "c"}
    counted = ledger(store, "otlp_logs", place)
    assert (counted["accepted"], counted["stored"], counted["rejected"]) == (4, 2, 2)


def test_incidents_come_back_as_they_were_saved(store: ClickHouseStore, place: int, base_ns: int) -> None:
    def incident(name: str, version: int, onset_s: int, resolved_s: int | None = None) -> Incident:
        at = base_ns + onset_s * SECOND
        return Incident(
            id=f"{name}-{place}", version=version, state=State.FIRING if resolved_s is None else State.RESOLVED,
            severity=Severity.WARNING, title="it's \"slow\"\n", onset_ns=at, opened_ns=at, last_seen_ns=at,
            resolved_ns=None if resolved_s is None else base_ns + resolved_s * SECOND, symptoms=(), causes=(),
            impact=Impact(("a",), 3),
        )  # fmt: skip

    first, second = incident("a", 1, 0), incident("b", 2, 60)
    store.save_incidents([first, second])
    assert store.incidents(from_ns=base_ns, to_ns=base_ns + 90 * SECOND) == [second, first]
    closed = incident("a", 2, 0, 30)
    store.save_incidents([closed])
    assert closed in store.incidents(state="resolved")
    assert store.incidents(from_ns=base_ns + 40 * SECOND, to_ns=base_ns + 90 * SECOND) == [second]
    store.save_incidents([])


def test_silences_end_and_can_be_ended(store: ClickHouseStore, place: int) -> None:
    silence = Silence(f"s{place}", f"llm{place}*", "deploy", 1_000, 5_000)
    store.save_silence(silence, 1_000)
    assert [s for s in store.silences(2_000) if s.id == silence.id] == [silence]
    assert [s for s in store.silences(5_000) if s.id == silence.id] == []
    store.save_silence(replace(silence, ends_ns=3_000), 3_000)
    assert [s for s in store.silences(3_000) if s.id == silence.id] == []


def test_what_was_notified_is_remembered(store: ClickHouseStore, place: int) -> None:
    ids = [f"x-{place}", f"y-{place}"]
    for version in (1, 3, 2):
        store.save_notified(ids[0], "hook", version)
    assert store.notified(ids) == {(ids[0], "hook"): 3}
    assert store.notified([]) == {}


def test_queries_take_parameters_and_give_typed_rows(store: ClickHouseStore) -> None:
    got = store.query("SELECT {text:String} AS t, {n:UInt64} AS n, {list:Array(String)} AS l", {
        "text": "it's \\ \"\n", "n": 2**63, "list": ["a'b"],
    })  # fmt: skip
    assert got.rows() == [("it's \\ \"\n", 2**63, ["a'b"])]
    nothing = store.query("SELECT 1::UInt8 AS a WHERE 0")
    assert (nothing.height, nothing.columns) == (0, ["a"])


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


def test_nothing_stored_gives_typed_frames(store: ClickHouseStore) -> None:
    nothing = store.frames(SECOND * 1_000_000, SECOND * 1_000_300)
    schemas = [f.schema for f in (nothing.windows, nothing.selfs, nothing.edges, nothing.gauges)]
    assert schemas == [SERVICE_WINDOWS, SELF_WINDOWS, EDGE_WINDOWS, GAUGE_WINDOWS]
