"""OTLP telemetry of a random fleet with at most one fault in it, with times in the past: for scoring end to end.

A fleet is its seed. It knows nothing of how detection and diagnosis work, and they get nothing but the telemetry; the
truth stays here. A fault that could not be seen by anyone (a service that is hardly called, a delay lost in the noise)
is drawn again: each is checked on two short trial runs of the same requests, with and without it.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from observe.bench.fleet_encode import Encoder
from observe.bench.fleet_faults import Truth, draw_fault, truth_of
from observe.bench.fleet_gauges import Gauges
from observe.bench.fleet_plan import FAULTS, Fault, Plan, draw_plan
from observe.bench.fleet_traffic import Spans, Traffic
from observe.types import Signal

TRIAL_MINUTES = 2.0
MIN_LATENCY_RATIO = 1.5
MIN_LATENCY_MS = 10.0
MIN_ERROR_INCREASE = 0.04
MIN_TRIAL_REQUESTS = 80
"""Over two minutes: a series with fewer is too quiet to promise anything about."""


@dataclass(frozen=True, slots=True)
class Fleet:
    """The truth, and the telemetry as (signal, serialized export request) in the order of export."""

    seed: int
    truth: Truth
    plan: Plan
    fault: Fault
    minutes: float
    start_ns: int

    @property
    def end_ns(self) -> int:
        return self.start_ns + int(self.minutes * 60e9)

    def requests(self) -> Iterator[tuple[Signal, bytes]]:
        for _, signal, body in heapq.merge(self._spans(), self._gauges(), key=lambda entry: entry[0]):
            yield signal, body

    def _spans(self) -> Iterator[tuple[float, Signal, bytes]]:
        encoder = Encoder(self.plan, self.start_ns, np.random.default_rng([self.seed, 2]))
        traffic = Traffic(self.plan, self.fault, self.minutes, np.random.default_rng([self.seed, 3]))
        for count, spans in traffic.chunks():
            for at_ms, body in encoder.requests(count, spans):
                yield at_ms, "spans", body

    def _gauges(self) -> Iterator[tuple[float, Signal, bytes]]:
        rng = np.random.default_rng([self.seed, 4])
        for at_ms, body in Gauges(self.plan, self.fault, self.minutes, self.start_ns, rng).requests():
            yield at_ms, "metrics", body


def generate(seed: int, minutes: float = 40.0, *, start_ns: int, kind: str | None = None) -> Fleet:
    """The fleet of this seed. `kind` is one of FAULTS; by default they take turns by seed."""
    rng = np.random.default_rng([seed, 1])
    wanted = kind if kind is not None else FAULTS[seed % len(FAULTS)]
    while True:
        plan = draw_plan(rng)
        for _ in range(12):
            drawn = draw_fault(plan, rng, wanted, minutes)
            if drawn is not None and (wanted in ("none", "traffic") or _visible(*drawn, seed)):
                changed, fault = drawn
                return Fleet(seed, truth_of(changed, fault, start_ns), changed, fault, minutes, start_ns)


def _visible(plan: Plan, fault: Fault, seed: int) -> bool:
    """Whether the fault makes some operation of a service that it hits, or of a caller of it, markedly worse."""
    whole = replace(fault, start_ms=0.0, end_ms=float("inf"))
    early = replace(plan, services=tuple(replace(s, rollout_ms=0.0) if s.new else s for s in plan.services))
    healthy = _levels(early, Fault("none"), seed)
    for operation, (requests, p99_ms, errors) in _levels(early, whole, seed).items():
        if requests < MIN_TRIAL_REQUESTS or operation not in healthy or not _near(plan, fault, operation):
            continue
        _, p99_before_ms, errors_before = healthy[operation]
        rise_ms = p99_ms - p99_before_ms
        slower = p99_ms > MIN_LATENCY_RATIO * p99_before_ms and rise_ms > MIN_LATENCY_MS
        if slower or errors - errors_before > MIN_ERROR_INCREASE:
            return True
    return False


def _near(plan: Plan, fault: Fault, operation: int) -> bool:
    service = plan.operations[operation].service
    hit = fault.services | {plan.operations[o].service for o in fault.operations}
    hit |= {plan.instances[i].service for i in fault.instances}
    if fault.virtual >= 0:
        return service in plan.users(fault.virtual)
    if fault.kind in ("network", "crash"):
        return any(service in plan.callers(h) for h in hit)
    return service in hit


def _levels(plan: Plan, fault: Fault, seed: int) -> dict[int, tuple[int, float, float]]:
    """Requests, P99 in ms and error ratio of each operation over a trial run."""
    traffic = Traffic(plan, fault, TRIAL_MINUTES, np.random.default_rng([seed, 5]))
    by_operation: dict[int, list[Spans]] = {}
    for _, spans in traffic.chunks():
        for group in spans:
            if group.site.kind == "server":
                by_operation.setdefault(group.site.operation, []).append(group)
    levels = {}
    for operation, groups in by_operation.items():
        took = np.concatenate([g.end_ms - g.start_ms for g in groups])
        failed = np.concatenate([g.failed for g in groups])
        if took.size:
            levels[operation] = took.size, float(np.quantile(took, 0.99)), float(failed.mean())
    return levels
