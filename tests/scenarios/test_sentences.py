"""Sentences of all kinds of faults, and their questions asked of the same windows: the numbers come back."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

import pytest

from observe.bench.graphs import FAULTS
from observe.diagnose.asked import noticed
from observe.diagnose.compare import UNITS, Question, compare
from observe.diagnose.levels import Periods, periods
from observe.frames import Frames
from observe.wire import from_rfc3339
from tests.scenarios.test_diagnose_fleets import FAULT_NS, small, told


def answer(frames: Frames, query: str) -> dict[str, float]:
    """What the API answers to an address of a sentence."""
    asked = parse_qs(urlsplit(query).query, keep_blank_values=True)
    bounds = [from_rfc3339(at) for side in ("before", "after") for at in asked.pop(side)[0].split("/")]
    values = tuple(asked.pop("value", ()))
    plain = {name: found[0] for name, found in asked.items()}
    return dict(compare(frames, Question(plain.pop("of"), Periods(*bounds), values=values, **plain)))


@pytest.mark.parametrize("kind", [k for k in FAULTS if k not in ("none", "host")])
def test_every_question_gives_its_sentences_numbers(kind):
    given = small(12, kind)
    (found, *_) = told(given)
    sentences = [*(e for c in found.causes for e in c.evidence), *found.ruled_out]
    asked = [s for s in sentences if s.query]
    assert asked
    for sentence in asked:
        assert sentence.query.startswith("/api/v1/compare?of=")
        again = answer(given.frames, sentence.query)
        for name, value in sentence.numbers:
            if name != "lost":  # of the errors, those without a trace: only the whole diagnosis tells them apart
                assert again[name] == pytest.approx(value, rel=1e-6, abs=1e-9), (sentence, again)
    assert all(s.numbers for s in sentences if s.query)


def test_calls_made_again_and_again_are_told():
    (found, *_) = told(small(12, "repeats"))
    (said,) = [e for e in found.causes[0].evidence if e.kind == "structure"]
    numbers = dict(said.numbers)
    assert numbers["after"] > 2 * numbers["before"]
    assert "per request" in said.text


def test_every_question_has_a_unit():
    assert set(UNITS.values()) <= {"ms", "1", "{request}/s", ""}


@pytest.mark.parametrize("kind", ["latency", "errors", "traffic"])
def test_what_stands_out_at_a_moment_has_a_question_that_gives_its_numbers(kind):
    given = small(12, kind)
    when = periods(FAULT_NS, given.end_ns, given.frames.selfs)
    found = noticed(given.frames, when, "")
    assert found
    for shift in found:
        again = answer(given.frames, shift.query)
        assert (again["before"], again["after"]) == pytest.approx((shift.before, shift.after))
