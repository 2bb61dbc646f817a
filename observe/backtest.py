"""How a replay with these settings compares with what was recorded, and with what people say had happened. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from observe.types import Incident, Json
from observe.wire import incident_json, rfc3339

SLACK_NS = 120_000_000_000
"""Two incidents are the same trouble if their times come this close; a label is found by what begins up to this much
before it: people round."""


@dataclass(frozen=True, slots=True)
class Label:
    """What people know: trouble from one time to another, of a service ("" = any), by a cause ("" = not known)."""

    from_ns: int
    to_ns: int
    service: str = ""
    cause: str = ""
    name: str = ""


def report(
    found: Sequence[Incident], recorded: Sequence[Incident], labels: Sequence[Label], from_ns: int, to_ns: int
) -> Json:
    """The replay's incidents beside those recorded, and a score by the labels."""
    pairs = _pairs(found, recorded, to_ns)
    labelled = [_judged(label, found, to_ns) for label in labels]
    answered = {one["incident_id"] for one in labelled} - {None}
    delays = [one["delay_s"] for one in labelled if one["delay_s"] is not None]
    here, there = {a.id for a, _ in pairs}, {b.id for _, b in pairs}
    return {
        "from": rfc3339(from_ns),
        "to": rfc3339(to_ns),
        "incidents": [incident_json(incident) for incident in found],
        "recorded": {
            "incidents": len(recorded),
            "in_both": [_pair(*pair) for pair in pairs],
            "only_replayed": [_short(i) for i in found if i.id not in here],
            "only_recorded": [_short(i) for i in recorded if i.id not in there],
        },
        "labels": labelled,
        "score": _score(labelled, len(answered), len(found), delays) if labels else None,
    }


def _score(labelled: Sequence[Json], answered: int, found: int, delays: Sequence[float]) -> Json:
    hits = sum(one["incident_id"] is not None for one in labelled)
    causes = [one["cause_right"] for one in labelled if one["cause_right"] is not None]
    return {
        "labels": len(labelled),
        "found": hits,
        "recall": hits / len(labelled),
        "precision": answered / found if found else None,
        "false_incidents": found - answered,
        "median_delay_s": statistics.median(delays) if delays else None,
        "causes_right": sum(causes) / len(causes) if causes else None,
    }


def _pairs(found: Sequence[Incident], recorded: Sequence[Incident], to_ns: int) -> list[tuple[Incident, Incident]]:
    """Each replayed incident with the recorded one whose onset is nearest, none used twice."""
    near = sorted(
        (abs(a.onset_ns - b.onset_ns), a.id, b.id)
        for a in found
        for b in recorded
        if _overlap(a, b, to_ns) and _services(a) & _services(b)
    )
    by_id = {i.id: i for i in found}, {i.id: i for i in recorded}
    used: tuple[set[str], set[str]] = set(), set()
    pairs = []
    for _, one, other in near:
        if one not in used[0] and other not in used[1]:
            used[0].add(one)
            used[1].add(other)
            pairs.append((by_id[0][one], by_id[1][other]))
    return pairs


def _overlap(a: Incident, b: Incident, to_ns: int) -> bool:
    ends = [to_ns if i.resolved_ns is None else i.resolved_ns for i in (a, b)]
    return a.onset_ns <= ends[1] + SLACK_NS and b.onset_ns <= ends[0] + SLACK_NS


def _services(incident: Incident) -> set[str]:
    causes = {cause.service for cause in incident.causes[:1]}
    return {shift.service for shift in incident.symptoms} | causes | set(incident.impact.services)


def _judged(label: Label, found: Sequence[Incident], to_ns: int) -> Json:
    """The first incident that fired during the trouble, and whether it names its cause."""
    hits = [
        incident
        for incident in found
        if incident.fired_ns is not None
        and label.from_ns - SLACK_NS <= incident.onset_ns <= label.to_ns
        and (not label.service or label.service in _services(incident))
    ]
    first = min(hits, key=lambda incident: (incident.fired_ns, incident.id), default=None)
    cause = first.causes[0] if first is not None and first.causes else None
    named = {cause.service, cause.resource} if cause else set()
    return {
        "name": label.name,
        "from": rfc3339(label.from_ns),
        "to": rfc3339(label.to_ns),
        "service": label.service,
        "cause": label.cause,
        "incident_id": None if first is None else first.id,
        "delay_s": None if first is None or first.fired_ns is None else (first.fired_ns - label.from_ns) / 1e9,
        "cause_right": label.cause in named if label.cause and first is not None else None,
    }


def _pair(one: Incident, other: Incident) -> Json:
    told = [i.causes[0] if i.causes else None for i in (one, other)]
    same = [(cause.kind, cause.service, cause.resource) if cause else None for cause in told]
    return {
        "replayed_id": one.id,
        "recorded_id": other.id,
        "onset_later_s": (one.onset_ns - other.onset_ns) / 1e9,
        "fired_later_s": None
        if one.fired_ns is None or other.fired_ns is None
        else (one.fired_ns - other.fired_ns) / 1e9,
        "same_cause": same[0] == same[1],
    }


def _short(incident: Incident) -> Json:
    return {"id": incident.id, "title": incident.title, "onset_at": rfc3339(incident.onset_ns)}
