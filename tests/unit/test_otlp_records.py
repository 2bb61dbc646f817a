"""Requests as records: counting, and OTLP/JSON against the same request in protobuf."""

from __future__ import annotations

import json
from typing import Any

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from observe.errors import BadRecord
from observe.stream.otlp import count_items, decode, is_json, items_header, items_of, json_to_protobuf
from observe.types import Record

SPAN = {
    "traceId": "5B8EFFF798038103D269B633813FC60C",
    "spanId": "eee19b7ec3c1b174",
    "parentSpanId": "",
    "name": "GET /x",
    "kind": 2,
    "startTimeUnixNano": "1544712660000000000",
    "endTimeUnixNano": 1544712661000000000,
    "status": {},
    "flags": 257,
    "attributes": [
        {"key": "i", "value": {"intValue": "-7"}},
        {"key": "n", "value": {"intValue": 7}},
        {"key": "d", "value": {"doubleValue": "NaN"}},
        {"key": "b", "value": {"bytesValue": "aGk="}},
        {"key": "m", "value": {"kvlistValue": {"values": [{"key": "x", "value": {"boolValue": True}}]}}},
        {"key": "a", "value": {"arrayValue": {}}},
        {"key": "none", "value": None},
    ],
    "futureField": {"anything": [1, 2]},
    "trace_state": "ignored: snake case is no OTLP/JSON",
}


def spans_json(*spans: Any) -> bytes:
    return json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": list(spans)}]}], "later": 1}).encode()


def test_json_reads_as_the_specification_says() -> None:
    request = ExportTraceServiceRequest.FromString(json_to_protobuf("spans", spans_json(SPAN)))
    span = request.resource_spans[0].scope_spans[0].spans[0]
    assert span.trace_id == bytes.fromhex("5b8efff798038103d269b633813fc60c")
    assert (span.span_id, span.parent_span_id) == (bytes.fromhex("eee19b7ec3c1b174"), b"")
    assert (span.start_time_unix_nano, span.end_time_unix_nano) == (1544712660000000000, 1544712661000000000)
    assert (span.kind, span.flags, span.trace_state, span.HasField("status")) == (Span.SPAN_KIND_SERVER, 257, "", True)
    values = {a.key: a.value for a in span.attributes}
    assert (values["i"].int_value, values["n"].int_value, values["b"].bytes_value) == (-7, 7, b"hi")
    assert str(values["d"].double_value) == "nan"
    assert values["m"].kvlist_value.values[0] == KeyValue(key="x", value=AnyValue(bool_value=True))
    assert values["a"].WhichOneof("value") == "array_value"
    assert values["none"].WhichOneof("value") is None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"traceId": "aGVsbG8="}, "traceId"),
        ({"traceId": "abc"}, "traceId"),
        ({"kind": "SPAN_KIND_SERVER"}, "kind"),
        ({"name": 7}, "name"),
        ({"startTimeUnixNano": "soon"}, "startTimeUnixNano"),
        ({"startTimeUnixNano": str(2**64)}, "startTimeUnixNano"),
        ({"startTimeUnixNano": True}, "startTimeUnixNano"),
        ({"attributes": {}}, "attributes"),
        ({"attributes": [7]}, "KeyValue"),
        ({"attributes": [{"key": "two", "value": {"intValue": 1, "stringValue": "x"}}]}, "another value"),
        ({"attributes": [{"key": "b", "value": {"bytesValue": "***"}}]}, "base64"),
    ],
)
def test_what_json_cannot_mean_is_refused_by_name(change: dict[str, Any], said: str) -> None:
    with pytest.raises(BadRecord, match=said):
        json_to_protobuf("spans", spans_json({**SPAN, **change}))


@pytest.mark.parametrize("value", [b"{", b"[]", b'{"resourceSpans": 1}', b"{}x"])
def test_broken_json_is_a_bad_record(value: bytes) -> None:
    with pytest.raises(BadRecord):
        json_to_protobuf("spans", value)


def test_nesting_without_end_is_a_bad_record() -> None:
    value: dict[str, Any] = {"intValue": 1}
    for _ in range(200):
        value = {"arrayValue": {"values": [value]}}
    with pytest.raises(BadRecord, match="nested"):
        json_to_protobuf("spans", spans_json({"attributes": [{"key": "deep", "value": value}]}))


def test_counts_of_the_three_signals() -> None:
    traces = ExportTraceServiceRequest()
    for spans in (2, 0, 3):
        traces.resource_spans.add().scope_spans.add().spans.extend([Span(name="x")] * spans)
    metrics = ExportMetricsServiceRequest()
    scope = metrics.resource_metrics.add().scope_metrics.add()
    scope.metrics.add(name="nothing")
    for kind, points in (("gauge", 1), ("sum", 2), ("histogram", 3), ("exponential_histogram", 4), ("summary", 5)):
        metric = scope.metrics.add(name=kind)
        for _ in range(points):
            getattr(metric, kind).data_points.add()
    logs = ExportLogsServiceRequest()
    logs.resource_logs.add().scope_logs.add().log_records.add(severity_text="INFO")
    assert count_items("spans", traces.SerializeToString()) == 5
    assert count_items("metrics", metrics.SerializeToString()) == 15
    assert count_items("logs", logs.SerializeToString()) == 1
    assert count_items("spans", b"") == 0
    assert count_items("spans", spans_json(SPAN, SPAN)) == 2


def test_truncated_protobuf_is_a_bad_record() -> None:
    value = json_to_protobuf("spans", spans_json(SPAN))
    assert not is_json(value)
    with pytest.raises(BadRecord, match="ExportTraceServiceRequest"):
        decode("spans", value[:-3])


def test_the_header_states_the_items_and_nonsense_in_it_is_not_believed() -> None:
    value = spans_json(SPAN)
    stated = Record("otlp_spans", 0, 0, value, headers=tuple(items_header(512).items()))
    assert items_of(stated) == 512
    assert items_of(Record("otlp_spans", 0, 0, value, headers=(("items", b"-1"),))) == 1
    assert items_of(Record("otlp_spans", 0, 0, value)) == 1
    assert items_of(Record("otlp_dead_letters", 0, 0, b"\xff")) == 0
