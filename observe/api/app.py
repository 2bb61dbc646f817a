"""One application out of its parts. It reads; the only things it writes are silences."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Awaitable, Callable

from fastapi import FastAPI, Request, Response
from fastapi.telemetry import TelemetryConfig
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from observe import __version__
from observe.api import incidents, judging, operate, questions, signals
from observe.api.models import Problem
from observe.api.problems import install
from observe.errors import Unavailable
from observe.interfaces import Store
from observe.store.read import Reader
from observe.telemetry import REGISTRY
from observe.types import Json
from observe.wire import API_PREFIX

PREFIX = API_PREFIX
MAX_BODY_BYTES = 64 * 1024
_UNOBSERVED = TelemetryConfig(tracing=False, metrics=False, logs=False, operation_spans=False, auto_configure=False)


def create_app(
    reader: Reader,
    store: Store,
    *,
    audit: Callable[[], Json],
    replay: Callable[[int, int], Json],
    health: Callable[[], Json] = dict,
    clock: Callable[[], int] = time.time_ns,
    judge: judging.Judging | None = None,
) -> FastAPI:
    """The API over one store.

    `audit` and `replay(from_ns, to_ns)` give their answers in the public form; `health` adds to that of /health, and
    raises Unavailable where the process is not ready; `clock` gives nanoseconds since the epoch. `judge` answers for
    budgets, versions and backtests; without it there are no such paths.
    """
    app = FastAPI(
        title="observe",
        version=__version__,
        description="Services, incidents and their causes, traces, metrics and logs. Times are RFC 3339 in UTC.",
        openapi_url="/api/openapi.json",
        docs_url=None,  # both pages would load scripts from elsewhere
        redoc_url=None,
        max_body_size=MAX_BODY_BYTES,
        # An API that traced itself into the store that it reads would never be quiet.
        telemetry=_UNOBSERVED,
        responses={code: {"model": Problem} for code in (400, 404, 503)},
    )
    install(app)
    app.middleware("http")(_careful)
    app.include_router(incidents.router(reader, store, clock), prefix=PREFIX)
    app.include_router(signals.router(reader, clock), prefix=PREFIX)
    app.include_router(questions.router(store), prefix=PREFIX)
    app.include_router(operate.router(reader, audit, replay, health, store, clock), prefix=PREFIX)
    if judge is not None:
        app.include_router(judging.router(judge, clock), prefix=PREFIX)
    app.get("/metrics", include_in_schema=False)(_prometheus(judge))
    return app


def _prometheus(judge: judging.Judging | None) -> Callable[[], Response]:
    def metrics() -> Response:
        with contextlib.suppress(Unavailable):
            if judge is not None:
                judge.slos()  # sets the gauges of the budgets
        return Response(generate_latest(REGISTRY), media_type=CONTENT_TYPE_LATEST)

    return metrics


async def _careful(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
    """Texts from telemetry must never be run as a page, whoever wrote them."""
    response = await call_next(request)
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Content-Security-Policy"] = (
        "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"
    )
    return response
