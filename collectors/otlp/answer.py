"""Export…ServiceResponse: empty for full success, `partial_success` where items were left out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from observe.types import Signal

RESPONSES: Final[Mapping[Signal, tuple[Any, str, str]]] = {
    "spans": (ExportTraceServiceResponse, "rejected_spans", "rejectedSpans"),
    "metrics": (ExportMetricsServiceResponse, "rejected_data_points", "rejectedDataPoints"),
    "logs": (ExportLogsServiceResponse, "rejected_log_records", "rejectedLogRecords"),
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a request that was read: how many of its items were left out, and why."""

    rejected: int = 0
    message: str = ""


def as_protobuf(signal: Signal, outcome: Outcome) -> bytes:
    if not outcome.rejected:
        return b""  # an empty response, `partial_success` unset
    response, rejected, _ = RESPONSES[signal]
    answer = response()
    setattr(answer.partial_success, rejected, outcome.rejected)
    answer.partial_success.error_message = outcome.message
    return bytes(answer.SerializeToString())


def as_json(signal: Signal, outcome: Outcome) -> bytes:
    """OTLP/JSON, in which integers of 64 bits are strings.

    >>> as_json("spans", Outcome(2, "too large"))
    b'{"partialSuccess":{"rejectedSpans":"2","errorMessage":"too large"}}'
    """
    if not outcome.rejected:
        return b"{}"
    _, _, rejected = RESPONSES[signal]
    return orjson.dumps({"partialSuccess": {rejected: str(outcome.rejected), "errorMessage": outcome.message}})
