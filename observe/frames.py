"""The tables that detection and diagnosis read, and the only place that lists their columns.

Histogram buckets are exponential with scale 4 over milliseconds: bucket i covers (2^(i/16), 2^((i+1)/16)] ms.
A window is named by its start; spans belong to the window in which they end.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import polars as pl

BUCKETS_PER_OCTAVE = 16
BUCKETS = pl.List(pl.Struct({"bucket": pl.Int16, "count": pl.UInt64}))

SERVICE_WINDOWS: dict[str, pl.DataType] = {
    "window_start_ns": pl.Int64(),
    "service": pl.String(),
    "operation": pl.String(),
    "kind": pl.String(),  # Server Client Internal Producer Consumer Unspecified; Metric for histograms sent as metrics
    "version": pl.String(),  # service.version
    "requests": pl.UInt64(),
    "errors": pl.UInt64(),  # spans with status Error
    "duration_sum_ms": pl.Float64(),
    "latency_buckets": BUCKETS,
}

SELF_WINDOWS: dict[str, pl.DataType] = {
    "window_start_ns": pl.Int64(),
    "service": pl.String(),
    "operation": pl.String(),
    "kind": pl.String(),
    "version": pl.String(),
    "instance": pl.String(),  # service.instance.id
    "host": pl.String(),  # host.name
    "requests": pl.UInt64(),
    "errors": pl.UInt64(),
    "origin_errors": pl.UInt64(),  # error spans none of whose children erred
    "duration_sum_ms": pl.Float64(),
    "self_sum_ms": pl.Float64(),  # duration minus the union of the children's intervals; of Client spans: edge time
    "self_buckets": BUCKETS,
    "slowest_trace_id": pl.String(),  # trace with the largest self time
    "error_trace_id": pl.String(),  # a trace with an origin error, "" without
}

EDGE_WINDOWS: dict[str, pl.DataType] = {
    "window_start_ns": pl.Int64(),
    "caller": pl.String(),  # service; "user" for root spans is not an edge
    "caller_operation": pl.String(),  # of the callee's parent span
    "callee": pl.String(),  # service, or the name of a virtual node (database, outside address)
    "callee_operation": pl.String(),
    "connection": pl.String(),  # direct | messaging | link | database | external
    "calls": pl.UInt64(),
    "errors": pl.UInt64(),  # status Error on either side
    "client_sum_ms": pl.Float64(),  # duration of the caller's span that waits; null where no Client span exists
    "server_sum_ms": pl.Float64(),  # duration of the callee's span; null for virtual nodes
    "latency_buckets": BUCKETS,  # client side where known, else server side
}

GAUGE_WINDOWS: dict[str, pl.DataType] = {
    "window_start_ns": pl.Int64(),
    "service": pl.String(),
    "instance": pl.String(),
    "host": pl.String(),  # host.name of the resource, or of the point
    "hw_id": pl.String(),  # hw.id, DCGM's UUID, gpu_uuid
    "metric": pl.String(),
    "unit": pl.String(),
    "labels": pl.String(),  # remaining attributes, "k=v,k=v" sorted
    "kind": pl.String(),  # gauge | counter (values are increase per second)
    "samples": pl.UInt64(),
    "value_avg": pl.Float64(),
    "value_min": pl.Float64(),
    "value_max": pl.Float64(),
}

ATTRIBUTE_COUNTS: dict[str, pl.DataType] = {
    "service": pl.String(),  # whose spans carry the value; "" with "" and "": all traces
    "key": pl.String(),  # of a span or its resource; "service" where the trace passes through the service at all
    "value": pl.String(),
    "bad": pl.UInt64(),  # slow or failing traces of the after period that have the value
    "good": pl.UInt64(),  # the other traces of the after period
    "bad_before": pl.UInt64(),
    "good_before": pl.UInt64(),
}


@dataclass(frozen=True, slots=True)
class AttributeQuestion:
    """Which attribute values do the slow (or failing) requests of one operation have, in a sample of whole traces?

    Times are window starts; `requests` is how many there are to sample from.
    """

    service: str
    operation: str
    kind: str
    slower_than_ms: float  # 0: failing requests are meant
    before_from_ns: int
    before_to_ns: int
    after_from_ns: int
    after_to_ns: int
    requests: int


SPAN_SAMPLE: dict[str, pl.DataType] = {
    "period": pl.Int8(),  # 0: of a trace that was in the service before, 1: after
    "trace_id": pl.UInt64(),
    "span_id": pl.UInt64(),
    "parent_span_id": pl.UInt64(),  # 0 for a root
    "service": pl.String(),
    "operation": pl.String(),
    "start_us": pl.Int64(),
    "duration_us": pl.Int64(),
}


@dataclass(frozen=True, slots=True)
class TraceQuestion:
    """Whole traces through one service ("" for any), as many of before as of after; answered with SPAN_SAMPLE.

    Times are window starts; `requests` is how many there are to sample from in the longer of both periods.
    """

    service: str
    before_from_ns: int
    before_to_ns: int
    after_from_ns: int
    after_to_ns: int
    requests: int


LOG_COUNTS: dict[str, pl.DataType] = {
    "service": pl.String(),
    "template": pl.String(),  # first line of an error without what is different each time, or an exception's type
    "before": pl.UInt64(),
    "after": pl.UInt64(),
}


@dataclass(frozen=True, slots=True)
class LogQuestion:
    """Which errors do services (all, where none are named) log, and which exceptions do their spans record? Answered
    with LOG_COUNTS. Times are window starts."""

    services: tuple[str, ...]
    before_from_ns: int
    before_to_ns: int
    after_from_ns: int
    after_to_ns: int


Question = AttributeQuestion | TraceQuestion | LogQuestion
"""What a look may ask the store beside its frames."""


def no_answer(question: Question) -> pl.DataFrame:
    """No rows, in the columns of an answer."""
    answers = {AttributeQuestion: ATTRIBUTE_COUNTS, TraceQuestion: SPAN_SAMPLE, LogQuestion: LOG_COUNTS}
    return pl.DataFrame(schema=answers[type(question)])


# Spans that name a model or count tokens, by half octaves of both: bucket i covers (2^((i-1)/2), 2^(i/2)] tokens, -1 is
# unknown. Their requests are part of those in SERVICE_WINDOWS.
TOKEN_WINDOWS: dict[str, pl.DataType] = {
    "window_start_ns": pl.Int64(),
    "service": pl.String(),
    "operation": pl.String(),
    "kind": pl.String(),
    "version": pl.String(),
    "model": pl.String(),
    "input_bucket": pl.Int16(),
    "output_bucket": pl.Int16(),
    "requests": pl.UInt64(),
    "errors": pl.UInt64(),
    "input_tokens": pl.UInt64(),
    "output_tokens": pl.UInt64(),
    "duration_sum_ms": pl.Float64(),
    "latency_buckets": BUCKETS,
    "first_buckets": BUCKETS,  # time to the first token, where the span says it
    "per_token_buckets": BUCKETS,  # time for each further token, one entry a request
}

# Five minutes of a series in one row, named by their start: what objectives are judged by over hours and weeks.
BLOCK_NS = 300_000_000_000
BLOCKS: dict[str, pl.DataType] = {
    "block_start_ns": pl.Int64(),
    "service": pl.String(),
    "operation": pl.String(),
    "kind": pl.String(),
    "model": pl.String(),  # "" for all of the series; rows of one model are part of those
    "requests": pl.UInt64(),
    "errors": pl.UInt64(),
    "latency_buckets": BUCKETS,
}

Part = Literal["windows", "metrics", "blocks"]


@dataclass(frozen=True, slots=True)
class PastQuestion:
    """What did these series do in earlier ranges of time, [from_ns, to_ns) each, ascending and apart?

    Answered with Frames that hold `part` of those ranges and nothing else: "windows" (windows of spans, and model
    calls), "metrics" (histograms sent as metrics, and gauges), or "blocks". Without `operations` all of the services.
    """

    services: tuple[str, ...]
    ranges: tuple[tuple[int, int], ...]
    part: Part = "windows"
    operations: tuple[str, ...] = ()


PROGRESS: dict[str, pl.DataType] = {
    "source": pl.String(),  # a service and its version
    "window_start_ns": pl.Int64(),
    "items": pl.UInt64(),  # spans that have come so far
}


@dataclass(frozen=True, slots=True)
class Frames:
    """One consistent picture, each frame sorted by window_start_ns and then by its key columns."""

    windows: pl.DataFrame
    selfs: pl.DataFrame
    edges: pl.DataFrame
    gauges: pl.DataFrame
    tokens: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=TOKEN_WINDOWS))
    blocks: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=BLOCKS))

    def between(self, from_ns: int, to_ns: int) -> Frames:
        """The windows that start in [from_ns, to_ns); blocks, which reach further back, only end where these do."""
        names = ("windows", "selfs", "edges", "gauges", "tokens")
        frames: dict[str, pl.DataFrame] = {name: _between(getattr(self, name), from_ns, to_ns) for name in names}
        return Frames(**frames, blocks=self.blocks.filter(pl.col("block_start_ns") + BLOCK_NS <= to_ns))


def _between(frame: pl.DataFrame, from_ns: int, to_ns: int) -> pl.DataFrame:
    start = frame["window_start_ns"]
    if not start.is_sorted():
        return frame.filter((pl.col("window_start_ns") >= from_ns) & (pl.col("window_start_ns") < to_ns))
    # A slice shares its memory with the frame; millions of histograms are not copied at every look.
    first, last = (int(start.search_sorted(time_ns, "left")) for time_ns in (from_ns, to_ns))
    return frame.slice(first, max(0, last - first))


def empty() -> Frames:
    """Frames without rows, typed."""
    return Frames(*(pl.DataFrame(schema=s) for s in (SERVICE_WINDOWS, SELF_WINDOWS, EDGE_WINDOWS, GAUGE_WINDOWS)))
