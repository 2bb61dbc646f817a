"""Frames out of the store, and the settling of the windows that they are made of."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Protocol

import numpy as np
import polars as pl

from observe import frames
from observe.frames import Frames
from observe.store import calls, marks
from observe.store.recent import Marks, Recent, Table, only, runs
from observe.store.rollups import LOOKBACK_S, QUIET_S, SLACK_S, WINDOW_S, Reach, sql
from observe.types import WINDOW_NS

SETTLE_BACK_S = 3 * 3600
"""How far `settle` looks back; what is older and never settled is computed whenever it is asked for."""

_TIME = "toInt64(toUnixTimestamp(Window)) * 1000000000 AS window_start_ns"
_BUCKETS = "CAST(arrayZip(mapKeys(Buckets), mapValues(Buckets)), 'Array(Tuple(bucket Int16, count UInt64))')"

SELF_COLUMNS = f"""{_TIME}, ServiceName AS service, SpanName AS operation, SpanKind AS kind, ServiceVersion AS version,
    Instance AS instance, Host AS host, Requests AS requests, Errors AS errors, OriginErrors AS origin_errors,
    DurationSumNs / 1e6 AS duration_sum_ms, SelfSumNs / 1e6 AS self_sum_ms, {_BUCKETS} AS self_buckets,
    SlowestTraceId AS slowest_trace_id, ErrorTraceId AS error_trace_id"""

EDGE_COLUMNS = f"""{_TIME}, Caller AS caller, CallerOperation AS caller_operation, Callee AS callee,
    CalleeOperation AS callee_operation, Connection AS connection, Calls AS calls, Errors AS errors,
    ClientSumNs / 1e6 AS client_sum_ms, ServerSumNs / 1e6 AS server_sum_ms, {_BUCKETS} AS latency_buckets"""

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


HISTOGRAMS = ("otel_metrics_histogram", "otel_metrics_exponential_histogram")
GAUGES = ("otel_metrics_gauge", "otel_metrics_sum")

NOTHING: Mapping[str, Table] = {
    name: Table(frame, {})
    for name in ("windows", "selfs", "edges", "gauges", "tokens")
    for frame in [getattr(frames.empty(), name)]
}


class Database(Protocol):
    def query(self, sql: str, parameters: Mapping[str, object] | None = None, /) -> pl.DataFrame: ...

    def execute(self, sql: str, parameters: Mapping[str, object], /) -> None: ...


def read(db: Database, from_ns: int, to_ns: int, recent: Recent | None = None, *, joined: bool = True) -> Frames:
    """The windows that start in [from_ns, to_ns); those that `recent` holds and that are still the same from there.
    Unless `joined`, what has to be computed from spans by joins is left out.

    What tells that a window has changed is asked before its rows: what arrives in between makes the rows newer than
    their mark says, never older.
    """
    from_s, to_s = _up(from_ns), _up(to_ns)
    if to_s <= from_s:
        return frames.empty()
    recent = recent or Recent()
    known = {**NOTHING, **recent.tables()}
    counts = db.query(marks.COUNTS, {"from": max(from_s - LOOKBACK_S, 0), "to": to_s + SLACK_S})
    reach = Reach.of(counts, from_s, to_s)
    joins = marks.of_joins(reach, db.query(SETTLED, {"from": from_s, "to": to_s}))
    if not joined:
        joins = {window: mark for window, mark in joins.items() if mark is not None}
    histograms = marks.of_points(db, HISTOGRAMS, from_s, to_s)
    tables = {
        "windows": known["windows"].at(
            marks.together([marks.of_spans(counts, from_s, to_s), histograms]),
            partial(_service_windows, db, histograms),
        ),
        "selfs": known["selfs"].at(joins, partial(_self_windows, db, reach, joins)),
        "edges": known["edges"].at(joins, partial(_edge_windows, db, reach, joins)),
        "gauges": known["gauges"].at(marks.of_points(db, GAUGES, from_s, to_s), partial(_gauge_windows, db)),
        "tokens": known["tokens"].at(marks.of_calls(db, from_s, to_s), partial(_token_windows, db)),
    }
    recent.keep(from_s, to_s, tables)
    return Frames(**{name: table.frame for name, table in tables.items()})


def settle(db: Database, now_ns: int) -> int:
    """Computes and keeps the windows that have settled and have no answer, or an outdated one; how many."""
    to_s = now_ns // 1_000_000_000 - WINDOW_S - SLACK_S - QUIET_S
    to_s -= to_s % WINDOW_S
    from_s = max(to_s - SETTLE_BACK_S, 0)
    around = {"from": max(from_s - LOOKBACK_S, 0), "to": to_s + SLACK_S}
    kept = db.query(SETTLED, {"from": from_s, "to": to_s})
    reach = Reach.of(db.query(marks.COUNTS, around), from_s, to_s)
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


def _service_windows(db: Database, histograms: Marks, window_s: Sequence[int]) -> pl.DataFrame:
    parts = [db.query(SERVICE_WINDOWS, {"from": a, "to": b}) for a, b in runs(window_s, WINDOW_S)]
    pointed = [w for w in window_s if w in histograms]
    spans = ({"from": a, "to": b, "lookback": marks.POINT_LOOKBACK_S} for a, b in runs(pointed, WINDOW_S))
    parts += [db.query(sql("metric_windows"), span) for span in spans]
    return only(_typed(parts, frames.SERVICE_WINDOWS, 5), window_s)


def _gauge_windows(db: Database, window_s: Sequence[int]) -> pl.DataFrame:
    spans = ({"from": a, "to": b, "lookback": marks.POINT_LOOKBACK_S} for a, b in runs(window_s, WINDOW_S))
    parts = [db.query(sql("gauge_windows"), span) for span in spans]
    return only(_typed(parts, frames.GAUGE_WINDOWS, 9), window_s)


def _token_windows(db: Database, window_s: Sequence[int]) -> pl.DataFrame:
    return only(pl.concat([calls.tokens(db, a, b) for a, b in runs(window_s, WINDOW_S)]), window_s)


def _self_windows(db: Database, reach: Reach, joins: Marks, window_s: Sequence[int]) -> pl.DataFrame:
    return _typed(_joined(db, "self_windows", SELF_COLUMNS, reach, joins, window_s), frames.SELF_WINDOWS, 7)


def _edge_windows(db: Database, reach: Reach, joins: Marks, window_s: Sequence[int]) -> pl.DataFrame:
    return _typed(_joined(db, "edge_windows", EDGE_COLUMNS, reach, joins, window_s), frames.EDGE_WINDOWS, 6)


def _joined(
    db: Database, table: str, columns: str, reach: Reach, joins: Marks, window_s: Sequence[int]
) -> list[pl.DataFrame]:
    """Rows of a rollup that needs joins: kept ones where there is a good answer, computed ones elsewhere."""
    good = [w for w in window_s if joins[w] is not None]
    kept = KEPT.format(columns=columns, table=table)
    parts = [only(db.query(kept, {"from": a, "to": b}), good) for a, b in runs(good, WINDOW_S)]
    fresh = reach.where(np.isin(reach.window_s, [w for w in window_s if joins[w] is None]))
    compute = f"SELECT {columns} FROM ({sql(table)})"
    parts += [only(db.query(compute, chunk.parameters()), chunk.window_s.tolist()) for chunk in fresh.chunks()]
    return parts


def _typed(parts: list[pl.DataFrame], schema: Mapping[str, pl.DataType], keys: int) -> pl.DataFrame:
    """The parts as one frame of the schema, sorted by its first `keys` columns."""
    if not parts:
        return pl.DataFrame(schema=schema)
    frame = pl.concat([part.select(list(schema)).cast(pl.Schema(schema)) for part in parts])
    return frame.sort(list(schema)[:keys])


def _up(time_ns: int) -> int:
    """Start in seconds of the first window that starts at or after the time."""
    return -(-time_ns // WINDOW_NS) * WINDOW_S
