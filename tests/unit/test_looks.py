"""A look goes into a file and comes back as it was."""

from __future__ import annotations

import itertools
from dataclasses import fields, replace

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from observe.bench.fleets import case
from observe.errors import BadRecord
from observe.frames import ATTRIBUTE_COUNTS, SPAN_SAMPLE, AttributeQuestion, Frames, TraceQuestion
from observe.looks import Look, compared, pack, shortened, unpack, worth_keeping
from observe.settings import load
from observe.types import Evidence, State
from observe.verdict import again
from observe.wire import incident_json
from tests.scenarios.test_diagnose_fleets import small
from tests.unit.alert_parts import cause, shift
from tests.unit.test_pipeline_watch import incident

SETTINGS = load(environ={}, options={"detect.current_s": 40.0, "alert.webhooks": [{"url": "http://x/secret"}]})
ASKED = AttributeQuestion("gateway", "a/b", "Server", 1 / 3, 1, 2, 3, 4, 5)
TRACES = TraceQuestion("gateway", 1, 2, 3, 4, 5)


@pytest.fixture(scope="module")
def look():
    answers = {ASKED: pl.DataFrame([("s", "k", "v", 1, 2, 3, 4)], schema=ATTRIBUTE_COUNTS, orient="row")}
    answers[TRACES] = pl.DataFrame([(0, 1, 2**63, 0, "s", "o", 1, 2)], schema=SPAN_SAMPLE, orient="row")
    given = small(12, "latency", services=4)
    first = replace(cause("llm"), evidence=(Evidence("x", "y", (("n", 1 / 3),)),))
    before = replace(incident("a", 100), symptoms=(replace(shift("llm"), p_value=1 / 7),), causes=(first,))
    return Look(given.end_ns, (before,), given.frames, SETTINGS, answers)


def test_a_look_comes_back_as_it_was(look):
    again = unpack(pack(look))
    assert (again.at_ns, again.known, again.answers.keys()) == (look.at_ns, look.known, look.answers.keys())
    for f in fields(Frames):
        assert_frame_equal(getattr(again.frames, f.name), getattr(look.frames, f.name))
    assert (again.settings.detect, again.settings.diagnose) == (SETTINGS.detect, SETTINGS.diagnose)
    assert_frame_equal(again.answer(ASKED), look.answers[ASKED])
    assert_frame_equal(again.answer(TRACES), look.answers[TRACES])
    assert again.answer(replace(TRACES, service="other")).schema == SPAN_SAMPLE
    assert again.answer(replace(ASKED, service="other")).is_empty()


def test_the_same_look_gives_the_same_bytes_and_no_secrets(look):
    assert pack(look) == pack(unpack(pack(look)))
    assert unpack(pack(look)).settings.alert.webhooks == ()


def test_bytes_that_are_no_look_are_refused(look):
    for bad in (b"", b"PK", pack(look)[:500]):
        with pytest.raises(BadRecord):
            unpack(bad)


def test_looks_are_kept_when_people_are_told_and_as_the_age_doubles():
    minute = 60 * 10**9
    new = incident("a", 1000)
    assert worth_keeping(None, new)
    assert not worth_keeping(None, replace(new, state=State.PENDING, fired_ns=None))
    assert worth_keeping(new, replace(new, version=2))
    assert not worth_keeping(new, replace(new, state=State.RESOLVED))
    seen = [replace(new, last_seen_ns=new.last_seen_ns + i * minute // 6) for i in range(6 * 60)]
    assert sum(worth_keeping(a, b) for a, b in itertools.pairwise(seen)) == 6


def test_a_change_of_one_number_is_seen():
    one = incident("a", 1000)
    assert compared(incident_json(one), [one])["same"]
    assert not compared(incident_json(one), [replace(one, title="other")])["same"]
    assert compared(incident_json(one), [])["recomputed"] is None


def test_what_a_diagnosis_does_not_compare_can_be_left_out():
    given = case(12, 6, "latency", at_s=2400.0, after_s=90.0, rate=5.0)
    whole = Look(given.end_ns, (), given.frames, load(environ={}))
    changed = again(whole)
    assert changed
    short = shortened(whole, min(s.onset_ns for i in changed for s in i.symptoms))
    assert again(short) == changed
    assert short.frames.selfs.height < 0.75 * whole.frames.selfs.height
    assert len(pack(short)) < 0.9 * len(pack(whole))
