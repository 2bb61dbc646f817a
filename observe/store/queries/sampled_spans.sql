-- All spans of some traces that met a service before and after a moment. Both samples are of the same size at most; which
-- traces are in them depends on nothing but their ids.
WITH
    chosen AS (
        SELECT TraceId, max(toUnixTimestamp(Window) >= {after_from:UInt32}) AS is_after
        FROM otel_traces
        WHERE ({service:String} = '' OR <<of service>>)
            AND (Window >= toDateTime({before_from:UInt32}, 'UTC') AND Window < toDateTime({before_to:UInt32}, 'UTC')
                OR Window >= toDateTime({after_from:UInt32}, 'UTC') AND Window < toDateTime({after_to:UInt32}, 'UTC'))
            AND cityHash64(TraceId) % {every:UInt32} = 0
        GROUP BY TraceId
        ORDER BY is_after, cityHash64(TraceId), TraceId
        LIMIT {traces:UInt32} BY is_after
    )
SELECT
    is_after AS period, cityHash64(TraceId) AS trace_id, reinterpretAsUInt64(reverse(unhex(SpanId))) AS span_id,
    reinterpretAsUInt64(reverse(unhex(ParentSpanId))) AS parent_span_id, Service AS service, <<operation>> AS operation,
    intDiv(toUnixTimestamp64Nano(Timestamp), 1000) AS start_us, intDiv(Duration, 1000) AS duration_us
FROM otel_traces
INNER JOIN chosen ON otel_traces.TraceId = chosen.TraceId
WHERE Window >= toDateTime({before_from:UInt32} - 60, 'UTC') AND Window < toDateTime({after_to:UInt32} + 60, 'UTC')
    AND otel_traces.TraceId IN (SELECT TraceId FROM chosen)
ORDER BY trace_id, start_us, span_id
LIMIT {spans:UInt32}
SETTINGS max_execution_time = 8
