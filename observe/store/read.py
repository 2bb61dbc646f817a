"""The API's questions to the store, in SQL. Every value goes as a server-side parameter; every scan has bounds in time
and every answer in rows. What windows say is worked out in `observe.summaries`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import orjson
import polars as pl

from observe import gpus, summaries, topology
from observe.errors import BadRecord
from observe.frames import GAUGE_WINDOWS, SERVICE_WINDOWS
from observe.interfaces import Store
from observe.store import topology as spans
from observe.store.aliases import spellings
from observe.store.aliases import values as same
from observe.store.marks import POINT_LOOKBACK_S
from observe.store.operations import OF_SPAN, OFFENDERS, of_service
from observe.store.rollups import sql as query_text
from observe.types import WINDOW_NS, Incident, Json
from observe.wire import incident_from_json, rfc3339

MAX_SPANS = 10_000
MAX_METRICS = 2_000
GPU_FRESH_NS = 120 * 10**9
"""A GPU whose last reading is older than this is not listed: exporters send at least every minute."""
GRAPH_SPAN_NS = 12 * WINDOW_NS
TRACE_MARGIN_NS = 600 * 10**9
"""How far the spans of a trace may lie outside the searched range and still be counted in its summary."""

SEVERITIES: Mapping[str, int] = {"trace": 1, "debug": 5, "info": 9, "warn": 13, "error": 17, "fatal": 21}
ORDERS: Mapping[str, str] = {"newest": "max(Timestamp)", "slowest": "max(Duration)"}

_IN_RANGE = (
    "Timestamp >= fromUnixTimestamp64Nano({from_ns:Int64}) AND Timestamp < fromUnixTimestamp64Nano({to_ns:Int64})"
)
_ERRED = "StatusCode IN ('Error', 'STATUS_CODE_ERROR')"  # the second was written by exporters until 2024
# As a rollup names it, or as the span itself does.
_OF_OPERATION = f"(SpanName = {{operation:String}} OR {OF_SPAN} = {{operation:String}})"
_LIMITS = "SETTINGS max_execution_time = 20"

_TRACES = """
SELECT TraceId AS trace_id,
       argMin(Service, (ParentSpanId != '', Timestamp)) AS service,
       argMin(SpanName, (ParentSpanId != '', Timestamp)) AS operation,
       toUnixTimestamp64Nano(min(Timestamp)) AS start_ns,
       max(toUnixTimestamp64Nano(Timestamp) + toInt64(Duration)) AS end_ns,
       count() AS spans, countIf({erred}) AS errors, arraySort(groupUniqArray(Service)) AS services
FROM otel_traces
WHERE Timestamp >= fromUnixTimestamp64Nano({{wide_from_ns:Int64}})
  AND Timestamp < fromUnixTimestamp64Nano({{wide_to_ns:Int64}})
  AND TraceId IN (SELECT TraceId FROM otel_traces WHERE {where}
                  GROUP BY TraceId ORDER BY {order} DESC LIMIT {{limit:UInt32}})
GROUP BY TraceId {limits}"""

_SPANS = """
SELECT SpanId AS span_id, ParentSpanId AS parent_span_id, Service AS service, SpanName AS operation,
       SpanKind AS kind, toUnixTimestamp64Nano(Timestamp) AS start_ns, Duration AS duration_ns, StatusCode AS status,
       StatusMessage AS status_message, TraceState AS trace_state, ScopeName AS scope, ScopeVersion AS scope_version,
       toJSONString(SpanAttributes) AS attributes, toJSONString(ResourceAttributes) AS resource,
       arrayMap(t -> toUnixTimestamp64Nano(t), Events.Timestamp) AS event_ns, Events.Name AS event_names,
       toJSONString(Events.Attributes) AS event_attributes,
       Links.TraceId AS link_trace_ids, Links.SpanId AS link_span_ids, toJSONString(Links.Attributes) AS link_attributes
