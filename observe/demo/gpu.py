"""Simulated GPUs: clocks, heat, power and memory that follow from the work they are given."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, field

from observe.sdk.gpus import GpuReading

SM_CLOCK_MHZ = 1980.0
MEMORY_BYTES = 80 * 2**30
WEIGHTS_BYTES = 58 * 2**30
KV_CACHE_BYTES = 16 * 2**30
IDLE_W, BUSY_W = 95.0, 560.0
COOL_C, BUSY_RISE_C, THROTTLE_RISE_C = 36.0, 30.0, 24.0
WARMING_S = 8.0
HW_SLOWDOWN, HW_THERMAL = 8, 64  # bits of NVML's clocks event reasons


@dataclass(slots=True)
class Gpu:
    """One GPU. `clock_factor` below 1 is thermal throttling; nothing else about the fault is told to anyone."""

    uuid: str
    rng: random.Random
    clock_factor: float = 1.0
    temperature_c: float = COOL_C + 0.6 * BUSY_RISE_C

    def advance(self, elapsed_s: float, utilization: float) -> None:
        """Heat follows the load with a lag (first order, WARMING_S)."""
        target = COOL_C + BUSY_RISE_C * utilization + (THROTTLE_RISE_C if self.clock_factor < 1 else 0)
        self.temperature_c += (target - self.temperature_c) * (1 - math.exp(-elapsed_s / WARMING_S))

    def reading(self, utilization: float) -> GpuReading:
        clock = SM_CLOCK_MHZ * self.clock_factor * (1 - abs(self.rng.gauss(0, 0.006)))
        watts = IDLE_W + (BUSY_W - IDLE_W) * utilization * self.clock_factor + self.rng.gauss(0, 6)
        return GpuReading(
            uuid=self.uuid,
            name="Simulated 80GB",
            utilization=utilization,
            memory_used_bytes=int(WEIGHTS_BYTES + KV_CACHE_BYTES),  # the engine takes its cache at start
            memory_limit_bytes=MEMORY_BYTES,
            power_w=watts,
            temperature_c=round(self.temperature_c + self.rng.gauss(0, 0.4)),
            sm_clock_mhz=15.0 * round(clock / 15),
            throttle_reasons=HW_SLOWDOWN | HW_THERMAL if self.clock_factor < 1 else 0,
        )


@dataclass(slots=True)
class GpuPool:
    """The GPUs of one engine, which compute every layer together: the slowest sets the pace of all."""

    gpus: list[Gpu]
    busy_s: float = 0.0
    _read_at_s: float = -math.inf
    _utilization: float = 0.0
    _readings: list[GpuReading] = field(default_factory=list)

    @property
    def pace(self) -> float:
        """Speed of the pool, 1 = all clocks as they should be."""
        return min(gpu.clock_factor for gpu in self.gpus)

    def throttle(self, index: int, clock_factor: float) -> None:
        """Sets one GPU's clock, and all others right."""
        for i, gpu in enumerate(self.gpus):
            gpu.clock_factor = clock_factor if i == index else 1.0

    def worked(self, seconds: float) -> None:
        self.busy_s += seconds

    def read(self, now_s: float) -> list[GpuReading]:
        """State at `now_s` (monotonic); readings less than half a second apart are the same one."""
        elapsed_s = now_s - self._read_at_s
        if elapsed_s >= 0.5:
            self._utilization = 0.0 if math.isinf(elapsed_s) else min(self.busy_s / elapsed_s, 1.0)
            for gpu in self.gpus:
                gpu.advance(0.0 if math.isinf(elapsed_s) else elapsed_s, self._utilization)
            self.busy_s, self._read_at_s = 0.0, now_s
            self._readings = [gpu.reading(self._utilization) for gpu in self.gpus]
        return self._readings
