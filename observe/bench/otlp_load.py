"""Sends export requests to an OTLP receiver as exporters do: bounded concurrency, retries of what may be retried."""

from __future__ import annotations

import gzip
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal

import grpc
import httpx
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from observe.errors import BadRecord, Unavailable
from observe.types import Signal

METHODS: dict[Signal, str] = {
    "spans": "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
    "metrics": "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
    "logs": "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
}
PATHS: dict[Signal, str] = {"spans": "/v1/traces", "metrics": "/v1/metrics", "logs": "/v1/logs"}
REJECTED: dict[Signal, tuple[Any, str]] = {
    "spans": (ExportTraceServiceResponse, "rejected_spans"),
    "metrics": (ExportMetricsServiceResponse, "rejected_data_points"),
    "logs": (ExportLogsServiceResponse, "rejected_log_records"),
}
RETRYABLE_HTTP = (429, 502, 503, 504)
RETRYABLE_GRPC = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.DEADLINE_EXCEEDED)
TIMEOUT_S = 10.0
PATIENCE_S = 60.0

Export = Callable[[Signal, bytes], bytes]
"""Sends one request and gives the response; raises Unavailable or BadRecord."""


@dataclass(frozen=True, slots=True)
class Sent:
    requests: int
    bytes: int
    retries: int
    rejected_items: int
    seconds: float


def send(
    requests: Iterable[tuple[Signal, bytes]],
    url: str,
    *,
    protocol: Literal["grpc", "http"] = "grpc",
    compress: bool = False,
    concurrency: int = 4,
) -> Sent:
    """Sends all requests; `url` is host:port for gRPC and http://host:port for HTTP. At most `concurrency` at a time.

    Order is kept only roughly, as with many exporters. Raises BadRecord when the receiver refuses for good, and
    Unavailable when it refuses for a minute.
    """
    opened = _grpc_export(url, compress) if protocol == "grpc" else _http_export(url, compress)
    export, close = opened
    tally = _Tally(export)
    started = time.perf_counter()
    feed, lock = iter(requests), threading.Lock()

    def work() -> None:
        while True:
            with lock:
                entry = next(feed, None)
            if entry is None:
                return
            tally.send(*entry)

    try:
        with ThreadPoolExecutor(concurrency, thread_name_prefix="otlp-load") as pool:
            for future in [pool.submit(work) for _ in range(concurrency)]:
                future.result()
    finally:
        close()
    return tally.sent(time.perf_counter() - started)


class _Tally:
    """Counts over all threads what was sent."""

    def __init__(self, export: Export) -> None:
        self._export, self._lock = export, threading.Lock()
        self._requests = self._bytes = self._retries = self._rejected = 0

    def send(self, signal: Signal, body: bytes) -> None:
        response, retries = self._patiently(signal, body)
        message, counter = REJECTED[signal]
        rejected = getattr(message.FromString(response).partial_success, counter)
        with self._lock:
            self._requests += 1
            self._bytes += len(body)
            self._retries += retries
            self._rejected += rejected

    def _patiently(self, signal: Signal, body: bytes) -> tuple[bytes, int]:
        deadline = time.monotonic() + PATIENCE_S
        retries = 0
        while True:
            try:
                return self._export(signal, body), retries
            except Unavailable as error:
                if time.monotonic() > deadline:
                    raise
                time.sleep(error.retry_after_s)
                retries += 1

    def sent(self, seconds: float) -> Sent:
        return Sent(self._requests, self._bytes, self._retries, self._rejected, seconds)


def _grpc_export(address: str, compress: bool) -> tuple[Export, Callable[[], None]]:
    channel = grpc.insecure_channel(address, options=[("grpc.max_send_message_length", -1)])
    calls = {signal: channel.unary_unary(method) for signal, method in METHODS.items()}
    compression = grpc.Compression.Gzip if compress else grpc.Compression.NoCompression

    def export(signal: Signal, body: bytes) -> bytes:
        try:
            return bytes(calls[signal](body, timeout=TIMEOUT_S, compression=compression))
        except grpc.RpcError as error:
            if error.code() in RETRYABLE_GRPC:
                raise Unavailable(f"{address}: {error.code().name}", retry_after_s=0.5) from error
            raise BadRecord(f"{address}: {error.code().name}: {error.details()}") from error

    return export, channel.close


def _http_export(url: str, compress: bool) -> tuple[Export, Callable[[], None]]:
    client = httpx.Client(base_url=url, timeout=TIMEOUT_S)
    headers = {"content-type": "application/x-protobuf"} | ({"content-encoding": "gzip"} if compress else {})

    def export(signal: Signal, body: bytes) -> bytes:
        content = gzip.compress(body, compresslevel=1) if compress else body
        try:
            response = client.post(PATHS[signal], content=content, headers=headers)
        except httpx.TransportError as error:
            raise Unavailable(f"{url}: {error}", retry_after_s=0.5) from error
        if response.status_code in RETRYABLE_HTTP:
            raise Unavailable(f"{url}: status {response.status_code}", retry_after_s=0.5)
        if not response.is_success:
            raise BadRecord(f"{url}: status {response.status_code}: {response.content[:200]!r}")
        return response.content

    return export, client.close
