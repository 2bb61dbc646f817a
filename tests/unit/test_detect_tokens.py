"""Latency given tokens: longer prompts are no incident, a slower engine under shorter prompts is one."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from observe.detect import detect
from observe.detect.expected import Calls, expected_log_ms, planes
from observe.detect.tokens import given_tokens
from observe.frames import SERVICE_WINDOWS, TOKEN_WINDOWS
from observe.settings import DetectSettings
from observe.types import Interval
from tests.unit.detect_parts import bucket, frames, now_ns, window_ns

DETECT = DetectSettings()
BEFORE, AFTER = 90, 6


def half_octave(tokens):
    return int(np.ceil(2 * np.log2(max(tokens, 1))))


def histogram(values):
    found, counts = np.unique([bucket(v) for v in values], return_counts=True)
    return [{"bucket": int(b), "count": int(n)} for b, n in zip(found, counts, strict=True)]


def calls_of(window, inputs, outputs, first_ms, total_ms, service="llm", operation="chat m"):
    """The windows' rows and the token rows of some calls; all arrays [calls]."""
    key = {"window_start_ns": window_ns(window), "service": service, "operation": operation, "kind": "Internal",
           "version": "1"}  # fmt: skip
    n = len(inputs)
    plain = {**key, "requests": n, "errors": 0, "duration_sum_ms": float(total_ms.sum()),
             "latency_buckets": histogram(total_ms)}  # fmt: skip
    cells = np.array([(half_octave(i), half_octave(o)) for i, o in zip(inputs, outputs, strict=True)])
    rows = []
    for cell in np.unique(cells, axis=0):
        at = (cells == cell).all(axis=1)
        rows.append({**key, "model": "m", "input_bucket": int(cell[0]), "output_bucket": int(cell[1]),
                     "requests": int(at.sum()), "errors": 0, "input_tokens": int(inputs[at].sum()),
                     "output_tokens": int(outputs[at].sum()), "duration_sum_ms": float(total_ms[at].sum()),
                     "latency_buckets": histogram(total_ms[at]), "first_buckets": histogram(first_ms[at]),
                     "per_token_buckets": histogram((total_ms - first_ms)[at] / (outputs[at] - 1))})  # fmt: skip
    return plain, rows


def fleet(prompts, *, prefill=(0.5, 0.5), decode=(20.0, 20.0), seed=1, per_window=60):
    """Prompts of `prompts[0]` tokens in the median, then of `prompts[1]`; costs in ms a token before and after."""
    rng = np.random.default_rng(seed)
    plain, tokens = [], []
    for window in range(BEFORE + AFTER):
        now = int(window >= BEFORE)
        inputs = np.maximum(rng.lognormal(np.log(prompts[now]), 0.7, per_window), 2).astype(int)
        outputs = np.maximum(rng.lognormal(np.log(60), 0.5, per_window), 2).astype(int)
        noise = rng.lognormal(0, 0.1, (2, per_window))
        first = (30 + prefill[now] * inputs) * noise[0]
        total = first + decode[now] * (outputs - 1) * noise[1]
        row, cells = calls_of(window, inputs, outputs, first, total)
        plain.append(row)
        tokens += cells
    return replace(frames(plain), tokens=pl.DataFrame(tokens, schema=TOKEN_WINDOWS))


NOW = now_ns(BEFORE + AFTER)


def test_longer_prompts_are_a_shift_of_latency_but_none_given_the_tokens():
    seen = fleet((500, 3000))
    assert {s.measure for s in detect(seen, NOW, DETECT)} == {"latency_p99_ms"}
    judged = given_tokens(seen, NOW, DETECT)
    assert detect(judged.frames, NOW, DETECT) == []
    assert judged.shifts == []
    assert judged.explained == {"llm"}
    assert "tokens in" in judged.notes["llm"]


def test_prompts_of_lengths_that_were_never_seen_are_extrapolated():
    judged = given_tokens(fleet((300, 12000)), NOW, DETECT)
    assert detect(judged.frames, NOW, DETECT) == []
    assert judged.explained == {"llm"}


def test_a_slower_engine_under_shorter_prompts_is_a_shift():
    seen = fleet((3000, 600), prefill=(0.5, 1.0), decode=(20.0, 30.0))
    raw = [s for s in detect(seen, NOW, DETECT) if s.measure == "latency_p99_ms"]
    judged = given_tokens(seen, NOW, DETECT)
    told = detect(judged.frames, NOW, DETECT)
    assert not raw
    assert [(s.service, s.measure) for s in told] == [("llm", "latency_p99_ms")]
    assert told[0].after / told[0].before == pytest.approx(1.6, abs=0.3)
    measures = {s.measure: s for s in judged.shifts}
    assert measures["time_per_output_token_p99_ms"].after == pytest.approx(1.5 * 20, rel=0.35)
    assert measures["time_to_first_token_p99_ms"].kind == "Internal"
    assert judged.explained == frozenset()


