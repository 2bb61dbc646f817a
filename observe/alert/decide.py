"""Who is to be told what, and why. Pure: the reason comes out with the decision."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from observe.types import Alert, Incident, Severity, State

Reason = Literal["first", "cause_changed", "severity_changed", "resolved", "repeat"]


@dataclass(frozen=True, slots=True)
class Receiver:
    name: str
    send_resolved: bool = True


@dataclass(frozen=True, slots=True)
class Sent:
    """What this process remembers of a delivery beyond its version: for repeats and for the reason."""

    at_ns: int
    severity: Severity


def alerts_due(
    incidents: Iterable[Incident],
    notified: Mapping[tuple[str, str], int],
    receivers: Sequence[Receiver],
    now_ns: int,
    *,
    sent: Mapping[tuple[str, str], Sent] | None = None,
    repeat_s: float = float("inf"),
) -> list[tuple[str, Alert]]:
    """(receiver, alert) for each that is due, in the order of the incidents.

    `notified` is the highest version delivered per (incident id, receiver). Each version is due once; a firing one
    again every `repeat_s` after the time in `sent`.
    """
    memory = sent or {}
    due: list[tuple[str, Alert]] = []
    for incident in incidents:
        for receiver in receivers:
            key = (incident.id, receiver.name)
            reason = why(incident, notified.get(key), memory.get(key), now_ns=now_ns, repeat_s=repeat_s)
            if reason is not None and (reason != "resolved" or receiver.send_resolved):
                due.append((receiver.name, Alert(incident, reason)))
    return due


def why(incident: Incident, version: int | None, sent: Sent | None, *, now_ns: int, repeat_s: float) -> Reason | None:
    """Why to tell about the incident, given the version last told (None: never); None: there is nothing to tell."""
    if version is None:
        return "first" if incident.state is State.FIRING else None
    if incident.version > version:
        if incident.state is State.RESOLVED:
            return "resolved"
        return "severity_changed" if sent is not None and sent.severity is not incident.severity else "cause_changed"
    if incident.state is State.FIRING and sent is not None and now_ns - sent.at_ns >= repeat_s * 1e9:
        return "repeat"
    return None
