"""Alerting told as timelines: what is seen when, what becomes of the incidents, and what people hear.

Seen:   symptoms < path to the cause [: kind/resource] [@ score], several diagnoses apart by `;`, `-` for nothing.
State:  the incidents that changed and their versions. Incidents are A, B, … in the order in which they opened.
Heard:  the alerts that one receiver gets, each delivered at once.
"""

from __future__ import annotations

import pytest

from observe.alert.decide import Sent, alerts_due
from observe.alert.lifecycle import step
from observe.settings import AlertSettings, Rule
from observe.types import Cause, CauseKind, Diagnosis, Incident, Shift
from observe.wire import incident_from_json, incident_json
from tests.unit.alert_parts import Named, at, cause, diagnosis, shift, unknown

SETTINGS = AlertSettings(for_s=10, keep_firing_for_s=60, repeat_s=600)
RULES = (Rule(name="too-many-errors", measure="error_ratio", above=0.2, keep_firing_for_s=120, severity="critical"),)

TIMELINES = {
    "one fault, found, told once, over": """
        0s    gateway < gateway llm            A pending 1       -
        10s   gateway llm < gateway llm        A firing 2        A first
        20s   gateway llm < gateway llm        A firing 2        -
        30s   -                                -                 -
        70s   -                                -                 -
        80s   -                                A resolved 3      A resolved
        90s   -                                -                 -
    """,
    "noise is dropped before anybody hears of it": """
        0s    gateway < ?                      A pending 1       -
        10s   -                                A resolved 2      -
        20s   gateway < ?                      B pending 1       -
        30s   -                                B resolved 2      -
    """,
    "a pause shorter than keep_firing_for is no end": """
        0s    api < api db                     A pending 1       -
        10s   api < api db                     A firing 2        A first
        20s   -                                -                 -
        50s   api < api db                     A firing 2        -
        100s  -                                -                 -
        110s  -                                A resolved 3      A resolved
    """,
    "a relapse after the end is a new incident": """
        0s    api < api db                     A pending 1       -
        10s   api < api db                     A firing 2        A first
        80s   -                                A resolved 3      A resolved
        90s   api < api db                     B pending 1       -
        100s  api < api db                     B firing 2        B first
    """,
    "shifts that share a cause become one incident": """
        0s    gateway < gateway llm ; agent < agent llm    A pending 1    -
        10s   gateway < gateway llm ; agent < agent llm    A firing 2     A first
    """,
    "faults that have nothing in common stay apart": """
        0s    web < web db ; batch < batch disk    A pending 1, B pending 1    -
        10s   web < web db ; batch < batch disk    A firing 2, B firing 2      A first, B first
        80s   batch < batch disk                   B firing 2, A resolved 3    A resolved
    """,
    "two incidents turn out to be one: the younger, never told, goes quietly": """
        0s    web < ?                              A pending 1                 -
        10s   web < ? ; llm < ?                    A firing 2, B pending 1     A first
        20s   web llm < web llm                    A firing 3, B resolved 2    A cause_changed
        30s   web llm < web llm                    A firing 3                  -
    """,
    "a younger incident that was told is taken over and ended": """
        0s    web < ? ; llm < ?                    A pending 1, B pending 1    -
        10s   web < ? ; llm < ?                    A firing 2, B firing 2      A first, B first
        20s   web llm < web llm                    A firing 3, B resolved 3    A cause_changed, B resolved
    """,
    "two equal causes do not take turns": """
        0s    web < web a @ 0.60               A pending 1       -
        10s   web < web a @ 0.60               A firing 2        A first
        20s   web < web b @ 0.61, web a @ 0.60   A firing 2      -
        30s   web < web b @ 0.61, web a @ 0.60   A firing 2      -
        40s   web < web a @ 0.62, web b @ 0.60   A firing 2      -
        50s   web < web b @ 0.63, web a @ 0.60   A firing 2      -
    """,
    "a much better cause is told at once": """
        0s    web < web a @ 0.45               A pending 1       -
        10s   web < web a @ 0.45               A firing 2        A first
        20s   web < web b @ 0.90, web a @ 0.40   A firing 3      A cause_changed
    """,
    "a somewhat better cause is told when it comes twice": """
        0s    web < web a @ 0.50               A pending 1       -
        10s   web < web a @ 0.50               A firing 2        A first
        20s   web < web b @ 0.60, web a @ 0.50   A firing 2      -
        30s   web < web b @ 0.60, web a @ 0.50   A firing 3      A cause_changed
    """,
    "a cause that is missing for one look is not forgotten": """
        0s    web < web a @ 0.80               A pending 1       -
        10s   web < web a @ 0.80               A firing 2        A first
        20s   web < web b @ 0.50               A firing 2        -
        30s   web < web a @ 0.80               A firing 2        -
        40s   web < ?                          A firing 2        -
    """,
    "the cause is narrowed from a service to its GPU": """
        0s    web < web llm @ 0.60                                  A pending 1    -
        10s   web < web llm @ 0.60                                  A firing 2     A first
        20s   web < web llm : gpu/GPU-3 @ 0.90, web llm @ 0.60      A firing 3     A cause_changed
    """,
    "a warning grows critical, and stays so": """
        0s    web:error_ratio:0.01:0.04 < web a    A pending 1     -
        10s   web:error_ratio:0.01:0.04 < web a    A firing 2      A first
        20s   web:error_ratio:0.01:0.30 < web a    A firing 3      A severity_changed
        30s   web:error_ratio:0.01:0.04 < web a    A firing 3      -
    """,
    "a rule keeps its incident for as long as the rule says": """
        0s    web:error_ratio:0.0:0.30:too-many-errors < ?   A pending 1     -
        10s   web:error_ratio:0.0:0.30:too-many-errors < ?   A firing 2      A first
        80s   -                                              -               -
        120s  -                                              -               -
        130s  -                                              A resolved 3    A resolved
    """,
    "who still suffers is told again": """
        0s    web < web db                     A pending 1       -
        10s   web < web db                     A firing 2        A first
        600s  web < web db                     A firing 2        -
        610s  web < web db                     A firing 2        A repeat
        620s  web < web db                     A firing 2        -
    """,
    "a surge of traffic does not swallow a fault behind the same door": """
        0s    web:requests_per_s:10:30 < web : traffic/                             A pending 1                -
        10s   web:requests_per_s:10:30 < web : traffic/                             A firing 2                 A first
        20s   web:requests_per_s:10:30 < web : traffic/ ; web < web db              A firing 2, B pending 1    -
        30s   web:requests_per_s:10:30 < web : traffic/ ; web < web db              A firing 2, B firing 2     B first
    """,
}