FROM otel_traces
WHERE TraceId = {trace_id:String}
  AND Timestamp >= (SELECT min(Start) FROM otel_traces_trace_id_ts WHERE TraceId = {trace_id:String})
  AND Timestamp <= (SELECT max(End) + 1 FROM otel_traces_trace_id_ts WHERE TraceId = {trace_id:String})
ORDER BY Timestamp, SpanId LIMIT {limit:UInt32} """

_LOGS = """
SELECT toUnixTimestamp64Nano(Timestamp) AS at_ns, Service AS service, SeverityText AS severity,
       SeverityNumber AS severity_number, Body AS body, TraceId AS trace_id, SpanId AS span_id,
       EventName AS event_name, toJSONString(LogAttributes) AS attributes, toJSONString(ResourceAttributes) AS resource
FROM otel_logs WHERE {where} ORDER BY Timestamp DESC LIMIT {{limit:UInt32}} {limits}"""

# Of the rollup, only the rows that are asked for: frames also hold the joins of every service.
_OF_SERVICE = "ServiceName = {service:String} AND ({operation:String} = '' OR SpanName = {operation:String})"
_WINDOWS = """
SELECT toInt64({start}) * 1000000000 AS window_start_ns, ServiceName AS service, SpanName AS operation,
       SpanKind AS kind, {version} AS version, sum(Requests) AS requests, sum(Errors) AS errors,
       sum(DurationSumNs) / 1e6 AS duration_sum_ms,
       CAST(arrayZip(mapKeys(sumMap(Buckets) AS b), mapValues(b)), 'Array(Tuple(bucket Int16, count UInt64))')
           AS latency_buckets
FROM service_windows
WHERE Window >= toDateTime({{from_s:UInt32}}, 'UTC') AND Window < toDateTime({{to_s:UInt32}}, 'UTC') AND {where}
GROUP BY {by} {limits}"""
_BY_STEP = "intDiv(toUnixTimestamp(Window), {step_s:UInt32}) * {step_s:UInt32}"
_PLACES = """
SELECT ServiceName AS service, Instance AS instance, Host AS host FROM self_windows
WHERE Window >= toDateTime({{from_s:UInt32}}, 'UTC') AND Window < toDateTime({{to_s:UInt32}}, 'UTC')
GROUP BY service, instance, host LIMIT 100 BY service {limits}"""

_INCIDENT = "SELECT Body AS body FROM incidents FINAL WHERE Id = {id:String}"

_METRIC_TABLES = ("gauge", "sum", "histogram", "exponential_histogram", "summary")
_METRICS = """
SELECT MetricName AS metric, kind, any(MetricUnit) AS unit, any(MetricDescription) AS description,
       arraySort(groupUniqArray(1000)(Service)) AS services, sum(points) AS points
FROM ({tables}) GROUP BY MetricName, kind ORDER BY MetricName, kind LIMIT {{limit:UInt32}} {limits}"""
_METRICS_OF = """
SELECT MetricName, '{kind}' AS kind, any(MetricUnit) AS MetricUnit, any(MetricDescription) AS MetricDescription,
       Service, count() AS points
FROM otel_metrics_{kind}
WHERE TimeUnix >= fromUnixTimestamp64Nano({{from_ns:Int64}}) AND TimeUnix < fromUnixTimestamp64Nano({{to_ns:Int64}})
  AND ({{service:String}} = '' OR Service = {{service:String}})
