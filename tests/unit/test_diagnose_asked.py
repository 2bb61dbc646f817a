"""Questions about a moment: an answer without an incident, from windows, whole traces and metrics."""

from __future__ import annotations

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from observe.diagnose.asked import Moment, asked
from observe.frames import GAUGE_WINDOWS, LOG_COUNTS, LogQuestion, TraceQuestion, empty, no_answer
from observe.settings import DiagnoseSettings
from observe.types import WINDOW_NS, CauseKind
from tests.unit.public_parts import CALLS, INJECT_S, metrics, spans, stored

SETTINGS = DiagnoseSettings()


def answers(sample):
    """A store that has these traces, and no errors in logs."""
    return lambda question: sample if isinstance(question, TraceQuestion) else no_answer(question)


def answer(before, after, service="", ask=True):
    frames, sample, fault_ns, last_ns = stored(before, after)
    question = Moment(fault_ns, service)
    return asked(
        question,
        frames,
        last_ns // WINDOW_NS * WINDOW_NS,
        SETTINGS,
        answers(sample) if ask else None,
    )


@pytest.fixture(scope="module")
def failing():
    """The catalog gives up at once: everything gets faster, and no span has a status."""
    return answer(spans(1, requests=120), spans(2, requests=120, fails=("catalog",)))


def test_who_ends_requests_early_is_named_though_all_got_faster(failing):
    first = failing.causes[0]
    assert (first.service, first.kind, first.path) == ("catalog", CauseKind.SERVICE, ("front", "catalog"))
    assert all(shift.after < shift.before for shift in failing.symptoms if shift.measure == "latency_mean_ms")


def test_the_sentence_about_early_ends_has_its_numbers(failing):
    said = next(e for e in failing.causes[0].evidence if e.kind == "structure")
    numbers = dict(said.numbers)
    assert "goes no further" in said.text
    assert (numbers["before"], numbers["after"], numbers["requests"]) == (0.0, 1.0, 120.0)


def test_what_got_slower_is_split_by_the_live_diagnosis_too():
    found = answer(spans(1, requests=120), spans(2, requests=120, slow={"cart": 20.0}), "front")
    first = found.causes[0]
    assert (first.service, first.path) == ("cart", ("front", "cart"))
    assert {"structure", "self_time"} <= {e.kind for e in first.evidence}
    assert (found.symptoms[0].service, found.symptoms[0].measure) == ("front", "latency_mean_ms")


def test_who_logs_new_errors_is_suspected():
    frames, _, fault_ns, last_ns = stored(spans(1, requests=60), spans(2, requests=60))

    def ask(question):
        if not isinstance(question, LogQuestion):
            return no_answer(question)
        assert question.services == ()
        return pl.DataFrame([("pay", "logs card refused", 0, 40)], schema=LOG_COUNTS, orient="row")

    found = asked(Moment(fault_ns), frames, last_ns, DiagnoseSettings(min_confidence=0.3), ask)
    assert (found.causes[0].service, found.causes[0].path) == ("pay", ("front", "pay"))
    assert "card refused" in found.causes[0].evidence[0].text


def test_without_traces_windows_still_answer():
    found = answer(spans(1, requests=120), spans(2, requests=120, slow={"cart": 20.0}), ask=False)
    assert found.causes[0].service in {"cart", "front"}
    assert "cart" in {cause.service for cause in found.causes}


def test_a_quiet_moment_has_no_known_cause():
    found = answer(spans(1, requests=120), spans(2, requests=120))
    assert found.causes[0].kind is CauseKind.UNKNOWN


def test_nothing_is_said_without_a_before_or_an_after():
    frames, _, fault_ns, last_ns = stored(spans(1, requests=40), spans(2, requests=40))
    assert asked(Moment(last_ns + 10**12), frames, last_ns + 2 * 10**12, SETTINGS) is None
    assert asked(Moment(0), frames, last_ns, SETTINGS) is None
    assert asked(Moment(fault_ns, "nobody"), frames, last_ns, SETTINGS) is None
    assert asked(Moment(fault_ns), empty(), last_ns, SETTINGS) is None


@settings(max_examples=6, deadline=None)
@given(st.permutations(sorted(CALLS)), st.sampled_from(["catalog", "cart", "pay"]))
def test_names_only_label(order, faulty):
    frames, sample, fault_ns, last_ns = stored(spans(1, requests=60), spans(2, requests=60, fails=(faulty,)))
    names = dict(zip(sorted(CALLS), order, strict=True))

    def renamed(frame):
        columns = [c for c in ("service", "caller", "callee") if c in frame.columns]
        return frame.with_columns(pl.col(columns).replace(names))

    other = type(frames)(*(renamed(f) for f in (frames.windows, frames.selfs, frames.edges, frames.gauges)))
    now_ns = last_ns // WINDOW_NS * WINDOW_NS
    here = asked(Moment(fault_ns), frames, now_ns, SETTINGS, answers(sample))
    there = asked(
        Moment(fault_ns),
        other,
        now_ns,
        SETTINGS,
        answers(renamed(sample)),
    )
    assert names[here.causes[0].service] == there.causes[0].service
    assert here.causes[0].score == pytest.approx(there.causes[0].score)


def test_the_sample_is_of_the_service_that_was_named():
    frames, _, fault_ns, last_ns = stored(spans(1, requests=60), spans(2, requests=60))
    seen: list[TraceQuestion] = []

    def ask(question):
        seen.append(question)
        return no_answer(question)

    asked(Moment(fault_ns, "cart"), frames, last_ns, SETTINGS, ask)
    (question,) = (q for q in seen if isinstance(q, TraceQuestion))
    assert question.service == "cart"
    assert question.before_to_ns <= fault_ns < question.after_to_ns
    assert 0 < question.requests <= frames.selfs["requests"].sum()


def test_metrics_alone_answer_where_there_are_no_spans():
    rows = metrics(1, {("cart", "cpu"): 6.0})
    onset_ns = 1_790_000_000 * 10**9
    at = pl.lit(onset_ns) + ((pl.col("time_s") - INJECT_S) * 1e9).cast(pl.Int64)
    nothing = [pl.lit("").alias(n) for n in ("instance", "host", "hw_id", "unit", "labels")]
    value = [pl.col("value").alias(n) for n in ("value_avg", "value_min", "value_max")]
    told = rows.select(
        "service", "metric", *nothing, *value, window_start_ns=at, kind=pl.lit("gauge"), samples=pl.lit(1)
    )
    gauges = told.select(list(GAUGE_WINDOWS)).cast(GAUGE_WINDOWS).sort("window_start_ns")
    frames = type(empty())(empty().windows, empty().selfs, empty().edges, gauges)
    found = asked(Moment(onset_ns), frames, onset_ns + 600 * 10**9, DiagnoseSettings(calls=("front -> cart",)))
    named = [cause.service for cause in found.causes if cause.kind is not CauseKind.UNKNOWN]
    assert named[0] == "cart"
