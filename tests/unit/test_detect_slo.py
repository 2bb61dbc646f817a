"""Error budgets: burn rates over two ranges, blocks and windows joined without a gap, and what is left."""

from dataclasses import replace

import polars as pl
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from observe.detect.slo import burning, reach_ns, status
from observe.errors import Misconfigured
from observe.frames import BLOCK_NS, BLOCKS, TOKEN_WINDOWS
from observe.settings import DetectSettings, SloSettings, load
from tests.unit.detect_parts import START_NS, bucket, frames, now_ns, row, window_ns

DETECT = DetectSettings()
UP = {"name": "shop up", "service": "shop", "target": 0.999}
FAST = {"name": "shop fast", "service": "shop", "target": 0.99, "latency_ms": 300}


def slo(*objectives, **options):
    return SloSettings.model_validate({"objectives": objectives, **options})


def steady(windows, errors=lambda w: 0, n=100, ms=lambda w: 20.0, **key):
    return [row(w, [ms(w)] * n, errors=errors(w), **key) for w in range(windows)]


def blocks(count, *, requests=3000, errors=0, ms=20.0, before_ns=START_NS, model=""):
    last = before_ns // BLOCK_NS * BLOCK_NS
    rows = [
        {"block_start_ns": last - i * BLOCK_NS, "service": "shop", "operation": "GET /", "kind": "Server",
         "model": model, "requests": requests, "errors": errors,
         "latency_buckets": [{"bucket": bucket(ms), "count": requests}]}
        for i in range(count)
    ]  # fmt: skip
    return pl.DataFrame(rows, schema=BLOCKS).sort("block_start_ns")


def test_two_percent_of_errors_burn_twenty_times_too_fast():
    seen = frames(steady(360, errors=lambda w: 2))
    (found,) = burning(seen, now_ns(360), slo(UP), DETECT)
    assert found.limit.rate == 14.4
    assert (found.shift.measure, found.shift.before, found.shift.after) == ("error_ratio", pytest.approx(0.001), 0.02)
    assert found.shift.rule == "slo shop up 14.4×"
    assert "20 times too fast over 1 h and 20 times over 5 min" in found.text


def test_what_is_over_does_not_page_however_much_it_burnt():
    seen = frames(steady(360, errors=lambda w: 20 if w < 320 else 0))
    limits = [{"rate": 14.4, "long_s": 3600, "short_s": 300}]
    assert burning(seen, now_ns(360), slo(UP, burn_rates=limits), DETECT) == []
    at_end_of_fault = frames(steady(320, errors=lambda w: 20))
    assert burning(at_end_of_fault, now_ns(320), slo(UP, burn_rates=limits), DETECT)


def test_a_short_burst_does_not_page():
    seen = frames(steady(360, errors=lambda w: 4 if w >= 355 else 0))
    assert burning(seen, now_ns(360), slo(UP), DETECT) == []


def test_a_slow_burn_is_seen_over_six_hours_of_blocks():
    seen = replace(
        frames(steady(360, errors=lambda w: int(w % 10 < 7))), blocks=blocks(80, errors=21, before_ns=window_ns(30))
    )
    (found,) = burning(seen, now_ns(360), slo(UP), DETECT)
    assert (found.limit.rate, found.limit.severity) == (6.0, "warning")
    assert "7 times too fast over 6 h" in found.text


def test_few_bad_requests_never_page():
    seen = frames(steady(360, errors=lambda w: int(w > 355), n=1))
    assert burning(seen, now_ns(360), slo(UP), DETECT) == []
    assert burning(seen, now_ns(360), slo(UP, min_bad_requests=1), DETECT)


def test_slow_requests_count_by_their_histogram_and_the_onset_is_where_they_began():
    seen = frames(steady(360, ms=lambda w: 900.0 if w >= 200 else 20.0))
    (found,) = burning(seen, now_ns(360), slo(FAST), DETECT)
    assert found.shift.measure == "latency_p99_ms"
    assert (found.shift.before, found.shift.after) == (300, pytest.approx(900, rel=0.05))
    assert found.shift.onset_ns == window_ns(200)


