-- How whole the traces are: of the spans that end in [from, to), those whose parent never came, and the traces that
-- have no root. Parents are looked for a while before and after. Whole traces are sampled. service '' is the total.
SELECT
    seen.1 AS service, count() AS spans, countIf(seen.2 = '') AS roots, countIf(seen.3) AS orphans,
    uniqExactIf((TraceId, seen.2), seen.3) AS missing_parents,
    uniqExact(TraceId) AS traces, uniqExactIf(TraceId, NOT rooted) AS rootless
FROM (
    SELECT
        TraceId, groupUniqArray(SpanId) AS ids, countIf(ParentSpanId = '') > 0 AS rooted,
        arrayJoin(arrayMap(x -> (x.1, x.2, x.2 != '' AND NOT has(ids, x.2)), groupArrayIf(
            (Service, ParentSpanId),
            Window >= toDateTime({from:UInt32}, 'UTC') AND Window < toDateTime({to:UInt32}, 'UTC')))) AS seen
    FROM otel_traces
    WHERE Window >= toDateTime({from:UInt32} - {around:UInt32}, 'UTC')
        AND Window < toDateTime({to:UInt32} + {around:UInt32}, 'UTC')
        AND cityHash64(TraceId) % {every:UInt32} = 0
    GROUP BY TraceId
)
GROUP BY GROUPING SETS ((service), ())
