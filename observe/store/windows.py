"""Frames out of the store, and the settling of the windows that they are made of."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Protocol

import polars as pl

from observe import frames
from observe.frames import Frames
from observe.store import calls
from observe.store.rollups import LOOKBACK_S, QUIET_S, SLACK_S, WINDOW_S, Ints, Reach, sql
from observe.types import WINDOW_NS

SETTLE_BACK_S = 3 * 3600
"""How far `settle` looks back; what is older and never settled is computed whenever it is asked for."""

POINT_LOOKBACK_S = 300
"""How old the point before may be that a counter's rate is taken from."""

_TIME = "toInt64(toUnixTimestamp(Window)) * 1000000000 AS window_start_ns"
_BUCKETS = "CAST(arrayZip(mapKeys(Buckets), mapValues(Buckets)), 'Array(Tuple(bucket Int16, count UInt64))')"

SELF_COLUMNS = f"""{_TIME}, ServiceName AS service, SpanName AS operation, SpanKind AS kind, ServiceVersion AS version,
    Instance AS instance, Host AS host, Requests AS requests, Errors AS errors, OriginErrors AS origin_errors,
    DurationSumNs / 1e6 AS duration_sum_ms, SelfSumNs / 1e6 AS self_sum_ms, {_BUCKETS} AS self_buckets,
    SlowestTraceId AS slowest_trace_id, ErrorTraceId AS error_trace_id"""

EDGE_COLUMNS = f"""{_TIME}, Caller AS caller, CallerOperation AS caller_operation, Callee AS callee,
    CalleeOperation AS callee_operation, Connection AS connection, Calls AS calls, Errors AS errors,
    ClientSumNs / 1e6 AS client_sum_ms, ServerSumNs / 1e6 AS server_sum_ms, {_BUCKETS} AS latency_buckets"""

COUNTS = """
SELECT toInt64(toUnixTimestamp(Window)) AS window_s, sum(Requests) AS spans, max(DurationMaxNs) AS duration_max_ns
FROM service_windows
WHERE Window >= toDateTime({from:UInt32}, 'UTC') AND Window < toDateTime({to:UInt32}, 'UTC')
GROUP BY Window ORDER BY Window
"""

# Counted from the spans and before the joins read them: what arrives in between makes the answer newer than its
# count says, never older.
COUNTS_OF_SPANS = """
SELECT toInt64(toUnixTimestamp(Window)) AS window_s, count() AS spans, max(Duration) AS duration_max_ns
FROM otel_traces
WHERE Window >= toDateTime({from:UInt32}, 'UTC') AND Window < toDateTime({to:UInt32}, 'UTC')
GROUP BY Window ORDER BY Window
"""

SETTLED = """
SELECT toInt64(toUnixTimestamp(Window)) AS window_s, max(Version) AS version, argMax(Spans, Version) AS spans
FROM settled
WHERE Window >= toDateTime({from:UInt32}, 'UTC') AND Window < toDateTime({to:UInt32}, 'UTC')
GROUP BY Window
"""

KEPT = """
SELECT {columns} FROM {table}
WHERE Window >= toDateTime({{from:UInt32}}, 'UTC') AND Window < toDateTime({{to:UInt32}}, 'UTC')
    AND (Window, Version) IN (
        SELECT Window, max(Version) FROM settled
        WHERE Window >= toDateTime({{from:UInt32}}, 'UTC') AND Window < toDateTime({{to:UInt32}}, 'UTC')
        GROUP BY Window
    )
"""

SERVICE_WINDOWS = f"""
SELECT {_TIME}, ServiceName AS service, SpanName AS operation, SpanKind AS kind, ServiceVersion AS version,
    sum(Requests) AS requests, sum(Errors) AS errors, sum(DurationSumNs) / 1e6 AS duration_sum_ms,
    CAST(arrayZip(mapKeys(sumMap(Buckets) AS b), mapValues(b)), 'Array(Tuple(bucket Int16, count UInt64))')
        AS latency_buckets
FROM service_windows
WHERE Window >= toDateTime({{from:UInt32}}, 'UTC') AND Window < toDateTime({{to:UInt32}}, 'UTC')
GROUP BY Window, ServiceName, SpanName, SpanKind, ServiceVersion
"""


class Database(Protocol):
    def query(self, sql: str, parameters: Mapping[str, object] | None = None, /) -> pl.DataFrame: ...

    def execute(self, sql: str, parameters: Mapping[str, object], /) -> None: ...


