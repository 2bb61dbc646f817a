-- Self time of the spans that end in [from, to): duration minus the union of the children's intervals, clipped to it.
-- Children of any service count, if they end no later than `slack` after the span's window and no earlier than its
-- reach before it. The rule holds span by span: an answer does not depend on how many windows are asked for at once.
SELECT
    Window, ServiceName, SpanName, SpanKind, ServiceVersion, Instance, Host,
    count() AS Requests,
    countIf(failed) AS Errors,
    countIf(failed AND NOT child_failed) AS OriginErrors,
    sum(Duration) AS DurationSumNs,
    sum(self_ns) AS SelfSumNs,
    CAST(sumMap(map(toInt16(ceil(log2(greatest(self_ns, 1000) / 1e6) * 16) - 1), toUInt64(1))), 'Map(Int16, UInt64)')
        AS Buckets,
    max((self_ns, TraceId)).2 AS SlowestTraceId,
    maxIf(TraceId, failed AND NOT child_failed) AS ErrorTraceId
FROM (
    SELECT
        span.*,
        arrayFilter(c -> c.4 <= window_s + {slack:UInt32} AND c.4 + reach_s >= window_s, children) AS near,
        arrayExists(c -> c.3, near) AS child_failed,
        arrayFilter(c -> c.1 < c.2,
            arrayMap(c -> (greatest(c.1, start_ns), least(c.2, start_ns + toInt64(Duration))), near)) AS waits,
        Duration - arrayReduce('intervalLengthSum', waits.1, waits.2) AS self_ns
    FROM (
        SELECT
            Window, toUnixTimestamp(Window) AS window_s, TraceId, cityHash64(TraceId, SpanId) AS id,
            toUnixTimestamp64Nano(Timestamp) AS start_ns, Duration, StatusCode = 'Error' AS failed,
            least({lookback:UInt32}, greatest({reach:UInt32}, toUInt32(intDiv(Duration, 1000000000)) + 20)) AS reach_s,
            Service AS ServiceName, <<operation>> AS SpanName, SpanKind,
            ResourceAttributes['service.version'] AS ServiceVersion,
            ResourceAttributes['service.instance.id'] AS Instance,
            ResourceAttributes['host.name'] AS Host
        FROM otel_traces
        WHERE Window >= toDateTime({from:UInt32}, 'UTC') AND Window < toDateTime({to:UInt32}, 'UTC')
        LIMIT 1 BY id
    ) AS span
    LEFT ANY JOIN (
        SELECT
            cityHash64(TraceId, ParentSpanId) AS id,
            groupArray((
                toUnixTimestamp64Nano(Timestamp), toUnixTimestamp64Nano(Timestamp) + toInt64(Duration),
                StatusCode = 'Error', toUnixTimestamp(Window)
            )) AS children
        FROM otel_traces
        WHERE Window >= toDateTime({first:UInt32}, 'UTC') AND Window <= toDateTime({to:UInt32} - 10 + {slack:UInt32}, 'UTC')
            AND ParentSpanId != ''
        GROUP BY id
    ) AS child ON span.id = child.id
)
GROUP BY Window, ServiceName, SpanName, SpanKind, ServiceVersion, Instance, Host
