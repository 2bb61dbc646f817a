"""Whose spans they are, and what they do: namespaces, and operations whose names hold ids or are too many."""

from __future__ import annotations

import itertools
import time

import polars as pl
import pytest

from observe.frames import Frames
from observe.store import ClickHouseStore
from observe.store.operations import OTHER
from observe.store.read import Reader
from observe.types import WINDOW_NS
from tests.contract.otlp.conftest import LIMIT
from tests.fixtures.records import CLIENT, Span, batch, logs, metrics, request

BASE_NS = (time.time_ns() // WINDOW_NS - 6 * 360) * WINDOW_NS
partitions = itertools.count(100)


@pytest.fixture(scope="module")
def store(opened: ClickHouseStore) -> ClickHouseStore:
    return opened


def insert(store: ClickHouseStore, spans: list[Span]) -> None:
    store.insert(batch("otlp_spans", next(partitions), 0, request(spans, BASE_NS)), len(spans))


def look(store: ClickHouseStore) -> Frames:
    return store.frames(BASE_NS - WINDOW_NS, BASE_NS + 12 * WINDOW_NS)


def test_a_service_is_its_namespace_and_its_name(store: ClickHouseStore) -> None:
    shop, media = {"service.namespace": "shop"}, {"service.namespace": "media"}
    entry = Span("gateway", "GET /", resource=shop)
    call = Span("gateway", "POST", 1, 8, entry, CLIENT, resource=shop)
    spans = [entry, call, Span("gateway", "GET /image", 2, 5, call, resource=media), Span("gateway", "GET /plain")]
    insert(store, spans)
    seen = look(store)
    for service, operations in {
        "shop/gateway": {"GET /", "POST"}, "media/gateway": {"GET /image"}, "gateway": {"GET /plain"},
    }.items():  # fmt: skip
        assert set(seen.windows.filter(service=service)["operation"]) == operations
        assert set(seen.selfs.filter(service=service)["operation"]) == operations
    assert seen.edges.filter(caller="shop/gateway")["callee"].to_list() == ["media/gateway"]
    columns = store.query("SELECT DISTINCT ServiceName FROM otel_traces WHERE SpanName LIKE 'GET /%'")
    assert columns["ServiceName"].to_list() == ["gateway"]


def test_a_service_is_asked_for_by_its_whole_name(store: ClickHouseStore) -> None:
    reader, resource = Reader(store), {"service.namespace": "bank", "service.instance.id": "i-1"}
    insert(store, [Span("teller", "pay", resource=resource), Span("teller", "pay elsewhere")])
    until_ns = BASE_NS + 6 * WINDOW_NS
    named = {s["service"]: s for s in reader.services(BASE_NS, until_ns)}
    assert [o["operation"] for o in named["bank/teller"]["operations"]] == ["pay"]
    assert sum(w["requests"] for w in reader.windows("bank/teller", "", BASE_NS, until_ns)["windows"]) == 1
    (trace,) = reader.traces(BASE_NS, until_ns, service="bank/teller")
    assert (trace["service"], trace["services"], trace["operation"]) == ("bank/teller", ["bank/teller"], "pay")
    assert reader.trace(trace["trace_id"])["spans"][0]["service"] == "bank/teller"  # type: ignore[index]
    assert [t["operation"] for t in reader.traces(BASE_NS, until_ns, service="teller")] == ["pay elsewhere"]


def test_metrics_and_logs_have_the_same_identity(store: ClickHouseStore) -> None:
    message, points = metrics("meter", {"service.namespace": "bank"})
    points.add(name="depth").gauge.data_points.add(time_unix_nano=BASE_NS, as_double=4.5)
    store.insert(batch("otlp_metrics", next(partitions), 0, message.SerializeToString()), 1)
    assert look(store).gauges.filter(service="bank/meter")["value_avg"].to_list() == [4.5]
    reader = Reader(store)
    assert reader.metrics(BASE_NS, BASE_NS + WINDOW_NS, "bank/meter")[0]["services"] == ["bank/meter"]
    assert reader.metrics(BASE_NS, BASE_NS + WINDOW_NS, "meter") == []
    record = logs("meter", [{"body": "plain", "time_unix_nano": BASE_NS}])
    store.insert(batch("otlp_logs", next(partitions), 0, record), 1)
    assert [line["body"] for line in reader.logs(BASE_NS, BASE_NS + WINDOW_NS, service="meter")] == ["plain"]
    assert reader.logs(BASE_NS, BASE_NS + WINDOW_NS, service="bank/meter") == []


NAMES = {
    "GET /users/42/orders/0af7651916cd43dd8448eb211c80319c": "GET /users/{id}/orders/{id}",
    "GET /v1/users/12345678-1234-1234-1234-123456789abc?x=1": "GET /v1/users/{id}?x=1",
    "process order 1234567": "process order {id}",
    "GET /2024/11/": "GET /{id}/{id}/",
    "chat llama-3-70b": "chat llama-3-70b",
    "chat gpt-4o-2024-08-06": "chat gpt-4o-2024-08-06",
    "HTTP 404": "HTTP 404",
}


def test_ids_are_no_part_of_an_operation(store: ClickHouseStore) -> None:
    insert(store, [Span("named", name) for name in NAMES])
    seen = look(store)
    for frame in (seen.windows, seen.selfs):
        assert set(frame.filter(service="named")["operation"]) == set(NAMES.values())
    raw = store.query("SELECT SpanName FROM otel_traces WHERE ServiceName = 'named'")["SpanName"]
    assert set(raw) == set(NAMES)
    reader, until_ns = Reader(store), BASE_NS + WINDOW_NS
    for asked in ("GET /{id}/{id}/", "GET /2024/11/"):
        assert len(reader.traces(BASE_NS, until_ns, service="named", operation=asked)) == 1


def test_operations_beyond_the_limit_are_counted_together(store: ClickHouseStore) -> None:
    """The busiest have their own row, and keep it; what comes later finds no place."""

    def usual() -> list[Span]:
        return [Span("many", f"usual-{i}") for i in range(LIMIT - 2) for _ in range(3)]

    insert(store, [*usual(), *(Span("many", f"GET /u/{i}x") for i in range(50))])
    insert(store, [*usual(), *(Span("many", f"GET /v/{i}y", 20_000) for i in range(50))])
    seen = look(store)
    windows = seen.windows.filter(service="many")
    assert windows["operation"].n_unique() == LIMIT + 1
    assert windows["requests"].sum() == 2 * (len(usual()) + 50)
    counted = dict(windows.group_by("operation").agg(pl.col("requests").sum()).iter_rows())
    assert {name: n for name, n in counted.items() if n == 6} == {f"usual-{i}": 6 for i in range(LIMIT - 2)}
    assert counted[OTHER] == 100 - 2
    selfs = seen.selfs.filter(service="many").group_by("operation").agg(pl.col("requests").sum())
    assert dict(selfs.iter_rows()) == counted
    found = Reader(store).traces(BASE_NS, BASE_NS + 6 * WINDOW_NS, service="many", operation=OTHER, limit=200)
    assert len(found) == 98


def test_a_name_for_each_span_costs_a_row_for_all(store: ClickHouseStore) -> None:
    """100,000 names in one batch: the limit's rows in each window, whatever the names look like."""
    spans = 100_000
    one = request([Span("leak", "GET /person/name-00000x", trace_id=b"t" * 16, span_id=b"spanid00")], BASE_NS)
    body = b"".join(
        one.replace(b"name-00000", b"name-%05d" % i).replace(b"spanid00", i.to_bytes(8, "big")) for i in range(spans)
    )
    store.insert(batch("otlp_spans", next(partitions), 0, body), spans)
    windows = look(store).windows.filter(service="leak")
    assert len(windows) == LIMIT + 1
    assert windows.filter(operation=OTHER)["requests"].to_list() == [spans - LIMIT]
    names = store.query("SELECT uniqExact(SpanName) AS n FROM otel_traces WHERE ServiceName = 'leak'")["n"][0]
    assert names == spans
    assert store.query("SELECT count() AS n FROM operations WHERE Service = 'leak'")["n"][0] == LIMIT


def test_operations_with_many_names_are_listed(store: ClickHouseStore) -> None:
    spans = [Span("told", f"GET /users/{i}") for i in range(5)]
    spans += [Span("told", f"find {i}x") for i in range(LIMIT + 12)]
    insert(store, [*spans, Span("told", "GET /health")])
    listed = Reader(store).operations(BASE_NS, BASE_NS + WINDOW_NS, "told")
    assert [(row["operation"], row["spans"], row["names"], row["beyond_limit"]) for row in listed] == [
        (OTHER, 14, 14, True),
        ("GET /users/{id}", 5, 5, False),
    ]
    assert listed[1]["examples"] == sorted(listed[1]["examples"])
    assert set(listed[1]["examples"]) < {span.name for span in spans}
    everyone = Reader(store).operations(BASE_NS, BASE_NS + WINDOW_NS)
    assert everyone[0]["beyond_limit"]
    assert "told" in {row["service"] for row in everyone}
