"""Recorded spans without kinds and status as the OTLP requests that SDKs would have sent.

What the record does not say is inferred by one rule for all sets. A span whose parent is of another service is SERVER,
and so is one without a parent in the record. The parent of such a span is CLIENT, unless it is SERVER itself: then the
caller's side of the call was not recorded, and a CLIENT span of the callee's times is put in between. All others are
INTERNAL. Status stays unset: nothing is known to have failed.
"""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import blake2b

import numpy as np
import polars as pl
from numpy.typing import NDArray
from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from observe.bench.fleet_encode import BATCH_SPANS, MARKS, attributes, field
from observe.types import WINDOW_NS

SERVER, CLIENT, INTERNAL = Span.SPAN_KIND_SERVER, Span.SPAN_KIND_CLIENT, Span.SPAN_KIND_INTERNAL
BASELINE_S = 600.0
"""A shorter fault-free record is repeated until it is this long: detection tests nothing on a minute of history."""
LONGEST_GAP_S = 60.0
"""Fault-free records of different hours are moved together."""
PUT_IN, LOST = 2**62, 2**61
"""Added to a span's number: the CLIENT span put in above it; the parent that is not in the record."""

KINDED = {
    "trace": pl.Int64,
    "span": pl.Int64,
    "parent": pl.Int64,  # 0 for a root
    "service": pl.String,
    "operation": pl.String,
    "kind": pl.Int64,
    "start_us": pl.Int64,
    "duration_us": pl.Int64,
}


def kinded(spans: pl.DataFrame) -> pl.DataFrame:
    """SPAN_COLUMNS to KINDED: ids become numbers from 1 on, kinds are inferred."""
    named = spans.unique(["trace_id", "span_id"], keep="first", maintain_order=True).with_row_index("span", 1)
    named = named.with_columns(pl.col("span").cast(pl.Int64), trace=pl.col("trace_id").rank("dense").cast(pl.Int64))
    above = named.select("trace_id", "span", "service", parent_span_id="span_id").rename(
        {"span": "parent", "service": "caller"}
    )
    joined = named.join(above, on=["trace_id", "parent_span_id"], how="left", maintain_order="left")
    root = pl.col("parent_span_id").bin.size() == 0
    joined = joined.with_columns(
        parent=pl.when(root).then(0).otherwise(pl.col("parent").fill_null(pl.col("span") + LOST)),
        called=pl.col("caller").is_not_null() & (pl.col("caller") != pl.col("service")),
        served=pl.col("caller").is_null() | (pl.col("caller") != pl.col("service")),
    )
    calls = joined.filter("called").get_column("parent").unique()
    calling = pl.col("span").is_in(calls.implode())
    kind = pl.when("served").then(SERVER).when(calling).then(CLIENT).otherwise(INTERNAL)
    return _with_callers(joined.with_columns(kind=kind.cast(pl.Int64))).select(list(KINDED))


def _with_callers(spans: pl.DataFrame) -> pl.DataFrame:
    """With a CLIENT span between two SERVER spans."""
    servers = spans.filter(pl.col("kind") == SERVER).get_column("span")
    bare = pl.col("called") & pl.col("parent").is_in(servers.implode())
    put_in = spans.filter(bare).with_columns(
        span=pl.col("span") + PUT_IN, service=pl.col("caller"), kind=pl.lit(CLIENT, pl.Int64)
    )
    below = spans.with_columns(parent=pl.when(bare).then(pl.col("span") + PUT_IN).otherwise("parent"))
    return pl.concat([below, put_in])