def test_slow_prefill_alone_shows_in_the_time_to_the_first_token():
    judged = given_tokens(fleet((500, 500), prefill=(0.2, 0.6)), NOW, DETECT)
    assert [s.measure for s in judged.shifts] == ["time_to_first_token_p99_ms"]


def test_calls_whose_tokens_are_unknown_keep_their_latency():
    seen = fleet((500, 3000))
    blind = replace(seen, tokens=seen.tokens.with_columns(input_bucket=pl.lit(-1, pl.Int16)))
    judged = given_tokens(blind, NOW, DETECT)
    assert judged.frames.windows.equals(seen.windows)
    assert judged.explained == frozenset()


def test_every_request_stays_counted():
    seen = fleet((500, 3000))
    extra, _ = calls_of(3, np.array([5]), np.array([5]), np.array([1.0]), np.array([9.0]), operation="other")
    windows = pl.concat([seen.windows, pl.DataFrame([extra], schema=SERVICE_WINDOWS)])
    judged = given_tokens(replace(seen, windows=windows), NOW, DETECT).frames.windows
    counted = judged["latency_buckets"].list.eval(pl.element().struct.field("count")).list.sum()
    assert counted.to_list() == windows["requests"].to_list()
    assert judged.drop("latency_buckets").equals(windows.drop("latency_buckets"))


def test_an_incident_is_no_baseline_for_tokens():
    slow = fleet((500, 500), prefill=(0.5, 2.0), decode=(20.0, 40.0))
    start = window_ns(BEFORE)
    late = now_ns(BEFORE + AFTER + 30)
    excluded = [Interval(start, late, "llm")]
    with_it = given_tokens(slow, late, DETECT, excluded)
    assert with_it.notes == given_tokens(slow, late, DETECT, excluded).notes  # nothing depends on a clock
    told = given_tokens(slow, NOW, DETECT, [Interval(start, NOW, "llm")])
    assert detect(told.frames, NOW, DETECT, [Interval(start, NOW, "llm")])


@settings(max_examples=60, deadline=None)
@given(
    truth=st.tuples(st.floats(0, 200), st.floats(0, 1), st.floats(0, 40)).filter(lambda t: sum(t) > 1),
    seed=st.integers(0, 1000),
)
def test_a_plane_without_noise_is_found_again(truth, seed):
    rng = np.random.default_rng(seed)
    design = np.stack([np.ones(12), rng.uniform(10, 4000, 12), rng.uniform(2, 800, 12)], axis=1)
    value = design @ np.array(truth)
    found = planes(design, value, np.full(12, 30.0), np.zeros(12, dtype=np.int64), 1)[0]
    assert (found >= 0).all()
    assert design @ found == pytest.approx(value, rel=1e-3)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 1000), series=st.integers(1, 4))
def test_coefficients_are_never_negative_and_series_do_not_touch(seed, series):
    rng = np.random.default_rng(seed)
    rows = 10 * series
    owner = np.repeat(np.arange(series), 10)
    design = np.stack([np.ones(rows), rng.uniform(1, 4000, rows), rng.uniform(1, 800, rows)], axis=1)
    value, count = rng.lognormal(3, 2, rows), rng.integers(1, 50, rows).astype(float)
    together = planes(design, value, count, owner, series)
    assert (together >= 0).all()
    for one in range(series):
        mine = owner == one
        alone = planes(design[mine], value[mine], count[mine], np.zeros(10, dtype=np.int64), 1)[0]
        assert together[one] == pytest.approx(alone, rel=1e-6, abs=1e-9)


def test_expectations_bend_towards_cells_with_many_requests_only():
    n = np.array([1000.0, 1.0, 1000.0])
    calls = Calls(
        np.zeros(3, np.int64), np.arange(3), n, np.array([100.0, 200.0, 400.0]), np.ones(3), np.array([5.0, 9.0, 7.0])
    )
    found = expected_log_ms(calls, np.ones(3, dtype=bool), 1)
    assert found[[0, 2]] == pytest.approx([5.0, 7.0], abs=0.1)
    assert found[1] < 7.5  # one slow request does not make a rule
