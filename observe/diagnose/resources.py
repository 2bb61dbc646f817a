"""Gauges as causes: what hardware and inference servers say about themselves near the onset.

Load raises use, queues, power and temperature: those are consequences, and only support. A clock that falls while the
GPU works, a throttle reason, an XID, a full KV cache are causes.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import polars as pl

from observe.diagnose.levels import Periods

CLOCKS = ("DCGM_FI_DEV_SM_CLOCK", "hw.gpu.clock.frequency", "gpu.clock.sm")
REASONS = ("DCGM_FI_DEV_CLOCKS_EVENT_REASONS", "DCGM_FI_DEV_CLOCK_THROTTLE_REASONS")
XIDS = ("DCGM_FI_DEV_XID_ERRORS", "DCGM_EXP_XID_ERRORS_COUNT", "hw.errors")
TEMPERATURES = ("hw.temperature", "DCGM_FI_DEV_GPU_TEMP", "gpu.temperature")
POWERS = ("hw.power", "DCGM_FI_DEV_POWER_USAGE", "gpu.power.draw")
USES = ("hw.gpu.utilization", "DCGM_FI_DEV_GPU_UTIL", "gpu.utilization")
MEMORIES = ("hw.gpu.memory.utilization",)
CACHES = ("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc", "sglang:token_usage")
WAITING = (
    "vllm:num_requests_waiting",
    "sglang:num_queue_reqs",
    "tgi_queue_size",
    "nv_inference_pending_request_count",
)
WATCHED = (*CLOCKS, *REASONS, *XIDS, *TEMPERATURES, *POWERS, *USES, *MEMORIES, *CACHES, *WAITING)

THROTTLES = {
    4: "software power cap",
    8: "hardware slowdown",
    32: "software thermal slowdown",
    64: "hardware thermal slowdown",
    128: "hardware power brake",
}
"""Bits of the clocks event reasons that hold a working GPU back (nvml.h, nvmlClocksEventReason*)."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What one device says. `strength` 0..1: how far that alone would make it a cause."""

    hw_id: str
    host: str
    instance: str
    strength: float
    texts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Series:
    metric: str
    labels: str
    before: float
    after: float
    before_max: float
    after_max: float


def findings(
    gauges: pl.DataFrame, when: Periods, service: str, instances: Collection[str], hosts: Collection[str]
) -> list[Finding]:
    """Devices and servers that `service` runs on, by host or instance, that report trouble; the worst first."""
    near = (
        (pl.col("service") == service)
        | pl.col("instance").is_in([i for i in instances if i])
        | pl.col("host").is_in([h for h in hosts if h])
    )
    table = (
        gauges.lazy()
        .filter(pl.col("metric").is_in(list(WATCHED)) & near)
        .with_columns(when.mark())
        .group_by("hw_id", "host", "instance", "metric", "labels")
        .agg(
            before=pl.col("value_avg").filter(pl.col("period") == 0).mean(),
            after=pl.col("value_avg").filter(pl.col("period") == 1).mean(),
            before_max=pl.col("value_max").filter(pl.col("period") == 0).max(),
            after_max=pl.col("value_max").filter(pl.col("period") == 1).max(),
        )
        .drop_nulls(["after", "after_max"])
        .sort("hw_id", "host", "instance", "metric", "labels")
        .collect()
    )
    devices: dict[tuple[str, str, str], list[_Series]] = {}
    for row in table.iter_rows(named=True):
        # One GPU reports by several exporters, each with a resource of its own; its id holds them together.
        key = (row["hw_id"], "" if row["hw_id"] else row["host"], "" if row["hw_id"] else row["instance"])
        before = row["after"] if row["before"] is None else row["before"]
        before_max = 0.0 if row["before_max"] is None else row["before_max"]
        devices.setdefault(key, []).append(
            _Series(row["metric"], row["labels"], before, row["after"], before_max, row["after_max"])
        )
    places = {key: _place(table, key[0]) for key in devices if key[0]}
    found = []
    for key, series in devices.items():
        strength, texts = _verdict(series)
        if texts:
            host, instance = places.get(key, key[1:])
            found.append(Finding(key[0], host, instance, strength, tuple(texts)))
    return sorted(found, key=lambda f: (-f.strength, f.hw_id, f.host, f.instance))


