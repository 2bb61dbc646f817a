"""The SQL beside a sentence, run as it is on a real store: the sentence's numbers come back."""

from __future__ import annotations

import polars as pl
import pytest

from observe.diagnose.compare import Question
from observe.diagnose.levels import Periods
from observe.frames import Frames
from observe.settings import RetentionSettings
from observe.store import ClickHouseStore
from observe.store.asked import sql_of
from observe.types import WINDOW_NS
from tests.scenarios.test_diagnose_fleets import small, told
from tests.scenarios.test_sentences import answer

AGES = RetentionSettings(traces_days=9999, metrics_days=9999, rollups_days=9999)
"""Simulated windows are of a fixed time, years ago."""
_TIME = "toDateTime(intDiv(window_start_ns, 1000000000), 'UTC'), 1"
_BUCKETS = "CAST(map(), 'Map(Int16, UInt64)')"
SELF = f"""INSERT INTO self_windows SELECT {_TIME}, service, operation, kind, version, instance, host, requests, errors,
    origin_errors, toUInt64(round(duration_sum_ms * 1e6)), toUInt64(round(self_sum_ms * 1e6)), {_BUCKETS}, '', ''
FROM file('{{file}}', Parquet)"""
EDGE = f"""INSERT INTO edge_windows SELECT {_TIME}, caller, caller_operation, callee, callee_operation, connection,
    calls, errors, toUInt64(round(client_sum_ms * 1e6)), toUInt64(round(server_sum_ms * 1e6)), {_BUCKETS}
FROM file('{{file}}', Parquet)"""
GAUGE = """INSERT INTO otel_metrics_gauge (ResourceAttributes, Attributes, MetricName, MetricUnit, TimeUnix, Value)
SELECT map('host.name', host), map('hw.id', hw_id), metric, unit, fromUnixTimestamp64Nano(window_start_ns), value_avg
FROM file('{file}', Parquet)"""


@pytest.fixture(scope="module")
def store(opened_store):
    with opened_store("chdb", AGES) as store:
        yield store


def fill(store: ClickHouseStore, frames: Frames, folder) -> None:
    """The windows as if they had settled; nothing else is left from before."""
    for table in ("self_windows", "edge_windows", "settled", "otel_metrics_gauge"):
        store.execute(f"TRUNCATE TABLE {table}", {})
    for name, statement in (("selfs", SELF), ("edges", EDGE), ("gauges", GAUGE)):
        frame: pl.DataFrame = getattr(frames, name)
        if frame.height:
            frame.select(pl.exclude("self_buckets", "latency_buckets")).write_parquet(folder / f"{name}.parquet")
            store.execute(statement.format(file=folder / f"{name}.parquet"), {})
    store.execute("INSERT INTO settled SELECT DISTINCT Window, 1, 1 FROM self_windows", {})


def agree(found: dict[str, float], numbers: dict[str, float], about: object) -> None:
    for name, value in numbers.items():
        if name != "lost":  # of the errors, those without a trace: only the whole diagnosis tells them apart
            assert found[name] == pytest.approx(value, rel=1e-4, abs=1e-6), (about, found)


@pytest.mark.parametrize("kind", ["errors", "network", "gpu", "version", "traffic", "crash", "repeats"])
def test_the_sql_of_every_sentence_gives_its_numbers(store, kind, tmp_path):
    given = small(12, kind)
    (found, *_) = told(given)
    fill(store, given.frames, tmp_path)
    asked = [s for s in (*(e for c in found.causes for e in c.evidence), *found.ruled_out) if s.query]
    assert asked
    for sentence in asked:
        (row,) = store.query(sql_of(sentence.query)).to_dicts()
        agree(row, dict(sentence.numbers), sentence)


@pytest.mark.parametrize("of", ["duration_ms", "calls_per_request", "excess_errors", "error_ratio", "requests_per_s"])
def test_questions_that_few_sentences_ask_have_sql_too(store, of, tmp_path):
    given = small(12, "version")
    fill(store, given.frames, tmp_path)
    first = given.frames.selfs["window_start_ns"][0]
    when = Periods(first, first + 20 * WINDOW_NS, first + 25 * WINDOW_NS, first + 36 * WINDOW_NS)
    calls = given.frames.edges.filter(pl.col("server_sum_ms").is_not_null())
    caller, callee = calls.select("caller", "callee").row(0)
    version = ("1.1.0",) if "_e" in of else ()
    asked = Question(of, when, caller, callee if of.startswith("calls") else "", values=version)
    expected = answer(given.frames, asked.query)
    assert expected
    (row,) = store.query(sql_of(asked.query)).to_dicts()
    agree(row, expected, asked)


def test_addresses_without_numbers_have_no_sql():
    assert sql_of("") == ""
    assert sql_of("/api/v1/incidents/17/replay") == ""
    assert sql_of("/api/v1/compare?of=beauty&before=a/b&after=c/d") == ""


def test_names_cannot_end_a_literal(store):
    when = Periods(0, WINDOW_NS, 2 * WINDOW_NS, 3 * WINDOW_NS)
    (row,) = store.query(sql_of(Question("self_time_ms", when, "it's \\' OR 1=1 --").query)).to_dicts()
    assert row["requests_after"] == 1
