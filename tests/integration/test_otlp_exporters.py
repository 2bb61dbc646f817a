"""Unmodified OpenTelemetry SDKs send to the receivers; the stream gets what they sent, bytes unchanged."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from opentelemetry.exporter.otlp.proto.grpc import _log_exporter as grpc_logs
from opentelemetry.exporter.otlp.proto.grpc import metric_exporter as grpc_metrics
from opentelemetry.exporter.otlp.proto.grpc import trace_exporter as grpc_traces
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http import _log_exporter as http_logs
from opentelemetry.exporter.otlp.proto.http import metric_exporter as http_metrics
from opentelemetry.exporter.otlp.proto.http import trace_exporter as http_traces
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import SimpleLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from collectors.otlp import OtlpReceiver
from observe.settings import LocalSettings
from observe.stream import otlp
from observe.stream.local import LocalStream
from observe.types import BatchLimits
from tests.fixtures.memory import MemoryProducer
from tests.integration.otlp_parts import running

RESOURCE = Resource({"service.name": "checkout"})


@pytest.fixture
def producer() -> MemoryProducer:
    return MemoryProducer(delay_s=0.01)


@pytest.fixture
def receiver(producer: MemoryProducer) -> Iterator[OtlpReceiver]:
    with running(producer) as receiver:
        yield receiver


@pytest.fixture(params=["grpc", "grpc gzip", "http", "http gzip"])
def exporters(request: pytest.FixtureRequest, receiver: OtlpReceiver) -> tuple[Any, Any, Any]:
    """A span, a metric and a log exporter."""
    if request.param.startswith("grpc"):
        gzip = grpc.Compression.Gzip if request.param.endswith("gzip") else grpc.Compression.NoCompression
        options = {"endpoint": f"http://{receiver.grpc_address}", "insecure": True, "compression": gzip}
        return (
            grpc_traces.OTLPSpanExporter(**options),
            grpc_metrics.OTLPMetricExporter(**options),
            grpc_logs.OTLPLogExporter(**options),
        )
    packing = Compression.Gzip if request.param.endswith("gzip") else Compression.NoCompression
    base = f"http://{receiver.http_address}/v1"
    return (
        http_traces.OTLPSpanExporter(f"{base}/traces", compression=packing),
        http_metrics.OTLPMetricExporter(f"{base}/metrics", compression=packing),
        http_logs.OTLPLogExporter(f"{base}/logs", compression=packing),
    )


def test_sdk_spans_arrive(exporters: tuple[Any, Any, Any], producer: MemoryProducer) -> None:
    provider = TracerProvider(resource=RESOURCE)
    provider.add_span_processor(BatchSpanProcessor(exporters[0]))
    tracer = provider.get_tracer("tests")
    for number in range(1000):
        with tracer.start_as_current_span(f"span {number % 7}", attributes={"number": number, "nested": [1, 2]}):
            pass
    assert provider.force_flush(10_000)
    provider.shutdown()
    assert producer.items("spans") == 1000
    names = {
        span.name
        for record in producer.records
        for resource in otlp.decode("spans", record.value).resource_spans  # type: ignore[attr-defined]
        for scope in resource.scope_spans
        for span in scope.spans
    }
    assert names == {f"span {number}" for number in range(7)}


def test_sdk_metrics_arrive(exporters: tuple[Any, Any, Any], producer: MemoryProducer) -> None:
    reader = PeriodicExportingMetricReader(exporters[1], export_interval_millis=60_000)
    provider = MeterProvider([reader], resource=RESOURCE)
    meter = provider.get_meter("tests")
    meter.create_counter("orders").add(3, {"shop": "a"})
    meter.create_histogram("latency", unit="ms").record(7.5)
    meter.create_up_down_counter("open").add(-1)
    assert provider.force_flush(10_000)
    assert producer.items("metrics") == 3
    provider.shutdown()


def test_sdk_logs_arrive(exporters: tuple[Any, Any, Any], producer: MemoryProducer) -> None:
    provider = LoggerProvider(resource=RESOURCE)
    provider.add_log_record_processor(SimpleLogRecordProcessor(exporters[2]))
    logger = provider.get_logger("tests")
    for number in range(4):
        logger.emit(body=f"order {number}", severity_text="INFO")
    assert provider.force_flush(10_000)
    provider.shutdown()
    assert producer.items("logs") == 4


def test_an_acknowledged_export_is_on_the_local_stream(tmp_path: Path) -> None:
    stream = LocalStream(tmp_path / "stream", LocalSettings())
    stream.admin().migrate()
    local = stream.producer()
    try:
        with running(local) as receiver:
            provider = TracerProvider(resource=RESOURCE)
            exporter = grpc_traces.OTLPSpanExporter(endpoint=f"http://{receiver.grpc_address}", insecure=True)
            provider.add_span_processor(BatchSpanProcessor(exporter))
            for _ in range(600):
                provider.get_tracer("tests").start_span("work").end()
            assert provider.force_flush(10_000)
            provider.shutdown()
    finally:
        local.close()
    consumer = stream.consumer("tests", ["otlp_spans"], BatchLimits(max_age_s=0.05))
    try:
        batch = consumer.poll(5.0)
        assert batch is not None
        assert sum(otlp.items_of(record) for record in batch.records) == 600
    finally:
        consumer.close()
