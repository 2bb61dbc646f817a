"""A level that stays: compared with the time before it for as long as stated, and then taken for normal, in words."""

from __future__ import annotations

import pytest

from observe import pipeline
from observe.alert.payloads import description
from observe.explain import text
from observe.settings import load
from observe.types import State
from observe.verdict import Asked
from tests.unit.days import MINUTE_NS, MONDAY_NS, Now, Past

SHORT = load(environ={}, options={"detect.baseline_s": 180, "detect.new_normal_s": 420})
START_NS = MONDAY_NS


def fault(minutes: float, **now: object) -> Past:
    """So long from START_NS on; nothing is known from earlier than half an hour before."""
    sick = Now(**now) if now else Now(median_ms=500.0)  # type: ignore[arg-type]
    return Past(
        lambda at: sick if START_NS <= at < START_NS + minutes * MINUTE_NS else Now(),
        first_ns=START_NS - 20 * MINUTE_NS,
        company=True,
    )


def told(past: Past, minutes: int):
    return past.replay(START_NS, START_NS + minutes * MINUTE_NS, SHORT)


@pytest.fixture(scope="module")
def stays():
    past = fault(60)
    return past, told(past, 9)


def test_a_level_that_stays_is_the_new_normal_after_the_stated_time_and_says_so(stays):
    (ended,) = stays[1]
    assert ended.state is State.RESOLVED
    assert 420 < (ended.resolved_ns - ended.onset_ns) / 1e9 <= 450
    assert ended.note.startswith("not back to what it was: as it has lasted for 7 min, this is now taken for normal")
    assert "shop P99 2" in ended.note
    assert description(ended).startswith(ended.note)
    assert "Not back to what it was" in text(ended)


def test_what_went_back_in_time_ends_without_a_word():
    (ended,) = told(fault(4, errors=0.3), 7)
    assert (ended.state, ended.note) == (State.RESOLVED, "")
    assert abs(ended.resolved_ns - START_NS - 5.5 * MINUTE_NS) <= MINUTE_NS


def test_a_restart_in_between_changes_nothing(stays):
    past, whole = stays
    from_ns = START_NS
    known: dict[str, object] = {}
    seen = past.read(from_ns - 30 * MINUTE_NS, from_ns + 9 * MINUTE_NS)
    at_ns, end_ns = from_ns, from_ns + 9 * MINUTE_NS + 12 * 10**9
    horizon = pipeline.horizon_ns(SHORT)
    while (at_ns := pipeline.next_look_ns(at_ns, SHORT)) <= end_ns:
        # Each look is the first of a process: nothing but incidents is known to it.
        cut = seen.between(at_ns - horizon, min(at_ns, from_ns + 9 * MINUTE_NS))
        changed = pipeline.look(cut, list(known.values()), at_ns, SHORT, Asked(past=past))
        known |= {i.id: i for i in changed}
    assert [i for i in known.values() if i.fired_ns is not None] == whole
