"""What the tests of the OTLP receivers share: a running receiver, requests, and a client of each protocol."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from typing import Any

import grpc
import httpx
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from collectors.otlp import OtlpReceiver
from observe.interfaces import Producer
from observe.settings import OtlpSettings

PROTOBUF = "application/x-protobuf"
JSON = "application/json"
METHODS = {
    "spans": "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
    "metrics": "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
    "logs": "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
}
PATHS = {"spans": "/v1/traces", "metrics": "/v1/metrics", "logs": "/v1/logs"}
SIGNALS = ("spans", "metrics", "logs")


@contextlib.contextmanager
def running(producer: Producer, **settings: Any) -> Iterator[OtlpReceiver]:
    receiver = OtlpReceiver(producer, OtlpSettings(**{"grpc": "127.0.0.1:0", "http": "127.0.0.1:0", **settings}))
    receiver.start()
    try:
        yield receiver
    finally:
        receiver.stop(2.0)


def request(signal: str, items: int = 3, padding: int = 0) -> Any:
    """A request with so many items; `padding` bytes are put into each."""
    if signal == "spans":
        traces = ExportTraceServiceRequest()
        for number in range(items):
            span = _scope(traces.resource_spans, "scope_spans").spans.add(
                trace_id=number.to_bytes(16, "big"), span_id=(number + 1).to_bytes(8, "big"), name="x" * padding
            )
            span.start_time_unix_nano, span.end_time_unix_nano = 1_790_000_000 * 10**9, 1_790_000_001 * 10**9
        return traces
    if signal == "metrics":
        metrics = ExportMetricsServiceRequest()
        for number in range(items):
            point = _metric(metrics).gauge.data_points.add(as_double=number, time_unix_nano=1_790_000_000 * 10**9)
            point.attributes.add(key="padding").value.string_value = "x" * padding
        return metrics
    logs = ExportLogsServiceRequest()
    for number in range(items):
        record = _scope(logs.resource_logs, "scope_logs").log_records.add(time_unix_nano=1_790_000_000 * 10**9 + number)
        record.body.string_value = "x" * padding
    return logs


def post(address: str, path: str, body: bytes, **headers: str) -> httpx.Response:
    """Header names with _ for -."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.post(
        f"http://{address}{path}", content=body, headers=named, timeout=60.0, trust_env=False, verify=False
    )


def status_of(response: httpx.Response) -> tuple[int, str]:
    """Code and message of the google.rpc.Status in a refusal, read by its stated content type."""
    if response.headers["content-type"] == PROTOBUF:
        status = Status.FromString(response.content)
        return status.code, status.message
    assert response.headers["content-type"] == JSON
    body = response.json()
    return body["code"], body["message"]


def call(address: str, signal: str, body: bytes, **options: Any) -> bytes:
    """One raw call over gRPC; raises grpc.RpcError."""
    channel_options = [("grpc.max_send_message_length", -1), ("grpc.use_local_subchannel_pool", 1)]
    with grpc.insecure_channel(address, options=channel_options) as channel:
        return bytes(channel.unary_unary(METHODS[signal])(body, timeout=60.0, wait_for_ready=False, **options))


def details_of(error: grpc.RpcError) -> Status:
    """The Status in the trailer of a refused call."""
    trailers = dict(error.trailing_metadata() or ())  # type: ignore[attr-defined]
    return Status.FromString(trailers["grpc-status-details-bin"])


def raw(address: str, data: bytes, *, close: bool = False) -> bytes:
    """What comes back for bytes on a bare connection; nothing is read where `close` hangs up at once."""
    host, port = address.rsplit(":", 1)
    with socket.create_connection((host, int(port)), timeout=60.0) as connection:
        connection.sendall(data)
        return b"" if close else connection.recv(65536)


def _scope(resources: Any, name: str) -> Any:
    if not resources:
        resource = resources.add()
        resource.resource.attributes.add(key="service.name").value.string_value = "checkout"
        getattr(resource, name).add().scope.name = "tests"
    return getattr(resources[0], name)[0]


def _metric(metrics: Any) -> Any:
    scope = _scope(metrics.resource_metrics, "scope_metrics")
    return scope.metrics[0] if scope.metrics else scope.metrics.add(name="queue", unit="{item}")
