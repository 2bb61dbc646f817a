"""Traces, metrics, logs and GPUs."""

from __future__ import annotations

from pydantic import Field

from observe.api.models.base import Answer


class TraceSummary(Answer):
    trace_id: str
    service: str = Field(description="of the root span, or of the earliest that is known")
    operation: str
    start_at: str
    duration_ms: float
    spans: int
    errors: int
    services: list[str]


class Traces(Answer):
    traces: list[TraceSummary]


class Event(Answer):
    at: str
    name: str
    attributes: dict[str, str]


class Link(Answer):
    trace_id: str
    span_id: str
    attributes: dict[str, str]


class Span(Answer):
    span_id: str
    parent_span_id: str = Field(description='"" for a root')
    service: str
    operation: str
    kind: str
    status: str
    status_message: str
    start_at: str
    offset_ms: float = Field(description="since the start of the trace")
    duration_ms: float
    trace_state: str
    scope: str
    scope_version: str
    attributes: dict[str, str]
    resource: dict[str, str]
    events: list[Event]
    links: list[Link]


class Trace(Answer):
    trace_id: str
    start_at: str
    duration_ms: float
    truncated: bool
    spans: list[Span]


class MetricName(Answer):
    metric: str
    kind: str
    unit: str
    description: str
    services: list[str]
    points: int


class MetricNames(Answer):
    metrics: list[MetricName]


class Point(Answer):
    at: str
    value: float | None
    min: float | None
    max: float | None


class Series(Answer):
    service: str
    instance: str
    host: str
    hw_id: str
    labels: str
    points: list[Point]


class MetricSeries(Answer):
    metric: str
    unit: str
    kind: str = Field(description="gauge, or counter: values are increase per second")
    step_s: float
    truncated: bool
    series: list[Series]


class LogRecord(Answer):
    at: str
    service: str
    severity: str
    severity_number: int
    body: str
    trace_id: str
    span_id: str
    event_name: str
    attributes: dict[str, str]
    resource: dict[str, str]


class Logs(Answer):
    logs: list[LogRecord]


class Gpu(Answer):
    host: str
    hw_id: str
    service: str
    model: str
    at: str
    utilization_ratio: float | None
    memory_used_bytes: float | None
    memory_limit_bytes: float | None
    memory_utilization_ratio: float | None
    sm_clock_mhz: float | None
    memory_clock_mhz: float | None
    temperature_celsius: float | None
    power_w: float | None
    last_xid: float | None
    throttled: bool | None = Field(description="null where nothing reports clock events")
    throttle_reasons: list[str]


class Gpus(Answer):
    gpus: list[Gpu]
