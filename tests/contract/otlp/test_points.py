"""Metrics on their two ways into the tables: the narrow one for plain attributes, and the one that reads everything."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric

from observe.errors import BadRecord, Unavailable
from observe.store import ClickHouseStore, migrate, otlp
from tests.contract.otlp.test_complete import batch_of, expected, stored
from tests.fixtures.otlp_random import examples, items, with_times
from tests.fixtures.otlp_rows import TABLES, TIME_COLUMN, differences
from tests.fixtures.records import batch, metrics

PLAIN, WHOLE = 31, 32
PLAIN_KINDS = {"string_value", "bool_value", "int_value", "double_value"}
DERIVED = ("Window", "Series", "Instance", "Host", "HwId", "Labels")
_first_ns = time.time_ns() - 30 * 3600 * 10**9
_partitions = iter(range(300, 400))


@pytest.fixture(scope="module")
def sent() -> list[Any]:
    """Random requests whose points have plain attributes alone; resources and scopes keep arrays and maps."""
    requests = with_times("metrics", examples("metrics", 30), _first_ns)
    for request in requests:
        for number, point in enumerate(items("metrics", request)):
            for attribute in _attributes(point):
                if attribute.value.WhichOneof("value") not in PLAIN_KINDS:
                    attribute.value.string_value = "plain"
            if number % 3 == 0:
                for key in ("UUID", "Hostname", "z"):
                    point.attributes.add(key=key).value.string_value = f"{key}-{number}"
    return requests


@pytest.fixture(scope="module")
def store(opened: ClickHouseStore, sent: list[Any]) -> ClickHouseStore:
    """The store with the same requests twice, once on each way."""
    count = sum(1 for r in sent for _ in items("metrics", r))
    for landing, partition in (("points", PLAIN), ("metrics", WHOLE)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(otlp.LANDINGS, "metrics", (landing,))
            opened.insert(batch_of("metrics", sent, partition), count)
    return opened


def _attributes(point: Any) -> Iterator[KeyValue]:
    yield from point.attributes
    for exemplar in getattr(point, "exemplars", ()):
        yield from exemplar.filtered_attributes


@pytest.mark.parametrize("table", TABLES.values())
def test_both_ways_lead_to_the_same_rows(store: ClickHouseStore, sent: list[Any], table: str) -> None:
    want = expected("metrics", sent)[table]
    columns, plain = stored(store, table, PLAIN)
    whole = stored(store, table, WHOLE)[1]
    assert len(want) == len(plain) == len(whole) >= 5
    assert [row[TIME_COLUMN[table]] for row in plain] == [row[TIME_COLUMN[table]] for row in want]
    wrong = {d.partition(":")[0]: d for row, found in zip(want, plain, strict=True) for d in differences(row, found)}
    assert not wrong, "\n".join(["an example of each column:", *wrong.values()])
    for name in DERIVED:
        assert [row[name] for row in plain] == [row[name] for row in whole]
    assert set(DERIVED) < set(columns)


@pytest.mark.parametrize("table", TABLES.values())
def test_derived_columns_are_as_the_table_makes_them_itself(store: ClickHouseStore, table: str) -> None:
    """A Collector's exporter gives none of them, and its rows must be of the same series as ours."""
    defaults = store.query(
        "SELECT name, default_expression FROM system.columns WHERE database = currentDatabase() "
        "AND table = {table:String} AND name IN {names:Array(String)}",
        {"table": table, "names": list(DERIVED)},
    ).rows()
    assert {name for name, _ in defaults} == set(DERIVED)
    tests = ", ".join(
        f"countIf({name} != CAST({default}, toTypeName({name}))) AS `{name}`" for name, default in defaults
    )
    assert store.query(f"SELECT {tests} FROM {table}").row(0) == (0,) * len(DERIVED)


def test_an_array_in_a_point_takes_the_other_way(opened: ClickHouseStore) -> None:
    place = next(_partitions)
    message, found = metrics(f"points-{place}")
    point = found.add(name="g").gauge.data_points.add(time_unix_nano=time.time_ns(), as_int=7)
    point.attributes.add(key="a").value.array_value.values.add(string_value="x")
    arrived = batch("otlp_metrics", place, 0, message.SerializeToString())
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(otlp.LANDINGS, "metrics", ("points",))
        with pytest.raises(BadRecord):
            opened.insert(arrived, 1)
    for _ in range(2):
        opened.insert(arrived, 1)
    counted = opened.ledger().filter(topic="otlp_metrics", partition=place).row(0, named=True)
    assert (counted["accepted"], counted["stored"], counted["overlaps"]) == (1, 1, 0)
    kept = opened.query("SELECT Attributes['a'] AS a FROM otel_metrics_gauge WHERE ServiceName = {s:String}",
                        {"s": f"points-{place}"})  # fmt: skip
    assert kept["a"].to_list() == ['["x"]']


