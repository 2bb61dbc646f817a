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
from observe.errors import BadRecord, Misconfigured
from observe.frames import Frames
from observe.interfaces import Store
from observe.settings import Settings, changed
from observe.telemetry import SLO_BUDGET, SLO_BURN
from observe.types import WINDOW_NS, Json
from observe.verdict import horizon_ns
from observe.wire import rfc3339

DAY_NS = 86_400 * 10**9
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

        ask = Asking(store)({}) if settings.diagnose.attributes else None
        found = pipeline.replay(read, from_ns, to_ns, settings, progress=progress, ask=ask)
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
