"""The JSON of every answer, for the OpenAPI document. Names with a unit are in that unit; `…_at` is RFC 3339 in UTC."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class Answer(BaseModel):
    # Parts of observe may say more than this page lists; nothing that they say gets lost.
    model_config = ConfigDict(extra="allow")


class Problem(BaseModel):
    """What went wrong, by RFC 9457 (application/problem+json)."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str = Field(description="names the parameter, and what is allowed")


class Health(Answer):
    status: Literal["ok"]
    version: str


# ── incidents ───────────────────────────────────────────────────────────────────────────────────────────────────────


class Symptom(Answer):
    service: str
    operation: str
    kind: str
    measure: str = Field(description="latency_p99_ms, latency_p50_ms, error_ratio, requests_per_s, or a metric's name")
    before: float
    after: float
    unit: str = Field(description="UCUM")
    p_value: float
    samples: int
    onset_at: str
    rule: str = ""


class EvidenceItem(Answer):
    kind: str
    text: str
    numbers: dict[str, float] = Field(default={}, description="those in the text")
    query: str = Field("", description='address that gives the numbers again; "": the replay of the incident does')


class CauseItem(Answer):
    rank: int
    kind: str
    service: str = Field(description="the service to look at")
    resource: str = Field(description='what is narrower than the service: instance, host, GPU, version …; else ""')
    score: float = Field(description="confidence, 0..1")
    share: float = Field(description="part of the symptom that this cause accounts for, 0..1")
    path: list[str] = Field(description="services from the symptom to the cause")
    evidence: list[EvidenceItem]
    exemplar_trace_ids: list[str]


class RuledOutItem(Answer):
    service: str
    resource: str
    because: str
    numbers: dict[str, float] = Field(default={}, description="those in the text")
    query: str = Field("", description="as of evidence")


class ImpactItem(Answer):
    services: list[str]
    requests_affected: int


class IncidentItem(Answer):
    id: str
    version: int
    state: Literal["pending", "firing", "resolved"]
    severity: Literal["critical", "warning", "info"]
    title: str
    onset_at: str
    opened_at: str
    fired_at: str | None
    last_seen_at: str
    resolved_at: str | None
    symptoms: list[Symptom]
    causes: list[CauseItem]
    ruled_out: list[RuledOutItem]
    impact: ImpactItem


class Audited(Answer):
    incident_id: str
    looked_at: str = Field(description="time of the look")
    same: bool = Field(description="whether the recomputed incident is the stored one, byte for byte")
    sha256_stored: str
    sha256_recomputed: str
    stored: IncidentItem
    recomputed: IncidentItem | None = Field(description="null: the look does not give this incident any more")


class Compared(Answer):
    of: str
    unit: str = Field(description='UCUM; "" where the metric has one of its own')
    numbers: dict[str, float]


class ApartItem(Answer):
    service: str
    key: str
    value: str
    bad_with: int
    bad: int
    others_with: int
    others: int
    p_value: float = Field(description="after control of false discoveries over all values")
    against: Literal["others", "before"]
    alike: list[str] = Field(description="key=value that the very same requests have")


class Attributes(Answer):
    values: int = Field(description="how many attribute values were compared")
    numbers: dict[str, float] = Field(description="counts of the value that was asked for; empty without one")
    apart: list[ApartItem] = Field(description="what sets bad requests apart, clearest first")


class Incidents(Answer):
    incidents: list[IncidentItem] = Field(description="open before resolved, then worst first")


# ── services and windows ────────────────────────────────────────────────────────────────────────────────────────────


class Figures(Answer):
    requests: int
    errors: int
    requests_per_s: float
    error_ratio: float | None = Field(description="0..1; null without requests")
    latency_p50_ms: float | None
    latency_p95_ms: float | None
    latency_p99_ms: float | None


class Operation(Figures):
    operation: str
    kind: str


class Service(Figures):
    service: str
    kinds: list[str]
    versions: list[str]
    instances: list[str]
    hosts: list[str]
    operations: list[Operation] = Field(description="busiest first")


class Services(Answer):
    services: list[Service]


class NamedTogether(Answer):
    service: str
    operation: str = Field(description="(other): beyond the limit; with {id} in the place of what differs")
    spans: int
    names: int = Field(description="distinct span names, about")
    examples: list[str] = Field(description="names as they were sent")
    beyond_limit: bool


class ManyNamed(Answer):
    operations: list[NamedTogether]


class Step(Figures):
    at: str


class Windows(Answer):
    service: str
    operation: str
    step_s: float
    windows: list[Step]


