"""Who is to be told what, and why. Pure: the reason comes out with the decision."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol
from urllib.parse import urlsplit

from observe.settings import AlertSettings, WebhookSettings
from observe.types import Alert, Incident, Severity, Silence, State

Reason = Literal["first", "cause_changed", "severity_changed", "resolved", "repeat"]


class Receiver(Protocol):
    @property
    def name(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Sent:
    """What this process remembers of a delivery beyond its version: for repeats and for the reason."""

    at_ns: int
    severity: Severity


def not_silenced(incidents: Iterable[Incident], silences: Sequence[Silence], now_ns: int) -> list[Incident]:
    """The incidents of which people are to be told: a silence covers the service to look at, or all that suffer."""

    def quiet(incident: Incident) -> bool:
        named = {s for cause in incident.causes[:1] for s in (cause.services or (cause.service,)) if s}
        services = named or {symptom.service for symptom in incident.symptoms}
        return bool(services) and all(any(s.covers(service, now_ns) for s in silences) for service in services)

    return [incident for incident in incidents if not quiet(incident)]


def alerts_due(
    incidents: Iterable[Incident],
    notified: Mapping[tuple[str, str], int],
    receivers: Sequence[Receiver],
    now_ns: int,
    settings: AlertSettings,
    *,
    sent: Mapping[tuple[str, str], Sent] | None = None,
) -> list[tuple[str, Alert]]:
    """(receiver, alert) for each that is due, in the order of the incidents.

    `notified` is the highest version delivered per (incident id, receiver). Each version is due once; a firing one
    again every `settings.repeat_s` after the time in `sent`.
    """
    memory = sent or {}
    quiet = {name_of(webhook) for webhook in settings.webhooks if not webhook.send_resolved}
    due: list[tuple[str, Alert]] = []
    for incident in incidents:
        for receiver in receivers:
            key = (incident.id, receiver.name)
            reason = why(incident, notified.get(key), memory.get(key), now_ns=now_ns, repeat_s=settings.repeat_s)
            if reason is not None and not (reason == "resolved" and receiver.name in quiet):
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


def name_of(webhook: WebhookSettings) -> str:
    """The given name, or the host and a hash of the URL: stable, and without the token that a URL may hold."""
    if webhook.name:
        return webhook.name
    host = urlsplit(webhook.url).hostname or "webhook"
    return f"{host}-{hashlib.sha256(webhook.url.encode()).hexdigest()[:8]}"
