"""Answers that judge: error budgets, two versions side by side, settings tried on the past. Reads the store only."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import polars as pl

from observe import pipeline
from observe.asking import Asking
from observe.backtest import Label, report
from observe.detect.canary import Comparison, compare
from observe.detect.slo import Status, services, status
from observe.diagnose.asked import Moment, asked
from observe.diagnose.attributes import with_attributes
from observe.errors import BadRecord, Misconfigured
from observe.frames import Frames
from observe.interfaces import Store
from observe.settings import Settings, changed
from observe.telemetry import SLO_BUDGET, SLO_BURN
from observe.types import WINDOW_NS, CauseKind, Diagnosis, Incident, Json, Severity, State
from observe.verdict import horizon_ns
from observe.wire import incident_json, rfc3339

DAY_NS = 86_400 * 10**9
ASKED_BACK_NS = 3_600 * 10**9
"""What is compared with the moment that somebody asks about; exporters that send every minute need as much."""
FRESH_S = 20.0
"""Budgets are counted again after this long: everybody who asks meanwhile gets the same answer."""
TRIED = ("detect.", "diagnose.", "alert.", "slo.", "canary.")
"""Sections whose settings can be tried on the past; others have nothing to do with a verdict."""


class Judging:
    """Over one store. Safe from any thread."""

    def __init__(self, store: Store, settings: Settings, clock: Callable[[], int] = time.time_ns) -> None:
        self._store, self._settings, self._clock = store, settings, clock
        self._lock = threading.Lock()
        self._slos: tuple[float, Json] | None = None

    def slos(self) -> Json:
        """Every objective: requests, bad ones, what is left of its budget, and how fast it burns."""
        with self._lock:
            if self._slos is None or time.monotonic() - self._slos[0] > FRESH_S:
                self._slos = time.monotonic(), self._counted()
            return self._slos[1]

    def _counted(self) -> Json:
        settings, now_ns = self._settings, self._clock()
        promised = services(settings.slo)
        found: list[Status] = []
        if promised:
            frames = self._newest(promised, now_ns - horizon_ns(settings), now_ns)
            since_ns = now_ns - settings.slo.days * DAY_NS
            frames = replace(frames, blocks=self._store.blocks(promised, since_ns, now_ns))
            found = status(frames, now_ns, settings.slo, settings.detect)
        for one in found:
            SLO_BUDGET.labels(one.objective.name).set(one.remaining)
            for burn in one.burns:
                SLO_BURN.labels(one.objective.name, f"{burn.limit.long_s:g}s").set(burn.long_rate)
                SLO_BURN.labels(one.objective.name, f"{burn.limit.short_s:g}s").set(burn.short_rate)
        return {"at": rfc3339(now_ns), "days": settings.slo.days, "slos": [slo_json(one) for one in found]}

    def _newest(self, promised: Sequence[str], from_ns: int, to_ns: int) -> Frames:
        parts = [self._store.of_service(service, from_ns, to_ns) for service in promised]
        return replace(
            parts[0], windows=pl.concat([p.windows for p in parts]), tokens=pl.concat([p.tokens for p in parts])
        )

    def canary(self, service: str, baseline: str, candidate: str, from_ns: int, to_ns: int) -> Json:
        """The candidate's requests beside the baseline's, in the windows of a range. Raises BadRecord where neither
        version was seen."""
        frames = self._store.of_service(service, from_ns // WINDOW_NS * WINDOW_NS, to_ns)
        known = sorted(set(frames.windows["version"]) - {""})
        if not {baseline, candidate} & set(known):
            seen = ", ".join(known) if known else "none"
            raise BadRecord(f"service {service!r} sent nothing of these versions in this time; versions seen: {seen}")
        result = compare(frames, service, baseline, candidate, self._settings.detect, self._settings.canary)
        return comparison_json(result, from_ns, to_ns)

    def asked(self, at_ns: int, service: str, until_ns: int) -> Json:
        """What explains the change at `at_ns`, by what was there until `until_ns`. Raises BadRecord where nothing is
        stored of before or after."""
        settings, question = self._settings, Moment(at_ns, service)
        frames = self._store.frames(at_ns - ASKED_BACK_NS, until_ns)
        ask = Asking(self._store)({}) if settings.diagnose.attributes else None
        found = asked(question, frames, until_ns, settings.diagnose, ask)
        if found is None:
            where = f"of {service!r} " if service else ""
            raise BadRecord(f"at: nothing {where}is stored of both before and after {rfc3339(at_ns)}")
        found = found if ask is None else with_attributes([found], frames, until_ns, ask)[0]
        return incident_json(asked_incident(question, found, until_ns))

    def backtest(
        self,
        from_ns: int,
        to_ns: int,
        labels: Sequence[Label] = (),
        values: Mapping[str, Any] | None = None,
        progress: Callable[[float], None] = lambda share: None,
    ) -> Json:
        """Detection and diagnosis once more over a stored range, with some settings replaced (dotted keys)."""
        settings = self._tried(values or {})
        store = self._store

        def read(first_ns: int, last_ns: int) -> Frames:
            return pipeline.picture(store, first_ns, last_ns, settings)

        asked = pipeline.asked_of(Asking(store), settings)
        found = pipeline.replay(read, from_ns, to_ns, settings, progress=progress, asked=asked)
        recorded = [i for i in store.incidents(from_ns=from_ns, to_ns=to_ns) if i.fired_ns is not None]
        return report(found, recorded, labels, from_ns, to_ns) | {"settings": dict(values or {})}

    def _tried(self, values: Mapping[str, Any]) -> Settings:
        for key in values:
            if not key.startswith(TRIED):
                raise BadRecord(f"settings.{key}: only keys that begin with {', '.join(TRIED)} can be tried")
        try:
            return changed(self._settings, values)
        except Misconfigured as error:
            raise BadRecord(f"settings: {error}") from error


def asked_incident(question: Moment, found: Diagnosis, until_ns: int) -> Incident:
    """The answer in the form of an incident that nobody was told of: version 0, and its id is the question."""
    at = rfc3339(question.at_ns)
    first = found.causes[0] if found.causes else None
    known = first is not None and first.kind is not CauseKind.UNKNOWN
    where = question.service or (found.symptoms[0].service if found.symptoms else "")
    cause = f"{first.service}{f' {first.resource}' if first.resource else ''}" if first and known else "unknown cause"
    return Incident(
        id="&".join(
            [f"at={at}", *([f"service={question.service}"] if question.service else []), f"to={rfc3339(until_ns)}"]
        ),
        version=0,
        state=State.RESOLVED,
        severity=Severity.INFO,
        title=f"asked: {where + ' ' if where else ''}at {at[:19].replace('T', ' ')} UTC: {cause}",
        onset_ns=question.at_ns,
        opened_ns=question.at_ns,
        last_seen_ns=until_ns,
        resolved_ns=until_ns,
        symptoms=found.symptoms,
        causes=found.causes,
        ruled_out=found.ruled_out,
        impact=found.impact,
    )


def slo_json(one: Status) -> Json:
    objective = one.objective
    return {
        "name": objective.name,
        "service": objective.service,
        "operation": objective.operation,
        "model": objective.model,
        "kind": "availability" if objective.latency_ms is None else "latency",
        "latency_ms": objective.latency_ms,
        "target": objective.target,
        "requests": round(one.total),
        "bad_requests": round(one.bad, 1),
        "good_ratio": 1.0 - one.bad / one.total if one.total else None,
        "budget_remaining": one.remaining,
        "firing": one.firing is not None,
        "burn_rates": [
            {
                "limit": burn.limit.rate,
                "severity": burn.limit.severity,
                "long_s": burn.limit.long_s,
                "long_rate": burn.long_rate,
                "short_s": burn.limit.short_s,
                "short_rate": burn.short_rate,
            }
            for burn in one.burns
        ],
    }


def comparison_json(result: Comparison, from_ns: int, to_ns: int) -> Json:
    before, after = result.requests
    return {
        "service": result.service,
        "from": rfc3339(from_ns),
        "to": rfc3339(to_ns),
        "verdict": result.verdict,
        "reasons": list(result.reasons),
        "baseline": {"version": result.baseline, "requests": before},
        "candidate": {"version": result.candidate, "requests": after},
        "side_by_side": result.side_by_side,
        "given_tokens": result.given_tokens,
        "checks": [asdict(check) for check in result.checks],
    }
