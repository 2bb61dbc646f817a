"""What services say of their errors, and where requests end early, beside the causes of an incident."""

from __future__ import annotations

from dataclasses import replace

import networkx as nx
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from observe.diagnose.levels import Periods, sides
from observe.diagnose.logged import FEWEST, TIMES, blame, complaints, with_logs
from observe.diagnose.structure import early_ends, with_structure
from observe.frames import LOG_COUNTS, LogQuestion, TraceQuestion, no_answer
from observe.types import WINDOW_NS, Cause, CauseKind, Diagnosis, Impact, Shift
from tests.unit.public_parts import spans, stored

MINUTE = 60 * 10**9
ASKED = LogQuestion(("cart",), 0, 5 * MINUTE, 5 * MINUTE, 6 * MINUTE)


def counts(*rows):
    return pl.DataFrame(rows, schema=LOG_COUNTS, orient="row")


def diagnosis(onset_ns, *services):
    shift = Shift(services[0], "", "Server", "error_ratio", 0.0, 0.5, "1", 1e-9, 99, onset_ns)
    causes = tuple(
        Cause(i, CauseKind.SERVICE, service, "", 0.9 / i, 1.0, (services[0], service)[: 1 + (i > 1)])
        for i, service in enumerate(services, 1)
    )
    return Diagnosis((shift,), causes, (), Impact((), 0))


def test_new_errors_are_told_and_usual_ones_are_not():
    found = complaints(
        counts(("cart", "logs refused", 0, 40), ("cart", "logs slow", 500, 110), ("cart", "logs odd", 0, 4)), ASKED
    )
    assert [(one.template, one.before, one.after) for one in found] == [("logs refused", 0, 40)]


@given(st.lists(st.tuples(st.integers(0, 400), st.integers(0, 400)), max_size=8), st.integers(1, 3))
def test_what_is_told_is_frequent_and_clear_and_more_never_hurts(pairs, factor):
    table = counts(*(("cart", f"logs e{i}", before, after) for i, (before, after) in enumerate(pairs)))
    found = complaints(table, ASKED)
    for one in found:
        assert one.after >= FEWEST
        assert one.after / 60 >= TIMES * one.before / 300
        assert one.p_value <= 0.001
    more = complaints(table.with_columns(pl.col("after") * factor), ASKED)
    assert {one.template for one in found} <= {one.template for one in more}


def test_who_calls_somebody_that_complains_is_believed_less():
    found = complaints(counts(("front", "logs upstream", 0, 50), ("cart", "throws KeyError", 0, 50)), ASKED)
    assert blame(found, nx.DiGraph([("front", "cart"), ("cart", "db")])) == {"cart": 1.0, "front": 0.3}
    assert blame(found, nx.DiGraph()) == {"cart": 1.0, "front": 1.0}


@given(st.integers(1, 60))
def test_questions_change_seldom_while_an_incident_goes_on(windows):
    start = 1000 * WINDOW_NS
    when = Periods(0, start, start, start + windows * WINDOW_NS)
    cut = sides(when, 30 * WINDOW_NS)
    length = (cut.after_to_ns - cut.after_from_ns) // WINDOW_NS
    assert length in {1, 2, 4, 8, 16, 30}
    assert length <= windows < (2 * length if length < 30 else 10**9)
    assert cut.before_to_ns - cut.before_from_ns == 30 * WINDOW_NS


@pytest.fixture(scope="module")
def failing():
    return stored(spans(1, requests=120), spans(2, requests=120, fails=("catalog",)))


def test_sentences_go_to_the_services_that_they_are_about(failing):
    frames, _, fault_ns, last_ns = failing
    asked = []

    def ask(question):
        asked.append(question)
        return counts(("catalog", "logs no such product *", 0, 90), ("front", "throws BadGateway", 3, 90))

    (found,) = with_logs([diagnosis(fault_ns, "front", "catalog")], frames, last_ns, ask)
    (question,) = asked
    assert question.services == ("catalog", "front")
    front, catalog = ([e.text for e in cause.evidence if e.kind == "logs"] for cause in found.causes)
    assert len(front) == len(catalog) == 1
    assert "catalog logs “no such product *” 90 times" in catalog[0]
    assert "never in the" in catalog[0]
    said = next(e for e in found.causes[1].evidence if e.kind == "logs")
    assert said.query.startswith("/api/v1/logs?service=catalog&from=")
    assert dict(said.numbers) == {"before": 0.0, "after": 90.0}
    assert found.causes[0].evidence[0].query.startswith("/api/v1/traces?service=front&from=")


def test_early_ends_are_evidence_and_change_no_rank(failing):
    frames, sample, fault_ns, last_ns = failing
    asked = []

    def ask(question):
        asked.append(question)
        return sample if isinstance(question, TraceQuestion) else no_answer(question)

    before = diagnosis(fault_ns, "front", "catalog")
    (found,) = with_structure([before], frames, last_ns, ask)
    assert [q.service for q in asked] == ["front"]
    assert [replace(c, evidence=()) for c in found.causes] == list(before.causes)
    (said,) = [e for e in found.causes[1].evidence if e.kind == "structure"]
    assert "goes no further" in said.text
    assert set(early_ends(sample)) == {"catalog"}
    assert early_ends(sample) is early_ends(sample)
    assert early_ends(sample.clone()) == early_ends(sample)


def test_quiet_services_and_unknown_causes_get_no_sentence(failing):
    frames, _, fault_ns, last_ns = failing
    same = [diagnosis(fault_ns, "front", "catalog")]
    assert with_logs(same, frames, last_ns, no_answer) == same
    assert with_structure(same, frames, last_ns, no_answer) == same
    unknown = replace(same[0], causes=(replace(same[0].causes[0], kind=CauseKind.UNKNOWN),))
    assert with_logs([unknown], frames, last_ns, no_answer) == [unknown]
