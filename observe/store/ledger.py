"""What was accepted, what is stored, what was rejected: counted from the rows themselves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import polars as pl

from observe.settings import RetentionSettings
from observe.store.migrate import RETENTION

SCHEMA: dict[str, pl.DataType] = {
    "topic": pl.String(),
    "partition": pl.Int32(),
    "accepted": pl.UInt64(),
    "stored": pl.UInt64(),
    "rejected": pl.UInt64(),
    "first_offset": pl.Int64(),
    "next_offset": pl.Int64(),
    "gaps": pl.UInt64(),
    "overlaps": pl.UInt64(),
}

BATCHES = """
SELECT
    Topic AS topic, Partition AS partition, sum(Items) AS accepted, min(FirstOffset) AS first_offset,
    max(LastOffset) + 1 AS next_offset,
    countIf(FirstOffset > before + 1) AS gaps, countIf(FirstOffset <= before) AS overlaps
FROM (
    SELECT *, max(LastOffset) OVER (PARTITION BY Topic, Partition ORDER BY FirstOffset, LastOffset
        ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS earlier,
        if(row_number() OVER (PARTITION BY Topic, Partition ORDER BY FirstOffset, LastOffset) = 1, FirstOffset - 1,
            earlier) AS before
    FROM ledger
)
GROUP BY topic, partition ORDER BY topic, partition
"""

HOLDERS = (
    "otel_traces",
    "otel_logs",
    "otel_metrics_gauge",
    "otel_metrics_sum",
    "otel_metrics_histogram",
    "otel_metrics_exponential_histogram",
    "otel_metrics_summary",
    "rejected",
)
"""Every item that was accepted is a row in one of these."""


class Database(Protocol):
    def query(self, sql: str, parameters: Mapping[str, object] | None = None, /) -> pl.DataFrame: ...


def read(db: Database, retention: RetentionSettings) -> pl.DataFrame:
    """One row per topic and partition, see Store.ledger.

    Rows are counted on the days that retention keeps whole; what older days held is known from when it was stored.
    """
    batches = db.query(BATCHES)
    rows = db.query(_counts(retention))
    counts = rows.group_by("origin").agg(
        stored=pl.col("rows").filter(pl.col("place") != "rejected").sum(),
        rejected=pl.col("rows").filter(pl.col("place") == "rejected").sum(),
    )
    origin = pl.format("{}/{}", "topic", "partition").alias("origin")
    joined = batches.with_columns(origin).join(counts, on="origin", how="left")
    joined = joined.with_columns(pl.col("stored", "rejected").fill_null(0))
    return joined.select(list(SCHEMA)).cast(pl.Schema(SCHEMA)).sort("topic", "partition")


def _counts(retention: RetentionSettings) -> str:
    """SELECT of (origin, place, rows) over all tables that hold what was sent."""
    parts = []
    for table in HOLDERS:
        column, setting = RETENTION[table]
        days = getattr(retention, setting)
        origin = "Origin" if table != "rejected" else "concat(Topic, '/', toString(Partition))"
        parts.append(
            f"SELECT {origin} AS origin, '{table}' AS place, count() AS rows FROM {table} "
            f"WHERE toDate({column}) > today() - {days} GROUP BY origin"
        )
        parts.append(
            f"SELECT Origin AS origin, Place AS place, sum(Stored) AS rows FROM stored_days "
            f"WHERE Place = '{table}' AND Day <= today() - {days} GROUP BY origin, place"
        )
    return "\nUNION ALL\n".join(parts)
