"""What tells that a window's rows are not those that were read before, asked for a whole range at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
import polars as pl

from observe.store.recent import Mark, Marks
from observe.store.rollups import Reach

POINT_LOOKBACK_S = 300
"""How old the point before may be that a counter's rate is taken from."""

COUNTS = """
SELECT toInt64(toUnixTimestamp(Window)) AS window_s, sum(Requests) AS spans, max(DurationMaxNs) AS duration_max_ns,
    toInt64(sum(Errors)) AS errors, toInt64(sum(DurationSumNs)) AS duration_ns
FROM service_windows
WHERE Window >= toDateTime({from:UInt32}, 'UTC') AND Window < toDateTime({to:UInt32}, 'UTC')
GROUP BY Window ORDER BY Window
"""

CALLS = """
SELECT toInt64(toUnixTimestamp(Window)) AS window_s, toInt64(sum(Requests)) AS requests, toInt64(sum(Errors)) AS errors,
    toInt64(sum(InputTokens)) AS input, toInt64(sum(OutputTokens)) AS output, toInt64(sum(DurationSumNs)) AS duration_ns
FROM token_windows
WHERE Window >= toDateTime({from:UInt32}, 'UTC') AND Window < toDateTime({to:UInt32}, 'UTC')
GROUP BY Window ORDER BY Window
"""

POINTS = """
SELECT toInt64(toUnixTimestamp(Window)) AS window_s, toInt64(sum(points)) AS points FROM (
    SELECT Window, count() AS points FROM {one}
    WHERE Window >= toDateTime({{from:UInt32}}, 'UTC') AND Window < toDateTime({{to:UInt32}}, 'UTC') GROUP BY Window
    UNION ALL
    SELECT Window, count() AS points FROM {other}
    WHERE Window >= toDateTime({{from:UInt32}}, 'UTC') AND Window < toDateTime({{to:UInt32}}, 'UTC') GROUP BY Window
)
GROUP BY Window ORDER BY Window
"""


class Database(Protocol):
    def query(self, sql: str, parameters: Mapping[str, object] | None = None, /) -> pl.DataFrame: ...


def of_spans(counts: pl.DataFrame, from_s: int, to_s: int) -> Marks:
    """Windows of [from, to) in an answer to COUNTS."""
    mine = counts.filter(pl.col("window_s").is_between(from_s, to_s, closed="left"))
    return _marks(mine.select("window_s", "spans", "errors", "duration_ns"))


def of_joins(reach: Reach, settled: pl.DataFrame) -> Marks:
    """Windows with a kept answer change with its version; the others are computed each time.

    Spans come a moment before or after their counts, so a computed answer cannot be known by the count.
    """
    kept = {w: (v, n) for w, v, n in settled.select("window_s", "version", "spans").iter_rows()}
    good = zip(reach.window_s.tolist(), (~reach.differs(settled)).tolist(), strict=True)
    return {w: kept[w] if is_good else None for w, is_good in good}


def of_calls(db: Database, from_s: int, to_s: int) -> Marks:
    return _marks(db.query(CALLS, {"from": from_s, "to": to_s}))


def of_points(db: Database, tables: tuple[str, str], from_s: int, to_s: int) -> Marks:
    """A window that is made of points changes with its own and with those that its rates may begin at."""
    first_s = max(from_s - POINT_LOOKBACK_S - 10, 0)
    counts = db.query(POINTS.format(one=tables[0], other=tables[1]), {"from": first_s, "to": to_s})
    if counts.is_empty():
        return {}
    window_s, points = (counts[name].to_numpy() for name in ("window_s", "points"))
    total = np.concatenate([[0], np.cumsum(points)])
    before = total[:-1] - total[np.searchsorted(window_s, window_s - POINT_LOOKBACK_S - 10)]
    rows = zip(window_s.tolist(), points.tolist(), before.tolist(), strict=True)
    return {w: (own, earlier) for w, own, earlier in rows if w >= from_s}


def together(parts: Sequence[Marks]) -> Marks:
    """Of windows whose rows come from several places."""
    return {w: tuple(part.get(w) for part in parts) for w in set().union(*parts)}


def _marks(rows: pl.DataFrame) -> Marks:
    found: dict[int, Mark] = {w: tuple(values) for w, *values in rows.iter_rows()}
    return found
