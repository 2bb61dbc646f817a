"""GPU metrics from whatever a process knows about its GPUs, by the names that observe's own GPU collector uses.

hw.*: OpenTelemetry hardware conventions. Clocks and throttle reasons have no convention and keep DCGM's names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from opentelemetry import metrics
from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.sdk.metrics.view import View

SCOPE = "observe.sdk.gpus"


@dataclass(frozen=True, slots=True)
class GpuReading:
    """One GPU at one moment."""

    uuid: str  # hw.id
    name: str
    utilization: float  # 0..1
    memory_used_bytes: int
    memory_limit_bytes: int
    power_w: float
    temperature_c: float
    sm_clock_mhz: float
    throttle_reasons: int  # NVML's clocks event reasons, a bit mask
    vendor: str = "NVIDIA"


Measure = tuple[str, str, Callable[[GpuReading], float], dict[str, str]]

GAUGES: Sequence[Measure] = (
    ("hw.gpu.utilization", "1", lambda g: g.utilization, {"hw.gpu.task": "general"}),
    ("hw.gpu.memory.utilization", "1", lambda g: g.memory_used_bytes / g.memory_limit_bytes, {}),
    ("hw.power", "W", lambda g: g.power_w, {"hw.type": "gpu"}),
    ("hw.temperature", "Cel", lambda g: g.temperature_c, {"hw.type": "gpu"}),
    ("DCGM_FI_DEV_SM_CLOCK", "MHz", lambda g: g.sm_clock_mhz, {}),
    ("DCGM_FI_DEV_CLOCKS_EVENT_REASONS", "1", lambda g: g.throttle_reasons, {}),
)
COUNTS: Sequence[Measure] = (
    ("hw.gpu.memory.usage", "By", lambda g: g.memory_used_bytes, {}),
    ("hw.gpu.memory.limit", "By", lambda g: g.memory_limit_bytes, {}),
)

VIEWS = tuple(View(instrument_name=name, name=name) for name, *_ in GAUGES if name.startswith("DCGM_"))
"""The SDK writes instrument names in small letters; only the stream's own name keeps DCGM's capitals."""


def report_gpus(read: Callable[[], Iterable[GpuReading]]) -> None:
    """Calls `read` at each metric export and reports what it returns. The host is the resource's host.name."""
    meter = metrics.get_meter(SCOPE)
    for measure in GAUGES:
        meter.create_observable_gauge(measure[0], [_callback(read, measure)], unit=measure[1])
    for measure in COUNTS:
        meter.create_observable_up_down_counter(measure[0], [_callback(read, measure)], unit=measure[1])


def _callback(
    read: Callable[[], Iterable[GpuReading]], measure: Measure
) -> Callable[[CallbackOptions], Iterable[Observation]]:
    _, _, value_of, attributes = measure

    def observe(_options: CallbackOptions) -> Iterable[Observation]:
        for gpu in read():
            identity = {"hw.id": gpu.uuid, "hw.name": gpu.name, "hw.vendor": gpu.vendor}
            yield Observation(value_of(gpu), {**identity, **attributes})

    return observe
