"""Small hand-made tables of windows: 40 of them, with an onset at the 30th."""

from __future__ import annotations

import polars as pl

from observe.diagnose.levels import Periods
from observe.frames import EDGE_WINDOWS, GAUGE_WINDOWS, SELF_WINDOWS, SERVICE_WINDOWS, Frames
from observe.types import WINDOW_NS

T0 = 1_700_000_000 * 10**9
ONSET = T0 + 30 * WINDOW_NS
NOW = T0 + 40 * WINDOW_NS
WHEN = Periods(T0, ONSET - 2 * WINDOW_NS, ONSET, NOW)


def at(window: int) -> int:
    return T0 + window * WINDOW_NS


def self_rows(service, before_ms, after_ms, *, windows=40, requests=100, kind="Server", total=(None, None), **columns):
    """One row a window; self time per request goes from `before_ms` to `after_ms` at window 30."""
    rows = []
    for w in range(windows):
        own = (after_ms if w >= 30 else before_ms) * (1 + 0.01 * ((w * 7) % 5 - 2))
        whole = total[w >= 30] if total[0] is not None else own
        row = {name: "" for name, dtype in SELF_WINDOWS.items() if dtype == pl.String}
        row |= {
            "window_start_ns": at(w),
            "service": service,
            "operation": "/x",
            "kind": kind,
            "requests": requests,
            "errors": 0,
            "origin_errors": 0,
            "duration_sum_ms": requests * (whole + (own - (after_ms if w >= 30 else before_ms))),
            "self_sum_ms": requests * own,
            "self_buckets": [{"bucket": 40, "count": requests}],
        }
        rows.append(row | columns)
    return pl.DataFrame(rows, schema=SELF_WINDOWS)


def edge_rows(caller, callee, client, server, *, connection="direct", calls=100, windows=40):
    """`client` and `server` are (before, after) per call in ms; server None for a virtual node."""
    rows = []
    for w in range(windows):
        after = w >= 30
        rows.append(
            {
                "window_start_ns": at(w),
                "caller": caller,
                "caller_operation": "GET",
                "callee": callee,
                "callee_operation": "/x",
                "connection": connection,
                "calls": calls,
                "errors": 0,
                "client_sum_ms": calls * client[after] * (1 + 0.002 * (w % 3 - 1)),
                "server_sum_ms": None if server is None else float(calls * server[after]),
                "latency_buckets": [{"bucket": 40, "count": calls}],
            }
        )
    return pl.DataFrame(rows, schema=EDGE_WINDOWS)


def frames(selfs, edges=(), gauges=None):
    return Frames(
        pl.DataFrame(schema=SERVICE_WINDOWS),
        pl.concat(selfs).sort("window_start_ns", maintain_order=True),
        pl.concat(edges).sort("window_start_ns", maintain_order=True) if edges else pl.DataFrame(schema=EDGE_WINDOWS),
        pl.DataFrame(schema=GAUGE_WINDOWS) if gauges is None else gauges,
    )


def gauge_rows(metric, before, after, *, hw_id="GPU-1", host="gpu-host", labels=""):
    rows = []
    for w in range(40):
        value = float(after if w >= 30 else before)
        row = {name: "" for name, dtype in GAUGE_WINDOWS.items() if dtype == pl.String}
        row |= {"window_start_ns": at(w), "host": host, "hw_id": hw_id, "metric": metric, "labels": labels}
        rows.append(row | {"samples": 1, "value_avg": value, "value_min": value, "value_max": value})
    return pl.DataFrame(rows, schema=GAUGE_WINDOWS)
