"""Services, their operations and windows."""

from __future__ import annotations

from pydantic import Field

from observe.api.models.base import Answer


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
