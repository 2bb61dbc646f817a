"""What is read of one GPU, one entry a metric. Names and units: OpenTelemetry's hardware conventions; where those have
none, the names of NVIDIA's DCGM exporter, whose dashboards then work.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from collectors.metrics import Instrument

UTILIZATION: Final = Instrument("hw.gpu.utilization", "1")
MEMORY_USAGE: Final = Instrument("hw.gpu.memory.usage", "By", "updown")
MEMORY_LIMIT: Final = Instrument("hw.gpu.memory.limit", "By", "updown")
MEMORY_UTILIZATION: Final = Instrument("hw.gpu.memory.utilization", "1")
POWER: Final = Instrument("hw.power", "W")
ENERGY: Final = Instrument("hw.energy", "J", "counter")
TEMPERATURE: Final = Instrument("hw.temperature", "Cel")
ERRORS: Final = Instrument("hw.errors", "{error}", "counter")
STATUS: Final = Instrument("hw.status", "1", "updown")

GENERAL: Final = {"hw.gpu.task": "general"}


@dataclass(frozen=True, slots=True)
class Reading:
    """`read(nvml, handle)` gives the value in the instrument's unit; it may raise NVMLError where the GPU has none."""

    instrument: Instrument
    read: Callable[[Any, Any], float]
    attributes: Mapping[str, str] = field(default_factory=dict)


def memory(nvml: Any, handle: Any) -> Any:
    """`used`, `total` in bytes. Version 2 leaves the driver's own out of `used`; old drivers lack it."""
    try:
        return nvml.nvmlDeviceGetMemoryInfo(handle, version=nvml.nvmlMemory_v2)
    except (nvml.NVMLError_FunctionNotFound, nvml.NVMLError_NotSupported, nvml.NVMLError_ArgumentVersionMismatch):
        return nvml.nvmlDeviceGetMemoryInfo(handle)


def _temperature(nvml: Any, handle: Any) -> float:
    try:
        return float(nvml.nvmlDeviceGetTemperatureV(handle, nvml.NVML_TEMPERATURE_GPU))
    except nvml.NVMLError_FunctionNotFound:  # drivers before 570
        return float(nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU))


def _memory_temperature(nvml: Any, handle: Any) -> float:
    (value,) = nvml.nvmlDeviceGetFieldValues(handle, [nvml.NVML_FI_DEV_MEMORY_TEMP])
    if value.nvmlReturn != nvml.NVML_SUCCESS:
        raise nvml.NVMLError(value.nvmlReturn)
    return float(value.value.uiVal)


def _ecc(kind: str) -> Callable[[Any, Any], float]:
    def read(nvml: Any, handle: Any) -> float:
        error = getattr(nvml, f"NVML_MEMORY_ERROR_TYPE_{kind}")
        return int(nvml.nvmlDeviceGetTotalEccErrors(handle, error, nvml.NVML_AGGREGATE_ECC))

    return read


def _violation(policy: str) -> Callable[[Any, Any], float]:
    def read(nvml: Any, handle: Any) -> float:
        status = nvml.nvmlDeviceGetViolationStatus(handle, getattr(nvml, f"NVML_PERF_POLICY_{policy}"))
        return int(status.violationTime)

    return read


def _sensor(location: str) -> Mapping[str, str]:
    return {"hw.type": "temperature", "hw.sensor_location": location}


READINGS: Final = (
    Reading(UTILIZATION, lambda nvml, h: nvml.nvmlDeviceGetUtilizationRates(h).gpu / 100, GENERAL),
    Reading(UTILIZATION, lambda nvml, h: nvml.nvmlDeviceGetEncoderUtilization(h)[0] / 100, {"hw.gpu.task": "encoder"}),
    Reading(UTILIZATION, lambda nvml, h: nvml.nvmlDeviceGetDecoderUtilization(h)[0] / 100, {"hw.gpu.task": "decoder"}),
    Reading(Instrument("DCGM_FI_DEV_MEM_COPY_UTIL", "%"), lambda nvml, h: nvml.nvmlDeviceGetUtilizationRates(h).memory),
    Reading(MEMORY_USAGE, lambda nvml, h: int(memory(nvml, h).used)),
    Reading(MEMORY_LIMIT, lambda nvml, h: int(memory(nvml, h).total)),
    Reading(MEMORY_UTILIZATION, lambda nvml, h: memory(nvml, h).used / memory(nvml, h).total),
    Reading(POWER, lambda nvml, h: nvml.nvmlDeviceGetPowerUsage(h) / 1000),
    Reading(
        Instrument("DCGM_FI_DEV_ENFORCED_POWER_LIMIT", "W"),
        lambda nvml, h: nvml.nvmlDeviceGetEnforcedPowerLimit(h) / 1000,
    ),
    Reading(ENERGY, lambda nvml, h: nvml.nvmlDeviceGetTotalEnergyConsumption(h) / 1000),
    Reading(TEMPERATURE, _temperature, _sensor("gpu")),
    Reading(TEMPERATURE, _memory_temperature, _sensor("memory")),
    Reading(
        Instrument("DCGM_FI_DEV_SM_CLOCK", "MHz"), lambda nvml, h: nvml.nvmlDeviceGetClockInfo(h, nvml.NVML_CLOCK_SM)
    ),
    Reading(
        Instrument("DCGM_FI_DEV_MEM_CLOCK", "MHz"), lambda nvml, h: nvml.nvmlDeviceGetClockInfo(h, nvml.NVML_CLOCK_MEM)
    ),
    Reading(
        Instrument("DCGM_FI_DEV_CLOCKS_EVENT_REASONS"),
        lambda nvml, h: int(nvml.nvmlDeviceGetCurrentClocksEventReasons(h)),
    ),
    Reading(Instrument("DCGM_FI_DEV_POWER_VIOLATION", "ns", "counter"), _violation("POWER")),
    Reading(Instrument("DCGM_FI_DEV_THERMAL_VIOLATION", "ns", "counter"), _violation("THERMAL")),
    Reading(ERRORS, _ecc("CORRECTED"), {"error.type": "corrected"}),
    Reading(ERRORS, _ecc("UNCORRECTED"), {"error.type": "uncorrected"}),
    Reading(ERRORS, lambda nvml, h: nvml.nvmlDeviceGetRemappedRows(h)[0], {"error.type": "remapped_rows.corrected"}),
    Reading(ERRORS, lambda nvml, h: nvml.nvmlDeviceGetRemappedRows(h)[1], {"error.type": "remapped_rows.uncorrected"}),
)
