"""Incidents and what receivers were told, kept beside the telemetry."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import orjson
import polars as pl

from observe.types import Incident
from observe.wire import incident_from_json, incident_json

OPEN_NS = 2**63 - 1
"""End of an incident that has none yet."""

FIND = """
SELECT Body AS body FROM incidents FINAL
WHERE OnsetNs < {to:Int64} AND EndNs >= {from:Int64} AND ({state:String} = '' OR State = {state:String})
ORDER BY OnsetNs DESC, Id
"""

NOTIFIED = """
SELECT IncidentId AS incident_id, Receiver AS receiver, max(Version) AS version FROM notified
WHERE IncidentId IN {ids:Array(String)}
GROUP BY IncidentId, Receiver
"""


class Database(Protocol):
    def query(self, sql: str, parameters: Mapping[str, object] | None = None, /) -> pl.DataFrame: ...

    def append(self, table: str, rows: Sequence[Mapping[str, object]], /) -> None: ...


def save(db: Database, incidents: Sequence[Incident]) -> None:
    rows = [
        {
            "Id": incident.id,
            "Version": incident.version,
            "State": incident.state.value,
            "OnsetNs": incident.onset_ns,
            "EndNs": OPEN_NS if incident.resolved_ns is None else incident.resolved_ns,
            "Body": orjson.dumps(incident_json(incident)).decode(),
        }
        for incident in incidents
    ]
    if rows:
        db.append("incidents", rows)


def find(db: Database, state: str | None, from_ns: int | None, to_ns: int | None) -> list[Incident]:
    found = db.query(
        FIND,
        {
            "from": 0 if from_ns is None else from_ns,
            "to": OPEN_NS if to_ns is None else to_ns,
            "state": state or "",
        },
    )
    return [incident_from_json(orjson.loads(body)) for body in found["body"]]


def notified(db: Database, incident_ids: Sequence[str]) -> dict[tuple[str, str], int]:
    found = db.query(NOTIFIED, {"ids": list(incident_ids)})
    return {(incident, receiver): version for incident, receiver, version in found.iter_rows()}


def save_notified(db: Database, incident_id: str, receiver: str, version: int) -> None:
    db.append("notified", [{"IncidentId": incident_id, "Receiver": receiver, "Version": version}])