def test_requests_are_counted_where_they_enter():
    rows = steady(360) + steady(360, errors=lambda w: 50, kind="Client", operation="SELECT")
    assert burning(frames(rows), now_ns(360), slo(UP), DETECT) == []
    only = slo({**UP, "operation": "SEL*"})
    assert burning(frames(rows), now_ns(360), only, DETECT)


def test_of_a_model_only_its_calls_count():
    def calls(model, errors):
        return [
            {"window_start_ns": window_ns(w), "service": "shop", "operation": f"chat {model}", "kind": "Internal",
             "version": "1", "model": model, "input_bucket": 9, "output_bucket": 9, "requests": 100, "errors": errors,
             "input_tokens": 100, "output_tokens": 100, "duration_sum_ms": 100.0, "latency_buckets": [],
             "first_buckets": [], "per_token_buckets": []}
            for w in range(360)
        ]  # fmt: skip

    tokens = pl.DataFrame(calls("good", 0) + calls("bad", 5), schema=TOKEN_WINDOWS)
    seen = replace(frames(steady(360)), tokens=tokens)
    names = [
        found.shift.rule
        for found in burning(
            seen,
            now_ns(360),
            slo({**UP, "name": "good", "model": "good"}, {**UP, "name": "bad", "model": "b*"}),
            DETECT,
        )
    ]
    assert names == ["slo bad 14.4×"]


def test_the_budget_that_is_left():
    day = 288
    seen = replace(frames(steady(60)), blocks=blocks(30 * day, errors=1, requests=1000))
    (found,) = status(seen, now_ns(60), slo({**UP, "target": 0.998}), DETECT)
    assert found.remaining == pytest.approx(0.5, abs=0.01)
    assert found.firing is None
    (spent,) = status(replace(seen, blocks=blocks(30 * day, errors=8, requests=1000)), now_ns(60), slo(UP), DETECT)
    assert spent.remaining == pytest.approx(-7, abs=0.1)


def test_nothing_at_all_leaves_the_whole_budget():
    (found,) = status(frames([]), now_ns(60), slo(UP), DETECT)
    assert (found.remaining, found.total, found.firing) == (1.0, 0, None)


@examples(max_examples=30, deadline=None)
@given(first=st.integers(0, 59), errors=st.lists(st.integers(0, 5), min_size=60, max_size=60))
def test_blocks_and_windows_count_each_request_once(first, errors):
    """Whatever window the fine part begins with, the total is that of the windows alone."""
    rows = [row(w, [20.0] * 10, errors=errors[w]) for w in range(60)]
    aligned = START_NS % BLOCK_NS
    starts = pl.DataFrame(
        [{"block_start_ns": (window_ns(w) - 0) // BLOCK_NS * BLOCK_NS, "service": "shop", "operation": "GET /",
          "kind": "Server", "model": "", "requests": 10, "errors": errors[w], "latency_buckets": []}
         for w in range(60)], schema=BLOCKS,
    )  # fmt: skip
    whole = starts.group_by("block_start_ns", "service", "operation", "kind", "model").agg(
        pl.col("requests", "errors").sum(), pl.lit([], dtype=BLOCKS["latency_buckets"]).alias("latency_buckets")
    )
    end = 60 - (60 * 10**10 + aligned) % BLOCK_NS // 10**10
    seen = replace(frames(rows[first:end]), blocks=whole.select(list(BLOCKS)).sort("block_start_ns"))
    (found,) = status(seen, now_ns(end), slo(UP), DETECT)
    assert (found.total, found.bad) == (10 * end, sum(errors[:end]))


def test_settings_name_what_is_wrong():
    assert reach_ns(slo()) == 0
    assert reach_ns(slo(UP)) == 6 * 3600 * 10**9 + BLOCK_NS
    with pytest.raises(Misconfigured, match="two objectives are named 'shop up'"):
        load(environ={}, options={"slo.objectives": [UP, UP]})
    with pytest.raises(Misconfigured, match="short_s"):
        load(environ={}, options={"slo.burn_rates": [{"rate": 2, "long_s": 300, "short_s": 300}]})
