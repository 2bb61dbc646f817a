"""Gauges as causes: what hardware and inference servers say about themselves near the onset.

Load raises use, queues, power and temperature: those are consequences, and only support. A clock that falls while the
GPU works, a throttle reason, an XID, a full KV cache are causes. Names are those that the exporters send: DCGM's,
NVML's by our collector, OpenTelemetry's, vLLM's, SGLang's, TGI's, Triton's (with TensorRT-LLM), Ray Serve's.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import polars as pl

from observe.diagnose import containers
from observe.diagnose.levels import Periods
from observe.diagnose.readings import Reading, Told, Verdict
from observe.pods import METRICS, of_pod

CLOCKS = ("DCGM_FI_DEV_SM_CLOCK", "hw.gpu.clock.frequency", "gpu.clock.sm")
REASONS = ("DCGM_FI_DEV_CLOCKS_EVENT_REASONS", "DCGM_FI_DEV_CLOCK_THROTTLE_REASONS")
EVENTS = ("DCGM_EXP_CLOCK_EVENTS_COUNT",)
VIOLATIONS = tuple(
    f"DCGM_FI_DEV_{name}_VIOLATION" for name in ("POWER", "THERMAL", "SYNC_BOOST", "BOARD_LIMIT", "RELIABILITY")
)
XIDS = ("DCGM_FI_DEV_XID_ERRORS", "DCGM_EXP_XID_ERRORS_COUNT", "hw.errors")
BROKEN = (
    "DCGM_FI_DEV_ECC_DBE_VOL_TOTAL",
    "DCGM_FI_DEV_ECC_DBE_AGG_TOTAL",
    "DCGM_FI_DEV_UNCORRECTABLE_REMAPPED_ROWS",
    "DCGM_FI_DEV_ROW_REMAP_FAILURE",
    "DCGM_FI_DEV_NVLINK_REPLAY_ERROR_COUNT_TOTAL",
    "DCGM_FI_DEV_NVLINK_RECOVERY_ERROR_COUNT_TOTAL",
)
TEMPERATURES = ("hw.temperature", "DCGM_FI_DEV_GPU_TEMP", "gpu.temperature")
POWERS = ("hw.power", "DCGM_FI_DEV_POWER_USAGE", "gpu.power.draw", "nv_gpu_power_usage")
USES = ("hw.gpu.utilization", "DCGM_FI_DEV_GPU_UTIL", "gpu.utilization", "nv_gpu_utilization")
MEMORIES = ("hw.gpu.memory.utilization",)
USED_OF = {"DCGM_FI_DEV_FB_USED": "DCGM_FI_DEV_FB_FREE"}
"""Memory in use, and what is left beside it."""
CACHES = ("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc", "sglang:token_usage")
BLOCKS = "nv_trt_llm_kv_cache_block_metrics"
EVICTIONS = ("vllm:num_preemptions_total", "vllm:num_preemptions", "sglang:num_retracted_reqs")
WAITING = (
    "vllm:num_requests_waiting",
    "sglang:num_queue_reqs",
    "tgi_queue_size",
    "nv_inference_pending_request_count",
    "ray_serve_deployment_queued_queries",
)
WATCHED = (
    *CLOCKS, *REASONS, *EVENTS, *VIOLATIONS, *XIDS, *BROKEN, *TEMPERATURES, *POWERS, *USES, *MEMORIES, *USED_OF,
    *USED_OF.values(), *CACHES, BLOCKS, *EVICTIONS, *WAITING, *METRICS,
)  # fmt: skip
WRAPPED = r"^(?:kserve_|ray_)?vllm[:_]"
"""KServe and Ray put a word of their own before vLLM's names."""

THROTTLES = {
    4: "software power cap",
    8: "hardware slowdown",
    32: "software thermal slowdown",
    64: "hardware thermal slowdown",
    128: "hardware power brake",
}
"""Bits of the clocks event reasons that hold a working GPU back (nvml.h, nvmlClocksEventReason*)."""
HARMLESS_EVENTS = ("gpu_idle", "clocks_setting", "sync_boost", "display_clocks")
HELD_BACK_NS = 5e7
"""Nanoseconds of a second that clocks were held back for, from which it counts: one part in twenty."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What one device says. `strength` 0..1: how far that alone would make it a cause."""

    hw_id: str
    host: str
    instance: str
    strength: float
    readings: tuple[Reading, ...]

    @property
    def texts(self) -> tuple[str, ...]:
        return tuple(r.text for r in self.readings)


