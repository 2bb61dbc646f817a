"""The exporter of each signal, as the configuration wants it."""

from __future__ import annotations

from typing import Any

from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk._logs.export import ConsoleLogRecordExporter, LogRecordExporter
from opentelemetry.sdk.metrics.export import ConsoleMetricExporter, MetricExporter
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SpanExporter

from observe.errors import Misconfigured
from observe.sdk.config import KAFKA, Config


def spans(config: Config) -> SpanExporter | None:
    """None where OTEL_TRACES_EXPORTER=none."""
    if brokers := _brokers(config, "TRACES"):
        from observe.sdk.kafka import KafkaSpanExporter

        by_id = config.partition_traces_by_id
        return KafkaSpanExporter(brokers, client=config.kafka_client, partition_traces_by_id=by_id)
    if config.exporters["TRACES"] == "otlp":
        return _otlp(config, "TRACES", OTLPSpanExporter, "OTLPSpanExporter", "trace_exporter")  # type: ignore[no-any-return]
    return ConsoleSpanExporter() if config.exporters["TRACES"] == "console" else None


def metrics(config: Config) -> MetricExporter | None:
    """None where OTEL_METRICS_EXPORTER=none."""
    if brokers := _brokers(config, "METRICS"):
        from observe.sdk.kafka import KafkaMetricExporter

        return KafkaMetricExporter(brokers, client=config.kafka_client)
    if config.exporters["METRICS"] == "otlp":
        return _otlp(config, "METRICS", OTLPMetricExporter, "OTLPMetricExporter", "metric_exporter")  # type: ignore[no-any-return]
    return ConsoleMetricExporter() if config.exporters["METRICS"] == "console" else None


def logs(config: Config) -> LogRecordExporter:
    """Asked for only where OTEL_LOGS_EXPORTER is not none."""
    if brokers := _brokers(config, "LOGS"):
        from observe.sdk.kafka import KafkaLogExporter

        return KafkaLogExporter(brokers, client=config.kafka_client)
    if config.exporters["LOGS"] == "otlp":
        return _otlp(config, "LOGS", OTLPLogExporter, "OTLPLogExporter", "_log_exporter")  # type: ignore[no-any-return]
    return ConsoleLogRecordExporter()


def _brokers(config: Config, signal: str) -> str:
    """Where the signal goes to Kafka, its brokers. Those exporters load librdkafka: imported only here."""
    endpoint = config.endpoints.get(signal, "")
    return endpoint.removeprefix(KAFKA) if config.exporters[signal] == "otlp" and endpoint.startswith(KAFKA) else ""


def _otlp(config: Config, signal: str, over_http: type, name: str, module: str) -> Any:
    endpoint = config.endpoints.get(signal)
    if config.protocols[signal] == "http/protobuf":
        return over_http(endpoint=endpoint)
    return _grpc_class(name, module)(endpoint=endpoint and endpoint.rsplit("/v1/", 1)[0])


def _grpc_class(name: str, module: str) -> Any:
    from importlib import import_module

    try:
        return getattr(import_module(f"opentelemetry.exporter.otlp.proto.grpc.{module}"), name)
    except ImportError as error:
        raise Misconfigured(
            "OTEL_EXPORTER_OTLP_PROTOCOL = 'grpc' needs the package opentelemetry-exporter-otlp-proto-grpc; "
            "http/protobuf needs nothing more"
        ) from error
