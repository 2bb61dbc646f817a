"""Shifts, causes and diagnoses in few words, for tests of alerting."""

from __future__ import annotations

from dataclasses import dataclass

from observe.types import Cause, CauseKind, Diagnosis, Evidence, Impact, Shift

START_NS = 1_700_000_000 * 10**9
SECOND_NS = 10**9


@dataclass(frozen=True)
class Named:
    """A receiver, as far as decisions know one."""

    name: str


def at(seconds: float) -> int:
    return START_NS + int(seconds * SECOND_NS)


def shift(
    service: str,
    measure: str = "latency_p99_ms",
    before: float = 400.0,
    after: float = 1900.0,
    *,
    onset_s: float = 0.0,
    rule: str = "",
) -> Shift:
    unit = {"error_ratio": "1", "requests_per_s": "{request}/s"}.get(measure, "ms")
    return Shift(service, "GET /", "Server", measure, before, after, unit, 1e-6, 300, at(onset_s), rule)


def cause(
    service: str,
    kind: CauseKind = CauseKind.SERVICE,
    resource: str = "",
    *,
    score: float = 0.8,
    path: tuple[str, ...] = (),
) -> Cause:
    text = f"self time of {service} rose from 80 to 430 ms"
    return Cause(
        1, kind, service, resource, score, 0.91, path or (service,), (Evidence("self_time", text),), ("ab" * 16,)
    )


def unknown(service: str = "") -> Cause:
    return Cause(1, CauseKind.UNKNOWN, service, "", 0.2, 0.0, (service,) if service else ())


def diagnosis(symptoms: list[Shift], causes: list[Cause], affected: int = 100) -> Diagnosis:
    services = tuple(sorted({s.service for s in symptoms}))
    return Diagnosis(tuple(symptoms), tuple(causes), (), Impact(services, affected))
