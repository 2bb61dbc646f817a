"""What the store makes of spans and points: windows, self times, edges, gauges."""

from __future__ import annotations

from dataclasses import replace

import polars as pl
import pytest

from observe.frames import (
    EDGE_WINDOWS,
    GAUGE_WINDOWS,
    LOG_COUNTS,
    SELF_WINDOWS,
    SERVICE_WINDOWS,
    Frames,
    LogQuestion,
)
from observe.store import ClickHouseStore
from observe.types import WINDOW_NS
from tests.contract.store.parts import SECOND, around, insert, ledger, row
from tests.fixtures.records import (
    CLIENT,
    CONSUMER,
    INTERNAL,
    PRODUCER,
    Span,
    batch,
    logs,
    metrics,
)


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

    def ask(*, joins: bool = True) -> Frames:
        return store.frames(base_ns, base_ns + 300 * SECOND, joins=joins)

    now_ns = base_ns + 600 * SECOND
    insert(store, place, traffic(0) + traffic(2), base_ns)
    fresh = ask()
    assert fresh.edges["calls"].sum() == 120
    assert same(ask(joins=False), replace(fresh, selfs=fresh.selfs.clear(), edges=fresh.edges.clear()))
    assert same(ask(), fresh)
    assert store.settle(now_ns) >= 12
    assert store.settle(now_ns) == 0
    assert same(ask(joins=False), fresh)
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


def test_nothing_stored_gives_typed_frames(store: ClickHouseStore) -> None:
    nothing = store.frames(SECOND * 1_000_000, SECOND * 1_000_300)
    schemas = [f.schema for f in (nothing.windows, nothing.selfs, nothing.edges, nothing.gauges)]
    assert schemas == [SERVICE_WINDOWS, SELF_WINDOWS, EDGE_WINDOWS, GAUGE_WINDOWS]


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
