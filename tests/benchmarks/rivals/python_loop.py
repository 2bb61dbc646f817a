"""A consumer as most people would write it: decode, loop over spans, insert in batches. Run as a script.

Careful where it costs nothing: commits follow inserts, and inserts are large.
"""

from __future__ import annotations

import signal
import sys
from typing import Any

import clickhouse_connect
from confluent_kafka import Consumer
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

ROWS = 50_000
COLUMNS = (
    "Timestamp", "TraceId", "SpanId", "ParentSpanId", "TraceState", "SpanName", "SpanKind", "ServiceName",
    "ResourceAttributes", "ScopeName", "ScopeVersion", "SpanAttributes", "Duration", "StatusCode", "StatusMessage",
    "Events.Timestamp", "Events.Name", "Events.Attributes",
    "Links.TraceId", "Links.SpanId", "Links.TraceState", "Links.Attributes",
)  # fmt: skip
KINDS = ("Unspecified", "Internal", "Server", "Client", "Producer", "Consumer")
CODES = ("Unset", "Ok", "Error")


def main(brokers: str, topic: str, group: str, server: str, database: str) -> None:
    client = clickhouse_connect.get_client(dsn=server, database=database)
    consumer = Consumer(
        {"bootstrap.servers": brokers, "group.id": group, "auto.offset.reset": "earliest", "enable.auto.commit": False}
    )
    consumer.subscribe([topic])
    running = [True]
    signal.signal(signal.SIGTERM, lambda *_: running.clear())
    rows: list[list[Any]] = []
    while running:
        message = consumer.poll(1.0)
        if message is not None and not message.error():
            rows += to_rows(ExportTraceServiceRequest.FromString(message.value()))
        if len(rows) >= ROWS or (rows and message is None):
            client.insert("otel_traces", rows, column_names=COLUMNS)
            consumer.commit(asynchronous=False)
            rows = []
    consumer.close()


def to_rows(request: Any) -> list[list[Any]]:
    rows = []
    for resource_spans in request.resource_spans:
        resource = as_map(resource_spans.resource.attributes)
        for scope_spans in resource_spans.scope_spans:
            for span in scope_spans.spans:
                rows.append(to_row(resource, scope_spans.scope, span))  # noqa: PERF401 - as people write it
    return rows


def to_row(resource: dict[str, str], scope: Any, span: Any) -> list[Any]:
    return [
        span.start_time_unix_nano,
        span.trace_id.hex(),
        span.span_id.hex(),
        span.parent_span_id.hex(),
        span.trace_state,
        span.name,
        KINDS[span.kind],
        resource.get("service.name", ""),
        resource,
        scope.name,
        scope.version,
        as_map(span.attributes),
        span.end_time_unix_nano - span.start_time_unix_nano,
        CODES[span.status.code],
        span.status.message,
        [event.time_unix_nano for event in span.events],
        [event.name for event in span.events],
        [as_map(event.attributes) for event in span.events],
        [link.trace_id.hex() for link in span.links],
        [link.span_id.hex() for link in span.links],
        [link.trace_state for link in span.links],
        [as_map(link.attributes) for link in span.links],
    ]


def as_map(attributes: Any) -> dict[str, str]:
    return {attribute.key: text(attribute.value) for attribute in attributes}


def text(value: Any) -> str:
    kind = value.WhichOneof("value")
    return str(getattr(value, kind)) if kind else ""


if __name__ == "__main__":
    main(*sys.argv[1:])
