"""Which attribute value sets bad requests apart, on tables of counts."""

from __future__ import annotations

from math import comb

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from observe.diagnose.attributes import counted, fisher, narrowed, query, question, sentence, set_apart
from observe.diagnose.levels import Periods
from observe.frames import ATTRIBUTE_COUNTS, SERVICE_WINDOWS, AttributeQuestion, Frames, empty
from observe.types import WINDOW_NS, Cause, CauseKind, Shift

T0 = 1_700_000_000 * 10**9
ONSET = T0 + 30 * WINDOW_NS
WHEN = Periods(T0, ONSET - 2 * WINDOW_NS, ONSET, T0 + 40 * WINDOW_NS)
ASKED = AttributeQuestion("gateway", "POST /chat", "Server", 94.5, T0, ONSET, ONSET, ONSET + WINDOW_NS, 500)


def counts(*rows, bad=100, good=400, bad_before=5, good_before=495):
    """Rows are (service, key, value, bad, good, before)."""
    table = [("", "", "", bad, good, bad_before, good_before)]
    table += [(service, key, value, b, g, 0, before) for service, key, value, b, g, before in rows]
    return pl.DataFrame(table, schema=ATTRIBUTE_COUNTS, orient="row")


def test_the_value_that_all_slow_requests_have_and_few_others_is_told():
    found = set_apart(
        counts(
            ("gateway", "tenant", "acme", 98, 12, 120),
            ("gateway", "tenant", "blue", 2, 150, 150),
            ("gateway", "http.response.status_code", "200", 100, 400, 500),
            ("engine", "gen_ai.request.model", "small", 55, 210, 260),
        )
    )
    (one,) = found
    assert (one.service, one.key, one.value) == ("gateway", "tenant", "acme")
    assert (one.bad_with, one.bad, one.others_with, one.others, one.against) == (98, 100, 12, 400, "others")
    assert one.p_value < 1e-6
    text = sentence(one, ASKED).text
    assert text.startswith("98 of 100 slow requests of gateway POST /chat have tenant=acme, 12 of 400 of the others")


def test_values_on_the_same_requests_are_one_and_what_people_set_comes_first():
    (one,) = set_apart(
        counts(
            ("engine", "http.route", "/long", 98, 12, 100),
            ("gateway", "tenant", "acme", 98, 12, 120),
            ("engine", "customer", "c-1", 97, 13, 120),
        )
    )
    assert (one.key, set(one.alike)) == ("tenant", {"http.route=/long", "customer=c-1"})


def test_how_a_request_ended_comes_after_what_it_was():
    found = set_apart(
        counts(
            ("engine", "error.type", "TimeoutError", 100, 0, 0),
            ("gateway", "tenant", "acme", 90, 30, 120),
        )
    )
    assert [one.key for one in found] == ["tenant", "error.type"]


def test_where_all_are_bad_they_are_compared_with_those_before():
    (one,) = set_apart(
        counts(
            ("engine", "service.version", "2.0", 480, 9, 0),
            ("gateway", "tenant", "acme", 120, 3, 120),
            bad=490,
            good=10,
        )
    )
    assert (one.key, one.value, one.against, one.others) == ("service.version", "2.0", "before", 500)
    assert "0 of 500 of all requests before" in sentence(one, ASKED).text


def test_few_bad_requests_tell_nothing():
    assert set_apart(counts(("gateway", "tenant", "acme", 8, 0, 0), bad=8)) == []
    assert set_apart(pl.DataFrame(schema=ATTRIBUTE_COUNTS)) == []


def test_a_service_that_only_slow_requests_pass_through_is_told():
    (one,) = set_apart(counts(("reranker", "service", "reranker", 100, 20, 30)))
    assert "pass through reranker" in sentence(one, ASKED).text


@pytest.mark.parametrize("seed", range(5))
def test_hundreds_of_values_that_mean_nothing_are_not_told(seed):
    rng = np.random.default_rng(seed)
    share = rng.uniform(0.01, 0.99, 600)
    rows = [
        ("s", f"k{i}", "v", int(rng.binomial(200, p)), int(rng.binomial(800, p)), int(rng.binomial(1000, p)))
        for i, p in enumerate(share)
    ]
    assert set_apart(counts(*rows, bad=200, good=800)) == []


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 30), st.integers(1, 30), st.data())
def test_fishers_test_is_the_exact_tail(bad, others, data):
    with_bad = data.draw(st.integers(0, bad))
    with_others = data.draw(st.integers(0, others))
    total = with_bad + with_others
    tail = sum(
        comb(bad, k) * comb(others, total - k) for k in range(with_bad, min(bad, total) + 1) if total - k <= others
    )
    found = fisher(np.array([float(with_bad)]), bad, np.array([float(with_others)]), others)
    assert found[0] == pytest.approx(tail / comb(bad + others, total), rel=1e-9)


