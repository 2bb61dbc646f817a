import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from observe.errors import BadRecord
from observe.types import Cause, CauseKind, Evidence, Impact, Incident, RuledOut, Severity, Shift, State
from observe.wire import from_rfc3339, incident_from_json, incident_json, rfc3339

MS = 1_000_000
times_ns = st.integers(0, 4_102_444_800_000).map(lambda ms: ms * MS)
numbers = st.floats(-1e9, 1e9).map(lambda x: float(f"{x:.6g}"))
names = st.text(max_size=12)
shifts = st.builds(
    Shift,
    service=names,
    operation=names,
    kind=names,
    measure=names,
    before=numbers,
    after=numbers,
    unit=names,
    p_value=numbers,
    samples=st.integers(0, 10**9),
    onset_ns=times_ns,
    rule=names,
)
causes = st.builds(
    Cause,
    rank=st.integers(1, 9),
    kind=st.sampled_from(CauseKind),
    service=names,
    resource=names,
    score=numbers,
    share=numbers,
    path=st.lists(names, max_size=3).map(tuple),
    evidence=st.lists(st.builds(Evidence, names, names), max_size=2).map(tuple),
    exemplar_trace_ids=st.lists(names, max_size=2).map(tuple),
)
incidents = st.builds(
    Incident,
    id=names,
    version=st.integers(1, 99),
    state=st.sampled_from(State),
    severity=st.sampled_from(Severity),
    title=names,
    onset_ns=times_ns,
    opened_ns=times_ns,
    last_seen_ns=times_ns,
    resolved_ns=st.none() | times_ns,
    fired_ns=st.none() | times_ns,
    symptoms=st.lists(shifts, max_size=2).map(tuple),
    causes=st.lists(causes, max_size=2).map(tuple),
    ruled_out=st.lists(st.builds(RuledOut, names, names, names), max_size=2).map(tuple),
    impact=st.builds(Impact, st.lists(names, max_size=3).map(tuple), st.integers(0, 10**9)),
)


@given(incidents)
def test_an_incident_survives_its_json(incident):
    assert incident_from_json(json.loads(json.dumps(incident_json(incident)))) == incident


@given(times_ns)
def test_times_survive_to_the_millisecond(time_ns):
    assert from_rfc3339(rfc3339(time_ns)) == time_ns


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2026-01-31T03:00:00Z", 1769828400),
        ("2026-01-31T04:00:00+01:00", 1769828400),
        ("2026-01-31 03:00", 1769828400),
        ("1769828400", 1769828400),
    ],
)
def test_usual_spellings_of_a_time(text, seconds):
    assert from_rfc3339(text) == seconds * 1_000_000_000


@pytest.mark.parametrize("text", ["", "yesterday", "2026-13-01", "12.x"])
def test_what_is_no_time_is_named(text):
    with pytest.raises(BadRecord, match="RFC 3339"):
        from_rfc3339(text)


GIVEN = Incident(
    "a", 1, State.FIRING, Severity.INFO, "t", 0, 0, 0, None, (),
    (Cause(1, CauseKind.SERVICE, "s", "", 0.5, 0.5, ("s",), (Evidence("x", "y", (("n", 1.0),), "/q"),)),),
    (RuledOut("r", "", "because", (("n", 1.0),), "/q"),),
)  # fmt: skip


def test_numbers_that_are_none_are_left_out():
    said = Evidence(
        "edge_time", "text", (("before", float("nan")), ("after", 2.0), ("more", float("inf"))), "/api/v1/x"
    )
    body = incident_json(replace(GIVEN, causes=(replace(GIVEN.causes[0], evidence=(said,)),)))
    assert body["causes"][0]["evidence"] == [
        {"kind": "edge_time", "text": "text", "numbers": {"after": 2.0}, "query": "/api/v1/x"}
    ]
    again = incident_from_json(json.loads(json.dumps(body)))
    assert again.causes[0].evidence == (Evidence("edge_time", "text", (("after", 2.0),), "/api/v1/x"),)


def test_incidents_of_before_sentences_had_numbers_are_read():
    body = incident_json(GIVEN)
    for cause in body["causes"]:
        for said in cause["evidence"]:
            del said["numbers"], said["query"]
    for one in body["ruled_out"]:
        del one["numbers"], one["query"]
    assert incident_from_json(body).causes[0].evidence[0].numbers == ()
