"""Incidents, their causes and evidence, and what tells their requests apart."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from observe.api.models.base import Answer


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
    query: str = Field("", description="as of evidence")
    sql: str = Field("", description="as of evidence")


class EvidenceItem(Answer):
    kind: str
    text: str
    numbers: dict[str, float] = Field(default={}, description="those in the text")
    query: str = Field("", description='address that gives the numbers again; "": the replay of the incident does')
    sql: str = Field("", description="the same as a statement for the store; only where one incident is asked for")


class CauseItem(Answer):
    rank: int
    kind: str
    service: str = Field(description="the service to look at")
    resource: str = Field(
        description="narrower than the service: instance, host, GPU, version …, or the attribute key=value that its bad"
        ' requests have in common; else ""'
    )
    score: float = Field(description="confidence, 0..1")
    share: float = Field(description="part of the symptom that this cause accounts for, 0..1")
    path: list[str] = Field(description="services from the symptom to the cause")
    evidence: list[EvidenceItem]
    exemplar_trace_ids: list[str]
    services: list[str] = Field(
        description="those that it lies in, the worst first, where they are several: a host, a release"
    )


class RuledOutItem(Answer):
    service: str
    resource: str
    because: str
    numbers: dict[str, float] = Field(default={}, description="those in the text")
    query: str = Field("", description="as of evidence")
    sql: str = Field("", description="as of evidence")


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
    note: str = Field("", description="why nobody is told, or why it ended though nothing went back to what it was")


class Audited(Answer):
    incident_id: str
    looked_at: str = Field(description="time of the look")
    same: bool = Field(description="whether the recomputed incident is the stored one, byte for byte")
    sha256_stored: str
    sha256_recomputed: str
    stored: IncidentItem
    recomputed: IncidentItem | None = Field(description="null: the look does not give this incident any more")


class Incidents(Answer):
    incidents: list[IncidentItem] = Field(description="open before resolved, then worst first")


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


class Replayed(Answer):
    incidents: list[IncidentItem]
