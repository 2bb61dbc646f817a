"""The times that were not normal, so that detection does not learn from them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

from observe.types import WINDOW_NS, Incident, Interval, State

USUAL_S = 3600.0
"""What is usual at this time is kept out of baselines for no longer: days rise in the morning and stay there."""


def abnormal(incidents: Sequence[Incident], now_ns: int, new_normal_s: float) -> list[Interval]:
    """Per affected service, from one window before the onset to the end of the incident, or to `now_ns`.

    An incident that lasts longer than `new_normal_s` is the new normal and leaves nothing out. One that was dropped
    while pending was noise: leaving it out would make the baseline look calmer than it is, and call for more alarms.
    What was usual at its time is left out, so that the end of a nightly job is held against the time before it.
    """
    spans = [
        (service, incident.onset_ns - WINDOW_NS, end_ns)
        for incident in incidents
        if not _dropped(incident)
        for end_ns in [now_ns if incident.resolved_ns is None else min(incident.resolved_ns, now_ns)]
        if end_ns - incident.onset_ns <= (min(USUAL_S, new_normal_s) if incident.usual else new_normal_s) * 1e9
        for service in affected(incident)
    ]
    return [Interval(start, end, service) for service, start, end in _joined(sorted(spans))]


def affected(incident: Incident) -> tuple[str, ...]:
    """Services that the incident touches: of its symptoms, of its first cause, and between them."""
    path = [service for cause in incident.causes[:1] for service in (cause.service, *cause.services, *cause.path)]
    return tuple(sorted({service for service in (*(s.service for s in incident.symptoms), *path) if service}))


def _dropped(incident: Incident) -> bool:
    return incident.state is State.RESOLVED and incident.fired_ns is None and not incident.usual


def _joined(spans: Iterable[tuple[str, int, int]]) -> Iterator[tuple[str, int, int]]:
    """Sorted spans with those of one service that touch made one."""
    for service, of_service in groupby(spans, key=lambda span: span[0]):
        start, end = 0, -1
        for _, next_start, next_end in of_service:
            if end < next_start:
                if end >= 0:
                    yield service, start, end
                start, end = next_start, next_end
            end = max(end, next_end)
        if end > start:
            yield service, start, end
