"""What hosts, processes and GPUs of a fleet report beside its spans: gauges that wander, and show the fault."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from observe.bench.fleet_encode import gauge_request
from observe.bench.fleet_faults import host_name
from observe.bench.fleet_plan import Fault, Plan

EVERY_MS = 10_000.0
Point = tuple[str, str, float, Mapping[str, str]]


class Gauges:
    """All sources of metrics of a fleet, each with a phase of its own."""

    def __init__(self, plan: Plan, fault: Fault, minutes: float, start_ns: int, rng: np.random.Generator) -> None:
        self.plan, self.fault, self.end_ms, self.start_ns, self.rng = plan, fault, minutes * 60_000, start_ns, rng
        self._busy = rng.uniform(0.15, 0.5, plan.hosts)
        self._memory = rng.uniform(2e8, 2e9, len(plan.instances))
        self._waiting = rng.uniform(0.5, 3.0, len(plan.instances))

    def requests(self) -> Iterator[tuple[float, bytes]]:
        """(time of export in ms, ExportMetricsServiceRequest) in the order of export."""
        sources = self.plan.hosts + len(self.plan.instances)
        phases = self.rng.uniform(0, EVERY_MS, sources)
        order = np.argsort(phases)
        for tick in range(int(self.end_ms / EVERY_MS)):
            for source in order.tolist():
                at_ms = tick * EVERY_MS + float(phases[source])
                host = source < self.plan.hosts
                points = self._host(source, at_ms) if host else self._process(source - self.plan.hosts, at_ms)
                if points:
                    yield at_ms, gauge_request(self._resource(source), points, self.start_ns + int(at_ms * 1e6))

    def _resource(self, source: int) -> dict[str, str]:
        if source < self.plan.hosts:
            return {"host.name": host_name(source)}
        instance = self.plan.instances[source - self.plan.hosts]
        return {
            "service.name": self.plan.services[instance.service].name,
            "service.version": instance.version,
            "service.instance.id": instance.id,
            "host.name": host_name(instance.host),
        }

    def _now(self, at_ms: float) -> bool:
        return self.fault.start_ms <= at_ms < self.fault.end_ms

    def _host(self, host: int, at_ms: float) -> list[Point]:
        noisy = self.fault.host == host and self._now(at_ms)
        busy = 0.96 + self.rng.normal(0, 0.01) if noisy else self._busy[host] + self.rng.normal(0, 0.03)
        points: list[Point] = [
            ("system.cpu.utilization", "1", float(np.clip(busy, 0, 1)), {}),
            ("system.cpu.load_average.1m", "{thread}", float(max(0.0, busy * (24 if noisy else 8))), {}),
            ("system.memory.utilization", "1", float(np.clip(0.6 + self.rng.normal(0, 0.01), 0, 1)), {}),
        ]
        if self.plan.dcgm:
            for number, instance in enumerate(self.plan.instances):
                if instance.gpu and instance.host == host:
                    points += self._gpu(number, at_ms, {"UUID": instance.gpu, "Hostname": host_name(host)})
        return points

    def _process(self, number: int, at_ms: float) -> list[Point]:
        instance = self.plan.instances[number]
        service = self.plan.services[instance.service]
        if at_ms < service.rollout_ms and number in service.new:
            return []
        slow = number in self.fault.instances and self._now(at_ms) and self.fault.kind in ("gpu", "host")
        points: list[Point] = [
            ("process.cpu.utilization", "1", float(abs(self.rng.normal(0.3, 0.06))), {}),
            ("process.memory.usage", "By", float(self._memory[number] * (1 + self.rng.normal(0, 0.01))), {}),
        ]
        if instance.gpu:
            waiting = self.rng.poisson(self._waiting[number] * (self.fault.factor**2 if slow else 1))
            points.append(("vllm:num_requests_waiting", "", float(waiting), {"model_name": "assistant-8b"}))
            if not self.plan.dcgm:
                points += self._gpu(number, at_ms, {"hw.id": instance.gpu})
        return points

    def _gpu(self, number: int, at_ms: float, labels: dict[str, str]) -> list[Point]:
        hot = self.fault.kind == "gpu" and number in self.fault.instances and self._now(at_ms)
        clock = (1980 / self.fault.factor if hot else 1980) + self.rng.normal(0, 12)
        heat = (91.0 if hot else 67.0) + self.rng.normal(0, 1.0)
        points: list[Point] = [("DCGM_FI_DEV_SM_CLOCK", "MHz", float(clock), labels)]
        if self.plan.dcgm:
            return [
                *points,
                ("DCGM_FI_DEV_GPU_TEMP", "Cel", float(heat), labels),
                ("DCGM_FI_DEV_GPU_UTIL", "%", float(np.clip(self.rng.normal(99 if hot else 70, 4), 0, 100)), labels),
                ("DCGM_FI_DEV_CLOCKS_EVENT_REASONS", "", 64.0 if hot else 0.0, labels),
            ]
        return [
            *points,
            ("hw.temperature", "Cel", float(heat), {**labels, "hw.type": "gpu"}),
            ("hw.gpu.utilization", "1", float(np.clip(self.rng.normal(0.99 if hot else 0.7, 0.04), 0, 1)), labels),
        ]
