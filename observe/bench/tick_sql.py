"""What the store's part of a look costs: windows of many series read from ClickHouse in this process."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from functools import partial

import polars as pl

from observe.bench.ticks import timed
from observe.frames import Frames
from observe.store import ClickHouseStore
from observe.store.marks import COUNTS
from observe.store.rollups import Reach
from observe.store.windows import SERVICE_WINDOWS
from observe.types import WINDOW_NS, Json

BLOCK = 36  # windows that are drawn; the hour repeats them
HOUR = 360
WINDOW_S = WINDOW_NS // 10**9


COPIED = """
INSERT INTO service_windows SELECT Window + intDiv(number, {copies:UInt32}) * {block_s:UInt32},
    concat(ServiceName, '-', toString(number % {copies:UInt32})), SpanName, SpanKind, ServiceVersion, Requests, Errors,
    DurationSumNs, DurationMaxNs, Buckets
FROM bench_windows CROSS JOIN numbers({times:UInt32}) AS n
"""

NEXT = """
INSERT INTO service_windows SELECT Window + {by:UInt32}, * EXCEPT Window FROM service_windows
WHERE Window = toDateTime({last:UInt32}, 'UTC')
"""


def reads(windows: pl.DataFrame, sizes: Sequence[int]) -> list[Json]:
    """Per size, with `windows` of a few series copied: the newest window, and an hour of all; medians of three."""
    return [_reads(windows, series) for series in sizes]


def _reads(windows: pl.DataFrame, series: int) -> Json:
    known = windows["service"].n_unique()
    copies = max(1, series // known)
    end_s = int(time.time()) // WINDOW_S * WINDOW_S
    with tempfile.TemporaryDirectory() as folder:
        store = ClickHouseStore(f"chdb://{folder}")
        try:
            store.migrate()
            store.execute("CREATE TABLE bench_windows AS service_windows ENGINE = MergeTree ORDER BY Window", {})
            store.append("bench_windows", _rows(windows, end_s - HOUR * WINDOW_S))
            parameters = {"copies": copies, "block_s": BLOCK * WINDOW_S, "times": copies * HOUR // BLOCK}
            store.execute(COPIED, parameters)
            newest = _timed(store, end_s - WINDOW_S, end_s)
            hour = _timed(store, end_s - HOUR * WINDOW_S, end_s)
            looks = _looks(store, end_s)
        finally:
            store.close()
    return {"series": known * copies, "sql_newest_window": newest, "sql_hour": hour, **looks}


def _looks(store: ClickHouseStore, end_s: int) -> dict[str, Json]:
    """Frames of an hour: read whole, then again after each of three more windows, the median of these."""
    begin_ns, end_ns = (end_s - HOUR * WINDOW_S) * 10**9, end_s * 10**9
    reach = Reach.of(store.query(COUNTS, {"from": begin_ns // 10**9, "to": end_s}), begin_ns // 10**9, end_s)
    pairs = zip(reach.window_s.tolist(), reach.spans_in_reach.tolist(), strict=True)
    store.append("settled", [{"Window": window, "Version": 1, "Spans": spans} for window, spans in pairs])
    first = timed(lambda: store.frames(begin_ns, end_ns))
    later = []
    for i in range(1, 4):
        store.execute(NEXT, {"last": end_s - WINDOW_S, "by": i * WINDOW_S})
        moved_ns = i * WINDOW_NS
        later.append(timed(partial(store.frames, begin_ns + moved_ns, end_ns + moved_ns)))
    return {"first_look": _cost(first), "next_look": _cost(sorted(later, key=lambda one: one[2])[1])}


def _rows(windows: pl.DataFrame, start_s: int) -> list[dict[str, object]]:
    first_ns = int(windows["window_start_ns"].min())  # type: ignore[arg-type]
    some = windows.filter(pl.col("window_start_ns") < first_ns + BLOCK * WINDOW_NS)
    return [
        {
            "Window": start_s + (row["window_start_ns"] - first_ns) // 10**9,
            "ServiceName": row["service"],
            "SpanName": row["operation"],
            "SpanKind": row["kind"],
            "ServiceVersion": row["version"],
            "Requests": row["requests"],
            "Errors": row["errors"],
            "DurationSumNs": int(row["duration_sum_ms"] * 1e6),
            "DurationMaxNs": 0,
            "Buckets": {str(pair["bucket"]): pair["count"] for pair in row["latency_buckets"]},
        }
        for row in some.to_dicts()
    ]


def _timed(store: ClickHouseStore, from_s: int, to_s: int) -> Json:
    taken = [timed(lambda: store.query(SERVICE_WINDOWS, {"from": from_s, "to": to_s})) for _ in range(3)]
    return _cost(sorted(taken, key=lambda one: one[2])[1])


def _cost(taken: tuple[Frames | pl.DataFrame, float, float]) -> Json:
    found, seconds, cpu_s = taken
    rows = found.windows if isinstance(found, Frames) else found
    return {"rows": rows.height, "seconds": round(seconds, 4), "cpu_seconds": round(cpu_s, 4)}
