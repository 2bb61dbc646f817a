"""The graph of services and places."""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict, Field

from observe.api.models.base import Answer


class Node(Answer):
    id: str = Field(description="kind:name; of operations and instances kind:service/name")
    name: str
    kind: Literal["service", "database", "topic", "external", "operation", "instance", "host", "gpu"]
    service: str = Field("", description="that an operation or instance belongs to")
    health: Literal["ok", "degraded", "cause", "unknown"] = "unknown"
    incident_ids: list[str] = Field([])
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
    operation_edges: list[OperationEdge] = Field([])
    runs_on: list[RunsOn] = Field([], description="service → instance → host → GPU")
    completeness: Completeness | None = None
