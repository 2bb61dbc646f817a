"""Whether observe found the fault. Pure: incidents and the time come from outside."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from observe.demo.faults import Fault, expected, is_right
from observe.wire import from_rfc3339, rfc3339

Json = dict[str, Any]
SECOND_NS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Patience:
    """In seconds."""

    firing_s: float = 80.0  # from the fault until an incident must fire
    refine_s: float = 20.0  # from then until the first cause is final
    quiet_s: float = 65.0  # without a fault: how long nothing may open


@dataclass(frozen=True, slots=True)
class Result:
    """What --json prints. `ok` is what the exit code says."""

    fault: str
    ok: bool
    because: str
    expected: Json | None
    first_cause: Json | None
    fault_at: str
    fault_to_firing_s: float | None
    seconds: float
    incident: Json | None
    other_incidents: list[Json]
    before_fault: list[Json]  # incidents that fired with nothing wrong


@dataclass(slots=True)
class Judge:
    """Follows the incidents of one run."""

    name: str
    fault: Fault
    patience: Patience
    begun_ns: int
    deadline_ns: int | None = None  # the answer is due then, whatever has been seen
    _injected_ns: int = 0
    _seen: dict[str, Json] = field(default_factory=dict)

    def injected(self, now_ns: int) -> None:
        self._injected_ns = now_ns

    def see(self, incidents: Sequence[Json]) -> Sequence[Json]:
        """Remembers the newest state of each; returns them unchanged."""
        for incident in incidents:
            if _ns(incident["opened_at"]) >= self.begun_ns - SECOND_NS:
                self._seen[incident["id"]] = incident
        return incidents

    def done(self, now_ns: int) -> bool:
        """Nothing that comes later may change the result."""
        if self.deadline_ns is not None and now_ns >= self.deadline_ns:
            return True
        waited_s = (now_ns - self._injected_ns) / SECOND_NS
        if not self.fault.service:
            return bool(self._seen) or waited_s >= self.patience.quiet_s
        firing = self._firing()
        if not firing:
            return waited_s >= self.patience.firing_s
        return (now_ns - _ns(firing[0]["fired_at"])) / SECOND_NS >= self.patience.refine_s

    def result(self, now_ns: int) -> Result:
        firing = self._firing()
        judged = firing[0] if firing else None
        cause = judged["causes"][0] if judged and judged["causes"] else None
        ok, because = self._verdict(judged, cause, now_ns)
        return Result(
            fault=self.name,
            ok=ok,
            because=because,
            expected=expected(self.fault),
            first_cause=cause,
            fault_at=rfc3339(self._injected_ns),
            fault_to_firing_s=(_ns(judged["fired_at"]) - self._injected_ns) / SECOND_NS if judged else None,
            seconds=(now_ns - self.begun_ns) / SECOND_NS,
            incident=judged,
            other_incidents=[i for i in self._seen.values() if i is not judged and i not in self._early()],
            before_fault=self._early(),
        )

    def _verdict(self, judged: Json | None, cause: Json | None, now_ns: int) -> tuple[bool, str]:
        if not self.fault.service:
            return (
                (False, "an incident opened though nothing was wrong") if self._seen else (True, "no incident opened")
            )
        if judged is None:
            return False, f"no incident fired within {(now_ns - self._injected_ns) / SECOND_NS:.0f} s of the fault"
        if cause is None:
            return False, "the incident names no cause"
        if is_right(self.fault, cause):
            return True, "the first cause is the injected one"
        named = " ".join(filter(None, (cause["service"], cause["kind"], cause["resource"])))
        return False, f"the first cause is {named}, which is not the injected one"

    def _firing(self) -> list[Json]:
        """Incidents that have fired since the fault, in order."""
        fired = [i for i in self._seen.values() if i["fired_at"] and _ns(i["fired_at"]) >= self._injected_ns > 0]
        return sorted(fired, key=lambda i: _ns(i["fired_at"]))

    def _early(self) -> list[Json]:
        return [i for i in self._seen.values() if i["fired_at"] and _ns(i["fired_at"]) < self._injected_ns]


def _ns(text: str) -> int:
    return from_rfc3339(text)
