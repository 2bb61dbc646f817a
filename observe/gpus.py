"""The state of every GPU from its gauges, whoever sent them: our collector, DCGM's exporter, Triton. Pure."""

from __future__ import annotations

from typing import NamedTuple

import polars as pl

from observe.types import Json
from observe.wire import rfc3339


class Reading(NamedTuple):
    """What one metric says of a GPU: `field` in its unit is value · `factor`."""

    field: str
    factor: float = 1.0


MIB = 1024.0**2
_BUSY, _USED, _FREE, _LIMIT = "utilization_ratio", "memory_used_bytes", "memory_free_bytes", "memory_limit_bytes"
_POWER, _CELSIUS = "power_w", "temperature_celsius"

READINGS: dict[str, Reading] = {
    # OpenTelemetry's names first: where two metrics give one field, the earlier line wins.
    "hw.gpu.utilization": Reading(_BUSY),
    "DCGM_FI_DEV_GPU_UTIL": Reading(_BUSY, 0.01),
    "nv_gpu_utilization": Reading(_BUSY),
    "gpu.utilization": Reading(_BUSY, 0.01),
    "hw.gpu.memory.usage": Reading(_USED),
    "DCGM_FI_DEV_FB_USED": Reading(_USED, MIB),
    "nv_gpu_memory_used_bytes": Reading(_USED),
    "gpu.memory.used": Reading(_USED),
    "DCGM_FI_DEV_FB_FREE": Reading(_FREE, MIB),
    "hw.gpu.memory.limit": Reading(_LIMIT),
    "nv_gpu_memory_total_bytes": Reading(_LIMIT),
    "DCGM_FI_DEV_SM_CLOCK": Reading("sm_clock_mhz"),
    "DCGM_FI_DEV_MEM_CLOCK": Reading("memory_clock_mhz"),
    "hw.temperature": Reading(_CELSIUS),
    "DCGM_FI_DEV_GPU_TEMP": Reading(_CELSIUS),
    "gpu.temperature": Reading(_CELSIUS),
    "hw.power": Reading(_POWER),
    "DCGM_FI_DEV_POWER_USAGE": Reading(_POWER),
    "nv_gpu_power_usage": Reading(_POWER),
    "gpu.power.draw": Reading(_POWER),
    "DCGM_FI_DEV_CLOCKS_EVENT_REASONS": Reading("clock_event_reasons"),
    "DCGM_FI_DEV_CLOCK_THROTTLE_REASONS": Reading("clock_event_reasons"),
    "DCGM_FI_DEV_XID_ERRORS": Reading("last_xid"),
}

# Of NVML's clock event reasons, those that mean "slower than asked"; idle (1), chosen clocks (2), sync boost (16) and
# display (256) do not.
THROTTLE_REASONS = {
    4: "sw_power_cap",
    8: "hw_slowdown",
    32: "sw_thermal",
    64: "hw_thermal",
    128: "hw_power_brake",
}

FIELDS = tuple(dict.fromkeys(reading.field for reading in READINGS.values()))
_LARGEST = {"clock_event_reasons", "last_xid"}  # codes, of which a mean would be another code
_OTHER_PARTS = "encoder|decoder|memory"  # hw.gpu.task and hw.sensor_location of what is not the GPU itself


def gpus(gauges: pl.DataFrame) -> list[Json]:
    """The newest reading of each field of each GPU (host, hw.id), sorted by host and id."""
    rank = {name: position for position, name in enumerate(READINGS)}
    chosen = gauges.filter(
        (pl.col("hw_id") != "") & pl.col("metric").is_in(list(READINGS)) & ~pl.col("labels").str.contains(_OTHER_PARTS)
    )
    newest = (
        chosen.with_columns(
            pl.col("metric").replace_strict(rank, return_dtype=pl.Int32).alias("rank"),
            _mapped({name: reading.field for name, reading in READINGS.items()}).alias("field"),
            pl.col("metric")
            .replace_strict({name: reading.factor for name, reading in READINGS.items()}, return_dtype=pl.Float64)
            .alias("factor"),
        )
        .with_columns(
            pl.when(pl.col("field").is_in(list(_LARGEST))).then("value_max").otherwise("value_avg").alias("value")
        )
        .sort("host", "hw_id", "field", "rank", "window_start_ns", "labels", descending=[False] * 4 + [True, False])
        .group_by("host", "hw_id", "field", maintain_order=True)
        .agg(
            (pl.col("value") * pl.col("factor")).first(),
            pl.col("window_start_ns").first(),
            pl.col("service").first(),
            pl.col("labels").first(),
        )
        .group_by("host", "hw_id", maintain_order=True)
        .agg("field", "value", pl.col("window_start_ns").max(), pl.col("service").first(), pl.col("labels").first())
    )
    return [_gpu(row) for row in newest.to_dicts()]


def throttle_reasons(mask: int) -> list[str]:
    """What holds the clocks down, from NVML's bit mask.

    >>> throttle_reasons(1), throttle_reasons(4 + 64)
    ([], ['sw_power_cap', 'hw_thermal'])
    """
    return [name for bit, name in THROTTLE_REASONS.items() if mask & bit]


def _mapped(names: dict[str, str]) -> pl.Expr:
    return pl.col("metric").replace_strict(names, return_dtype=pl.String)


def _gpu(row: Json) -> Json:
    values = dict(zip(row["field"], row["value"], strict=True))
    mask = values.pop("clock_event_reasons", None)
    reasons = throttle_reasons(int(mask)) if mask is not None else []
    free, used = values.pop(_FREE, None), values.get(_USED)
    if values.get(_LIMIT) is None and free is not None and used is not None:
        values[_LIMIT] = used + free
    limit = values.get(_LIMIT)
    return {
        "host": row["host"],
        "hw_id": row["hw_id"],
        "service": row["service"],
        "model": _label(row["labels"], "hw.model", "hw.name", "modelName"),
        "at": rfc3339(row["window_start_ns"]),
        **{field: values.get(field) for field in FIELDS if field not in ("clock_event_reasons", _FREE)},
        "memory_utilization_ratio": used / limit if used is not None and limit else None,
        "throttled": None if mask is None else bool(reasons),
        "throttle_reasons": reasons,
    }


def _label(labels: str, *keys: str) -> str:
    found = dict(pair.partition("=")[::2] for pair in labels.split(","))
    return next((found[key] for key in keys if found.get(key)), "")
