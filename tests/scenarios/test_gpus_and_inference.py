"""What exporters say of GPUs and inference servers, as the cause of what gateways feel: one case for each signal.

Names and labels are those of dcgm-exporter, vLLM, SGLang, KServe, Ray Serve and Triton with TensorRT-LLM.
"""

from __future__ import annotations

import polars as pl
import pytest

from observe.diagnose import diagnose
from observe.diagnose.compare import Question, compare
from observe.diagnose.resources import findings
from observe.frames import GAUGE_WINDOWS, SERVICE_WINDOWS, Frames
from observe.settings import DiagnoseSettings
from observe.types import CauseKind, Shift
from tests.unit.diagnose_parts import NOW, ONSET, WHEN, at, edge_rows, self_rows

GPU = "GPU-7d1c"


def gauge(metric, before, after, *, hw_id=GPU, labels="", service="dcgm-exporter", host="gpu-1", instance=""):
    rows = [
        {
            "window_start_ns": at(w), "service": service, "instance": instance, "host": host, "hw_id": hw_id,
            "metric": metric, "unit": "", "labels": labels, "kind": "gauge", "samples": 1,
            "value_avg": float(after if w >= 30 else before), "value_min": float(after if w >= 30 else before),
            "value_max": float(after if w >= 30 else before),
        }
        for w in range(40)
    ]  # fmt: skip
    return pl.DataFrame(rows, schema=GAUGE_WINDOWS)


def server(metric, before, after, labels="model_name=llama"):
    return gauge(metric, before, after, hw_id="", labels=labels, service="llm", instance="llm-0")


def histogram(metric, before_ms, after_ms, service="llm"):
    rows = [
        {
            "window_start_ns": at(w), "service": service, "operation": metric, "kind": "Metric", "version": "",
            "requests": 100, "errors": 0, "duration_sum_ms": 100.0 * (after_ms if w >= 30 else before_ms),
            "latency_buckets": [{"bucket": 100, "count": 100}],
        }
        for w in range(40)
    ]  # fmt: skip
    return pl.DataFrame(rows, schema=SERVICE_WINDOWS)


def diagnosed(*gauges, windows=()):
    """gateway waits for llm on host gpu-1, whose own time rises from 100 to 500 ms."""
    calls = self_rows("gateway", 2, 2, total=(110, 510), host="edge-1", instance="gw-0")
    selfs = pl.concat([calls, self_rows("llm", 100, 500, host="gpu-1", instance="llm-0")])
    frames = Frames(
        pl.concat([*windows, pl.DataFrame(schema=SERVICE_WINDOWS)]),
        selfs.sort("window_start_ns", maintain_order=True),
        edge_rows("gateway", "llm", (105, 505), (100, 500)),
        pl.concat(gauges).sort("window_start_ns", maintain_order=True),
    )
    shifts = [
        Shift(s, "/x", "Server", "latency_p99_ms", 130.0, 620.0, "ms", 1e-9, 900, ONSET) for s in ("gateway", "llm")
    ]
    (found,) = diagnose(shifts, frames, NOW, DiagnoseSettings())
    return found.causes[0], frames


CASES = {
    "clock": [gauge("DCGM_FI_DEV_SM_CLOCK", 1980, 700), gauge("DCGM_FI_DEV_GPU_UTIL", 70, 98)],
    "reasons": [gauge("DCGM_FI_DEV_CLOCKS_EVENT_REASONS", 0, 64)],
    "events": [gauge("DCGM_EXP_CLOCK_EVENTS_COUNT", 0, 12, labels="clock_event=hw_thermal")],
    "violation": [gauge("DCGM_FI_DEV_THERMAL_VIOLATION", 0, 4e8)],
    "xid": [gauge("DCGM_FI_DEV_XID_ERRORS", 0, 79)],
    "ecc": [gauge("DCGM_FI_DEV_ECC_DBE_VOL_TOTAL", 0, 2)],
    "nvml": [gauge("hw.errors", 0, 0.1, labels="error.type=xid.79,hw.type=gpu", service="observe")],
}
SAID = {
    "clock": "SM clock fell from 1980 to 700 MHz",
    "reasons": "hardware thermal slowdown",
    "events": "held back 12 times since the onset: hw_thermal",
    "violation": "held back for 40% of the time, 0% before: thermal",
    "xid": "XID 79 reported",
    "ecc": "ecc dbe vol rose from 0 to 2",
    "nvml": "hardware errors rose from 0 to 0.1 per second",
}