GROUP BY MetricName, Service"""


class Reader:
    """Answers in the API's form. All methods may raise Unavailable; safe from any thread."""

    def __init__(self, store: Store) -> None:
        self._store = store

    # ── from windows ────────────────────────────────────────────────────────────────────────────────────────────────

    def services(self, from_ns: int, to_ns: int) -> list[Json]:
        """Every service of the range with its figures and operations."""
        sql = _WINDOWS.format(
            start="toUnixTimestamp(min(Window))",
            version="ServiceVersion",
            where="true",
            by="service, operation, kind, version",
            limits=_LIMITS,
        )
        span = _whole_seconds(from_ns, to_ns)
        places = self._store.query(_PLACES.format(limits=_LIMITS), span)
        return summaries.services(self._windows(sql, span), places, from_ns, to_ns)

    def operations(self, from_ns: int, to_ns: int, service: str = "", limit: int = 100) -> list[Json]:
        """Operations that stand for several names: ids taken out, or more than the limit; what is counted together
        first, then those with the most names. `examples` are names as they were sent."""
        sql = OFFENDERS.format(range=_IN_RANGE, of_service=of_service()) + f" {_LIMITS}"
        values = {"from_ns": from_ns, "to_ns": to_ns, "service": service, "limit": limit}
        return [row | {"beyond_limit": bool(row["beyond_limit"])} for row in self._store.query(sql, values).to_dicts()]

    def windows(self, service: str, operation: str, from_ns: int, to_ns: int, step_ns: int = 0) -> Json:
        """Latency, traffic and errors of one service ("" operation: all of it) over time."""
        step_ns = summaries.step_length_ns(from_ns, to_ns, step_ns)
        sql = _WINDOWS.format(
            start=_BY_STEP,
            version="''",
            where=_OF_SERVICE,
            by="window_start_ns, service, operation, kind",
            limits=_LIMITS,
        )
        asked = {"service": service, "operation": operation, "step_s": step_ns // 10**9}
        rows = self._windows(sql, _whole_seconds(from_ns, to_ns) | asked)
        if rows.is_empty() and operation:
            rows = self._store.frames(from_ns, to_ns).windows  # of histograms that were sent as metrics
        return summaries.series(rows, service, operation, from_ns, to_ns, step_ns)

    def graph(self, at_ns: int, span_ns: int = GRAPH_SPAN_NS, detail: str = "all") -> Json:
        """The graph of the `span_ns` before `at_ns`, with the incidents that were open then.

        `detail` adds operations, or places (instances, hosts, GPUs), or all of them; and how complete the traces are,
        which has to be counted from spans.
        """
        from_ns = at_ns - span_ns
        incidents = self._store.incidents(from_ns=from_ns, to_ns=at_ns + 1)
        frames = self._store.frames(from_ns, at_ns)
        span = from_ns // 10**9, -(-at_ns // 10**9)
        topics = spans.topics(self._store, *span)
        edges = topology.with_topics(frames.edges, topics, frames.windows["service"].unique())
        base = summaries.graph(replace(frames, edges=edges), incidents, at_ns, from_ns)
        open_then = [i for i in incidents if summaries.open_at(i, at_ns)]
        count = int(frames.selfs["requests"].sum())
        answer = topology.extended(base, frames, open_then, detail)
        if detail == "services":
            return answer
        return answer | {"completeness": spans.completeness(self._store, *span, count)}

    def gpus(self, at_ns: int) -> list[Json]:
        """The newest state of each GPU at `at_ns`."""
        return gpus.gpus(self._gauges("hw_id != ''", {}, at_ns - GPU_FRESH_NS, at_ns))

    def metric(
        self, name: str, from_ns: int, to_ns: int, *, service: str = "", labels: str = "", step_ns: int = 0
    ) -> Json:
        """The series of one gauge or counter; `labels` is a part of the series' "k=v,k=v" text."""
        step_ns = summaries.step_length_ns(from_ns, to_ns, step_ns)
        where = "metric = {metric:String} AND ({service:String} = '' OR service = {service:String})"
        gauges = self._gauges(where, {"metric": name, "service": service}, from_ns, to_ns)
        return summaries.metric(gauges, name, service, labels, from_ns, to_ns, step_ns)

    # ── from rows ───────────────────────────────────────────────────────────────────────────────────────────────────

    def metrics(self, from_ns: int, to_ns: int, service: str = "") -> list[Json]:
        """Names of the metrics that have points in the range."""
        tables = " UNION ALL ".join(_METRICS_OF.format(kind=kind) for kind in _METRIC_TABLES)
        values = {"from_ns": from_ns, "to_ns": to_ns, "service": service, "limit": MAX_METRICS}
        return self._store.query(_METRICS.format(tables=tables, limits=_LIMITS), values).to_dicts()

    def traces(
        self,
        from_ns: int,
        to_ns: int,
        *,
        service: str = "",
        operation: str = "",
        min_duration_ms: float = 0.0,
        errors_only: bool = False,
        attributes: Mapping[str, str] | None = None,
        order: str = "newest",
        limit: int = 20,
    ) -> list[Json]:
        """Traces with at least one span that meets all conditions at once, newest or slowest first."""
        if order not in ORDERS:
            raise BadRecord(f"order = {order!r}: {' or '.join(ORDERS)} is allowed")
        conditions = [_IN_RANGE]
        values: dict[str, object] = {"from_ns": from_ns, "to_ns": to_ns, "limit": limit}
        values |= {"wide_from_ns": max(0, from_ns - TRACE_MARGIN_NS), "wide_to_ns": to_ns + TRACE_MARGIN_NS}
        for condition, name, value in (
            (of_service(), "service", service),
            (_OF_OPERATION, "operation", operation),
            ("Duration >= {min_duration_ns:UInt64}", "min_duration_ns", int(min_duration_ms * 1e6)),
        ):
            if value:
                conditions.append(condition)
                values[name] = value
        if errors_only:
            conditions.append(_ERRED)
        for number, (key, value) in enumerate((attributes or {}).items()):
            k, v = f"{{keys{number}:Array(String)}}", f"{{values{number}:Array(String)}}"
            conditions.append(f"arrayExists(k -> SpanAttributes[k] IN {v} OR ResourceAttributes[k] IN {v}, {k})")
            values |= {f"keys{number}": list(spellings(key)), f"values{number}": list(same(key, value))}
        where = " AND ".join(conditions)
        sql = _TRACES.format(erred=_ERRED, where=where, order=ORDERS[order], limits=_LIMITS)
        found = [_trace_row(row) for row in self._store.query(sql, values).to_dicts()]
        return sorted(found, key=lambda t: t["start_at" if order == "newest" else "duration_ms"], reverse=True)

    def trace(self, trace_id: str) -> Json | None:
        """All spans of a trace in order of their start; None where there is none."""
        values = {"trace_id": trace_id.lower(), "limit": MAX_SPANS + 1}
        rows = self._store.query(_SPANS + _LIMITS, values).to_dicts()
        if not rows:
            return None
        start_ns = rows[0]["start_ns"]
        end_ns = max(row["start_ns"] + row["duration_ns"] for row in rows)
        return {
            "trace_id": trace_id.lower(),
            "start_at": rfc3339(start_ns),
            "duration_ms": (end_ns - start_ns) / 1e6,
            "truncated": len(rows) > MAX_SPANS,
            "spans": [_span(row, start_ns) for row in rows[:MAX_SPANS]],
        }

    def logs(
        self,
        from_ns: int,
        to_ns: int,
        *,
        service: str = "",
        trace_id: str = "",
        text: str = "",
        severity: str = "",
        limit: int = 100,
    ) -> list[Json]:
        """Log records, newest first: of a service, of a trace, containing `text`, of `severity` or worse."""
        if severity and severity not in SEVERITIES:
            raise BadRecord(f"severity = {severity!r}: one of {', '.join(SEVERITIES)} is allowed")
        conditions = [_IN_RANGE]
        values: dict[str, object] = {"from_ns": from_ns, "to_ns": to_ns, "limit": limit}
        for condition, name, value in (
            (of_service(), "service", service),
            ("TraceId = {trace_id:String}", "trace_id", trace_id.lower()),
            ("positionCaseInsensitiveUTF8(Body, {text:String}) > 0", "text", text),
            ("SeverityNumber >= {severity:UInt8}", "severity", SEVERITIES.get(severity, 0)),
        ):
            if value:
                conditions.append(condition)
                values[name] = value
        sql = _LOGS.format(where=" AND ".join(conditions), limits=_LIMITS)
        return [_log(row) for row in self._store.query(sql, values).to_dicts()]

    def _gauges(self, where: str, values: Mapping[str, object], from_ns: int, to_ns: int) -> pl.DataFrame:
        """Rows of GAUGE_WINDOWS; the condition reaches the scan, as it is on the columns that the query groups by."""
        span = _whole_seconds(from_ns, to_ns)
        named = {"from": span["from_s"], "to": span["to_s"], "lookback": POINT_LOOKBACK_S}
        sql = f"SELECT * FROM ({query_text('gauge_windows')}) WHERE {where} {_LIMITS}"
        return _typed(self._store.query(sql, named | dict(values)), GAUGE_WINDOWS)

    def _windows(self, sql: str, values: Mapping[str, object]) -> pl.DataFrame:
        return _typed(self._store.query(sql, values), SERVICE_WINDOWS)

    def incident(self, incident_id: str) -> Incident | None:
        """The newest version of one incident."""
        found = self._store.query(_INCIDENT, {"id": incident_id})
        return incident_from_json(orjson.loads(found["body"][0])) if found.height else None

    def check(self) -> None:
        """Raises Unavailable where the store does not answer."""
        self._store.query("SELECT 1 AS one")


def _typed(rows: pl.DataFrame, schema: dict[str, pl.DataType]) -> pl.DataFrame:
    """The rows with the types that frames promise; an answer without rows has no columns."""
    if not rows.width:
        return pl.DataFrame(schema=schema)
    return rows.select(pl.col(name).cast(kind) for name, kind in schema.items()).sort("window_start_ns")


def _whole_seconds(from_ns: int, to_ns: int) -> dict[str, object]:
    """Windows that start in the range: their starts are whole seconds."""
    return {"from_s": -(-from_ns // 10**9), "to_s": -(-to_ns // 10**9)}


def _trace_row(row: Json) -> Json:
    return {
        "trace_id": row["trace_id"],
        "service": row["service"],
        "operation": row["operation"],
        "start_at": rfc3339(row["start_ns"]),
        "duration_ms": (row["end_ns"] - row["start_ns"]) / 1e6,
        "spans": row["spans"],
        "errors": row["errors"],
        "services": row["services"],
    }


def _span(row: Json, trace_start_ns: int) -> Json:
    events = zip(row["event_ns"], row["event_names"], orjson.loads(row["event_attributes"]), strict=True)
    links = zip(row["link_trace_ids"], row["link_span_ids"], orjson.loads(row["link_attributes"]), strict=True)
    plain = ("span_id", "parent_span_id", "service", "operation", "status_message", "trace_state", "scope")
    return {
        **{name: row[name] for name in (*plain, "scope_version")},
        "kind": row["kind"].removeprefix("SPAN_KIND_").capitalize(),
        "status": row["status"].removeprefix("STATUS_CODE_").capitalize(),
        "start_at": rfc3339(row["start_ns"]),
        "offset_ms": (row["start_ns"] - trace_start_ns) / 1e6,
        "duration_ms": row["duration_ns"] / 1e6,
        "attributes": orjson.loads(row["attributes"]),
        "resource": orjson.loads(row["resource"]),
        "events": [{"at": rfc3339(at), "name": name, "attributes": a} for at, name, a in events],
        "links": [{"trace_id": trace, "span_id": span, "attributes": a} for trace, span, a in links],
    }


def _log(row: Json) -> Json:
    parsed: dict[str, Any] = {name: orjson.loads(row[name]) for name in ("attributes", "resource")}
    return {"at": rfc3339(row.pop("at_ns"))} | row | parsed
