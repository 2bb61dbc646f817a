"""How bad an incident is, and the one sentence that says so at 3 a.m."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from observe.alert.grouping import series
from observe.types import Cause, CauseKind, Incident, Severity, Shift
from observe.words import SHORT_MEASURES, place

CRITICAL_ERROR_RATIO = 0.05
CRITICAL_LATENCY_RATIO = 2.0
TIMES = ("latency_", "time_")
RANK = {Severity.INFO: 0, Severity.WARNING: 1, Severity.CRITICAL: 2}


def severity(symptoms: Sequence[Shift], causes: Sequence[Cause], rules: Mapping[str, Severity]) -> Severity:
    """The worst of the symptoms. A rule's symptom is as bad as its rule says (`rules`: name → severity)."""
    doors = entries(symptoms, causes)
    return max((_severity(shift, doors, rules) for shift in symptoms), key=RANK.__getitem__, default=Severity.WARNING)


def _severity(shift: Shift, doors: frozenset[str], rules: Mapping[str, Severity]) -> Severity:
    if shift.rule in rules:
        return rules[shift.rule]
    if shift.measure == "requests_per_s":
        return Severity.INFO
    failing = shift.measure == "error_ratio" and shift.after >= CRITICAL_ERROR_RATIO and shift.after > shift.before
    slow = shift.measure.startswith(TIMES) and shift.after >= CRITICAL_LATENCY_RATIO * shift.before
    return Severity.CRITICAL if shift.service in doors and (failing or slow) else Severity.WARNING


def entries(symptoms: Sequence[Shift], causes: Sequence[Cause]) -> frozenset[str]:
    """Services at the top of the paths, where users are; all that shifted, where no path is known."""
    tops = frozenset(cause.path[0] for cause in causes if cause.path)
    return tops or frozenset(shift.service for shift in symptoms)


def title(symptoms: Sequence[Shift], causes: Sequence[Cause]) -> str:
    """What users feel, and where to look: "gateway P99 420 ms → 1.9 s: llm-engine, GPU-3 (91 % of the rise)"."""
    if not symptoms:
        return "trouble: cause unknown"
    lead = leading(symptoms, causes)
    felt = f"{lead.service} {SHORT_MEASURES.get(lead.measure, lead.measure)}"
    change = f"{quantity(lead.before, lead.unit)} → {quantity(lead.after, lead.unit)}"
    return f"{felt} {change}: {_blame(lead, causes[0] if causes else None)}"


def leading(symptoms: Sequence[Shift], causes: Sequence[Cause]) -> Shift:
    """The symptom that users feel most: at the top of the first cause's path, and the worst there."""
    doors = entries(symptoms, causes[:1])
    at_door = [shift for shift in symptoms if shift.service in doors] or list(symptoms)
    return max(sorted(at_door, key=series), key=_weight)


def _weight(shift: Shift) -> float:
    if shift.measure == "error_ratio":
        return abs(shift.after - shift.before) / CRITICAL_ERROR_RATIO
    if shift.measure.startswith(TIMES):
        return abs(shift.after / shift.before - 1) if shift.before > 0 else 1.0
    return 0.0 if shift.measure == "requests_per_s" else -1.0


def _blame(lead: Shift, cause: Cause | None) -> str:
    if cause is None or cause.kind is CauseKind.UNKNOWN:
        return "cause unknown"
    what = where(cause)
    if cause.kind is not CauseKind.TRAFFIC and what == lead.service:
        what = f"{what} itself"
    change = "rise" if lead.after >= lead.before else "fall"
    share = f" ({min(cause.share, 1.0):.0%} of the {change})".replace("%", " %") if cause.share >= 0.005 else ""
    return what + share


def where(cause: Cause) -> str:
    """The place to look at, in words: "llm-engine, GPU-3"."""
    if cause.kind is CauseKind.TRAFFIC:
        return f"the traffic of {cause.service}" if cause.service else "the traffic"
    return place(cause.kind.value, cause.service, cause.resource, cause.services)


def new_normal_text(incident: Incident, now_ns: int) -> str:
    """Why an incident ends while nothing has gone back to what it was.

    >>> from observe.types import State
    >>> new_normal_text(Incident("a", 1, State.FIRING, Severity.WARNING, "", 0, 0, 0, None, (Shift(
    ...     "api", "", "Server", "latency_p99_ms", 120.0, 540.0, "ms", 1e-9, 99, 0),), ()), 7 * 3600 * 10**9)
    'not back to what it was: as it has lasted for 7 h, this is now taken for normal: api P99 120 ms → 540 ms'
    """
    lead = leading(incident.symptoms, incident.causes) if incident.symptoms else None
    level = (
        ""
        if lead is None
        else (
            f": {lead.service} {SHORT_MEASURES.get(lead.measure, lead.measure)}"
            f" {quantity(lead.before, lead.unit)} → {quantity(lead.after, lead.unit)}"
        )
    )
    lasted = _lasted((now_ns - incident.onset_ns) / 1e9)
    return f"not back to what it was: as it has lasted for {lasted}, this is now taken for normal{level}"


def _lasted(seconds: float) -> str:
    """
    >>> _lasted(900.0), _lasted(6.02 * 3600), _lasted(3 * 86400.0)
    ('15 min', '6 h', '3 days')
    """
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.2g} h" if seconds < 2 * 86400 else f"{seconds / 86400:.2g} days"


def quantity(value: float, unit: str) -> str:
    """A number as people say it.

    >>> quantity(1900.0, "ms"), quantity(0.143, "1"), quantity(31.25, "{request}/s")
    ('1.9 s', '14 %', '31/s')
    """
    if unit == "ms":
        return f"{_digits(value / 1000)} s" if abs(value) >= 1000 else f"{_digits(value)} ms"
    if unit == "1":
        return f"{_digits(100 * value)} %"
    if unit == "{request}/s":
        return f"{_digits(value)}/s"
    return f"{_digits(value)} {unit}".rstrip()


def _digits(value: float) -> str:
    """Two significant digits, more before the point where there are more.

    >>> _digits(0.234), _digits(4.0), _digits(31.25), _digits(420.4), _digits(0.0)
    ('0.23', '4', '31', '420', '0')
    """
    return f"{value:.0f}" if abs(value) >= 10 else f"{value:.2g}"
