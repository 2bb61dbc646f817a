"""What receivers are sent. Pure: an alert in, the body out.

Forms: Alertmanager's webhook version 4, Standard Webhooks, Slack blocks, PagerDuty Events v2. Receivers recognise an
incident by groupKey, fingerprint or dedup_key; those come from its id alone, so that a new cause or severity updates
what they show rather than opening something else.
"""

from __future__ import annotations

import hashlib
from typing import Literal
from urllib.parse import quote

from observe.alert.telling import entries, leading, quantity, where
from observe.types import Alert, Cause, CauseKind, Incident, Json, Shift, State
from observe.wire import incident_json, rfc3339
from observe.words import SHORT_MEASURES

NEVER = "0001-01-01T00:00:00Z"
ALERT_NAMES = {"error_ratio": "ErrorsShifted", "requests_per_s": "TrafficShifted"}
GROUP_REASONS = {
    "first": "first notification",
    "resolved": "all alerts resolved",
    "repeat": "repeat interval elapsed",
}
SLACK_HEADER, SLACK_SECTION, SLACK_FIELD, SLACK_FIELDS = 150, 3000, 2000, 10
PAGERDUTY_SUMMARY = 1024
PAGERDUTY_SYMPTOMS = 10


def status(incident: Incident) -> Literal["firing", "resolved"]:
    return "resolved" if incident.state is State.RESOLVED else "firing"


def link(incident: Incident, external_url: str) -> str:
    """Where the dashboard shows the incident."""
    return f"{external_url.rstrip('/')}/?incident={quote(incident.id)}"


def group_key(incident: Incident) -> str:
    return f'{{}}:{{incident="{incident.id}"}}'


def digest(incident: Incident) -> str:
    """The incident as 64 hex digits, the same through its whole life."""
    return hashlib.sha256(group_key(incident).encode()).hexdigest()


def labels(incident: Incident) -> dict[str, str]:
    """What routing rules of receivers match on; empty ones are left out."""
    lead = leading(incident.symptoms, incident.causes) if incident.symptoms else None
    first = incident.causes[0] if incident.causes else None
    named = {
        "alertname": _alert_name(lead),
        "incident": incident.id,
        "severity": incident.severity.value,
        "service": lead.service if lead else "",
        "operation": lead.operation if lead else "",
        "cause": first.service if first else "",
        "cause_kind": first.kind.value if first else CauseKind.UNKNOWN.value,
        "cause_resource": first.resource if first else "",
    }
    return {key: value for key, value in named.items() if value}


def _alert_name(lead: Shift | None) -> str:
    if lead is None:
        return "MetricShifted"
    return ALERT_NAMES.get(
        lead.measure, "LatencyShifted" if lead.measure.startswith(("latency_", "time_")) else "MetricShifted"
    )


def description(incident: Incident) -> str:
    """Why it ended, where that is not plain; the first cause's evidence, one reason a line; what else it could be."""
    first, *others = incident.causes or (None,)
    lines = [incident.note] if incident.note else []
    lines += [evidence.text for evidence in first.evidence] if first else []
    if first and len(first.path) > 1:
        lines.append(f"path: {' → '.join(first.path)}")
    if others:
        lines.append(f"else: {'; '.join(_short(cause) for cause in others if cause)}")
    return "\n".join(lines) or incident.title


def _short(cause: Cause) -> str:
    return f"{where(cause) or 'unknown'} (confidence {cause.score:.2f})"


def alertmanager(alert: Alert, receiver: str, external_url: str) -> Json:
    """Alertmanager webhook, version 4, one alert a group."""
    incident = alert.incident
    marks = labels(incident)
    notes = {
        "summary": incident.title,
        "description": description(incident),
        "dashboard": link(incident, external_url),
    }
    body: Json = {
        "version": "4",
        "groupKey": group_key(incident),
        "truncatedAlerts": 0,
        "status": status(incident),
        "receiver": receiver,
        "groupLabels": {"incident": incident.id},
        "commonLabels": marks,
        "commonAnnotations": notes,
        "externalURL": external_url,
        "alerts": [
            {
                "status": status(incident),
                "labels": marks,
                "annotations": notes,
                "startsAt": rfc3339(incident.onset_ns),
                "endsAt": NEVER if incident.resolved_ns is None else rfc3339(incident.resolved_ns),
                "generatorURL": link(incident, external_url),
                "fingerprint": digest(incident)[:16],
            }
        ],
    }
    if alert.reason in GROUP_REASONS:  # the other reasons have no word in Alertmanager's closed set
        body["notification_reason"] = GROUP_REASONS[alert.reason]
    return body


