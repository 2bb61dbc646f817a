"""Equal work: the exporter's tables for those who do not create them, and observe's chain of views cut down to them."""

from __future__ import annotations

import re
from pathlib import Path

from clickhouse_connect.driver.client import Client

from observe.store.migrate import statements

SQL = Path(__file__).with_name("exporter_tables.sql")
TABLES = ("otel_traces", "otel_traces_trace_id_ts")
DEDUPLICATION = 10_000
KEPT = ("rejected", "ledger")
"""Targets of views of observe that stay: without them a batch could not be accounted for."""


def create_exporter_tables(client: Client, database: str) -> None:
    client.command(f"CREATE DATABASE IF NOT EXISTS {database}")
    for statement in statements(SQL.read_text(encoding="utf-8").replace("{database}", database)):
        client.command(statement)


def reduce_to_exporter_tables(client: Client, database: str, *, bloom: bool) -> None:
    """Puts the exporter's tables in place of observe's own, and drops every view that writes elsewhere.

    What is left of observe's work is its parsing, flattening and judging of spans, deduplication of repeated batches
    (the only setting that the exporter's tables lack), rejects and the ledger.
    """
    views = _views(client, database)
    into_traces = [select for target, select in views.values() if target == "otel_traces"]
    if len(into_traces) != 1:
        raise RuntimeError(f"{len(into_traces)} views write otel_traces, where one was expected")
    nulls = {name for (name,) in _query(client, database, "engine = 'Null'")}
    for name, (target, _) in views.items():
        if target not in {*KEPT, *nulls} or not name.endswith(("spans_mv", "spans_flat_mv")):
            client.command(f"DROP TABLE {database}.{name} SYNC")
    for table in TABLES:
        client.command(f"DROP TABLE {database}.{table} SYNC")
    create_exporter_tables(client, database)
    for table in TABLES:
        client.command(
            f"ALTER TABLE {database}.{table} MODIFY SETTING non_replicated_deduplication_window = {DEDUPLICATION}"
        )
    if not bloom:
        drop_bloom_filters(client, database)
    columns = ", ".join(f"`{name}`" for name, *_ in _columns(client, database))
    client.command(
        f"CREATE MATERIALIZED VIEW {database}.otel_traces_mv TO {database}.otel_traces AS "
        f"SELECT {columns} FROM ({into_traces[0]})"
    )


def check_same(client: Client, database: str, other: str) -> None:
    """Raises RuntimeError where the trace tables of two databases differ in columns, codecs, keys or indexes."""
    for what in (_columns, _keys, _indexes):
        ours, theirs = what(client, database), what(client, other)
        if ours != theirs:
            raise RuntimeError(f"{database} is not laid out like {other}: {set(ours) ^ set(theirs)}")


def drop_bloom_filters(client: Client, database: str) -> None:
    for table, index, kind, *_ in _indexes(client, database):
        if kind.startswith("bloom_filter"):
            client.command(f"ALTER TABLE {database}.{table} DROP INDEX {index}")


def _views(client: Client, database: str) -> dict[str, tuple[str, str]]:
    """Target table and SELECT of each materialized view, by its name."""
    rows = client.query(
        "SELECT name, create_table_query, as_select FROM system.tables "
        f"WHERE database = '{database}' AND engine = 'MaterializedView'"
    ).result_rows
    target = re.compile(r" TO (?:`?\w+`?\.)?`?(\w+)`?")
    return {name: (found[1], select) for name, query, select in rows if (found := target.search(query))}


def _query(client: Client, database: str, condition: str) -> list[tuple[str]]:
    rows = client.query(f"SELECT name FROM system.tables WHERE database = '{database}' AND {condition}").result_rows
    return [(str(name),) for (name,) in rows]


def _columns(client: Client, database: str) -> list[tuple[str, ...]]:
    """Name, type and codec of the columns of otel_traces, in order."""
    return _texts(
        client,
        "SELECT name, type, compression_codec FROM system.columns "
        f"WHERE database = '{database}' AND table = 'otel_traces' AND default_kind NOT IN ('MATERIALIZED', 'ALIAS') "
        "ORDER BY position",
    )


def _keys(client: Client, database: str) -> list[tuple[str, ...]]:
    return _texts(
        client,
        f"SELECT name, engine, partition_key, sorting_key FROM system.tables WHERE database = '{database}' "
        f"AND name IN {TABLES} ORDER BY name",
    )


def _indexes(client: Client, database: str) -> list[tuple[str, ...]]:
    return _texts(
        client,
        f"SELECT table, name, type_full, expr, toString(granularity) FROM system.data_skipping_indices "
        f"WHERE database = '{database}' AND table IN {TABLES} ORDER BY table, name",
    )


def _texts(client: Client, sql: str) -> list[tuple[str, ...]]:
    return [tuple(str(value) for value in row) for row in client.query(sql).result_rows]
