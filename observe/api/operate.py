"""What operators ask: health, audit, replay; and the one thing that they write: silences."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Annotated

from fastapi import APIRouter, Body, Response

from observe import __version__
from observe.api import models
from observe.api.parameters import MAX_ROWS_RANGE_S, Range, ReplayBody, SilenceBody
from observe.api.problems import NotFound
from observe.errors import BadRecord, Unavailable
from observe.interfaces import Store
from observe.silences import add, end, silence_json
from observe.store.read import Reader
from observe.types import Json

REPLAY_WAIT_S = 120.0


def router(
    reader: Reader,
    audit: Callable[[], Json],
    replay: Callable[[int, int], Json],
    health: Callable[[], Json],
    store: Store,
    clock: Callable[[], int],
) -> APIRouter:
    """`health`, `audit`, `replay`, `silences`."""
    routes = APIRouter(tags=["operation"])
    replaying = threading.Lock()

    @routes.get("/health", response_model=models.Health)
    def healthy() -> Json:
        """200 once everything needed to answer is there."""
        reader.check()
        return {"status": "ok", "version": __version__, **health()}

    @routes.get("/audit", response_model=models.Audit)
    def audited() -> Json:
        """Accounts for every item: accepted = stored + rejected + pending."""
        return audit()

    @routes.post("/replay", response_model=models.Replayed)
    def replayed(body: Annotated[ReplayBody, Body()]) -> Json:
        """The incidents that the stored windows of a range give; nothing is written and nobody is told."""
        bounds = Range(from_=body.from_, to=body.to).bounds(clock(), MAX_ROWS_RANGE_S)
        # One at a time: each holds hours of windows in memory.
        if not replaying.acquire(timeout=REPLAY_WAIT_S):
            raise Unavailable("another replay is under way", retry_after_s=30.0)
        try:
            return replay(*bounds)
        finally:
            replaying.release()

    @routes.get("/silences", response_model=models.Silences)
    def silenced() -> Json:
        """Silences that have not ended."""
        return {"silences": [silence_json(s) for s in store.silences(clock())]}

    @routes.post("/silences", response_model=models.Silence, status_code=201)
    def silence(body: Annotated[SilenceBody, Body()]) -> Json:
        """Keeps the webhooks quiet about a service until a time."""
        if body.ends_at <= clock():
            raise BadRecord("ends_at: must lie in the future")
        return silence_json(add(store, body.service, body.comment, clock(), body.ends_at))

    @routes.delete("/silences/{silence_id}", status_code=204, response_class=Response)
    def end_silence(silence_id: str) -> None:
        """Ends a silence now."""
        if not end(store, silence_id, clock()):
            raise NotFound(f"silence {silence_id!r}: there is none with this id")

    return routes
