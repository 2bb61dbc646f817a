"""Silences, kept beside the incidents: the API writes them and the watcher, often another process, honours them."""

from __future__ import annotations

from observe.store.incidents import Database
from observe.types import Silence

ACTIVE = """
SELECT Id AS id, Service AS service, Comment AS comment, CreatedNs AS created_ns, EndsNs AS ends_ns
FROM silences FINAL WHERE EndsNs > {now:Int64} ORDER BY EndsNs, Id LIMIT 10000
"""


def active(db: Database, now_ns: int) -> list[Silence]:
    """Those that have not ended, the one that ends first at the front."""
    return [Silence(**row) for row in db.query(ACTIVE, {"now": now_ns}).iter_rows(named=True)]


def save(db: Database, silence: Silence, now_ns: int) -> None:
    row = {"Id": silence.id, "Service": silence.service, "Comment": silence.comment}
    db.append(
        "silences", [row | {"CreatedNs": silence.created_ns, "EndsNs": silence.ends_ns, "Version": max(1, now_ns)}]
    )
