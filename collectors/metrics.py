"""Building one ExportMetricsServiceRequest, and putting it on the stream."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality, Metric

from observe import __version__
from observe.errors import Unavailable
from observe.interfaces import Producer
from observe.stream import otlp
from observe.stream.split import split
from observe.telemetry import RECEIVED
from observe.types import TOPICS

DEFAULT_RECORD_BYTES: Final = 8 * 2**20
"""The largest record, where the producer has no attribute `max_record_bytes` that says what it takes."""

CUMULATIVE: Final = AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE
Attributes = Mapping[str, str | int]


@dataclass(frozen=True, slots=True)
class Instrument:
    """Name, UCUM unit and kind of a metric; `source_type` is the type that a Prometheus endpoint stated."""

    name: str
    unit: str = ""
    kind: str = "gauge"  # gauge | counter | updown | histogram | summary
    source_type: str = ""
    description: str = ""


@dataclass(frozen=True, slots=True)
class Point:
    """Of what and when a value is. Nanoseconds since the epoch; start 0 = unknown, and of no meaning for gauges."""

    attributes: Attributes
    time_ns: int
    start_ns: int = 0


class ResourceMetrics:
    """The metrics of one resource in a request."""

    def __init__(self, scope_metrics: Any) -> None:
        self._scope = scope_metrics
        self._metrics: dict[Instrument, Any] = {}

    def number(self, instrument: Instrument, at: Point, value: float) -> None:
        """A value of a gauge, counter or up-down counter; whole numbers stay so where `value` is an int."""
        point = self._point(instrument, at)
        if isinstance(value, int):
            point.as_int = value
        else:
            point.as_double = value

    def histogram(
        self, instrument: Instrument, at: Point, buckets: Sequence[tuple[float, int]], total: float | None
    ) -> None:
        """`buckets`: (upper bound, count of this bucket alone), ascending, the last one unbounded."""
        point = self._point(instrument, at)
        point.explicit_bounds.extend([bound for bound, _ in buckets[:-1]])
        point.bucket_counts.extend([count for _, count in buckets])
        point.count = sum(point.bucket_counts)
        if total is not None:
            point.sum = total

    def summary(
        self, instrument: Instrument, at: Point, quantiles: Sequence[tuple[float, float]], count: int, total: float
    ) -> None:
        """`quantiles`: (quantile, value)."""
        point = self._point(instrument, at)
        point.count, point.sum = count, total
        for quantile, value in quantiles:
            point.quantile_values.add(quantile=quantile, value=value)

    def _point(self, instrument: Instrument, at: Point) -> Any:
        data = self._metrics.get(instrument)
        if data is None:
            data = self._metrics[instrument] = _data(self._scope.metrics.add(), instrument)
        point = data.data_points.add(time_unix_nano=at.time_ns)
        if at.start_ns and instrument.kind != "gauge":
            point.start_time_unix_nano = at.start_ns
        _put_attributes(point.attributes, at.attributes)
        return point


class MetricsRequest:
    """One request under construction. `resource` returns the same part for the same attributes."""

    def __init__(self, scope: str) -> None:
        self.message = ExportMetricsServiceRequest()
        self._scope = scope
        self._resources: dict[tuple[tuple[str, str | int], ...], ResourceMetrics] = {}

    def resource(self, attributes: Attributes) -> ResourceMetrics:
        key = tuple(sorted(attributes.items()))
        if key not in self._resources:
            resource = self.message.resource_metrics.add()
            _put_attributes(resource.resource.attributes, attributes)
            scope = resource.scope_metrics.add()
            scope.scope.name, scope.scope.version = self._scope, __version__
            self._resources[key] = ResourceMetrics(scope)
        return self._resources[key]


def send(producer: Producer, request: MetricsRequest, timeout_s: float) -> int:
    """Puts the points on the stream; how many. Raises Unavailable where it did not take them in time."""
    parts = list(split("metrics", request.message, record_bytes(producer)))
    futures = [
        producer.send(TOPICS["metrics"], part.value, headers=otlp.items_header(part.items))
        for part in parts
        if part.items and part.value is not None
    ]
    for future in futures:
        try:
            future.result(timeout_s)
        except TimeoutError as error:
            raise Unavailable(f"the stream did not confirm within {timeout_s:.0f} s") from error
    points = sum(part.items for part in parts if part.value is not None)
    RECEIVED.labels("metrics").inc(points)
    return points


def record_bytes(producer: Producer) -> int:
    """The largest record that the producer takes."""
    return int(getattr(producer, "max_record_bytes", DEFAULT_RECORD_BYTES))


def host_name() -> str:
    """`host.name` as OTEL_RESOURCE_ATTRIBUTES states it (a container does not know its host's), else the system's."""
    for pair in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "").split(","):
        key, _, value = pair.partition("=")
        if key.strip() == "host.name" and value.strip():
            return value.strip()
    return platform.node()


def _data(metric: Metric, instrument: Instrument) -> Any:
    metric.name, metric.unit, metric.description = instrument.name, instrument.unit, instrument.description
    if instrument.source_type:
        _put_attributes(metric.metadata, {"prometheus.type": instrument.source_type})
    if instrument.kind == "gauge":
        metric.gauge.SetInParent()
        return metric.gauge
    if instrument.kind == "summary":
        metric.summary.SetInParent()
        return metric.summary
    if instrument.kind == "histogram":
        metric.histogram.aggregation_temporality = CUMULATIVE
        return metric.histogram
    metric.sum.aggregation_temporality = CUMULATIVE
    metric.sum.is_monotonic = instrument.kind == "counter"
    return metric.sum


def _put_attributes(target: Any, attributes: Attributes) -> None:
    for key, value in attributes.items():
        pair = target.add(key=key)
        if isinstance(value, int):
            pair.value.int_value = value
        else:
            pair.value.string_value = value