@pytest.mark.parametrize("name", TIMELINES)
@pytest.mark.parametrize("restarts", [False, True], ids=["running on", "restarted at every step"])
def test_timeline(name: str, restarts: bool) -> None:
    known: dict[str, Incident] = {}
    names: dict[str, str] = {}
    notified: dict[tuple[str, str], int] = {}
    sent: dict[tuple[str, str], Sent] = {}
    for line in filter(None, map(str.strip, TIMELINES[name].splitlines())):
        when, seen, states, heard = _columns(line)
        now_ns = at(float(when.removesuffix("s")))
        changed = step(list(known.values()), _diagnoses(seen), now_ns, SETTINGS, RULES)
        for incident in changed:
            names.setdefault(incident.id, chr(ord("A") + len(names)))
            known[incident.id] = incident_from_json(incident_json(incident)) if restarts else incident
        said = {f"{names[i.id]} {i.state} {i.version}" for i in changed}
        assert said == _listed(states), f"{name}, {when}: incidents"
        due = alerts_due(known.values(), notified, [Named("r")], now_ns, SETTINGS, sent=sent)
        assert {f"{names[a.incident.id]} {a.reason}" for _, a in due} == _listed(heard), f"{name}, {when}: alerts"
        for receiver, alert in due:
            notified[alert.incident.id, receiver] = alert.incident.version
            sent[alert.incident.id, receiver] = Sent(now_ns, alert.incident.severity)


def _columns(line: str) -> list[str]:
    when, rest = line.split(maxsplit=1)
    columns = [column.strip() for column in rest.split("  ") if column.strip()]
    assert len(columns) == 3, f"when, seen, state and heard, apart by two blanks: {line!r}"
    return [when, *columns]


def _listed(text: str) -> set[str]:
    return set() if text == "-" else {part.strip() for part in text.split(",")}


def _diagnoses(text: str) -> list[Diagnosis]:
    return [] if text == "-" else [_diagnosis(part) for part in text.split(";")]


def _diagnosis(text: str) -> Diagnosis:
    symptoms, causes = text.split("<")
    shifts = [_shift(*word.split(":")) for word in symptoms.split()]
    return diagnosis(shifts, [unknown() if c.strip() == "?" else _cause(c) for c in causes.split(",")])


def _shift(
    service: str, measure: str = "latency_p99_ms", before: str = "400", after: str = "1900", rule: str = ""
) -> Shift:
    return shift(service, measure, float(before), float(after), rule=rule)


def _cause(text: str) -> Cause:
    text, _, score = text.partition("@")
    text, _, resource = text.partition(":")
    kind, _, resource = resource.strip().partition("/")
    path = tuple(text.split())
    return cause(path[-1], CauseKind(kind or "service"), resource, score=float(score or 0.8), path=path)