def standard(alert: Alert, external_url: str) -> Json:
    """Body by Standard Webhooks; `data` is the incident as the API gives it, with why it is sent and a link."""
    incident = alert.incident
    event = {"first": "firing", "repeat": "firing", "resolved": "resolved"}.get(alert.reason, "updated")
    at_ns = incident.resolved_ns if incident.resolved_ns is not None else incident.last_seen_ns
    return {
        "type": f"incident.{event}",
        "timestamp": rfc3339(at_ns),
        "reason": alert.reason,
        "url": link(incident, external_url),
        "data": incident_json(incident),
    }


def slack(alert: Alert, external_url: str) -> Json:
    """Slack's incoming webhook: a header, the evidence, at most ten numbers, a link; within Slack's limits."""
    incident = alert.incident
    head = f"{status(incident).capitalize()} ({incident.severity.value}): {incident.title}"
    fields = [f"*{_mrkdwn(name)}*\n{_mrkdwn(value)}" for name, value in _facts(incident)]
    href = link(incident, external_url)
    return {
        "text": _mrkdwn(head),
        "blocks": [
            {"type": "header", "text": {"type": "plain_text", "text": _cut(head, SLACK_HEADER)}},
            {
                "type": "section",
                "text": {"type": "mrkdwn", "text": _cut(_mrkdwn(description(incident)), SLACK_SECTION)},
            },
            {
                "type": "section",
                "fields": [{"type": "mrkdwn", "text": _cut(f, SLACK_FIELD)} for f in fields[:SLACK_FIELDS]],
            },
            {"type": "context", "elements": [{"type": "mrkdwn", "text": f"<{href}|incident {incident.id}>"}]},
        ],
    }


def pagerduty(alert: Alert, routing_key: str, external_url: str) -> Json:
    """PagerDuty Events v2: trigger or resolve under one dedup_key; symptoms bounded to stay far below 512 KB."""
    incident = alert.incident
    body: Json = {
        "routing_key": routing_key,
        "event_action": "resolve" if incident.state is State.RESOLVED else "trigger",
        "dedup_key": digest(incident),
    }
    if incident.state is State.RESOLVED:
        return body
    doors = entries(incident.symptoms, incident.causes[:1])
    first = incident.causes[0] if incident.causes else None
    return body | {
        "client": "observe",
        "client_url": link(incident, external_url),
        "links": [{"href": link(incident, external_url), "text": "Incident"}],
        "payload": {
            "summary": _cut(incident.title, PAGERDUTY_SUMMARY),
            "source": min(doors, default="observe"),
            "severity": incident.severity.value,
            "timestamp": rfc3339(incident.onset_ns),
            "component": first.service if first else "",
            "class": labels(incident)["alertname"],
            "custom_details": dict(_facts(incident)[:PAGERDUTY_SYMPTOMS])
            | {"evidence": description(incident)[:20_000]},
        },
    }


def _facts(incident: Incident) -> list[tuple[str, str]]:
    """What shifted, from what to what, those that users feel first; then how many requests it hit."""
    doors = entries(incident.symptoms, incident.causes[:1])
    ordered = sorted(incident.symptoms, key=lambda s: s.service not in doors)
    facts = [
        (
            " ".join(filter(None, (s.service, s.operation, SHORT_MEASURES.get(s.measure, s.measure)))),
            f"{quantity(s.before, s.unit)} → {quantity(s.after, s.unit)}",
        )
        for s in ordered[: PAGERDUTY_SYMPTOMS - 1]
    ]
    return [*facts, ("requests affected", str(incident.impact.requests_affected))]


def _mrkdwn(text: str) -> str:
    """Slack reads & < > as marks of its own."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"