@pytest.mark.parametrize("name", list(CASES))
def test_a_sick_gpu_is_the_cause_of_what_the_gateway_feels(name):
    cause, frames = diagnosed(*CASES[name])
    assert (cause.kind, cause.service, cause.resource) == (CauseKind.GPU, "llm", GPU)
    assert cause.path == ("gateway", "llm")
    (said,) = [e for e in cause.evidence if SAID[name] in e.text]
    assert said.text.startswith(f"{GPU} on gpu-1: ")
    row = CASES[name][0]
    asked = Question("metric", WHEN, metric=row["metric"][0], hw_id=GPU, host="gpu-1", labels=row["labels"][0])
    assert said.query.split("&before")[0] == asked.query.split("&before")[0]
    answer = dict(compare(frames, asked))
    assert dict(said.numbers) == pytest.approx(answer)


@pytest.mark.parametrize(
    "harmless",
    [
        gauge("DCGM_EXP_CLOCK_EVENTS_COUNT", 0, 12, labels="clock_event=gpu_idle"),
        gauge("DCGM_FI_DEV_POWER_VIOLATION", 3e8, 3.2e8),
        gauge("DCGM_FI_DEV_XID_ERRORS", 31, 31),
        gauge("DCGM_FI_DEV_ECC_DBE_VOL_TOTAL", 2, 2),
        gauge("DCGM_FI_DEV_GPU_TEMP", 50, 80),
    ],
    ids=lambda g: g["metric"][0],
)
def test_what_was_so_before_or_follows_load_is_no_cause(harmless):
    cause, _ = diagnosed(harmless)
    assert (cause.kind, cause.service, cause.resource) == (CauseKind.SERVICE, "llm", "")


def test_a_gpu_of_another_host_is_not_accused():
    cause, _ = diagnosed(gauge("DCGM_FI_DEV_XID_ERRORS", 0, 79, host="gpu-2"))
    assert cause.kind is CauseKind.SERVICE


def test_memory_that_fills_up_supports_and_does_not_accuse():
    cause, _ = diagnosed(gauge("DCGM_FI_DEV_FB_USED", 60_000, 80_900), gauge("DCGM_FI_DEV_FB_FREE", 21_000, 100))
    assert cause.kind is CauseKind.SERVICE
    assert any("memory rose from 60000 to 80900 MiB, 74% to 100%" in e.text for e in cause.evidence)


SERVERS = {
    "vllm": ("vllm:kv_cache_usage_perc", "vllm:num_requests_waiting", "vllm:time_to_first_token_seconds"),
    "kserve": (
        "kserve_vllm:kv_cache_usage_perc",
        "kserve_vllm:num_requests_waiting",
        "kserve_vllm:time_to_first_token_seconds",
    ),
    "ray": ("ray_vllm_kv_cache_usage_perc", "ray_vllm_num_requests_waiting", "ray_vllm_time_to_first_token_seconds"),
    "sglang": ("sglang:token_usage", "sglang:num_queue_reqs", "sglang:time_to_first_token_seconds"),
}


@pytest.mark.parametrize("kind", list(SERVERS))
def test_a_full_cache_is_followed_to_what_users_wait_for(kind):
    cache, queue, first_token = SERVERS[kind]
    cause, _ = diagnosed(
        server(cache, 0.45, 0.99), server(queue, 0.2, 31.0), windows=[histogram(first_token, 300.0, 2400.0)]
    )
    assert (cause.service, cause.path) == ("llm", ("gateway", "llm"))
    (chain,) = [e.text for e in cause.evidence if e.kind == "chain"]
    assert chain == (
        "KV cache 45% to 99% → waiting requests 0.2 to 31 → time to first token 300 ms to 2.4 s → "
        "latency of gateway (P99) 130 ms to 620 ms"
    )


def test_tensorrt_blocks_and_preemptions_tell_of_a_full_cache():
    blocks = "kv_cache_block_type=fraction,model=llama"
    (found,) = findings(
        pl.concat(
            [
                server("nv_trt_llm_kv_cache_block_metrics", 0.5, 0.98, labels=blocks),
                server("nv_inference_pending_request_count", 0, 12),
            ]
        ),
        WHEN, "llm", ["llm-0"], ["gpu-1"],
    )  # fmt: skip
    assert found.texts[0] == "KV cache rose from 50% to 98%, requests wait for room"
    (found,) = findings(
        pl.concat([server("vllm:kv_cache_usage_perc", 0.6, 0.97), server("vllm:num_preemptions_total", 0, 1.5)]),
        WHEN, "llm", ["llm-0"], ["gpu-1"],
    )  # fmt: skip
    assert "requests thrown out of the cache: 0 before, 1.5 after" in found.texts
