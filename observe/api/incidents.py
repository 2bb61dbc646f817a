"""Incidents, and the explanation of one."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Annotated

from fastapi import APIRouter, Query, Response
from fastapi.responses import HTMLResponse, PlainTextResponse

from observe import explain as render
from observe.api import models
from observe.api.parameters import ExplainQuery, IncidentsQuery
from observe.api.problems import NotFound
from observe.api.sentences import with_sql
from observe.errors import BadRecord
from observe.interfaces import Store
from observe.looks import compared, unpack
from observe.store.read import Reader
from observe.types import Incident, Json, Severity, State
from observe.verdict import again
from observe.wire import incident_from_json, incident_json, rfc3339


def router(reader: Reader, store: Store, clock: Callable[[], int]) -> APIRouter:
    """`incidents`, `incidents/{id}` and its explanation."""
    routes = APIRouter(tags=["incidents"])
    replaying = threading.Lock()  # each holds an hour of windows in memory

    def found(incident_id: str) -> Incident:
        incident = reader.incident(incident_id)
        if incident is None:
            raise NotFound(f"incident {incident_id!r}: there is none with this id; /api/v1/incidents lists them")
        return incident

    def kept_inputs(incident_id: str) -> tuple[int, Json, bytes]:
        found(incident_id)
        kept = store.diagnosed(incident_id)
        given = None if kept is None else store.inputs(kept[0])
        if kept is None or given is None:
            raise NotFound(
                f"incident {incident_id!r}: what it was diagnosed from is not kept; see retention.diagnoses_days and"
                " diagnose.keep_inputs_mb"
            )
        return *kept, given

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
        return with_sql(incident_json(found(incident_id)))

    @routes.get("/incidents/{incident_id}/explain", response_model=models.IncidentItem)
    def explain(incident_id: str, query: Annotated[ExplainQuery, Query()]) -> Response | Json:
        """What broke, since when, how sure, who suffers, and the evidence: JSON, or a text to read. It is the answer of
        the newest look that is kept, so that all of it can be made again."""
        newest, kept = found(incident_id), store.diagnosed(incident_id)
        shown = newest if kept is None else render.as_kept(newest, incident_from_json(kept[1]))
        looked_ns = None if kept is None else kept[0]
        if query.format == "text":
            return PlainTextResponse(render.text(shown, looked_ns))
        body = with_sql(incident_json(shown))
        statements = render.statements(body)
        if query.format == "markdown":
            page = render.markdown(shown, looked_ns, statements=statements)
            return PlainTextResponse(page, media_type="text/markdown")
        if query.format == "html":
            return HTMLResponse(render.html(shown, looked_ns, statements=statements))
        return body | {"looked_at": None if looked_ns is None else rfc3339(looked_ns)}

    @routes.get("/incidents/{incident_id}/inputs", response_class=Response)
    def inputs(incident_id: str) -> Response:
        """What the diagnosis was made from, as a zip of Parquet tables and JSON."""
        return Response(
            kept_inputs(incident_id)[2],
            media_type="application/zip",
            headers={"Content-Disposition": f'attachment; filename="{found(incident_id).id}.zip"'},
        )

    @routes.get("/incidents/{incident_id}/replay", response_model=models.Audited)
    def replay(incident_id: str) -> Json:
        """Makes the diagnosis again from what it was made from, and compares both, byte for byte."""
        at_ns, stored, given = kept_inputs(incident_id)
        with replaying:
            look = unpack(given)
            answer = compared(stored, again(look))
        return answer | {"looked_at": rfc3339(at_ns)}

    return routes


def _worst_first(incident: Incident) -> tuple[int, int, int, str]:
    states, severities = [State.FIRING, State.PENDING, State.RESOLVED], list(Severity)
    return states.index(incident.state), severities.index(incident.severity), -incident.onset_ns, incident.id
