"""The SQL of a symptom: the level of one series before and after, from the rollups that were looked at."""

from __future__ import annotations

from observe.noticed import QUANTILES, Noticed, Ranges
from observe.store.marks import POINT_LOOKBACK_S
from observe.store.rollups import sql
from observe.store.written import text, written_out

_S = 1_000_000_000
BUCKETS_PER_OCTAVE = 16


def statement(asked: Noticed) -> str:
    """One row: before, after, requests_before, requests_after; NULL or nan where nothing was sent."""
    if asked.measure == "requests_per_s":
        return _traffic(asked)
    level = "sum(errors) / sum(requests)" if asked.measure == "error_ratio" else _quantile(QUANTILES[asked.measure])
    return f"""WITH seen AS (
{_windows(asked)}
),
levels AS (SELECT is_after, sum(requests) AS n, {level} AS level FROM seen GROUP BY is_after)
SELECT anyIf(level, NOT is_after) AS before, anyIf(level, is_after) AS after,
    sumIf(n, NOT is_after) AS requests_before, sumIf(n, is_after) AS requests_after
FROM levels"""


def _quantile(q: float) -> str:
    """The bucket that holds the rank, and how far into it on a logarithmic scale."""
    counts = "mapValues(sumMap(buckets))"
    return f"""
    arrayCumSum({counts}) AS up_to, arrayFirstIndex(x -> x >= {q} * up_to[-1], up_to) AS at,
    exp2((mapKeys(sumMap(buckets))[at] + 1 - (up_to[at] - {q} * up_to[-1]) / {counts}[at]) / {BUCKETS_PER_OCTAVE})"""


def _windows(asked: Noticed) -> str:
    """Windows of both periods."""
    if asked.kind == "Metric":
        return _histograms(asked)
    return f"""    SELECT {_in("Window", asked.after)} AS is_after, toUnixTimestamp(Window) AS at_s,
        Requests AS requests, Errors AS errors, Buckets AS buckets
    FROM service_windows
    WHERE ServiceName = {text(asked.service)} AND SpanName = {text(asked.operation)} AND SpanKind = {text(asked.kind)}
        AND ({_in("Window", (*asked.before, *asked.after))})"""


def _histograms(asked: Noticed) -> str:
    first, last = asked.before[0][0] // _S, asked.after[-1][1] // _S
    inner = written_out(sql("metric_windows"), {"from": first, "to": last, "lookback": POINT_LOOKBACK_S})
    return f"""    SELECT {_in("at", asked.after)} AS is_after, requests, errors,
        toDateTime(intDiv(window_start_ns, {_S}), 'UTC') AS at,
        mapFromArrays(latency_buckets.bucket, latency_buckets.count) AS buckets
    FROM (
{inner.rstrip()}
    )
    WHERE service = {text(asked.service)} AND operation = {text(asked.operation)}
        AND ({_in("at", (*asked.before, *asked.after))})"""


def _traffic(asked: Noticed) -> str:
    """The lower median of the blocks of the time before."""
    starts = ", ".join(str(start // _S) for start, _ in asked.blocks())
    length = asked.block_ns // _S
    after_s = sum(b - a for a, b in asked.after) // _S
    return f"""WITH seen AS (
{_windows(asked)}
),
sums AS (
    SELECT arraySort(arrayMap(s -> arraySum(arrayMap((w, n) -> if(w >= s AND w < s + {length}, n, 0),
        groupArrayIf(at_s, NOT is_after), groupArrayIf(requests, NOT is_after))), [{starts}])) AS blocks,
        sumIf(requests, NOT is_after) AS requests_before, sumIf(requests, is_after) AS requests_after
    FROM seen
)
SELECT blocks[intDiv(length(blocks) + 1, 2)] / {length} AS before, requests_after / {after_s} AS after,
    requests_before, requests_after
FROM sums"""


def _in(column: str, ranges: Ranges) -> str:
    parts = (f"{column} >= toDateTime({a // _S}, 'UTC') AND {column} < toDateTime({b // _S}, 'UTC')" for a, b in ranges)
    return " OR ".join(parts)
