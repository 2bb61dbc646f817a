"""What was noticed, in the numbers of a picture: shifts of one service that say the same thing are one symptom."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from observe.diagnose.graph import Picture
from observe.types import Shift

Aspect = Literal["latency", "errors", "traffic", "resource"]
WEIGHTS: dict[str, float] = {"latency": 1.0, "errors": 1.0, "traffic": 0.25, "resource": 0.25}
"""Traffic follows from almost any fault (callers wait, or give up), and says least about where it is."""
STRONG = 0.5
"""Symptoms of at least this weight decide what the cause is, where there are any."""


@dataclass(frozen=True, slots=True)
class Symptom:
    """`service` is a number in the picture; `sign` is +1 for a rise."""

    service: int
    aspect: Aspect
    sign: int
    onset_ns: int
    shifts: tuple[Shift, ...]

    @property
    def weight(self) -> float:
        # What got faster or errs less is a consequence of trouble more often than trouble itself.
        return WEIGHTS[self.aspect] * (1.0 if self.sign > 0 or self.aspect == "traffic" else 0.25)


def aspect(shift: Shift) -> Aspect:
    """
    >>> aspect(Shift("api", "/x", "Server", "latency_p99_ms", 10, 40, "ms", 0.0, 100, 0))
    'latency'
    >>> aspect(Shift("llm", "vllm:time_to_first_token_seconds", "Metric", "latency_p99_ms", 1, 4, "ms", 0.0, 9, 0))
    'latency'
    """
    if shift.measure.startswith(("latency_", "time_")):
        return "latency"
    if shift.measure == "error_ratio":
        return "errors"
    return "traffic" if shift.measure == "requests_per_s" else "resource"


def symptoms(shifts: Sequence[Shift], picture: Picture) -> tuple[list[Symptom], list[Shift]]:
    """(symptoms in a fixed order, shifts of services that the picture does not know)."""
    found: dict[tuple[int, Aspect, int], list[Shift]] = {}
    strangers = []
    for shift in shifts:
        service = picture.number(shift.service)
        if service is None:
            strangers.append(shift)
            continue
        sign = 1 if shift.after >= shift.before else -1
        found.setdefault((service, aspect(shift), sign), []).append(shift)
    return [
        Symptom(service, what, sign, min(s.onset_ns for s in members), tuple(members))
        for (service, what, sign), members in sorted(found.items())
    ], strangers
