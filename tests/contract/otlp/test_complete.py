"""Every field of OTLP comes back out of both stores as it went in: random requests, compared field by field."""

from __future__ import annotations

import itertools
import os
import time
from collections import defaultdict
from typing import Any

import pytest

from observe.store import ClickHouseStore
from observe.types import SIGNALS, TOPICS, Batch, Record, Signal
from tests.fixtures.otlp_random import TIME_STEP_NS, examples, items, with_times
from tests.fixtures.otlp_rows import TABLES, TIME_COLUMN, Row, differences, rows

EXAMPLES = int(os.environ.get("OTLP_EXAMPLES", "45"))
"""Requests of each signal; `make bench` takes more."""

DERIVED = {"Origin", "Service", "Operation", "Window", "Series", "Instance", "Host", "HwId", "Labels"}
"""Columns that are made from others, or from where a batch came from."""

PARTITION = 7
ROOM_NS = 3600 * 10**9
_first_ns = time.time_ns() - 48 * ROOM_NS


@pytest.fixture(scope="module")
def sent() -> dict[Signal, list[Any]]:
    """The requests, drawn once for both stores."""
    drawn = {signal: examples(signal, EXAMPLES) for signal in SIGNALS}
    return {signal: with_times(signal, drawn[signal], _first_ns) for signal in SIGNALS}


@pytest.fixture(scope="module")
def store(opened: ClickHouseStore, sent: dict[Signal, list[Any]]) -> ClickHouseStore:
    """The store with what was sent, each signal as one batch."""
    for signal in SIGNALS:
        opened.insert(batch_of(signal, sent[signal]), sum(1 for r in sent[signal] for _ in items(signal, r)))
    return opened


def batch_of(signal: Signal, requests: list[Any], partition: int = PARTITION) -> Batch:
    records = [Record(TOPICS[signal], partition, i, r.SerializeToString()) for i, r in enumerate(requests)]
    return Batch(tuple(records), 0, len(records) - 1)


def expected(signal: Signal, requests: list[Any]) -> dict[str, list[Row]]:
    """The rows of each table, in the order of their times."""
    found: dict[str, list[Row]] = defaultdict(list)
    for table, row in itertools.chain.from_iterable(rows(signal, r) for r in requests):
        found[table].append(row)
    return found


def stored(store: ClickHouseStore, table: str, partition: int = PARTITION) -> tuple[list[str], list[Row]]:
    """Names of the columns that a writer can fill, and the rows in the order of their times."""
    described = store.query(f"DESCRIBE TABLE {table}").to_dicts()
    columns = {c["name"]: c["type"] for c in described if c["default_type"] not in ("MATERIALIZED", "ALIAS")}
    selected = ", ".join(f"{_readable(name, kind)} AS `{name}`" for name, kind in columns.items())
    mine = f"endsWith(t.Origin, '/{partition}') ORDER BY t.{TIME_COLUMN[table]}"
    frame = store.query(f"SELECT {selected} FROM {table} AS t WHERE {mine}")
    return list(columns), [{k: _plain(columns[k], v) for k, v in row.items()} for row in frame.to_dicts()]


def _readable(name: str, kind: str) -> str:
    column = f"t.`{name}`"
    if kind.startswith("Map("):
        return f"[mapKeys({column}), mapValues({column})]"
    if kind.startswith("Array(Map("):
        return f"arrayMap(m -> [mapKeys(m), mapValues(m)], {column})"
    if kind.startswith("Array(DateTime64"):
        return f"arrayMap(t -> reinterpretAsUInt64(toUnixTimestamp64Nano(t)), {column})"
    if kind.startswith("DateTime64"):
        return f"reinterpretAsUInt64(toUnixTimestamp64Nano({column}))"
    return column


def _plain(kind: str, value: Any) -> Any:
    """Maps as lists of pairs: a key may come twice."""
    if kind.startswith("Map("):
        return list(zip(*value, strict=True))
    return [list(zip(*m, strict=True)) for m in value] if kind.startswith("Array(Map(") else value


@pytest.mark.parametrize("table", ["otel_traces", "otel_logs", *TABLES.values()])
def test_what_is_stored_is_what_was_sent(store: ClickHouseStore, sent: dict[Signal, list[Any]], table: str) -> None:
    signal: Signal = "spans" if table == "otel_traces" else "logs" if table == "otel_logs" else "metrics"
    want = expected(signal, sent[signal])[table]
    columns, got = stored(store, table)
    assert len(want) >= EXAMPLES // 5, "too few rows to say anything"
    assert [row[TIME_COLUMN[table]] for row in got] == [row[TIME_COLUMN[table]] for row in want]
    wrong = {d.partition(":")[0]: d for row, found in zip(want, got, strict=True) for d in differences(row, found)}
    assert not wrong, "\n".join(["an example of each column:", *wrong.values()])
    assert set(want[0]) == set(columns) - DERIVED


def test_every_item_is_accounted_for(store: ClickHouseStore, sent: dict[Signal, list[Any]]) -> None:
    counted = {row["topic"]: row for row in store.ledger().filter(partition=PARTITION).to_dicts()}
    for signal in SIGNALS:
        number = sum(1 for r in sent[signal] for _ in items(signal, r))
        row = counted[TOPICS[signal]]
        assert (row["accepted"], row["stored"], row["rejected"]) == (number, number, 0)
        assert number * TIME_STEP_NS < ROOM_NS