def test_a_metric_of_two_kinds_is_rejected_with_its_reason(opened: ClickHouseStore) -> None:
    """No encoder writes that; fields of one kind must not be taken for those of another."""
    place = next(_partitions)
    gauge, histogram = Metric(name="two"), Metric()
    gauge.gauge.data_points.add(time_unix_nano=time.time_ns(), as_int=7)
    histogram.histogram.data_points.add(time_unix_nano=time.time_ns(), count=9)
    message, found = metrics(f"points-{place}")
    found.add(name="good").gauge.data_points.add(time_unix_nano=time.time_ns(), as_int=1)
    both = gauge.SerializeToString() + histogram.SerializeToString()
    scope = _field(2, both)  # ScopeMetrics.metrics
    body = message.SerializeToString() + _field(1, _field(2, scope))
    opened.insert(batch("otlp_metrics", place, 0, body), 3)
    counted = opened.ledger().filter(topic="otlp_metrics", partition=place).row(0, named=True)
    assert (counted["stored"], counted["rejected"]) == (1, 2)
    reasons = opened.query("SELECT DISTINCT Reason, Name FROM rejected WHERE Partition = {p:Int32}", {"p": place})
    assert reasons.rows() == [("several_kinds", "two")]


def _field(number: int, body: bytes) -> bytes:
    assert len(body) < 128
    return bytes([number << 3 | 2, len(body)]) + body


EARLIER = """
DROP TABLE otel_metrics_gauge SYNC;
CREATE TABLE otel_metrics_gauge (
    {metric_head}
    Value Float64,
    IntValue Nullable(Int64) DEFAULT NULL,
    {exemplars}
    Origin LowCardinality(String) DEFAULT '',
    Window DateTime('UTC') MATERIALIZED toDateTime(intDiv(toUnixTimestamp64Nano(TimeUnix), 10000000000) * 10, 'UTC'),
    Series UInt64 MATERIALIZED cityHash64(ServiceName, MetricName, mapSort(Attributes), mapSort(ResourceAttributes),
        ScopeName),
    Instance LowCardinality(String) MATERIALIZED ResourceAttributes['service.instance.id'],
    Host LowCardinality(String) MATERIALIZED ResourceAttributes['host.name'],
    HwId LowCardinality(String) MATERIALIZED Attributes['hw.id'],
    Labels LowCardinality(String) MATERIALIZED arrayStringConcat(mapKeys(Attributes), ','),
    INDEX idx_window Window TYPE minmax GRANULARITY 1
)
ENGINE = MergeTree
PARTITION BY toDate(TimeUnix)
ORDER BY (ServiceName, MetricName, Attributes, toUnixTimestamp64Nano(TimeUnix))
SETTINGS non_replicated_deduplication_window = 10000;
DROP VIEW otlp_metrics_in_mv;
DROP VIEW otel_metrics_gauge_points_mv;
CREATE TABLE otlp_metrics_flat (MetricName String) ENGINE = Null;
CREATE MATERIALIZED VIEW otlp_metrics_flat_mv TO otlp_metrics_flat AS SELECT '' AS MetricName FROM otlp_metrics_in;
INSERT INTO otel_metrics_gauge (ServiceName, MetricName, Attributes, TimeUnix, Value)
    VALUES ('before', 'old', map('hw.id', 'gpu-1'), now64(9), 5);
DELETE FROM migrations WHERE Name = '0014_points';
"""


@pytest.mark.clickhouse
def test_a_store_of_an_earlier_version_is_upgraded(clickhouse_database: str) -> None:
    """Its rows stay, its tables keep their order, and while views change places nothing is taken in to be lost."""
    store = ClickHouseStore(clickhouse_database)
    store.migrate()
    for statement in migrate.statements(migrate.filled(EARLIER)):
        store.execute(statement, {})
    hold = next(s for s in dict(migrate.migrations())["0014_points"] if "upgrading" in s)
    store.execute(hold, {})
    message, found = metrics("after")
    point = found.add(name="new").gauge.data_points.add(time_unix_nano=time.time_ns(), as_int=7)
    point.attributes.add(key="hw.id").value.array_value.values.add(string_value="gpu-2")
    arrived = batch("otlp_metrics", 0, 0, message.SerializeToString())
    with pytest.raises(Unavailable, match="being upgraded"):
        store.insert(arrived, 1)
    assert store.migrate() == ["0014_points"]
    store.insert(arrived, 1)
    found_rows = store.query(
        "SELECT ServiceName, Value, HwId, Series != 0 FROM otel_metrics_gauge ORDER BY ServiceName"
    )
    assert found_rows.rows() == [("after", 7.0, '["gpu-2"]', 1), ("before", 5.0, "gpu-1", 1)]
    gone = "SELECT name FROM system.tables WHERE database = currentDatabase() AND name LIKE 'otlp_metrics_flat%'"
    assert store.query(gone).is_empty()
    assert store.ledger().filter(topic="otlp_metrics").row(0, named=True)["stored"] == 1
    store.close()