def read(db: Database, from_ns: int, to_ns: int) -> Frames:
    """The windows that start in [from_ns, to_ns)."""
    from_s, to_s = _up(from_ns), _up(to_ns)
    if to_s <= from_s:
        return frames.empty()
    span = {"from": from_s, "to": to_s}
    counts = db.query(COUNTS, {"from": max(from_s - LOOKBACK_S, 0), "to": to_s + SLACK_S})
    reach = Reach.of(counts, from_s, to_s)
    kept = db.query(SETTLED, span)
    stale = reach.differs(kept)
    good = kept.filter(pl.col("window_s").is_in(reach.where(~stale).window_s.tolist()))
    fresh = reach.where(stale)
    points = {**span, "lookback": POINT_LOOKBACK_S}
    return Frames(
        _typed([db.query(SERVICE_WINDOWS, span), db.query(sql("metric_windows"), points)], frames.SERVICE_WINDOWS, 5),
        _typed(_joined(db, "self_windows", SELF_COLUMNS, span, good, fresh), frames.SELF_WINDOWS, 7),
        _typed(_joined(db, "edge_windows", EDGE_COLUMNS, span, good, fresh), frames.EDGE_WINDOWS, 6),
        _typed([db.query(sql("gauge_windows"), points)], frames.GAUGE_WINDOWS, 9),
        calls.tokens(db, from_s, to_s),
    )


def settle(db: Database, now_ns: int) -> int:
    """Computes and keeps the windows that have settled and have no answer, or an outdated one; how many."""
    to_s = now_ns // 1_000_000_000 - WINDOW_S - SLACK_S - QUIET_S
    to_s -= to_s % WINDOW_S
    from_s = max(to_s - SETTLE_BACK_S, 0)
    around = {"from": max(from_s - LOOKBACK_S, 0), "to": to_s + SLACK_S}
    kept = db.query(SETTLED, {"from": from_s, "to": to_s})
    reach = Reach.of(db.query(COUNTS, around), from_s, to_s)
    if not reach.differs(kept).any():
        return 0
    reach = Reach.of(db.query(COUNTS_OF_SPANS, around), from_s, to_s)
    reach = reach.where(reach.differs(kept))
    for chunk in reach.chunks():
        version = time.time_ns()
        parameters = {**chunk.parameters(), "windows": chunk.window_s.tolist(), "version": version}
        for table in ("self_windows", "edge_windows"):
            db.execute(
                f"INSERT INTO {table} SELECT Window, {{version:UInt64}}, * EXCEPT Window FROM ({sql(table)}) "
                "WHERE toUnixTimestamp(Window) IN {windows:Array(UInt32)}",
                parameters,
            )
        db.execute(
            "INSERT INTO settled SELECT toDateTime(pair.1, 'UTC'), {version:UInt64}, pair.2 FROM "
            "(SELECT arrayJoin(arrayZip({windows:Array(UInt32)}, {spans:Array(UInt64)})) AS pair)",
            {"windows": parameters["windows"], "version": version, "spans": chunk.spans_in_reach.tolist()},
        )
    return len(reach.window_s)


def _joined(
    db: Database, table: str, columns: str, span: Mapping[str, int], good: pl.DataFrame, fresh: Reach
) -> list[pl.DataFrame]:
    """Rows of a rollup that needs joins: kept ones of the good windows, computed ones of the others."""
    parts = []
    if not good.is_empty():
        parts.append(_only(db.query(KEPT.format(columns=columns, table=table), span), good["window_s"].to_numpy()))
    compute = f"SELECT {columns} FROM ({sql(table)})"
    parts += [_only(db.query(compute, chunk.parameters()), chunk.window_s) for chunk in fresh.chunks()]
    return parts


def _only(rows: pl.DataFrame, window_s: Ints) -> pl.DataFrame:
    wanted = pl.Series("window_start_ns", window_s * 1_000_000_000, dtype=pl.Int64)
    return rows.filter(pl.col("window_start_ns").is_in(wanted.implode()))


def _typed(parts: list[pl.DataFrame], schema: Mapping[str, pl.DataType], keys: int) -> pl.DataFrame:
    """The parts as one frame of the schema, sorted by its first `keys` columns."""
    if not parts:
        return pl.DataFrame(schema=schema)
    frame = pl.concat([part.select(list(schema)).cast(pl.Schema(schema)) for part in parts])
    return frame.sort(list(schema)[:keys])


def _up(time_ns: int) -> int:
    """Start in seconds of the first window that starts at or after the time."""
    return -(-time_ns // WINDOW_NS) * WINDOW_S
