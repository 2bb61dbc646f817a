"""How an incident looks to the outside (API, replay, webhooks, storage): the one place that knows its JSON."""

from __future__ import annotations

from datetime import UTC, datetime
from math import isfinite
from typing import Any

from observe.errors import BadRecord
from observe.types import Cause, CauseKind, Evidence, Impact, Incident, Json, Numbers, RuledOut, Severity, Shift, State

API_PREFIX = "/api/v1"


def rfc3339(time_ns: int) -> str:
    """RFC 3339 in UTC with milliseconds.

    >>> rfc3339(1_700_000_000_123_000_000)
    '2023-11-14T22:13:20.123Z'
    """
    seconds, rest = divmod(time_ns, 1_000_000_000)
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S") + f".{rest // 1_000_000:03d}Z"


def from_rfc3339(text: str) -> int:
    """Nanoseconds since the epoch; a time without a zone is UTC; plain Unix seconds are taken too.

    >>> from_rfc3339("2023-11-14T22:13:20.123Z")
    1700000000123000000
    >>> from_rfc3339("1700000000.5")
    1700000000500000000
    """
    try:
        whole, _, fraction = text.partition(".")
        if whole.isdigit() and (fraction == "" or fraction.isdigit()):
            return int(whole) * 1_000_000_000 + int((fraction + "000000000")[:9])
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise BadRecord(f"{text!r} is no time: RFC 3339 (2026-01-31T03:00:00Z) or Unix seconds are") from error
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return int(moment.replace(microsecond=0).timestamp()) * 1_000_000_000 + moment.microsecond * 1000


def incident_json(incident: Incident) -> Json:
    """The incident by the public contract; keys and their order are stable."""
    return {
        "id": incident.id,
        "version": incident.version,
        "state": incident.state.value,
        "severity": incident.severity.value,
        "title": incident.title,
        "onset_at": rfc3339(incident.onset_ns),
        "opened_at": rfc3339(incident.opened_ns),
        "fired_at": None if incident.fired_ns is None else rfc3339(incident.fired_ns),
        "last_seen_at": rfc3339(incident.last_seen_ns),
        "resolved_at": None if incident.resolved_ns is None else rfc3339(incident.resolved_ns),
        "symptoms": [_symptom(shift) for shift in incident.symptoms],
        "causes": [_cause(cause) for cause in incident.causes],
        "ruled_out": [
            {"service": r.service, "resource": r.resource, "because": r.because, **_sentence(r)}
            for r in incident.ruled_out
        ],
        "impact": {
            "services": list(incident.impact.services),
            "requests_affected": incident.impact.requests_affected,
        },
        "note": incident.note,
    }


def incident_from_json(body: Any) -> Incident:
    """The inverse of incident_json (times to the millisecond)."""
    resolved, fired = body["resolved_at"], body.get("fired_at")
    return Incident(
        id=body["id"],
        version=body["version"],
        state=State(body["state"]),
        severity=Severity(body["severity"]),
        title=body["title"],
        onset_ns=from_rfc3339(body["onset_at"]),
        opened_ns=from_rfc3339(body["opened_at"]),
        last_seen_ns=from_rfc3339(body["last_seen_at"]),
        resolved_ns=None if resolved is None else from_rfc3339(resolved),
        fired_ns=None if fired is None else from_rfc3339(fired),
        symptoms=tuple(
            Shift(
                service=s["service"],
                operation=s["operation"],
                kind=s["kind"],
                measure=s["measure"],
                before=s["before"],
                after=s["after"],
                unit=s["unit"],
                p_value=s["p_value"],
                samples=s["samples"],
                onset_ns=from_rfc3339(s["onset_at"]),
                rule=s.get("rule", ""),
                query=s.get("query", ""),
            )
            for s in body["symptoms"]
        ),
        causes=tuple(
            Cause(
                rank=c["rank"],
                kind=CauseKind(c["kind"]),
                service=c["service"],
                resource=c["resource"],
                score=c["score"],
                share=c["share"],
                path=tuple(c["path"]),
                evidence=tuple(Evidence(e["kind"], e["text"], *_asked(e)) for e in c["evidence"]),
                exemplar_trace_ids=tuple(c["exemplar_trace_ids"]),
                services=tuple(c.get("services", ())),
            )
            for c in body["causes"]
        ),
        ruled_out=tuple(RuledOut(r["service"], r["resource"], r["because"], *_asked(r)) for r in body["ruled_out"]),
        impact=Impact(tuple(body["impact"]["services"]), body["impact"]["requests_affected"]),
        note=body.get("note", ""),
    )


def _symptom(shift: Shift) -> Json:
    return {
        "service": shift.service,
        "operation": shift.operation,
        "kind": shift.kind,
        "measure": shift.measure,
        "before": _rounded(shift.before),
        "after": _rounded(shift.after),
        "unit": shift.unit,
        "p_value": _rounded(shift.p_value),
        "samples": shift.samples,
        "onset_at": rfc3339(shift.onset_ns),
        "rule": shift.rule,
        "query": shift.query,
    }


def _cause(cause: Cause) -> Json:
    return {
        "rank": cause.rank,
        "kind": cause.kind.value,
        "service": cause.service,
        "resource": cause.resource,
        "score": _rounded(cause.score),
        "share": _rounded(cause.share),
        "path": list(cause.path),
        "evidence": [{"kind": e.kind, "text": e.text, **_sentence(e)} for e in cause.evidence],
        "exemplar_trace_ids": list(cause.exemplar_trace_ids),
        "services": list(cause.services),
    }


def _sentence(said: Evidence | RuledOut) -> Json:
    # JSON has no infinity, and a number that is none says nothing.
    numbers = {name: _rounded(value) for name, value in said.numbers if isfinite(value)}
    return {"numbers": numbers, "query": said.query}


def _asked(body: Any) -> tuple[Numbers, str]:
    """Incidents that were stored before sentences had numbers and queries have none."""
    return tuple((name, value) for name, value in body.get("numbers", {}).items()), body.get("query", "")


def _rounded(value: float) -> float:
    """Six significant digits: enough for people, and the same bytes from every run."""
    return float(f"{value:.6g}")
