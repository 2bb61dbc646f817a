"""Small recorded cases with a known cause: spans of a shop, metrics of the same services."""

from __future__ import annotations

import numpy as np
import polars as pl

from observe.bench.span_requests import CLIENT, INTERNAL, SERVER, timeline
from observe.diagnose.offline import Case
from observe.diagnose.offline.case import EDGE_COLUMNS, METRIC_COLUMNS, SPAN_COLUMNS
from observe.frames import SPAN_SAMPLE
from observe.types import WINDOW_NS
from tests.benchmarks.reference_frames import frames_of_spans

CALLS = {"front": ["cart", "catalog", "pay"], "cart": ["db"], "catalog": ["db"], "pay": [], "db": []}
"""Who calls whom, in this order, one call after the other."""
INJECT_S = 600.0


def graph(calls=CALLS):
    rows = [(caller, callee) for caller, callees in calls.items() for callee in callees]
    return pl.DataFrame(rows, schema=EDGE_COLUMNS, orient="row")


class _Recorder:
    def __init__(self, seed, slow, network, fails, silent):
        self.random = np.random.default_rng(seed)
        self.slow, self.network, self.fails, self.silent = slow, network, fails, silent
        self.rows: list[tuple[object, ...]] = []
        self.next_id = 0

    def span(self, trace, parent, service, operation, start, duration):
        self.rows.append((trace, self.fresh(), parent, service, operation, int(start), int(duration)))
        return len(self.rows) - 1

    def fresh(self):
        self.next_id += 1
        return self.next_id.to_bytes(8, "big")

    def serve(self, trace, parent, service, start):
        """A server span and all below; gives its end and whether it failed."""
        own = 2000 * self.random.gamma(16.0, 1 / 16) * (self.slow.get(service, 1.0))
        row = self.span(trace, parent, service, f"{service}.handle", start, 0)
        now, failed = start + own, service in self.fails
        for callee in [] if failed else CALLS[service]:
            now, failed = self.call(trace, self.rows[row][1], service, callee, now)
            if failed:
                break
        self.rows[row] = (*self.rows[row][:6], int(now - start))
        return now, failed

    def call(self, trace, parent, service, callee, start):
        wire = 500 * self.random.gamma(16.0, 1 / 16)
        wire += sum(self.network.get(end, 0.0) for end in (service, callee))
        row = self.span(trace, parent, service, f"GET {callee}", start, 0)
        end, failed = start + wire / 2, False
        if callee in self.silent:
            end += 3000 * self.slow.get(callee, 1.0)
        else:
            end, failed = self.serve(trace, self.rows[row][1], callee, end)
        end += wire / 2
        self.rows[row] = (*self.rows[row][:6], int(end - start))
        return end, failed


def spans(seed, *, requests=80, slow=None, network=None, fails=(), silent=()):
    """`slow`: factor of a service's own time; `network`: µs more per call at a service; `fails`: services that give
    up at once; `silent`: services whose own spans are lost."""
    recorder = _Recorder(seed, slow or {}, network or {}, fails, silent)
    for request in range(requests):
        recorder.serve(request.to_bytes(16, "big"), b"", "front", 1_000_000 * request)
    return pl.DataFrame(recorder.rows, schema=SPAN_COLUMNS, orient="row")


def metrics(seed, moved=None, *, services=tuple(CALLS), names=("cpu", "latency", "requests"), steps=120):
    """One row a service, metric and 10 s. `moved`: (service, metric) → factor from INJECT_S on."""
    random, rows = np.random.default_rng(seed), []
    times = np.arange(steps) * 2 * INJECT_S / steps
    for service in services:
        for metric in names:
            level = float(random.uniform(1, 100))
            values = level * random.gamma(100.0, 1 / 100, steps)
            values *= np.where(times >= INJECT_S, (moved or {}).get((service, metric), 1.0), 1.0)
            rows.append(pl.DataFrame({"time_s": times, "service": service, "metric": metric, "value": values}))
    return pl.concat(rows).select(list(METRIC_COLUMNS))


def span_case(seed=1, **fault):
    return Case(INJECT_S, spans_before=spans(seed), spans_after=spans(seed + 1, **fault), graph=graph())


def metric_case(seed, moved, **more):
    return Case(INJECT_S, metrics(seed, moved), graph=graph(), **more)


END_NS = 1_790_000_000 * 10**9
KINDS = {SERVER: "Server", CLIENT: "Client", INTERNAL: "Internal"}


def stored(before, after):
    """What a store has of two recordings, one after the other: (frames, whole traces as SPAN_SAMPLE, when the second
    begins, when it ends)."""
    rows, fault_ns, last_ns = timeline(before, after, END_NS)
    ends = pl.col("start_us") + pl.col("duration_us")
    nothing = pl.lit("")
    table = rows.select(
        "service", "operation", version=nothing, instance=nothing, host=nothing, site=nothing, peer=nothing,
        span=pl.struct("trace", "span").hash(1),
        parent=pl.when(pl.col("parent") == 0).then(0).otherwise(pl.struct("trace", span="parent").hash(1)),
        trace=pl.col("trace").cast(pl.String), failed=pl.lit(False), start_ms=pl.col("start_us") / 1000,
        end_ms=ends / 1000, duration_ms=pl.col("duration_us") / 1000,
        window_start_ns=ends * 1000 // WINDOW_NS * WINDOW_NS,
        kind=pl.col("kind").replace_strict(KINDS, return_dtype=pl.String),
    )  # fmt: skip
    sample = rows.select(
        period=(pl.col("start_us") * 1000 >= fault_ns), trace_id="trace", span_id="span", parent_span_id="parent",
        service="service", operation="operation", start_us="start_us", duration_us="duration_us",
    ).cast(SPAN_SAMPLE)  # fmt: skip
    return frames_of_spans(table), sample, fault_ns, last_ns
