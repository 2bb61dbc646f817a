"""Numbered migrations: applied once, in order, and harmless when two processes apply them at once.

Every statement can be repeated (IF NOT EXISTS), so two processes may both apply a migration; a migration is
recorded when all its statements are through. One that broke off halfway is applied again from its beginning.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from importlib.resources import files

from clickhouse_connect.driver.client import Client

from observe.settings import RetentionSettings
from observe.store import operations, otlp

RECORD = """
CREATE TABLE IF NOT EXISTS migrations (Name String, AppliedAt DateTime64(3) DEFAULT now64(3))
ENGINE = ReplacingMergeTree ORDER BY Name
"""

# Which column tells a row's age, and which setting how long it stays.
RETENTION: Mapping[str, tuple[str, str]] = {
    "otel_traces": ("Timestamp", "traces_days"),
    "otel_traces_trace_id_ts": ("Start", "traces_days"),
    "rejected": ("IngestedAt", "traces_days"),
    "digests": ("IngestedAt", "traces_days"),
    "otel_logs": ("Timestamp", "logs_days"),
    "otel_metrics_gauge": ("TimeUnix", "metrics_days"),
    "otel_metrics_sum": ("TimeUnix", "metrics_days"),
    "otel_metrics_histogram": ("TimeUnix", "metrics_days"),
    "otel_metrics_exponential_histogram": ("TimeUnix", "metrics_days"),
    "otel_metrics_summary": ("TimeUnix", "metrics_days"),
    "service_windows": ("Window", "rollups_days"),
    "token_windows": ("Window", "rollups_days"),
    "service_blocks": ("Block", "rollups_days"),
    "self_windows": ("Window", "rollups_days"),
    "edge_windows": ("Window", "rollups_days"),
    "settled": ("Window", "rollups_days"),
    "operations": ("SeenAt", "traces_days"),
    "looks": ("At", "diagnoses_days"),
    "diagnoses": ("At", "diagnoses_days"),
}


def migrations() -> Iterator[tuple[str, list[str]]]:
    """Name and statements of each migration, in order."""
    folder = files("observe.store") / "migrations"
    for file in sorted((f for f in folder.iterdir() if f.name.endswith(".sql")), key=lambda f: f.name):
        yield file.name.removesuffix(".sql"), statements(filled(file.read_text(encoding="utf-8")))


def filled(text: str) -> str:
    """A migration's text with what its placeholders stand for."""
    text = re.sub(r"^ *\{(\w+)\}([;,]?)$", _part, text, flags=re.MULTILINE)
    text = re.sub(r"\{otlp_(\w+)\}", _columns, text).replace("{plain_points}", otlp.plain())
    return text.replace("{operation_of_span_name}", operations.FROM_SPAN_NAME)


def _part(placeholder: re.Match[str]) -> str:
    """A line that is `{values}`: the text of parts/values.sql, which several statements share."""
    part = files("observe.store") / "migrations" / "parts" / f"{placeholder[1]}.sql"
    return part.read_text(encoding="utf-8").rstrip() + placeholder[2]


def _columns(placeholder: re.Match[str]) -> str:
    """`{otlp_spans}`: the columns of otlp_spans_in."""
    return otlp.columns(next(one for all_ in otlp.LANDINGS.values() for one in all_ if one == placeholder[1]))


def statements(text: str) -> list[str]:
    """The statements of a file: each ends with a semicolon at the end of a line.

    >>> statements("SELECT 1; SELECT 2;\\nSELECT 3;\\n-- no more\\n")
    ['SELECT 1; SELECT 2', 'SELECT 3']
    """
    parts = (part.strip() for part in re.split(r";\s*$", text, flags=re.MULTILINE))
    return [part for part in parts if re.sub(r"^\s*--.*$", "", part, flags=re.MULTILINE).strip()]


def apply(client: Client, retention: RetentionSettings) -> list[str]:
    """Applies what is missing, then the retention; the names of the migrations applied."""
    client.command(RECORD)
    done = {row[0] for row in client.query("SELECT Name FROM migrations").result_rows}
    applied = []
    for name, parts in migrations():
        if name in done:
            continue
        for statement in parts:
            client.command(statement)
        client.command(f"INSERT INTO migrations (Name) VALUES ('{name}')")
        applied.append(name)
    apply_retention(client, retention)
    _limit_operations(client, retention.operations)
    return applied


def _limit_operations(client: Client, operations: int) -> None:
    """Only where it is another: a definition that is written while the disk is full keeps the server from starting."""
    held = client.query("SELECT Operations FROM operation_limit").result_rows
    if held and held[0][0] != operations:  # no row at all: an answer that was cut off, see connect.whole_frame
        client.command(f"CREATE OR REPLACE VIEW operation_limit AS SELECT {operations} AS Operations")


def apply_retention(client: Client, retention: RetentionSettings) -> None:
    """Gives each table the TTL of the settings, where it has another."""
    tables = client.query("SELECT name, create_table_query FROM system.tables WHERE database = currentDatabase()")
    for table, definition in tables.result_rows:
        if table in RETENTION:
            column, setting = RETENTION[table]
            ttl = f"toDate({column}) + toIntervalDay({getattr(retention, setting)})"
            if f"TTL {ttl}" not in definition:
                client.command(f"ALTER TABLE {table} MODIFY TTL {ttl}", settings={"materialize_ttl_after_modify": 0})
