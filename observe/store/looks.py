"""The inputs of looks, kept beside the incidents that came of them."""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Sequence

import orjson

from observe.store.incidents import Database
from observe.types import Incident, Json
from observe.wire import incident_json

NEWEST = """
SELECT LookNs AS at_ns, Body AS body FROM diagnoses WHERE IncidentId = {id:String} ORDER BY LookNs DESC LIMIT 1
"""
INPUTS = "SELECT Inputs AS inputs FROM looks WHERE LookNs = {at_ns:Int64} LIMIT 1"


def save(db: Database, at_ns: int, inputs: bytes, incidents: Sequence[Incident]) -> None:
    """The inputs come first: what is listed can be made again."""
    db.append("looks", [{"LookNs": at_ns, "Inputs": b64encode(inputs).decode()}])
    rows = [
        {"IncidentId": i.id, "LookNs": at_ns, "Version": i.version, "Body": orjson.dumps(incident_json(i)).decode()}
        for i in incidents
    ]
    db.append("diagnoses", rows)


def newest(db: Database, incident_id: str) -> tuple[int, Json] | None:
    """When the incident was last kept, and how it stood then."""
    found = db.query(NEWEST, {"id": incident_id})
    return (int(found["at_ns"][0]), orjson.loads(found["body"][0])) if found.height else None


def inputs(db: Database, at_ns: int) -> bytes | None:
    """What the look of that time was given; None where it is not kept (any more)."""
    found = db.query(INPUTS, {"at_ns": at_ns})
    return b64decode(found["inputs"][0]) if found.height else None