def test_the_counts_of_one_value_can_be_asked_for():
    table = counts(("gateway", "tenant", "acme", 98, 12, 120))
    assert dict(counted(table, "gateway", "tenant", "acme")) == {
        "bad_with": 98, "bad": 100, "others_with": 12, "others": 400,
    }  # fmt: skip
    (one,) = set_apart(table)
    assert query(ASKED, one).startswith("/api/v1/attributes?service=gateway&operation=POST+/chat&kind=Server")
    assert query(ASKED, one).endswith("&of=gateway&key=tenant&value=acme")


def windows(operation, kind="Server", requests=100):
    return [
        {
            "window_start_ns": T0 + w * WINDOW_NS, "service": "gateway", "operation": operation, "kind": kind,
            "version": "", "requests": requests, "errors": 0, "duration_sum_ms": 0.0,
            "latency_buckets": [{"bucket": 64, "count": requests - 1}, {"bucket": 96, "count": 1}],
        }
        for w in range(40)
    ]  # fmt: skip


def shift(measure="latency_p99_ms", after=400.0, operation="POST /chat", kind="Server"):
    return Shift("gateway", operation, kind, measure, 50.0, after, "ms", 1e-9, 200, ONSET)


def test_the_question_is_bounded_and_slow_is_beyond_the_old_p99():
    none = empty()
    frames = Frames(pl.DataFrame(windows("POST /chat"), schema=SERVICE_WINDOWS), none.selfs, none.edges, none.gauges)
    asked = question(shift(), frames, WHEN)
    assert asked is not None
    assert asked.slower_than_ms == pytest.approx(2 ** (65 / 16))
    assert (asked.after_from_ns, asked.after_to_ns) == (ONSET, T0 + 40 * WINDOW_NS)
    assert asked.requests == 38 * 100
    assert question(shift("error_ratio", 60.0), frames, WHEN).slower_than_ms == 0.0


@pytest.mark.parametrize(
    "given", [shift(after=10.0), shift("requests_per_s"), shift(kind="Metric"), shift(operation="GET /other")]
)
def test_what_no_request_shows_is_not_asked(given):
    none = empty()
    frames = Frames(pl.DataFrame(windows("POST /chat"), schema=SERVICE_WINDOWS), none.selfs, none.edges, none.gauges)
    assert question(given, frames, WHEN) is None


def test_where_many_spans_come_less_time_is_looked_at():
    none = empty()
    many = pl.DataFrame(windows("POST /chat", requests=100_000), schema=SERVICE_WINDOWS)
    asked = question(shift(), Frames(many, none.selfs, none.edges, none.gauges), WHEN)
    assert asked is not None
    assert asked.after_to_ns - asked.after_from_ns == 5 * WINDOW_NS
    assert asked.before_to_ns - asked.before_from_ns == 5 * WINDOW_NS


def cause(kind=CauseKind.SERVICE, resource=""):
    return Cause(1, kind, "engine", resource, 0.9, 0.8, ("gateway", "engine"))


def narrowed_by(table, given=None):
    return narrowed(given or cause(), set_apart(table), table).resource


def test_a_tenant_whose_requests_alone_are_bad_narrows_the_cause():
    table = counts(("gateway", "tenant", "acme", 98, 12, 120), ("engine", "service", "engine", 100, 400, 500))
    assert narrowed_by(table) == "tenant=acme"
    assert narrowed_by(table, cause(CauseKind.INSTANCE, "engine-7")) == "engine-7"
    assert narrowed_by(table, cause(CauseKind.TRAFFIC)) == ""


def test_a_value_that_only_says_who_uses_the_service_narrows_nothing():
    table = counts(("gateway", "feature", "search", 98, 12, 120), ("engine", "service", "engine", 98, 12, 120))
    assert [one.key for one in set_apart(table)] == ["feature"]
    assert narrowed_by(table) == ""


def test_where_a_request_went_or_how_it_ended_narrows_nothing():
    through = ("engine", "service", "engine", 100, 400, 500)
    assert narrowed_by(counts(("engine", "http.route", "/long", 98, 12, 120), through)) == ""
    assert narrowed_by(counts(("engine", "error.type", "TimeoutError", 100, 0, 0), through)) == ""


def test_without_the_service_in_the_traces_nothing_is_narrowed():
    assert narrowed_by(counts(("gateway", "tenant", "acme", 98, 12, 120))) == ""
