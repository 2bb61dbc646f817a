"""What holds for every history of an incident, whatever is seen and whenever the process restarts."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from observe.alert.causes import settled
from observe.alert.decide import alerts_due
from observe.alert.intervals import abnormal
from observe.alert.lifecycle import MAX_SYMPTOMS, step
from observe.alert.telling import severity, title
from observe.settings import AlertSettings
from observe.types import WINDOW_NS, Cause, CauseKind, Diagnosis, Incident, Interval, Severity, State
from observe.wire import incident_from_json, incident_json
from tests.unit.alert_parts import Named, at, cause, diagnosis, shift, unknown

SERVICES = ("web", "api", "llm", "db", "batch")
FOR_S, KEEP_S = 20.0, 40.0
SETTINGS = AlertSettings(for_s=FOR_S, keep_firing_for_s=KEEP_S)

shifts = st.builds(
    lambda service, measure, after, onset_s: shift(service, measure, 0.02, after, onset_s=onset_s),
    st.sampled_from(SERVICES),
    st.sampled_from(("latency_p99_ms", "error_ratio", "requests_per_s")),
    st.sampled_from((0.03, 0.1, 0.9)),
    st.integers(-90, 0).map(lambda n: 10.0 * n),
)
named = st.builds(
    lambda path, score: cause(path[-1], path=tuple(path), score=score),
    st.lists(st.sampled_from(SERVICES), min_size=1, max_size=3, unique=True),
    st.sampled_from((0.4, 0.5, 0.6, 0.9)),
)
diagnoses = st.builds(
    lambda symptoms, causes: diagnosis(symptoms, causes or [unknown()]),
    st.lists(shifts, min_size=1, max_size=4),
    st.lists(named, max_size=3),
)
histories = st.lists(st.lists(diagnoses, max_size=3), max_size=14)


def lived(history: list[list[Diagnosis]], *, restarts: bool = False) -> list[list[Incident]]:
    """Changes at every tick of 10 s; with `restarts`, from what is stored each time."""
    known: dict[str, Incident] = {}
    ticks = []
    for number, seen in enumerate(history):
        changed = step(list(known.values()), seen, at(10 * number), SETTINGS)
        for incident in changed:
            known[incident.id] = incident_from_json(incident_json(incident)) if restarts else incident
        ticks.append(changed)
    return ticks


@settings(max_examples=40, deadline=None)
@given(histories)
def test_states_only_go_forward_and_versions_only_up(history: list[list[Diagnosis]]) -> None:
    order = [State.PENDING, State.FIRING, State.RESOLVED]
    last: dict[str, Incident] = {}
    for tick in lived(history):
        assert len({i.id for i in tick}) == len(tick)
        for incident in tick:
            before = last.get(incident.id)
            if before is not None:
                assert before.state is not State.RESOLVED, "a resolved incident stays so"
                assert order.index(incident.state) >= order.index(before.state)
                assert incident.version - before.version in (0, 1)
                assert incident.version > before.version or incident.state is before.state
            last[incident.id] = incident


@settings(max_examples=40, deadline=None)
@given(histories)
def test_nothing_fires_before_its_time_or_ends_too_early(history: list[list[Diagnosis]]) -> None:
    last: dict[str, Incident] = {}
    for number, tick in enumerate(lived(history)):
        taken_over = {i.id for i in tick if "goes on as incident" in i.title}
        firing_now = [i for i in tick if i.fired_ns == at(10 * number)]
        joined = bool(taken_over)
        for incident in firing_now:
            assert incident.last_seen_ns == at(10 * number), "it was there when it fired"
            assert joined or at(10 * number) - incident.opened_ns >= FOR_S * 1e9
        for incident in tick:
            before = last.get(incident.id)
            if incident.state is State.RESOLVED and before is not None and before.state is State.FIRING:
                quiet_ns = at(10 * number) - incident.last_seen_ns
                assert incident.id in taken_over or quiet_ns >= KEEP_S * 1e9
            last[incident.id] = incident


@settings(max_examples=40, deadline=None)
@given(histories)
def test_a_restart_from_what_is_stored_is_no_restart(history: list[list[Diagnosis]]) -> None:
    there = [[incident_json(i) for i in tick] for tick in lived(history)]
    back = [[incident_json(i) for i in tick] for tick in lived(history, restarts=True)]
    assert there == back


@settings(max_examples=40, deadline=None)
@given(histories)
def test_each_version_is_told_once_and_only_if_it_fired(history: list[list[Diagnosis]]) -> None:
    known: dict[str, Incident] = {}
    notified: dict[tuple[str, str], int] = {}
    told: list[tuple[str, int, str]] = []
    for number, tick in enumerate(lived(history)):
        known |= {incident.id: incident for incident in tick}
        due = alerts_due(known.values(), notified, [Named("a"), Named("b")], at(10 * number), SETTINGS)
        for receiver, alert in due:
            told.append((alert.incident.id, alert.incident.version, receiver))
            assert alert.incident.fired_ns is not None
            notified[alert.incident.id, receiver] = alert.incident.version
    assert len(told) == len(set(told))
    fired = {id_ for id_, incident in known.items() if incident.fired_ns is not None}
    assert {id_ for id_, _, _ in told} == fired


@settings(max_examples=40, deadline=None)
@given(histories)
def test_an_incident_keeps_its_symptoms_and_its_onset_never_moves_later(history: list[list[Diagnosis]]) -> None:
    last: dict[str, Incident] = {}
    for tick in lived(history):
        for incident in tick:
            before = last.get(incident.id)
            if before is not None:
                gone = {(s.service, s.measure) for s in before.symptoms} - {
                    (s.service, s.measure) for s in incident.symptoms
                }
                assert not gone
            assert incident.onset_ns <= incident.opened_ns
            last[incident.id] = incident


def test_symptoms_are_bounded_and_those_on_the_path_stay() -> None:
    many = [shift(f"s{n:03}") for n in range(200)] + [shift("zz-llm")]
    [incident] = step([], [diagnosis(many, [cause("zz-llm", path=("s199", "zz-llm"))])], at(0), SETTINGS)
    assert len(incident.symptoms) == MAX_SYMPTOMS
    assert {"s199", "zz-llm"} <= {s.service for s in incident.symptoms}


def test_the_onset_is_the_causes_own_and_a_wild_estimate_is_ignored() -> None:
    symptoms = [shift("web", onset_s=-700), shift("api", onset_s=-60), shift("llm", onset_s=-30)]
    [incident] = step([], [diagnosis(symptoms, [cause("llm", path=("web", "llm"))])], at(0), SETTINGS)
    assert incident.onset_ns == at(-30)
    [incident] = step([], [diagnosis(symptoms, [unknown()])], at(0), SETTINGS)
    assert incident.onset_ns == at(-60)


def test_ids_are_the_same_in_every_run_and_differ_between_incidents() -> None:
    seen = [diagnosis([shift("web")], [cause("db")]), diagnosis([shift("batch")], [cause("disk")])]
    first, again = step([], seen, at(0), SETTINGS), step([], seen, at(0), SETTINGS)
    assert [i.id for i in first] == [i.id for i in again]
    assert len({i.id for i in first}) == 2


@pytest.mark.parametrize(
    ("measure", "before", "after", "where", "expected"),
    [
        ("latency_p99_ms", 400.0, 900.0, "web", Severity.CRITICAL),
        ("latency_p99_ms", 400.0, 700.0, "web", Severity.WARNING),
        ("latency_p99_ms", 400.0, 900.0, "llm", Severity.WARNING),  # users are not there
        ("error_ratio", 0.001, 0.06, "web", Severity.CRITICAL),
        ("error_ratio", 0.001, 0.04, "web", Severity.WARNING),
        ("requests_per_s", 10.0, 40.0, "web", Severity.INFO),
        ("gpu_temperature", 60.0, 90.0, "web", Severity.WARNING),
    ],
)
def test_severity(measure: str, before: float, after: float, where: str, expected: Severity) -> None:
    assert severity([shift(where, measure, before, after)], [cause("llm", path=("web", "llm"))], {}) is expected


def test_a_rule_says_how_bad_it_is() -> None:
    symptom = shift("web", "error_ratio", 0.0, 0.9, rule="known-flaky")
    assert severity([symptom], [unknown()], {"known-flaky": Severity.INFO}) is Severity.INFO


def test_the_title_says_what_users_feel_and_where_to_look() -> None:
    gpu = cause("llm-engine", CauseKind.GPU, "GPU-3", path=("gateway", "llm-engine"))
    symptoms = [shift("llm-engine", after=4000.0), shift("gateway", before=420.0)]
    assert title(symptoms, [gpu]) == "gateway P99 420 ms → 1.9 s: llm-engine, GPU-3 (91 % of the rise)"
    errors = [shift("gateway", "error_ratio", 0.002, 0.143)]
    assert title(errors, [unknown()]) == "gateway errors 0.2 % → 14 %: cause unknown"
    assert title(errors, [cause("gateway")]) == "gateway errors 0.2 % → 14 %: gateway itself (91 % of the rise)"


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(named, min_size=1, max_size=3), min_size=2, max_size=12))
def test_the_first_cause_changes_only_for_a_reason(ticks: list[list[Cause]]) -> None:
    held: tuple[Cause, ...] = ()
    previous: list[Cause] = []
    for seen in ticks:
        now = settled(held, tuple(seen))
        if held and now[0].service != held[0].service:
            lead = seen[0].score - held[0].score
            assert now[0].service == seen[0].service
            as_good = {c.service for c in previous if c.score >= previous[0].score}
            assert lead >= 0.15 - 1e-9 or seen[0].service in as_good
        assert [c.rank for c in now] == list(range(1, len(now) + 1))
        held, previous = now, seen


def test_intervals_cover_the_services_between_onset_and_end() -> None:
    seen = [diagnosis([shift("web", onset_s=-20)], [cause("llm", path=("web", "api", "llm"))])]
    [pending] = step([], seen, at(0), SETTINGS)
    [firing] = step([pending], seen, at(20), SETTINGS)
    start_ns = at(-20) - WINDOW_NS
    assert abnormal([firing], at(30), 3600) == [Interval(start_ns, at(30), s) for s in ("api", "llm", "web")]
    [over] = step([firing], [], at(100), SETTINGS)
    assert {i.end_ns for i in abnormal([over], at(500), 3600)} == {at(100)}
    assert abnormal([firing], at(4000), 3600) == [], "a level that stays is the new normal"
    [dropped] = step([pending], [], at(10), SETTINGS)
    assert abnormal([dropped], at(30), 3600) == [], "noise belongs to the baseline"


def test_overlapping_intervals_of_one_service_are_joined() -> None:
    [first] = step([], [diagnosis([shift("web")], [cause("db", path=("web", "db"))])], at(0), SETTINGS)
    other = replace(first, id="b", onset_ns=at(30))
    later = replace(first, id="c", onset_ns=at(500), resolved_ns=at(600), fired_ns=at(510))
    closed = replace(first, resolved_ns=at(40), fired_ns=at(10))
    closed_other = replace(other, resolved_ns=at(90), fired_ns=at(40))
    web = [i for i in abnormal([later, closed_other, closed], at(900), 3600) if i.service == "web"]
    assert [(i.start_ns, i.end_ns) for i in web] == [(at(-10), at(90)), (at(490), at(600))]


def test_what_a_causes_requests_have_in_common_is_not_forgotten_when_it_is_not_asked() -> None:
    wide, narrow = cause("llm-engine"), cause("llm-engine", resource="tenant=acme")
    held = settled((narrow,), (wide,))
    assert [c.resource for c in held] == ["tenant=acme"]
    assert settled(held, (cause("llm-engine", score=0.2), cause("cart")))[0].resource == "tenant=acme"
