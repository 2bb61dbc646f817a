"""What judges: error budgets, two versions side by side, other settings on the past."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Protocol

from fastapi import APIRouter, Body, Query

from observe.api import models
from observe.api.parameters import MAX_ROWS_RANGE_S, BacktestBody, CanaryQuery, DiagnosisQuery, Range
from observe.api.sentences import with_sql
from observe.backtest import Label
from observe.errors import Unavailable
from observe.types import Json

WAIT_S = 120.0


class Judging(Protocol):
    def slos(self) -> Json: ...

    def canary(self, service: str, baseline: str, candidate: str, from_ns: int, to_ns: int, /) -> Json: ...

    def asked(self, at_ns: int, service: str, until_ns: int, /) -> Json: ...

    def backtest(
        self, from_ns: int, to_ns: int, labels: Sequence[Label], values: Mapping[str, Any] | None, /
    ) -> Json: ...


def router(judging: Judging, clock: Callable[[], int]) -> APIRouter:
    """`slos`, `canary`, `diagnosis`, `backtest`."""
    routes = APIRouter(tags=["judging"])
    testing, asking = threading.Lock(), threading.Lock()  # each holds an hour of windows in memory

    @routes.get("/slos", response_model=models.Slos)
    def slos() -> Json:
        """Every objective of the settings: what is left of its error budget, and how fast that burns."""
        return judging.slos()

    @routes.get("/canary", response_model=models.Canary)
    def canary(query: Annotated[CanaryQuery, Query()]) -> Json:
        """Two versions of a service, compared within operations, minutes and tokens: promote, hold or roll back."""
        bounds = query.settled(clock())
        return judging.canary(query.service, query.baseline, query.candidate, *bounds)

    @routes.get("/diagnosis", response_model=models.IncidentItem)
    def diagnosis(query: Annotated[DiagnosisQuery, Query()]) -> Json:
        """What changed at a moment that you name, and why, whether or not anything fired then. The answer has the form
        of an incident of version 0."""
        until_ns = query.until(clock())
        if not asking.acquire(timeout=WAIT_S):
            raise Unavailable("other questions are under way", retry_after_s=10.0)
        try:
            return with_sql(judging.asked(query.at, query.service, until_ns))
        finally:
            asking.release()

    @routes.post("/backtest", response_model=models.Backtest)
    def backtest(body: Annotated[BacktestBody, Body()]) -> Json:
        """The stored windows of a range judged again, with some settings replaced, beside what was recorded."""
        bounds = Range(from_=body.from_, to=body.to).bounds(clock(), MAX_ROWS_RANGE_S)
        if not testing.acquire(timeout=WAIT_S):
            raise Unavailable("another backtest is under way", retry_after_s=30.0)
        try:
            labels = [Label(one.from_, one.to, one.service, one.cause, one.name) for one in body.labels]
            return judging.backtest(*bounds, labels, body.settings)
        finally:
            testing.release()

    return routes
