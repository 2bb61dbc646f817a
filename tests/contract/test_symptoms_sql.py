"""Symptoms: the address of each, and its SQL on a real store, give the numbers that were told."""

from __future__ import annotations

import math
import time
from dataclasses import replace

import polars as pl
import pytest

from observe.bench.simulation import START_NS
from observe.detect import detect
from observe.detect.noticed import levels
from observe.noticed import PATH, Noticed, asked
from observe.settings import DetectSettings
from observe.store.asked import sql_of
from observe.types import WINDOW_NS
from tests.contract.test_sentences_sql import agree, store  # noqa: F401
from tests.fixtures.records import batch, metrics
from tests.scenarios.test_diagnose_fleets import small

WINDOWS = """INSERT INTO service_windows SELECT toDateTime(intDiv(window_start_ns, 1000000000), 'UTC'), service,
    operation, kind, version, requests, errors, toUInt64(round(duration_sum_ms * 1e6)), 0,
    mapFromArrays(latency_buckets.bucket, latency_buckets.count)
FROM file('{file}', Parquet)"""


def fill(given, windows: pl.DataFrame, folder) -> None:
    given.execute("TRUNCATE TABLE service_windows", {})
    windows.write_parquet(folder / "windows.parquet")
    given.execute(WINDOWS.format(file=folder / "windows.parquet"), {})


@pytest.mark.parametrize("kind", ["latency", "errors", "traffic"])
def test_every_symptom_has_an_address_and_sql_that_give_its_numbers(store, kind, tmp_path):  # noqa: F811
    given = small(12, kind)
    now_ns = START_NS + 372 * 10**9
    found = detect(given.frames.between(0, now_ns), now_ns, DetectSettings())
    fill(store, given.frames.windows, tmp_path)
    assert found
    for shift in found:
        told = {"before": shift.before, "after": shift.after, "requests_after": shift.samples}
        answer = dict(levels(given.frames, asked(shift.query)))
        assert {name: answer[name] for name in told} == pytest.approx(told)
        (row,) = store.query(sql_of(shift.query)).to_dicts()
        agree(row, answer, shift)


def test_traffic_that_fell_is_held_against_the_median_of_its_minutes(store, tmp_path):  # noqa: F811
    frames = small(12, "none").frames
    windows = frames.windows
    name, operation = windows.filter(pl.col("kind") == "Server").select("service", "operation").row(0)
    first = int(windows["window_start_ns"][0])
    at = [first + k * WINDOW_NS for k in range(39)]
    gone = (pl.col("window_start_ns") >= at[33]) & (pl.col("requests") % 3 > 0)
    windows = windows.filter(~gone)
    fill(store, windows, tmp_path)
    question = Noticed(
        "requests_per_s", name, operation, "Server", ((at[1], at[14]), (at[16], at[33])), ((at[33], at[38]),)
    )
    blocks = question.blocks()
    assert len(blocks) == 2 + 3
    assert all(b - a == 5 * WINDOW_NS for a, b in blocks)
    (row,) = store.query(sql_of(question.query)).to_dicts()
    answer = dict(levels(replace(frames, windows=windows), question))
    agree(row, answer, question)
    assert answer["before"] > 0


def test_a_histogram_that_was_sent_as_a_metric_has_sql(store):  # noqa: F811
    """Ten requests of 100 to 200 ms a window, then of 500 ms to a second."""
    first = (time.time_ns() - 3600 * 10**9) // WINDOW_NS * WINDOW_NS
    message, told = metrics("llm")
    histogram = told.add(name="vllm:e2e_request_latency_seconds", unit="s").histogram
    histogram.aggregation_temporality = 1
    for k in range(6):
        counts = [0, 10, 0, 0] if k < 4 else [0, 0, 0, 10]
        histogram.data_points.add(
            time_unix_nano=first + k * WINDOW_NS + 1, start_time_unix_nano=first, count=10, sum=2.0,
            bucket_counts=counts, explicit_bounds=[0.1, 0.2, 0.5],
        )  # fmt: skip
    store.insert(batch("otlp_metrics", 0, 0, message.SerializeToString()), 6)
    at = [first + k * WINDOW_NS for k in (0, 4, 6)]
    name = "vllm:e2e_request_latency_seconds"
    question = Noticed("latency_p99_ms", "llm", name, "Metric", ((at[0], at[1]),), ((at[1], at[2]),))
    answer = dict(levels(store.frames(at[0], at[2], joins=False), question))
    assert (answer["requests_before"], answer["requests_after"]) == (40, 20)
    assert answer["after"] > 2 * answer["before"]
    (row,) = store.query(sql_of(question.query)).to_dicts()
    agree(row, answer, question)


def test_an_address_says_all_of_the_question_and_hostile_names_end_no_literal(store):  # noqa: F811
    ranges = ((0, WINDOW_NS), (3 * WINDOW_NS, 4 * WINDOW_NS)), ((5 * WINDOW_NS, 6 * WINDOW_NS),)
    question = Noticed("error_ratio", "it's \\' OR 1=1 --", "GET /a,b/c&d", "Client", *ranges)
    assert question.query.startswith(PATH)
    assert asked(question.query) == question
    (row,) = store.query(sql_of(question.query)).to_dicts()
    assert row["requests_after"] == 0
    assert not math.isfinite(row["after"] or math.nan)
    assert sql_of(f"{PATH}?measure=beauty&before=a/b&after=c/d") == ""
