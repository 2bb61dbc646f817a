"""What is usual at this time: told to nobody, yet kept, so that it is no baseline for what comes after it. Pure.

Such an incident stays pending while its shifts are seen, and then ends without ever having fired. Shifts that become
more than usual are none of these, and open an incident of their own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import replace

from observe.alert.grouping import series
from observe.alert.telling import quantity
from observe.settings import AlertSettings
from observe.types import Impact, Incident, Season, Severity, Shift, State
from observe.words import SHORT_MEASURES

SECOND_NS = 1_000_000_000
MAX_SYMPTOMS = 20


def step_usual(
    known: Sequence[Incident], found: Iterable[Season], now_ns: int, settings: AlertSettings
) -> list[Incident]:
    """The new state of every usual incident that changed, one a service; `found` are the shifts that are usual now."""
    open_by_service = {_service(i): i for i in known if i.usual and i.resolved_ns is None}
    seen: dict[str, list[Season]] = {}
    for season in found:
        seen.setdefault(season.shift.service, []).append(season)
    changed = [_seen(open_by_service.get(service), of, now_ns) for service, of in sorted(seen.items())]
    keep_ns = int(settings.keep_firing_for_s * SECOND_NS)
    for service, incident in sorted(open_by_service.items()):
        if service not in seen and now_ns - incident.last_seen_ns >= keep_ns:
            changed.append(replace(incident, state=State.RESOLVED, resolved_ns=now_ns, version=incident.version + 1))
    return changed


def _service(incident: Incident) -> str:
    return incident.symptoms[0].service


def _seen(before: Incident | None, found: Sequence[Season], now_ns: int) -> Incident:
    shifts = _symptoms(() if before is None else before.symptoms, [season.shift for season in found])
    onset_ns = min(shift.onset_ns for shift in shifts)
    first = min(found, key=lambda season: (season.shift.p_value, series(season.shift)))
    service = first.shift.service
    title = f"usual at this time: {service} {_change(first.shift)}"
    note = usual_text(first)
    if before is not None:
        return replace(before, title=title, note=note, symptoms=shifts, onset_ns=onset_ns, last_seen_ns=now_ns)
    return Incident(
        id=hashlib.sha256(f"usual|{now_ns}|{onset_ns}|{service}".encode()).hexdigest()[:12],
        version=1,
        state=State.PENDING,
        severity=Severity.INFO,
        title=title,
        onset_ns=onset_ns,
        opened_ns=now_ns,
        last_seen_ns=now_ns,
        resolved_ns=None,
        symptoms=shifts,
        causes=(),
        impact=Impact((service,), 0),
        note=note,
    )


def _symptoms(before: Sequence[Shift], now: Sequence[Shift]) -> tuple[Shift, ...]:
    """Newest values and earliest onsets of all series that shifted, the surest ones where they are many."""
    union = {series(shift): shift for shift in before}
    for shift in now:
        older = union.get(series(shift), shift)
        union[series(shift)] = replace(shift, onset_ns=min(shift.onset_ns, older.onset_ns))
    kept = sorted(union.values(), key=lambda s: (s.p_value, series(s)))[:MAX_SYMPTOMS]
    return tuple(sorted(kept, key=lambda s: (s.onset_ns, series(s))))


# ── in words ────────────────────────────────────────────────────────────────────────────────────────────────────────

_LAST = {"day": ("day", "days"), "week": ("week", "weeks")}


def usual_text(season: Season) -> str:
    """
    >>> shift = Shift("api", "chat", "Server", "latency_p99_ms", 120.0, 540.0, "ms", 1e-9, 812, 0)
    >>> usual_text(Season(shift, "day", 3, 3, 480.0, 610.0, True))
    'usual at this time: api chat P99 480 ms to 610 ms on 3 of the last 3 days'
    >>> usual_text(Season(shift, "60 min", 4, 5, 480.0, 610.0, True))
    'usual every 60 min: api chat P99 480 ms to 610 ms in 4 of the last 5 cycles'
    """
    when = "at this time" if season.cycle in _LAST else f"every {season.cycle}"
    return f"usual {when}: {_levels(season)} {_share(season)}"


def unusual_text(season: Season) -> str:
    """
    >>> shift = Shift("api", "chat", "Server", "latency_p99_ms", 120.0, 540.0, "ms", 1e-9, 812, 0)
    >>> unusual_text(Season(shift, "day", 0, 7, 110.0, 130.0, False))
    'not explained by the time of day: at this time on the last 7 days api chat P99 was 110 ms to 130 ms at most'
    """
    of = "day" if season.cycle == "day" else "week"
    reach = "most" if season.shift.after >= season.shift.before else "least"
    last = f"{'on' if of == 'day' else 'in'} the last {season.out_of} {_LAST[of][1]}"
    return f"not explained by the time of {of}: at this time {last} {_levels(season, 'was ')} at {reach}"


def _levels(season: Season, verb: str = "") -> str:
    shift = season.shift
    low, high = quantity(season.low, shift.unit), quantity(season.high, shift.unit)
    name = " ".join(filter(None, (shift.service, shift.operation, SHORT_MEASURES.get(shift.measure, shift.measure))))
    return f"{name} {verb}{low}" if low == high else f"{name} {verb}{low} to {high}"


def _share(season: Season) -> str:
    one = "on" if season.cycle == "day" else "in"
    many = _LAST[season.cycle][1] if season.cycle in _LAST else "cycles"
    return f"{one} {season.times} of the last {season.out_of} {many}"


def _change(shift: Shift) -> str:
    levels = f"{quantity(shift.before, shift.unit)} → {quantity(shift.after, shift.unit)}"
    return f"{SHORT_MEASURES.get(shift.measure, shift.measure)} {levels}"
