"""Digests of stored records, by which a writer knows an export that comes again."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from typing import Protocol

import polars as pl

from observe.types import Batch, Digest

TABLE = "digests"
DIGESTS = """
SELECT DISTINCT Offset AS offset, RecordedAtMs AS timestamp_ms, Digest AS digest FROM digests
WHERE Topic = {topic:String} AND Partition = {partition:Int32} AND Offset < {before:Int64}
    AND RecordedAtMs >= {since:Int64} AND Repeated = 0
ORDER BY offset
"""


class Database(Protocol):
    def query(self, sql: str, parameters: Mapping[str, object] | None = None, /) -> pl.DataFrame: ...

    def append(self, table: str, rows: Sequence[Mapping[str, object]], /, *, token: str = "") -> None: ...


def save(db: Database, batch: Batch, digests: Sequence[Digest]) -> None:
    """Under a token of this attempt, not of the batch: a server notes a token before the rows are there, and one that
    is killed in between would drop them for good at the next attempt. Readers take rows that are there twice once."""
    if not digests:
        return
    place = {"Topic": batch.topic, "Partition": batch.partition}
    rows = [
        place | {"Offset": x.offset, "RecordedAtMs": x.timestamp_ms, "Digest": x.digest.hex(), "Repeated": x.repeated}
        for x in digests
    ]
    db.append(TABLE, rows, token=f"{batch.token}-{uuid.uuid4().hex}")


def find(db: Database, topic: str, partition: int, before_offset: int, since_ms: int) -> list[Digest]:
    asked = {"topic": topic, "partition": partition, "before": before_offset, "since": since_ms}
    rows = db.query(DIGESTS, asked).iter_rows(named=True)
    return [Digest(row["offset"], row["timestamp_ms"], bytes.fromhex(row["digest"])) for row in rows]
