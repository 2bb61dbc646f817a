"""What is usual at its time: kept and explained, told to nobody, and no baseline."""

from __future__ import annotations

from dataclasses import replace

from observe.alert import abnormal, alerts_due, step, step_usual
from observe.alert.intervals import USUAL_S
from observe.explain import text
from observe.settings import AlertSettings
from observe.types import WINDOW_NS, Diagnosis, Impact, Interval, Season, Severity, State
from observe.wire import incident_from_json, incident_json
from tests.unit.alert_parts import shift

SECOND = 10**9
NOW = 1_750_000_000 * SECOND
SETTINGS = AlertSettings()
LATE = replace(shift("api"), onset_ns=NOW - 30 * SECOND)
SEASON = Season(LATE, "day", 3, 3, 480.0, 610.0, True)


def first():
    (incident,) = step_usual([], [SEASON], NOW, SETTINGS)
    return incident


def test_it_is_pending_while_it_is_seen_and_ends_without_having_fired():
    one = first()
    assert (one.state, one.severity, one.usual) == (State.PENDING, Severity.INFO, True)
    assert one.note.startswith("usual at this time: api ")
    (later,) = step_usual([one], [SEASON], NOW + 3600 * SECOND, SETTINGS)
    assert (later.id, later.state, later.fired_ns) == (one.id, State.PENDING, None)
    assert step_usual([one], [], NOW + 30 * SECOND, SETTINGS) == []
    (ended,) = step_usual([one], [], NOW + 60 * SECOND, SETTINGS)
    assert (ended.state, ended.resolved_ns, ended.fired_ns) == (State.RESOLVED, NOW + 60 * SECOND, None)
    assert ended.note == one.note


def test_each_service_has_its_own_and_its_symptoms_add_up():
    other = replace(SEASON, shift=replace(LATE, service="shop"))
    more = replace(SEASON, shift=replace(LATE, operation="GET /more", onset_ns=NOW - 60 * SECOND))
    found = step_usual([first()], [other, more], NOW + WINDOW_NS, SETTINGS)
    assert [(len(i.symptoms), i.onset_ns) for i in found] == [(2, NOW - 60 * SECOND), (1, LATE.onset_ns)]


def test_nobody_is_told_and_it_survives_the_store():
    class Receiver:
        name = "r"

    one = first()
    ended = step_usual([one], [], NOW + 60 * SECOND, SETTINGS)[0]
    assert alerts_due([one, ended], {}, [Receiver()], NOW, SETTINGS) == []
    assert incident_from_json(incident_json(ended)) == ended


def test_what_is_more_than_usual_opens_an_incident_of_its_own():
    """The usual one neither swallows it nor is resolved by it."""
    one = first()
    (news,) = step([one], [Diagnosis((LATE,), (), (), Impact(("api",), 1))], NOW + WINDOW_NS, SETTINGS)
    assert news.id != one.id
    assert not news.usual


def test_its_time_is_no_baseline_for_an_hour():
    one = first()
    inside = [Interval(LATE.onset_ns - WINDOW_NS, NOW, "api")]
    assert abnormal([one], NOW, 6 * 3600.0) == inside
    ended = replace(one, state=State.RESOLVED, resolved_ns=NOW)
    assert abnormal([ended], NOW + 600 * SECOND, 6 * 3600.0) == inside
    assert abnormal([one], NOW + int(USUAL_S * SECOND), 6 * 3600.0) == []
    assert abnormal([replace(ended, note="")], NOW, 6 * 3600.0) == []


def test_its_explanation_begins_with_why_nobody_was_told():
    lines = text(first()).splitlines()
    assert lines[0].startswith("usual at this time: api ")
    assert "Usual at this time: api " in lines[2]
    assert "on 3 of the last 3 days" in lines[2]