def _place(table: pl.DataFrame, hw_id: str) -> tuple[str, str]:
    rows = table.filter(pl.col("hw_id") == hw_id)
    return str(rows["host"].max() or ""), str(rows["instance"].max() or "")


def _verdict(series: Sequence[_Series]) -> tuple[float, list[str]]:
    strength, texts = 0.0, list[str]()
    for rule in (_throttled, _slow_clock, _faulty, _full):
        found, said = rule(series)
        strength = 1 - (1 - strength) * (1 - found)
        texts += said
    if strength > 0:
        texts += _support(series)
    return strength, texts


def _throttled(series: Sequence[_Series]) -> tuple[float, list[str]]:
    for s in series:
        if s.metric in REASONS:
            fresh = int(s.after_max) & ~int(s.before_max)
            reasons = [text for bit, text in THROTTLES.items() if fresh & bit]
            if reasons:
                return 0.9, [f"clock held back since the onset: {', '.join(reasons)} (reasons {int(s.after_max)})"]
    return 0.0, []


def _slow_clock(series: Sequence[_Series]) -> tuple[float, list[str]]:
    use = [s for s in series if s.metric in USES]
    idle = any(s.after < 0.5 * s.before for s in use)  # an idle GPU lowers its clock, and that harms nobody
    for s in series:
        if s.metric in CLOCKS and s.before > 0 and s.after < 0.9 * s.before and not idle:
            return 0.8, [f"SM clock fell from {s.before:.0f} to {s.after:.0f} MHz"]
    return 0.0, []


def _faulty(series: Sequence[_Series]) -> tuple[float, list[str]]:
    for s in series:
        if s.metric not in XIDS or s.after_max <= s.before_max:
            continue
        if s.metric == "DCGM_FI_DEV_XID_ERRORS":
            return 0.9, [f"XID {s.after_max:.0f} reported since the onset"]
        if s.metric != "hw.errors" or "corrected" not in s.labels.replace("uncorrected", ""):
            return 0.8, [
                f"hardware errors rose from {s.before_max:.3g} to {s.after_max:.3g} per second ({s.labels or s.metric})"
            ]
    return 0.0, []


def _full(series: Sequence[_Series]) -> tuple[float, list[str]]:
    strength, texts = 0.0, list[str]()
    waiting = any(s.metric in WAITING and s.after > max(1.0, 2 * s.before) for s in series)
    for s in series:
        if s.metric in CACHES and s.after_max >= 0.95 and s.before < 0.9 and waiting:
            strength, texts = (
                0.5,
                [*texts, f"KV cache rose from {s.before:.0%} to {s.after:.0%}, requests wait for room"],
            )
        if s.metric in MEMORIES and s.after_max >= 0.98 and s.before < 0.95:
            strength, texts = max(strength, 0.3), [*texts, f"memory rose from {s.before:.0%} to {s.after:.0%}"]
    return strength, texts


def _support(series: Sequence[_Series]) -> list[str]:
    texts = []
    for s in series:
        if s.metric in TEMPERATURES and s.after > s.before + 5:
            texts.append(f"temperature rose from {s.before:.0f} to {s.after:.0f} °C")
        if s.metric in POWERS and abs(s.after - s.before) > 0.15 * max(s.before, 1.0):
            texts.append(f"power went from {s.before:.0f} to {s.after:.0f} W")
        if s.metric in WAITING and s.after > max(1.0, 2 * s.before):
            texts.append(f"waiting requests rose from {s.before:.1f} to {s.after:.1f}")
    return texts
