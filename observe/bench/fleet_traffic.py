"""Requests through a planned fleet, as arrays of spans: each call site is visited once with all requests that reach it.

Times are ms since the start of the fleet.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from observe.bench.fleet_plan import RPC, Call, Fault, Operation, Plan

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Ids = NDArray[np.uint64]
Bools = NDArray[np.bool_]

DRIFT_STEP_MS = 10_000.0
BLOCK_MS = 2_000.0
OUTLIER_P = 0.003
BACKOFF_MS = 25.0


@dataclass(frozen=True, slots=True)
class Site:
    """What the spans of one call site have in common."""

    kind: str  # server | client | internal | database | external
    name: str
    operation: int
    target: int = -1


@dataclass(frozen=True, slots=True)
class Spans:
    """Spans of one site, one element each. A parent of 0 is none."""

    site: Site
    instance: Ints
    request: Ints
    span: Ids
    parent: Ids
    start_ms: Floats
    end_ms: Floats
    failed: Bools


class Traffic:
    """Simulates a plan under a fault. `rng` is consumed in a fixed order, so a seed is a fleet's whole history."""

    def __init__(self, plan: Plan, fault: Fault, minutes: float, rng: np.random.Generator) -> None:
        self.plan, self.fault, self.minutes, self.rng = plan, fault, minutes, rng
        self._drift = self._wandering(len(plan.services), sigma=0.03)
        self._load = self._wandering(len(plan.entries), sigma=0.04)
        self._spans: list[Spans] = []

    def _wandering(self, rows: int, sigma: float) -> Floats:
        """Slow correlated change around 1, a value each 10 s: no service is quite the same from minute to minute."""
        steps = int(self.minutes * 60_000 / DRIFT_STEP_MS) + 30
        noise = self.rng.normal(0.0, sigma, (rows, steps))
        level = np.zeros((rows, steps))
        for step in range(1, steps):
            level[:, step] = 0.9 * level[:, step - 1] + noise[:, step]
        return np.exp(level)

    def chunks(self, length_ms: float = 300_000.0) -> Iterator[tuple[int, list[Spans]]]:
        """(number of requests, their spans) of one stretch of time after another, by time of arrival."""
        end_ms = self.minutes * 60_000
        for from_ms in np.arange(0.0, end_ms, length_ms):
            yield self._chunk(float(from_ms), float(min(from_ms + length_ms, end_ms)))

    def _chunk(self, from_ms: float, to_ms: float) -> tuple[int, list[Spans]]:
        self._spans, requests = [], 0
        for entry, (operation, rate) in enumerate(self.plan.entries):
            start = self._arrivals(entry, rate, from_ms, to_ms)
            request = np.arange(requests, requests + start.size)
            self._visit(operation, start, request, np.zeros(start.size, np.uint64))
            requests += start.size
        return requests, self._spans

    def _arrivals(self, entry: int, rate: float, from_ms: float, to_ms: float) -> Floats:
        """A Poisson process whose rate is drawn anew every 2 s (gamma), wanders, and follows a slow wave."""
        blocks = np.arange(from_ms, to_ms, BLOCK_MS)
        wave = 1 + 0.15 * np.sin(2 * np.pi * blocks / 3_000_000 + entry)
        drift = self._load[entry, (blocks / DRIFT_STEP_MS).astype(int)]
        surge = np.ones(blocks.size)
        if self.fault.kind == "traffic":
            surge[(blocks >= self.fault.start_ms) & (blocks < self.fault.end_ms)] = self.fault.factor
        mean = rate * BLOCK_MS / 1000 * wave * drift * surge * self.rng.gamma(12.0, 1 / 12.0, blocks.size)
        counts = self.rng.poisson(mean)
        start = np.repeat(blocks, counts) + self.rng.random(int(counts.sum())) * BLOCK_MS
        return np.sort(start)

    def _visit(self, index: int, start: Floats, request: Ints, parent: Ids) -> tuple[Floats, Bools, Ints]:
        """One SERVER span for each element and all below it: (end, failed, instance)."""
        operation = self.plan.operations[index]
        instance = self._pick(operation.service, start)
        span = self._ids(start.size)
        work, failed = self._own(index, operation, start, instance)
        t = start + work * operation.shares[0]
        if operation.internal:
            # A copy: what fails further down is not this span's failure.
            site = Site("internal", f"prepare {operation.name}", index)
            self._record(site, instance, request, start, t, failed.copy(), span)
        alive = ~failed
        for group, share in zip(operation.groups, operation.shares[1:], strict=True):
            ends = t.copy()
            for call in group:
                at = np.flatnonzero(alive & (self.rng.random(start.size) < call.probability))
                if at.size:
                    end, broke = self._call(call, index, instance[at], t[at], request[at], span[at])
                    ends[at] = np.maximum(ends[at], end)
                    failed[at] |= broke & (self.rng.random(at.size) < call.required)
            alive = ~failed  # who fails answers at once
            t = ends + np.where(alive, work * share, 0.0)
        self._spans.append(
            Spans(Site("server", operation.name, index), instance, request, span, parent, start, t, failed)
        )
        return t, failed, instance

    def _own(self, index: int, operation: Operation, start: Floats, instance: Ints) -> tuple[Floats, Bools]:
        n, fault = start.size, self.fault
        work = operation.median_ms * np.exp(operation.sigma * self.rng.standard_normal(n))
        work *= self._drift[operation.service, (start / DRIFT_STEP_MS).astype(int).clip(max=self._drift.shape[1] - 1)]
        work = np.where(self.rng.random(n) < OUTLIER_P, work * self.rng.uniform(4, 15, n), work)
        error_p = np.full(n, operation.error_p)
        hit = self._hit(index, operation.service, start, instance)
        work = np.where(hit, work * fault.factor + fault.add_ms * self.rng.gamma(9.0, 1 / 9.0, n), work)
        error_p = np.where(hit, np.maximum(error_p, fault.error_p), error_p)
        failed = self.rng.random(n) < error_p
        return np.where(failed & (self.rng.random(n) < 0.5), 0.3 * work, work), failed

    def _hit(self, index: int, service: int, start: Floats, instance: Ints) -> Bools:
        fault = self.fault
        if fault.kind in ("none", "traffic", "network", "crash", "database"):
            return np.zeros(start.size, bool)
        here = service in fault.services or index in fault.operations
        at = np.isin(instance, list(fault.instances)) if fault.instances else np.full(start.size, here)
        return at & self._now(start) & (self.rng.random(start.size) < fault.fraction)

    def _now(self, start: Floats) -> Bools:
        return (start >= self.fault.start_ms) & (start < self.fault.end_ms)

    def _pick(self, service: int, start: Floats) -> Ints:
        """Round robin without memory. After a rollout half of the traffic is the new version's for good."""
        plan = self.plan.services[service]
        chosen = np.asarray(plan.instances)[self.rng.integers(0, len(plan.instances), start.size)]
        if plan.new:
            fresh = np.asarray(plan.new)[self.rng.integers(0, len(plan.new), start.size)]
            chosen = np.where((start >= plan.rollout_ms) & (self.rng.random(start.size) < 0.5), fresh, chosen)
        return chosen.astype(np.int64)

    def _call(
        self, call: Call, caller: int, instance: Ints, start: Floats, request: Ints, parent: Ids
    ) -> tuple[Floats, Bools]:
        end, failed = self._attempt(call, caller, instance, start, request, parent)
        again = np.flatnonzero(failed) if call.retries else np.empty(0, np.int64)
        if again.size:
            later = end[again] + BACKOFF_MS
            end_again, failed_again = self._attempt(call, caller, instance[again], later, request[again], parent[again])
            end[again], failed[again] = end_again, failed_again
        return end, failed

    def _attempt(
        self, call: Call, caller: int, instance: Ints, start: Floats, request: Ints, parent: Ids
    ) -> tuple[Floats, Bools]:
        if call.kind != RPC:
            return self._outside(call, caller, instance, start, request, parent)
        operation = self.plan.operations[call.target]
        has_client = self.plan.services[self.plan.operations[caller].service].client_spans
        client = self._ids(start.size) if has_client else parent
        wire = self._wire(operation.service, self.plan.operations[caller].service, start)
        end, failed = start.copy(), np.zeros(start.size, bool)
        lost = self._lost(operation.service, start)
        end[lost] += self.fault.add_ms * self.rng.uniform(0.98, 1.05, int(lost.sum()))
        failed[lost] = True
        at = np.flatnonzero(~lost)
        if at.size:
            done, broke, _ = self._visit(call.target, start[at] + wire[at] / 2, request[at], client[at])
            end[at], failed[at] = done + wire[at] / 2, broke
        if has_client:
            site = Site("client", operation.name.split()[0], caller, call.target)
            self._spans.append(Spans(site, instance, request, client, parent, start, end, failed))
        return end, failed

    def _outside(
        self, call: Call, caller: int, instance: Ints, start: Floats, request: Ints, parent: Ids
    ) -> tuple[Floats, Bools]:
        n = start.size
        kind = self.plan.virtuals[call.target][0]
        took = call.median_ms * (6 if kind == "external" else 1) * np.exp(0.6 * self.rng.standard_normal(n))
        if self.fault.kind == "database" and self.fault.virtual == call.target:
            slow = took * self.fault.factor + self.fault.add_ms * self.rng.gamma(9.0, 1 / 9.0, n)
            took = np.where(self._now(start), slow, took)
        failed = self.rng.random(n) < 0.0005
        site = Site(kind, call.statement if kind == "database" else "POST", caller, call.target)
        self._record(site, instance, request, start, start + took, failed, parent)
        return start + took, failed

    def _wire(self, to: int, of: int, start: Floats) -> Floats:
        """Time on the network, there and back."""
        took = self.plan.network_ms * np.exp(0.5 * self.rng.standard_normal(start.size))
        if self.fault.kind == "network" and (to in self.fault.services or of in self.fault.services):
            slow = self.fault.add_ms * self.rng.gamma(9.0, 1 / 9.0, start.size)
            took = np.where(self._now(start), took + slow, took)
        return took

    def _lost(self, service: int, start: Floats) -> Bools:
        if self.fault.kind != "crash" or service not in self.fault.services:
            return np.zeros(start.size, bool)
        return self._now(start) & (self.rng.random(start.size) < self.fault.error_p)

    def _record(
        self, site: Site, instance: Ints, request: Ints, start: Floats, end: Floats, failed: Bools, parent: Ids
    ) -> None:
        self._spans.append(Spans(site, instance, request, self._ids(start.size), parent, start, end, failed))

    def _ids(self, n: int) -> Ids:
        return self.rng.integers(1, np.iinfo(np.uint64).max, n, dtype=np.uint64)
