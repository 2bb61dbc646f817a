"""The comparison is of equal work: what the loop inserts is, row by row, what observe makes of the same bytes."""

from __future__ import annotations

import time

import clickhouse_connect
import pytest
from clickhouse_connect.driver.client import Client
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from observe.bench.traces import TraceLoad
from observe.store.clickhouse import ClickHouseStore
from observe.types import TOPICS, Batch, Record
from tests.benchmarks.rivals import python_loop
from tests.benchmarks.rivals.tables import (
    check_same,
    create_exporter_tables,
    drop_bloom_filters,
    reduce_to_exporter_tables,
)

pytestmark = pytest.mark.clickhouse


def test_the_loop_and_observe_write_the_same_rows_into_the_same_tables(clickhouse_database: str) -> None:
    address, _, ours = clickhouse_database.rpartition("/")
    theirs = f"{ours}_loop"
    client = clickhouse_connect.get_client(dsn=address.replace("clickhouse://", "http://"))
    store = ClickHouseStore(clickhouse_database)
    try:
        store.migrate()
        reduce_to_exporter_tables(client, ours, bloom=True)
        create_exporter_tables(client, theirs)
        check_same(client, ours, theirs)

        load = TraceLoad(spans_per_round=3000)
        requests = [body for body, _ in load.round(time.time_ns() - 60 * 10**9)]
        store.insert(batch(requests), load.spans_per_round)
        store.insert(batch(requests), load.spans_per_round)  # repeated: the token keeps it from counting twice
        rows = [row for body in requests for row in python_loop.to_rows(ExportTraceServiceRequest.FromString(body))]
        client.insert(f"{theirs}.otel_traces", rows, column_names=python_loop.COLUMNS)

        assert count(client, f"{ours}.otel_traces") == load.spans_per_round
        assert differences(client, ours, theirs, "otel_traces") == 0
        assert differences(client, ours, theirs, "otel_traces_trace_id_ts") == 0

        drop_bloom_filters(client, ours)
        with pytest.raises(RuntimeError, match="idx_trace_id"):
            check_same(client, ours, theirs)
    finally:
        store.close()
        client.command(f"DROP DATABASE IF EXISTS {theirs}")
        client.close()


def batch(requests: list[bytes]) -> Batch:
    records = tuple(Record(TOPICS["spans"], 0, offset, value) for offset, value in enumerate(requests))
    return Batch(records, 0, len(records) - 1)


def count(client: Client, table: str) -> int:
    return int(str(client.command(f"SELECT count() FROM {table}")))


def differences(client: Client, ours: str, theirs: str, table: str) -> int:
    """Rows that one of the two tables has and the other lacks."""
    sides = (f"SELECT * FROM {ours}.{table} EXCEPT SELECT * FROM {theirs}.{table}",
             f"SELECT * FROM {theirs}.{table} EXCEPT SELECT * FROM {ours}.{table}")  # fmt: skip
    return sum(count(client, f"({side})") for side in sides)
