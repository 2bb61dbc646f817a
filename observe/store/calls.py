"""Model calls by their tokens, and the five-minute blocks that objectives are judged by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import polars as pl

from observe.frames import BLOCK_NS, BLOCKS, PROGRESS, TOKEN_WINDOWS


class Database(Protocol):
    def query(self, sql: str, parameters: Mapping[str, object] | None = None, /) -> pl.DataFrame: ...


def _histogram(column: str) -> str:
    merged = f"sumMap({column}) AS m_{column}"
    return f"CAST(arrayZip(mapKeys({merged}), mapValues(m_{column})), 'Array(Tuple(bucket Int16, count UInt64))')"


TOKENS = f"""
SELECT toInt64(toUnixTimestamp(Window)) * 1000000000 AS window_start_ns, ServiceName AS service,
    SpanName AS operation, SpanKind AS kind, ServiceVersion AS version, Model AS model, InputBucket AS input_bucket,
    OutputBucket AS output_bucket, sum(Requests) AS requests, sum(Errors) AS errors, sum(InputTokens) AS input_tokens,
    sum(OutputTokens) AS output_tokens, sum(DurationSumNs) / 1e6 AS duration_sum_ms,
    {_histogram("Buckets")} AS latency_buckets, {_histogram("FirstBuckets")} AS first_buckets,
    {_histogram("PerTokenBuckets")} AS per_token_buckets
FROM token_windows
WHERE Window >= toDateTime({{from:UInt32}}, 'UTC') AND Window < toDateTime({{to:UInt32}}, 'UTC')
GROUP BY Window, ServiceName, SpanName, SpanKind, ServiceVersion, Model, InputBucket, OutputBucket
"""

OF_SERVICES = f"""
SELECT toInt64(toUnixTimestamp(Block)) * 1000000000 AS block_start_ns, ServiceName AS service, SpanName AS operation,
    SpanKind AS kind, '' AS model, sum(Requests) AS requests, sum(Errors) AS errors,
    {_histogram("Buckets")} AS latency_buckets
FROM service_blocks
WHERE ServiceName IN {{services:Array(String)}}
    AND Block >= toDateTime({{from:UInt32}}, 'UTC') AND Block < toDateTime({{to:UInt32}}, 'UTC')
GROUP BY Block, ServiceName, SpanName, SpanKind
"""

OF_MODELS = f"""
SELECT intDiv(toInt64(toUnixTimestamp(Window)), 300) * 300000000000 AS block_start_ns, ServiceName AS service,
    SpanName AS operation, SpanKind AS kind, Model AS model, sum(Requests) AS requests, sum(Errors) AS errors,
    {_histogram("Buckets")} AS latency_buckets
FROM token_windows
WHERE ServiceName IN {{services:Array(String)}} AND Model != ''
    AND Window >= toDateTime({{from:UInt32}}, 'UTC') AND Window < toDateTime({{to:UInt32}}, 'UTC')
GROUP BY block_start_ns, ServiceName, SpanName, SpanKind, Model
"""

SENT = """
SELECT concat(ServiceName, '@', ServiceVersion) AS source,
    toInt64(toUnixTimestamp(Window)) * 1000000000 AS window_start_ns, sum(Requests) AS items
FROM service_windows WHERE Window >= toDateTime({from:UInt32}, 'UTC')
GROUP BY ServiceName, ServiceVersion, Window
"""


def progress(db: Database, from_ns: int) -> pl.DataFrame:
    """PROGRESS of the windows that start at `from_ns` or later."""
    return typed([db.query(SENT, {"from": max(0, -(-from_ns // 10**9))})], PROGRESS, 2)


def tokens(db: Database, from_s: int, to_s: int) -> pl.DataFrame:
    """TOKEN_WINDOWS of the windows that start in [from_s, to_s), seconds since the epoch."""
    return typed([db.query(TOKENS, {"from": from_s, "to": to_s})], TOKEN_WINDOWS, 8)


def blocks(db: Database, services: Sequence[str], from_ns: int, to_ns: int) -> pl.DataFrame:
    """BLOCKS of the services that start in [from_ns, to_ns), models apart and all together."""
    if not services or to_ns <= from_ns:
        return pl.DataFrame(schema=BLOCKS)
    first_s, last_s = (-(-max(t, 0) // BLOCK_NS) * BLOCK_NS // 10**9 for t in (from_ns, to_ns))
    span = {"services": list(services), "from": first_s, "to": last_s}
    return typed([db.query(OF_SERVICES, span), db.query(OF_MODELS, span)], BLOCKS, 5)


def typed(parts: Sequence[pl.DataFrame], schema: Mapping[str, pl.DataType], keys: int) -> pl.DataFrame:
    filled = [part.select(list(schema)).cast(pl.Schema(schema)) for part in parts if part.width]
    return pl.concat([pl.DataFrame(schema=schema), *filled]).sort(list(schema)[:keys])
