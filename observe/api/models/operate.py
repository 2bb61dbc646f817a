"""Audit and silences."""

from __future__ import annotations

from pydantic import Field

from observe.api.models.base import Answer


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
    differing_windows: int = Field(0, description="windows of the last day that count otherwise than the spans")
    ok: bool = Field(description="whether every partition adds up, without gaps or overlaps")
    advice: list[str] = Field([], description="what does not add up, what it means, and what to do")


class Silence(Answer):
    id: str
    service: str
    comment: str
    created_at: str
    ends_at: str


class Silences(Answer):
    silences: list[Silence]