def findings(
    gauges: pl.DataFrame, when: Periods, service: str, instances: Collection[str], hosts: Collection[str]
) -> list[Finding]:
    """Devices and servers that `service` runs on, by host or instance, that report trouble; the worst first."""
    of_pods = pl.col("metric").is_in(list(METRICS))
    named = gauges.filter(of_pods)["instance"].unique().sort().to_list()
    mine = [pod for pod in named if pod and of_pod(pod, {*instances, *hosts})]
    near = (
        (pl.col("service") == service)
        | pl.col("instance").is_in([i for i in instances if i])
        | pl.col("host").is_in([h for h in hosts if h])
    ) & ~of_pods | (of_pods & pl.col("instance").is_in(mine))
    table = (
        gauges.lazy()
        .filter(near)
        .with_columns(plain=pl.col("metric").str.replace(WRAPPED, "vllm:"))
        .filter(pl.col("plain").is_in(list(WATCHED)))
        .with_columns(when.mark())
        .group_by("hw_id", "host", "instance", "metric", "plain", "labels")
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
    devices: dict[tuple[str, str, str], list[Told]] = {}
    for row in table.iter_rows(named=True):
        # One GPU reports by several exporters, each with a resource of its own; its id holds them together.
        key = (row["hw_id"], "" if row["hw_id"] else row["host"], "" if row["hw_id"] else row["instance"])
        before = row["after"] if row["before"] is None else row["before"]
        before_max = 0.0 if row["before_max"] is None else row["before_max"]
        place = (row["hw_id"], row["host"], row["instance"], row["labels"])
        devices.setdefault(key, []).append(
            Told(row["plain"], *place, before, row["after"], before_max, row["after_max"], row["metric"])
        )
    places = {key: _place(table, key[0]) for key in devices if key[0]}
    found = []
    for key, series in devices.items():
        strength, said = _verdict(series)
        if said:
            host, instance = places.get(key, key[1:])
            found.append(Finding(key[0], host, instance, strength, tuple(said)))
    return sorted(found, key=lambda f: (-f.strength, f.hw_id, f.host, f.instance))


def _place(table: pl.DataFrame, hw_id: str) -> tuple[str, str]:
    rows = table.filter(pl.col("hw_id") == hw_id)
    return str(rows["host"].max() or ""), str(rows["instance"].max() or "")


def _verdict(series: Sequence[Told]) -> Verdict:
    strength, said = 0.0, list[Reading]()
    for rule in (_throttled, _slow_clock, _faulty, _broken, _full, _crowded, *containers.RULES):
        found, more = rule(series)
        strength = 1 - (1 - strength) * (1 - found)
        said += more
    if strength > 0:
        said += _support(series)
    return strength, said


def _throttled(series: Sequence[Told]) -> Verdict:
    """The reasons that the driver gives, or the time that it counts."""
    for s in series:
        if s.metric in REASONS:
            fresh = int(s.after_max) & ~int(s.before_max)
            reasons = [text for bit, text in THROTTLES.items() if fresh & bit]
            if reasons:
                text = f"clock held back since the onset: {', '.join(reasons)} (reasons {int(s.after_max)})"
                return 0.9, [s.said(text)]
    for s in series:
        if s.metric in EVENTS and s.after_max > s.before_max:
            event = _label(s.labels, "clock_event")
            if event not in HARMLESS_EVENTS:
                return 0.9, [s.said(f"clock held back {s.after_max:.0f} times since the onset: {event or 'no reason'}")]
        if s.metric in VIOLATIONS and s.after > HELD_BACK_NS and s.after > 2 * s.before:
            why = s.metric.removeprefix("DCGM_FI_DEV_").removesuffix("_VIOLATION").lower().replace("_", " ")
            text = f"clock held back for {s.after / 1e9:.0%} of the time, {s.before / 1e9:.0%} before: {why}"
            return 0.9, [s.said(text)]
    return 0.0, []


def _label(labels: str, name: str) -> str:
    """
    >>> _label("clock_event=hw_thermal,gpu=0", "clock_event")
    'hw_thermal'
    """
    found = re.search(rf"(?:^|,){re.escape(name)}=([^,]*)", labels)
    return found[1] if found else ""


def _slow_clock(series: Sequence[Told]) -> Verdict:
    use = [s for s in series if s.metric in USES]
    idle = any(s.after < 0.5 * s.before for s in use)  # an idle GPU lowers its clock, and that harms nobody
    for s in series:
        if s.metric in CLOCKS and s.before > 0 and s.after < 0.9 * s.before and not idle:
            return 0.8, [s.said(f"SM clock fell from {s.before:.0f} to {s.after:.0f} MHz")]
    return 0.0, []


def _faulty(series: Sequence[Told]) -> Verdict:
    for s in series:
        if s.metric not in XIDS or s.after_max <= s.before_max:
            continue
        if s.metric == "DCGM_FI_DEV_XID_ERRORS":
            return 0.9, [s.said(f"XID {s.after_max:.0f} reported since the onset")]
        if s.metric != "hw.errors" or "corrected" not in s.labels.replace("uncorrected", ""):
            return 0.8, [
                s.said(
                    f"hardware errors rose from {s.before_max:.3g} to {s.after_max:.3g} per second"
                    f" ({s.labels or s.metric})"
                )
            ]
    return 0.0, []


def _broken(series: Sequence[Told]) -> Verdict:
    """Memory cells and links that fail for good, as DCGM counts them."""
    for s in series:
        if s.metric in BROKEN and s.after_max > s.before_max:
            what = s.metric.removeprefix("DCGM_FI_DEV_").removesuffix("_TOTAL").lower().replace("_", " ")
            return 0.8, [s.said(f"{what} rose from {s.before_max:.3g} to {s.after_max:.3g}")]
    return 0.0, []


def _full(series: Sequence[Told]) -> Verdict:
    """A KV cache without room makes requests wait, or throws running ones out."""
    strength, said = 0.0, list[Reading]()
    waiting = any(s.metric in WAITING and s.after > max(1.0, 2 * s.before) for s in series)
    evicted = [s for s in series if s.metric in EVICTIONS and s.after > max(0.01, 2 * s.before)]
    for s in series:
        cache = s.metric in CACHES or (s.metric == BLOCKS and _label(s.labels, "kv_cache_block_type") == "fraction")
        if cache and s.after_max >= 0.95 and s.before < 0.9 and (waiting or evicted):
            strength = 0.5
            said.append(s.said(f"KV cache rose from {s.before:.0%} to {s.after:.0%}, requests wait for room"))
    if said:
        said += [s.said(f"requests thrown out of the cache: {s.before:.3g} before, {s.after:.3g} after")
                 for s in evicted]  # fmt: skip
    return strength, said


def _crowded(series: Sequence[Told]) -> Verdict:
    for s in series:
        if s.metric in MEMORIES and s.after_max >= 0.98 and s.before < 0.95:
            return 0.3, [s.said(f"memory rose from {s.before:.0%} to {s.after:.0%}")]
        free = next((o for o in series if o.metric == USED_OF.get(s.metric)), None)
        if free is None or s.after + free.after <= 0 or s.before + free.before <= 0:
            continue
        before, after = s.before / (s.before + free.before), s.after / (s.after + free.after)
        if after >= 0.98 and before < 0.95:
            text = f"memory rose from {s.before:.0f} to {s.after:.0f} MiB, {before:.0%} to {after:.0%} of what there is"
            return 0.3, [s.said(text)]
    return 0.0, []


def _support(series: Sequence[Told]) -> list[Reading]:
    said = []
    for s in series:
        if s.metric in TEMPERATURES and s.after > s.before + 5:
            said.append(s.said(f"temperature rose from {s.before:.0f} to {s.after:.0f} °C"))
        if s.metric in POWERS and abs(s.after - s.before) > 0.15 * max(s.before, 1.0):
            said.append(s.said(f"power went from {s.before:.0f} to {s.after:.0f} W"))
        if s.metric in WAITING and s.after > max(1.0, 2 * s.before):
            said.append(s.said(f"waiting requests rose from {s.before:.1f} to {s.after:.1f}"))
    return said
