"""Exporters of the OpenTelemetry SDK that put OTLP on Kafka directly, with no receiver in between.

What they write is what a Collector's kafkaexporter writes with its defaults (`otlp_proto`, one request a record, no
key), so `observe write`, a Collector and these may all share the topics. With `partition_traces_by_id`, which the
Collector has under the same name, a record holds spans of one trace, its key is the trace id in hex, and the same
hash (FNV-1a) gives all of them the same partition for it.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import TimeoutError as NotInTime
from typing import Any

from opentelemetry.exporter.otlp.proto.common._internal.metrics_encoder import OTLPMetricExporterMixin
from opentelemetry.exporter.otlp.proto.common._log_encoder import encode_logs
from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk._logs import ReadableLogRecord
from opentelemetry.sdk._logs.export import LogRecordExporter, LogRecordExportResult
from opentelemetry.sdk.metrics.export import MetricExporter, MetricExportResult, MetricsData
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from observe.errors import ObserveError
from observe.settings import KafkaSettings
from observe.stream import otlp
from observe.stream.kafka.producer import KafkaProducer
from observe.stream.split import split
from observe.types import TOPICS, Signal

TIMEOUT_S = 10.0
"""How long one export may take, as with OTLP over HTTP."""

BUFFER_BYTES = 16 * 2**20

logger = logging.getLogger(__name__)

Keyed = tuple[bytes | None, Any]
"""The key of a record and its request."""


class Topic:
    """One topic of one process. It connects at the first export, and again in a child process: librdkafka's threads
    do not survive a fork."""

    def __init__(self, brokers: str, signal: Signal, topic: str = "", client: Mapping[str, Any] | None = None) -> None:
        self._brokers = brokers
        self._signal = signal
        self._topic = topic or TOPICS[signal]
        self._settings = KafkaSettings(client=dict(client or {}))
        self._lock = threading.Lock()
        self._producer: tuple[int, KafkaProducer] | None = None
        self._closed = False

    def send(self, keyed: Iterable[Keyed], timeout_s: float = TIMEOUT_S) -> bool:
        """Whether all in-sync replicas have everything. What did not get there is counted in the log; nothing raises:
        telemetry must not break the service that it tells of."""
        if self._closed:
            return False
        deadline = time.monotonic() + timeout_s
        try:
            futures = [self._send(key, value, items) for key, value, items in self._records(keyed)]
            for future in futures:
                future.result(max(0.0, deadline - time.monotonic()))
        except (ObserveError, NotInTime) as error:
            logger.warning("%s are lost: %s", self._signal, str(error) or f"no answer within {timeout_s:g} s")
            return False
        return True

    def close(self) -> None:
        self._closed = True
        with self._lock:
            if self._producer is not None and self._producer[0] == os.getpid():
                self._producer[1].close()
            self._producer = None

    def _records(self, keyed: Iterable[Keyed]) -> Iterable[tuple[bytes | None, bytes, int]]:
        for key, request in keyed:
            for part in split(self._signal, request, self._settings.max_message_bytes):
                if part.value is None:
                    logger.warning("%d %s are larger than a record may be, and are lost", part.items, self._signal)
                elif part.items:
                    yield key, part.value, part.items

    def _send(self, key: bytes | None, value: bytes, items: int) -> Any:
        return self._connected().send(
            self._topic, value, key=key, headers=otlp.items_header(items) | otlp.digest_header(value)
        )

    def _connected(self) -> KafkaProducer:
        with self._lock:
            if self._producer is None or self._producer[0] != os.getpid():
                producer = KafkaProducer(self._brokers, self._settings, buffer_bytes=BUFFER_BYTES)
                self._producer = (os.getpid(), producer)
            return self._producer[1]


class KafkaSpanExporter(SpanExporter):
    """For a BatchSpanProcessor. `brokers` is host:port[,host:port…], `client` goes to librdkafka as it is."""

    def __init__(
        self,
        brokers: str,
        *,
        topic: str = "",
        client: Mapping[str, Any] | None = None,
        partition_traces_by_id: bool = False,
    ) -> None:
        self._topic = Topic(brokers, "spans", topic, client)
        self._by_trace = partition_traces_by_id

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        keyed = by_trace(spans) if self._by_trace else [(None, encode_spans(spans))]
        return SpanExportResult.SUCCESS if self._topic.send(keyed) else SpanExportResult.FAILURE

    def shutdown(self) -> None:
        self._topic.close()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return True  # export() returns when Kafka has the spans


class KafkaMetricExporter(MetricExporter, OTLPMetricExporterMixin):
    """For a PeriodicExportingMetricReader; temporality as the OTEL_EXPORTER_OTLP_METRICS_* variables want it."""

    def __init__(self, brokers: str, *, topic: str = "", client: Mapping[str, Any] | None = None) -> None:
        self._common_configuration()
        self._topic = Topic(brokers, "metrics", topic, client)

    def export(
        self, metrics_data: MetricsData, timeout_millis: float = TIMEOUT_S * 1000, **kwargs: Any
    ) -> MetricExportResult:
        sent = self._topic.send([(None, encode_metrics(metrics_data))], min(timeout_millis / 1000, TIMEOUT_S))
        return MetricExportResult.SUCCESS if sent else MetricExportResult.FAILURE

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: Any) -> None:
        self._topic.close()

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        return True


class KafkaLogExporter(LogRecordExporter):
    """For a BatchLogRecordProcessor."""

    def __init__(self, brokers: str, *, topic: str = "", client: Mapping[str, Any] | None = None) -> None:
        self._topic = Topic(brokers, "logs", topic, client)

    def export(self, batch: Sequence[ReadableLogRecord]) -> LogRecordExportResult:
        sent = self._topic.send([(None, encode_logs(batch))])
        return LogRecordExportResult.SUCCESS if sent else LogRecordExportResult.FAILURE

    def shutdown(self) -> None:
        self._topic.close()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return True


def by_trace(spans: Iterable[ReadableSpan]) -> list[Keyed]:
    """One request for each trace, with the key that a Collector gives it."""
    traces: dict[int, list[ReadableSpan]] = defaultdict(list)
    for span in spans:
        traces[span.context.trace_id].append(span)
    return [(format(trace_id, "032x").encode(), encode_spans(group)) for trace_id, group in traces.items()]
