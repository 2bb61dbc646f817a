"""Frames by hand for the tests of detection: `row` is one window of one series, `frames` puts them together."""

from __future__ import annotations

import math
from collections.abc import Sequence

import polars as pl

from observe import frames as shapes
from observe.frames import BUCKETS_PER_OCTAVE, GAUGE_WINDOWS, SERVICE_WINDOWS, Frames
from observe.types import WINDOW_NS

START_NS = 1_750_000_000_000_000_000
SETTLE_NS = 12_000_000_000


def now_ns(windows: int) -> int:
    """The moment at which the first `windows` windows have settled."""
    return START_NS + windows * WINDOW_NS + SETTLE_NS


def window_ns(window: int) -> int:
    return START_NS + window * WINDOW_NS


def bucket(ms: float) -> int:
    return math.ceil(math.log2(ms) * BUCKETS_PER_OCTAVE) - 1


def row(
    window: int,
    latencies_ms: Sequence[float],
    *,
    errors: int = 0,
    service: str = "shop",
    operation: str = "GET /",
    kind: str = "Server",
    version: str = "1",
) -> dict[str, object]:
    counts: dict[int, int] = {}
    for ms in latencies_ms:
        counts[bucket(ms)] = counts.get(bucket(ms), 0) + 1
    return {
        "window_start_ns": window_ns(window),
        "service": service,
        "operation": operation,
        "kind": kind,
        "version": version,
        "requests": len(latencies_ms),
        "errors": errors,
        "duration_sum_ms": float(sum(latencies_ms)),
        "latency_buckets": [{"bucket": b, "count": n} for b, n in sorted(counts.items())],
    }


def gauge(window: int, value: float, **columns: str) -> dict[str, object]:
    key = {"service": "llm", "instance": "", "host": "", "hw_id": "", "metric": "hw.gpu.speed", "unit": "Hz",
           "labels": "", "kind": "gauge"} | columns  # fmt: skip
    return {"window_start_ns": window_ns(window), **key, "samples": 2, "value_avg": value, "value_min": value,
            "value_max": value}  # fmt: skip


def frames(rows: Sequence[dict[str, object]], gauges: Sequence[dict[str, object]] = ()) -> Frames:
    nothing = shapes.empty()
    return Frames(
        pl.DataFrame(list(rows), schema=SERVICE_WINDOWS),
        nothing.selfs,
        nothing.edges,
        pl.DataFrame(list(gauges), schema=GAUGE_WINDOWS),
    )
