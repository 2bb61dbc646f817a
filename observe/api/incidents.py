"""Incidents, and the explanation of one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from fastapi import APIRouter, Query, Response
from fastapi.responses import HTMLResponse, PlainTextResponse

from observe import explain as render
from observe.api import models
from observe.api.parameters import ExplainQuery, IncidentsQuery
from observe.api.problems import NotFound
from observe.errors import BadRecord
from observe.interfaces import Store
from observe.store.read import Reader
from observe.types import Incident, Json, Severity, State
from observe.wire import incident_json


def router(reader: Reader, store: Store, clock: Callable[[], int]) -> APIRouter:
    """`incidents`, `incidents/{id}` and its explanation."""
    routes = APIRouter(tags=["incidents"])

    def found(incident_id: str) -> Incident:
        incident = reader.incident(incident_id)
        if incident is None:
            raise NotFound(f"incident {incident_id!r}: there is none with this id; /api/v1/incidents lists them")
        return incident

    @routes.get("/incidents", response_model=models.Incidents)
    def incidents(query: Annotated[IncidentsQuery, Query()]) -> Json:
        """Incidents that overlap the range, open before resolved, then worst first, then newest first."""
        if query.from_ is not None and query.to is not None and query.from_ >= query.to:
            raise BadRecord("from: must be before to")
        listed = store.incidents(state=query.state, from_ns=query.from_, to_ns=query.to)
        return {"incidents": [incident_json(i) for i in sorted(listed, key=_worst_first)[: query.limit]]}

    @routes.get("/incidents/{incident_id}", response_model=models.IncidentItem)
    def incident(incident_id: str) -> Json:
        """The newest version of one incident."""
        return incident_json(found(incident_id))

    @routes.get("/incidents/{incident_id}/explain", response_model=models.IncidentItem)
    def explain(incident_id: str, query: Annotated[ExplainQuery, Query()]) -> Response | Json:
        """What broke, since when, how sure, who suffers, and the evidence: JSON, or a text to read."""
        shown = found(incident_id)
        if query.format == "markdown":
            return PlainTextResponse(render.markdown(shown), media_type="text/markdown")
        return HTMLResponse(render.html(shown)) if query.format == "html" else incident_json(shown)

    return routes


def _worst_first(incident: Incident) -> tuple[int, int, int, str]:
    states, severities = [State.FIRING, State.PENDING, State.RESOLVED], list(Severity)
    return states.index(incident.state), severities.index(incident.severity), -incident.onset_ns, incident.id