def timeline(before: pl.DataFrame, after: pl.DataFrame, end_ns: int) -> tuple[pl.DataFrame, int, int]:
    """Fault-free spans followed by those of the fault, the last within a window before `end_ns`; (KINDED, when the
    fault's begin, when they end), in ns.

    Records are thinned, so they do not tell the level of traffic: fault-free traces are drawn at the rate of the
    fault's, for every repetition anew.
    """
    faulty = kinded(after)
    starts = _starts(faulty)
    first_us, last_us = int(starts["at"][0]), int(starts["at"][-1])
    rate = starts.height / max(last_us - first_us, 1)
    parts = [faulty, *_repeated(_together(kinded(before)), first_us, rate, starts.height)]
    shift_us = (end_ns // 1000 - last_us) // (WINDOW_NS // 1000) * (WINDOW_NS // 1000)
    moved = pl.concat(parts).with_columns(pl.col("start_us") + shift_us).sort("start_us", "span")
    return moved, (first_us + shift_us) * 1000, (last_us + shift_us) * 1000


def _starts(spans: pl.DataFrame) -> pl.DataFrame:
    return spans.group_by("trace").agg(at=pl.col("start_us").min()).sort("at", "trace")


def _together(spans: pl.DataFrame) -> pl.DataFrame:
    """Moved so that no gap between two traces is longer than LONGEST_GAP_S and the first begins at 0."""
    starts = _starts(spans).with_columns(gap=pl.col("at").diff().fill_null(0).clip(0, int(LONGEST_GAP_S * 1e6)))
    starts = starts.with_columns(back=pl.col("at") - pl.col("gap").cum_sum())
    return (
        spans.join(starts.select("trace", "back"), on="trace")
        .with_columns(pl.col("start_us") - pl.col("back"))
        .drop("back")
    )


def _repeated(spans: pl.DataFrame, first_us: int, rate: float, used: int) -> Iterator[pl.DataFrame]:
    """Repetitions that end one after the other, the newest at `first_us`; `rate` in traces per µs."""
    starts = _starts(spans)
    if starts.height < 2:
        return
    length_us = int(starts["at"][-1]) * starts.height // (starts.height - 1) + 1
    share = min(1.0, rate * length_us / starts.height)
    for turn in range(1, 1 + int(np.ceil(BASELINE_S * 1e6 / length_us))):
        drawn = starts.filter(pl.Series(np.random.default_rng(turn).random(starts.height) < share))
        yield (
            spans.join(drawn.select("trace"), on="trace", how="semi")
            .with_columns(
                pl.col("start_us") + first_us - turn * length_us, trace=pl.col("trace") + used + turn * starts.height
            )
            .select(list(KINDED))
        )


def requests(spans: pl.DataFrame) -> Iterator[tuple[bytes, int]]:
    """ExportTraceServiceRequests of one service and up to BATCH_SPANS spans each, with how many they hold.

    Spans of one name and kind differ in ids and times only, which have fixed lengths: each such kind is serialized
    once, and numpy writes ids and times over it.
    """
    scope = field(1, InstrumentationScope(name="observe.bench").SerializeToString())
    for (service,), part in spans.partition_by("service", as_dict=True, maintain_order=True).items():
        head = field(1, Resource(attributes=attributes({"service.name": str(service)})).SerializeToString())
        rows = _rows(part)
        for first in range(0, len(rows), BATCH_SPANS):
            some = rows[first : first + BATCH_SPANS]
            yield field(1, head + field(2, scope + b"".join(some))), len(some)


def _rows(spans: pl.DataFrame) -> list[bytes]:
    """Each span as a field of a ScopeSpans, in the order given."""
    found: list[bytes] = [b""] * spans.height
    numbered = spans.select("operation", "kind", root=pl.col("parent") == 0).with_row_index("at")
    columns = _columns(spans)
    for (operation, kind, root), group in numbered.partition_by("operation", "kind", "root", as_dict=True).items():
        template, places = _template(str(operation), int(kind), bool(root))
        at = group["at"].to_numpy()
        table = np.tile(np.frombuffer(template, np.uint8), (len(at), 1))
        for name, place in places.items():
            values = columns[name][at]
            table[:, place : place + values.shape[1]] = values
        for i, row in zip(at.tolist(), table.view(f"V{len(template)}").ravel().tolist(), strict=True):
            found[i] = row
    return found


def _columns(spans: pl.DataFrame) -> dict[str, NDArray[np.uint8]]:
    """Ids (big-endian numbers) and times (little-endian, in ns) as bytes: rows × their length."""
    start = spans["start_us"].to_numpy()
    end = start + np.maximum(spans["duration_us"].to_numpy(), 0)
    unique, at = np.unique(spans["trace"].to_numpy(), return_inverse=True)
    ids = b"".join(blake2b(trace.to_bytes(8), digest_size=16).digest() for trace in unique.tolist())
    numbers = {
        "span": spans["span"].to_numpy().astype(">u8"),
        "parent": spans["parent"].to_numpy().astype(">u8"),
        "start": (start * 1000).astype("<u8"),
        "end": (end * 1000).astype("<u8"),
    }
    return {
        "trace": np.frombuffer(ids, np.uint8).reshape(-1, 16)[at],
        **{name: np.ascontiguousarray(values).view(np.uint8).reshape(-1, 8) for name, values in numbers.items()},
    }


def _template(operation: str, kind: int, root: bool) -> tuple[bytes, dict[str, int]]:
    """A span as a field of a ScopeSpans, and where its ids and times lie."""
    span = Span(
        trace_id=MARKS["trace"],
        span_id=MARKS["span"],
        parent_span_id=b"" if root else MARKS["parent"],
        name=operation,
        kind=kind,  # type: ignore[arg-type]  # the enum is a number on the wire
        start_time_unix_nano=int.from_bytes(MARKS["start"], "little"),
        end_time_unix_nano=int.from_bytes(MARKS["end"], "little"),
    )
    raw = field(2, span.SerializeToString())
    return raw, {name: raw.index(mark) for name, mark in MARKS.items() if mark in raw}