class Node(Answer):
    id: str = Field(description="kind:name; of operations and instances kind:service/name")
    name: str
    kind: Literal["service", "database", "topic", "external", "operation", "instance", "host", "gpu"]
    service: str = Field("", description="that an operation or instance belongs to")
    health: Literal["ok", "degraded", "cause", "unknown"] = "unknown"
    incident_ids: list[str] = []
    requests: int = 0
    errors: int = 0
    requests_per_s: float | None = None
    error_ratio: float | None = None
    latency_p50_ms: float | None = None
    latency_p95_ms: float | None = None
    latency_p99_ms: float | None = None
    self_mean_ms: float | None = Field(None, description="time of its own per request that entered it")
    self_p50_ms: float | None = Field(None, description="of its spans' own time")
    self_p99_ms: float | None = None


class Edge(Answer):
    caller: str
    callee: str
    connection: str = Field(description="direct, messaging, link, topic, database or external")
    calls: int
    calls_per_s: float
    errors: int
    error_ratio: float | None
    client_mean_ms: float | None = Field(description="as the caller waited")
    server_mean_ms: float | None = Field(description="as the callee worked; null for databases and outside addresses")
    latency_p50_ms: float | None
    latency_p95_ms: float | None
    latency_p99_ms: float | None
    way_mean_ms: float | None = Field(None, description="that the caller waits beyond the callee's work")


class OperationEdge(Answer):
    caller: str
    caller_operation: str
    callee: str
    callee_operation: str
    connection: str
    calls: int
    errors: int


class RunsOn(Answer):
    from_: str = Field(alias="from", description="id of a node: service, instance or host")
    to: str = Field(description="id of a node: instance, host or GPU")
    requests: int


class Orphans(Answer):
    service: str
    spans: int
    orphan_spans: int
    missing_parents: int


class Completeness(Answer):
    one_of: int = Field(description="counted in one trace of this many")
    spans: int
    traces: int
    orphan_spans: int = Field(description="whose parent never came")
    missing_parents: int = Field(description="parents that never came")
    rootless_traces: int
    orphan_ratio: float | None
    rootless_ratio: float | None
    services: list[Orphans] = Field(description="those whose spans lack parents")


class Graph(Answer):
    model_config = ConfigDict(extra="allow", populate_by_name=True)

    at: str
    from_: str = Field(alias="from")
    nodes: list[Node]
    edges: list[Edge]
    operation_edges: list[OperationEdge] = []
    runs_on: list[RunsOn] = Field([], description="service → instance → host → GPU")
    completeness: Completeness | None = None


# ── traces, metrics, logs, GPUs ─────────────────────────────────────────────────────────────────────────────────────


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


# ── audit, replay, silences ─────────────────────────────────────────────────────────────────────────────────────────


class Balance(Answer):
    accepted: int
    stored: int
    rejected: int
    pending: int


class Audit(Answer):
    signals: dict[str, Balance]
    partitions: list[Answer]
    reasons: dict[str, dict[str, int]] = Field({}, description="why items were rejected, and how many, by signal")
    repeated: dict[str, int] = Field({}, description="items that were sent again, and are stored once, by signal")
    dead_letters: int
    ok: bool = Field(description="whether every partition adds up, without gaps or overlaps")


class Replayed(Answer):
    incidents: list[IncidentItem]


class Silence(Answer):
    id: str
    service: str
    comment: str
    created_at: str
    ends_at: str


class Silences(Answer):
    silences: list[Silence]


# ── judging ─────────────────────────────────────────────────────────────────────────────────────────────────────────


class BurnRateItem(Answer):
    limit: float = Field(description="multiple of what the budget allows that pages, if both ranges exceed it")
    severity: str
    long_s: float
    long_rate: float
    short_s: float
    short_rate: float


class Slo(Answer):
    name: str
    service: str
    operation: str
    model: str
    kind: Literal["availability", "latency"]
    latency_ms: float | None
    target: float
    requests: int
    bad_requests: float
    good_ratio: float | None
    budget_remaining: float = Field(description="1: untouched, 0: spent, below 0: overspent")
    firing: bool
    burn_rates: list[BurnRateItem]


class Slos(Answer):
    at: str
    days: int
    slos: list[Slo]


class VersionItem(Answer):
    version: str
    requests: int = Field(description="those that can be compared: same operation, same minute")


class CheckItem(Answer):
    measure: str
    unit: str
    before: float = Field(description="of the baseline, at the same mix as `after`")
    after: float
    p_value: float
    finding: Literal["worse", "unclear", "same", "better"]
    text: str


class Canary(Answer):
    model_config = ConfigDict(extra="allow", populate_by_name=True)

    service: str
    from_: str = Field(alias="from")
    to: str
    verdict: Literal["promote", "hold", "roll back"]
    reasons: list[str]
    baseline: VersionItem
    candidate: VersionItem
    side_by_side: bool
    given_tokens: bool
    checks: list[CheckItem]


class Backtest(Answer):
    model_config = ConfigDict(extra="allow", populate_by_name=True)

    from_: str = Field(alias="from")
    to: str
    settings: dict[str, object]
    incidents: list[IncidentItem]
    recorded: Answer
    labels: list[Answer]
    score: Answer | None
