"""What the graph asks of spans that no rollup holds: message topics, and how whole the traces are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import polars as pl

from observe.frames import BUCKETS
from observe.store.rollups import sql
from observe.types import Json

MAX_SPANS = 200_000
"""How many spans completeness is counted over; beyond that, of a part of the traces."""
AROUND_S, AROUND_MANY_S = 300, 60
"""How far parents are looked for; the second where spans are so many that reading them costs."""

TOPICS: dict[str, pl.DataType] = {
    "service": pl.String(),
    "topic": pl.String(),
    "receives": pl.Boolean(),
    "calls": pl.UInt64(),
    "errors": pl.UInt64(),
    "duration_sum_ms": pl.Float64(),
    "latency_buckets": BUCKETS,
}


class Database(Protocol):
    def query(self, sql: str, parameters: Mapping[str, object] | None = None, /) -> pl.DataFrame: ...


def topics(db: Database, from_s: int, to_s: int) -> pl.DataFrame:
    """One row for each service, topic and direction: TOPICS, sorted."""
    rows = db.query(sql("topics"), {"from": from_s, "to": to_s})
    if not rows.width:
        return pl.DataFrame(schema=TOPICS)
    return rows.select(pl.col(name).cast(kind) for name, kind in TOPICS.items()).sort("topic", "receives", "service")


def completeness(db: Database, from_s: int, to_s: int, spans: int) -> Json:
    """How many spans lack their parent and how many traces their root, in all and by service; `spans` is about how
    many there are."""
    every = max(1, -(-spans // MAX_SPANS))
    around_s = AROUND_S if every == 1 else AROUND_MANY_S
    rows = db.query(sql("completeness"), {"from": from_s, "to": to_s, "around": around_s, "every": every})
    table = {row["service"]: row for row in rows.sort("service").to_dicts()} if rows.width else {}
    total = table.pop("", {"spans": 0, "orphans": 0, "missing_parents": 0, "traces": 0, "rootless": 0})
    return {
        "one_of": every,
        "spans": total["spans"],
        "traces": total["traces"],
        "orphan_spans": total["orphans"],
        "missing_parents": total["missing_parents"],
        "rootless_traces": total["rootless"],
        "orphan_ratio": _ratio(total["orphans"], total["spans"]),
        "rootless_ratio": _ratio(total["rootless"], total["traces"]),
        "services": [
            {"service": name, **{k: row[k] for k in ("spans", "missing_parents")}, "orphan_spans": row["orphans"]}
            for name, row in table.items()
            if row["orphans"]
        ],
    }


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None
