"""What others ask of the exporter's tables gets its answer from ours: the queries of the exporter's own README, and
those that Grafana's ClickHouse data source makes, word for word but for the database, the values and Grafana's macros.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

from observe.store import ClickHouseStore
from tests.fixtures.records import CLIENT, MS, Span, batch, logs, metrics, request

TRACE = "391dae938234560b16bb63f51501cb6f"
SERVICE = "clickhouse-exporter"
PARTITION = 8
NOW_NS = time.time_ns() // MS * MS
START_NS = NOW_NS - 600 * 1000 * MS


@pytest.fixture(scope="module")
def store(opened: ClickHouseStore) -> ClickHouseStore:
    opened.insert(batch("otlp_spans", PARTITION, 0, spans()), 3)
    opened.insert(batch("otlp_logs", PARTITION, 0, log_records()), 3)
    opened.insert(batch("otlp_metrics", PARTITION, 0, sums()), 2)
    return opened


def spans() -> bytes:
    root = Span(SERVICE, "GET /", 0, 2500, trace_id=bytes.fromhex(TRACE), resource={"k8s.pod.name": "pod-1"})
    call = Span(
        SERVICE, "POST", 100, 1500, root, CLIENT, True, {"peer.service": "telemetrygen-server", "tags": ["a"]},
        links=[Span("other")],
    )  # fmt: skip
    return request([root, call, Span("telemetrygen-server", "POST /x", 200, 900, call)], START_NS)


def log_records() -> bytes:
    bodies: list[Mapping[str, Any]] = [
        {"body": "GET http://shop/ 200", "severity_text": "INFO", "severity_number": 9},
        {"body": {"bytes": 2048}, "severity_text": "INFO", "severity_number": 9},
        {
            "body": "out of memory", "severity_text": "ERROR", "severity_number": 17,
            "attributes": {"container_name": "/example_flog_1"}, "trace_id": bytes.fromhex(TRACE),
        },
    ]  # fmt: skip
    records = [{**b, "time_unix_nano": START_NS + i * 1000 * MS} for i, b in enumerate(bodies)]
    message = ExportLogsServiceRequest.FromString(logs(SERVICE, records))
    message.resource_logs[0].resource.attributes.add(key="k8s.pod.name").value.string_value = "pod-1"
    return bytes(message.SerializeToString())


def sums() -> bytes:
    message, out = metrics(SERVICE)
    for service, value in (("featureflagservice", 7), ("cart", 3)):
        point = out.add(name="calls").sum.data_points.add(time_unix_nano=START_NS, as_int=value)
        point.attributes.add(key="service_name").value.string_value = service
    return bytes(message.SerializeToString())


LAST_HOUR = (
    "toStartOfFiveMinutes(Timestamp) >= toStartOfFiveMinutes(NOW() - INTERVAL 1 HOUR) "
    "AND Timestamp >= NOW() - INTERVAL 1 HOUR"
)
NEWEST = "ORDER BY (toStartOfFiveMinutes(Timestamp), Timestamp) DESC LIMIT 100"
COLUMNS = (
    "Timestamp, TraceId, SpanId, ParentSpanId, SpanName, SpanKind, ServiceName, Duration, StatusCode, StatusMessage, "
    "toString(SpanAttributes), toString(ResourceAttributes), toString(Events.Name), toString(Links.TraceId)"
)
HTTP, JSON, MEMORY = "GET http://shop/ 200", '{"bytes":2048}', "out of memory"

README_LOGS = {
    f"{LAST_HOUR}": [MEMORY, JSON, HTTP],
    f"ServiceName = '{SERVICE}' AND {LAST_HOUR}": [MEMORY, JSON, HTTP],
    f"LogAttributes['container_name'] = '/example_flog_1' AND {LAST_HOUR}": [MEMORY],
    f"hasToken(Body, 'http') AND {LAST_HOUR}": [HTTP],
    f"Body like '%http%' AND {LAST_HOUR}": [HTTP],
    f"match(Body, 'http') AND {LAST_HOUR}": [HTTP],
    f"JSONExtractFloat(Body, 'bytes') > 1000 AND {LAST_HOUR}": [JSON],
    "TimestampTime >= NOW() - INTERVAL 1 HOUR": [MEMORY, JSON, HTTP],  # as it was before 2026
    "`__otel_materialized_k8s.pod.name` = 'pod-1'": [MEMORY, JSON, HTTP],
    "`__otel_materialized_deployment.environment.name` = 'production'": [],
}
README_SPANS = {
    f"ServiceName = '{SERVICE}' AND SpanAttributes['peer.service'] = 'telemetrygen-server'": ["POST"],
    f"ServiceName = '{SERVICE}' AND StatusCode = 'Error'": ["POST"],
    f"ServiceName = '{SERVICE}' AND Duration > 1 * 1e9": ["GET /", "POST"],
    "has(SpanAttributeItems, 'peer.service=telemetrygen-server')": ["POST"],
    "has(ResourceAttributeItems, 'k8s.pod.name=pod-1')": ["GET /"],
}


@pytest.mark.parametrize(("condition", "bodies"), README_LOGS.items())
def test_the_readme_finds_logs(store: ClickHouseStore, condition: str, bodies: list[str]) -> None:
    found = store.query(f"SELECT Timestamp as log_time, Body FROM otel_logs WHERE {condition} {NEWEST}").to_dicts()
    assert [row["Body"] for row in found] == bodies


def test_the_readme_counts_severities(store: ClickHouseStore) -> None:
    found = store.query(
        "SELECT toDateTime(toStartOfInterval(Timestamp, INTERVAL 60 second)) as time, SeverityText, count() as count "
        f"FROM otel_logs WHERE {LAST_HOUR} GROUP BY SeverityText, time ORDER BY time"
    )
    assert sum(found.filter(SeverityText="INFO")["count"]) == 2
    assert sum(found.filter(SeverityText="ERROR")["count"]) == 1


@pytest.mark.parametrize(("condition", "names"), README_SPANS.items())
def test_the_readme_finds_spans(store: ClickHouseStore, condition: str, names: list[str]) -> None:
    sql = f"SELECT {COLUMNS} FROM otel_traces WHERE {condition} AND Timestamp >= NOW() - INTERVAL 1 HOUR Limit 100"
    found = store.query(sql).to_dicts()
    assert sorted(row["SpanName"] for row in found) == names
    if names == ["POST"]:
        assert found[0]["toString(SpanAttributes)"] == "{'peer.service':'telemetrygen-server','tags':'[\"a\"]'}"


def test_the_readme_finds_a_trace(store: ClickHouseStore) -> None:
    found = store.query(
        f"WITH '{TRACE}' as trace_id, "
        "(SELECT min(Start) FROM otel_traces_trace_id_ts WHERE TraceId = trace_id) as start, "
        "(SELECT max(End) + 1 FROM otel_traces_trace_id_ts WHERE TraceId = trace_id) as end "
        f"SELECT {COLUMNS} FROM otel_traces "
        "WHERE TraceId = trace_id AND Timestamp >= start AND Timestamp <= end Limit 100"
    )
    assert sorted(found["SpanName"]) == ["GET /", "POST", "POST /x"]


def test_the_readme_finds_sums(store: ClickHouseStore) -> None:
    sql = "select TimeUnix,MetricName,Attributes,Value from otel_metrics_sum where MetricName='calls'"
    assert sorted(store.query(f"{sql} limit 100")["Value"]) == [3.0, 7.0]
    one = store.query(f"{sql} and Attributes['service_name']='featureflagservice' limit 100")
    assert one["Value"].to_list() == [7.0]


def grafana(store: ClickHouseStore, sql: str) -> list[dict[str, Any]]:
    """Runs a query of the data source: its macros become times, its database the one that we have."""
    database = store.query("SELECT currentDatabase() AS name")["name"][0]
    for macro, value in {
        "$__fromTime": f"toDateTime({START_NS // 10**9 - 60})",
        "$__toTime": f"toDateTime({NOW_NS // 10**9})",
        '"default".': f'"{database}".',
    }.items():
        sql = sql.replace(macro, value)
    return store.query(sql).to_dicts()


def test_grafana_lists_traces(store: ClickHouseStore) -> None:
    found = grafana(
        store,
        'SELECT "TraceId" as traceID, "ServiceName" as serviceName, "SpanName" as operationName, '
        '"Timestamp" as startTime, multiply("Duration", 0.000001) as duration '
        'FROM "default"."otel_traces" WHERE ( Timestamp >= $__fromTime AND Timestamp <= $__toTime ) '
        "AND ( ParentSpanId = '' ) AND ( Duration > 0 ) ORDER BY Timestamp DESC, Duration DESC LIMIT 1000",
    )
    assert [(row["traceID"], row["operationName"], row["duration"]) for row in found] == [(TRACE, "GET /", 2500.0)]


def test_grafana_shows_a_trace(store: ClickHouseStore) -> None:
    found = grafana(
        store,
        f"WITH '{TRACE}' as trace_id, "
        '(SELECT min(Start) FROM "default"."otel_traces_trace_id_ts" WHERE TraceId = trace_id) as trace_start, '
        '(SELECT max(End) + 1 FROM "default"."otel_traces_trace_id_ts" WHERE TraceId = trace_id) as trace_end '
        'SELECT "TraceId" as traceID, "SpanId" as spanID, "ParentSpanId" as parentSpanID, '
        '"ServiceName" as serviceName, "SpanName" as operationName, '
        'multiply(toUnixTimestamp64Nano("Timestamp"), 0.000001) as startTime, '
        'multiply("Duration", 0.000001) as duration, '
        "arrayMap(key -> map('key', key, 'value',\"SpanAttributes\"[key]), mapKeys(\"SpanAttributes\")) as tags, "
        "arrayMap(key -> map('key', key, 'value',\"ResourceAttributes\"[key]), mapKeys(\"ResourceAttributes\")) "
        "as serviceTags, if(\"StatusCode\" IN ('Error', 'STATUS_CODE_ERROR'), 2, 0) as statusCode, "
        "arrayMap((name, timestamp, attributes) -> tuple(name, toString(toUnixTimestamp64Milli(timestamp)), "
        "arrayMap( key -> map('key', key, 'value', attributes[key]), mapKeys(attributes)))::Tuple(name String, "
        'timestamp String, fields Array(Map(String, String))), "Events".Name, "Events".Timestamp, '
        '"Events".Attributes) AS logs, '
        "arrayMap((traceID, spanID, attributes) -> tuple(traceID, spanID, arrayMap(key -> map('key', key, 'value', "
        "attributes[key]), mapKeys(attributes)))::Tuple(traceID String, spanID String, tags Array(Map(String, "
        'String))), "Links".TraceId, "Links".SpanId, "Links".Attributes) AS references, '
        '"SpanKind" as kind, "StatusMessage" as statusMessage, "ScopeName" as instrumentationLibraryName, '
        '"ScopeVersion" as instrumentationLibraryVersion, "TraceState" as traceState '
        'FROM "default"."otel_traces" WHERE traceID = trace_id AND "Timestamp" >= trace_start '
        'AND "Timestamp" <= trace_end LIMIT 1000',
    )
    spans = {row["operationName"]: row for row in found}
    assert spans.keys() == {"GET /", "POST", "POST /x"}
    call = spans["POST"]
    assert call["parentSpanID"] == spans["GET /"]["spanID"]
    assert (call["statusCode"], call["kind"], call["duration"]) == (2, "Client", 1500.0)
    assert call["startTime"] == pytest.approx(START_NS / MS + 100)
    assert next(dict(tag) for tag in call["tags"]) == {"key": "peer.service", "value": "telemetrygen-server"}
    assert len(call["references"]) == 1


@pytest.mark.parametrize("severity", ["", "AND ( level = 'ERROR' ) "])
def test_grafana_lists_logs(store: ClickHouseStore, severity: str) -> None:
    found = grafana(
        store,
        'SELECT Timestamp as "timestamp", Body as "body", SeverityText as "level", TraceId as "traceID" '
        'FROM "default"."otel_logs" WHERE ( timestamp >= $__fromTime AND timestamp <= $__toTime ) '
        f"{severity}ORDER BY timestamp DESC LIMIT 1000",
    )
    assert [row["body"] for row in found] == ([MEMORY] if severity else [MEMORY, JSON, HTTP])
    assert found[0]["traceID"] == TRACE


def test_grafana_lists_services_and_attribute_keys(store: ClickHouseStore) -> None:
    recent = 'FROM "default"."otel_traces" WHERE Timestamp >= $__fromTime AND Timestamp <= $__toTime'
    services = grafana(store, f"SELECT DISTINCT ServiceName {recent} ORDER BY ServiceName")
    assert [row["ServiceName"] for row in services] == [SERVICE, "telemetrygen-server"]
    keys = grafana(store, f"SELECT DISTINCT arrayJoin(mapKeys(SpanAttributes)) AS key {recent} ORDER BY key")
    assert [row["key"] for row in keys] == ["peer.service", "tags"]


EXPORTER_SPAN = """
INSERT INTO otel_traces (Timestamp, TraceId, SpanId, ParentSpanId, TraceState, SpanName, SpanKind, ServiceName,
    ResourceAttributes, ScopeName, ScopeVersion, SpanAttributes, Duration, StatusCode, StatusMessage, Events.Timestamp,
    Events.Name, Events.Attributes, Links.TraceId, Links.SpanId, Links.TraceState, Links.Attributes)
SELECT now64(9) - INTERVAL 30 MINUTE, 'aa', 'bb', '', '', 'written by the exporter', 'Server', 'old-pipeline',
    map('service.name', 'old-pipeline'), 'lib', '1', map('k', 'v'), 1000000, 'Unset', '', [now64(9)], ['started'],
    [map('a', 'b')], ['cc'], ['dd'], [''], [map()]
"""


def test_the_exporter_can_write_beside_us(store: ClickHouseStore) -> None:
    """While people move over, a Collector may still insert into the same tables: our columns take their defaults."""
    store.execute(EXPORTER_SPAN, {})
    (span,) = store.query("SELECT * FROM otel_traces WHERE ServiceName = 'old-pipeline'").to_dicts()
    assert (span["SpanName"], span["Events.Name"], span["Links.SpanId"]) == (
        "written by the exporter",
        ["started"],
        ["dd"],
    )
    windows = store.frames(NOW_NS - 3600 * 1000 * MS, NOW_NS).windows
    assert windows.filter(service="old-pipeline")["requests"].to_list() == [1]
