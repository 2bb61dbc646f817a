"""Objectives, versions side by side, and the past judged again."""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict, Field

from observe.api.models.base import Answer
from observe.api.models.incidents import IncidentItem


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
