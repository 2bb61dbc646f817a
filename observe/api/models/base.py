"""What every answer shares."""

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
