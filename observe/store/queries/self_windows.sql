-- Self time of the spans that end in [from, to): duration minus the union of the children's intervals, clipped to it.
-- Children of any service count, if they end no later than `slack` after the span's window and no earlier than its
-- reach before it. The rule holds span by span: an answer does not depend on how many windows are asked for at once.
-- Grouped twice: a map for each bucket costs far less than a map for each span. The slowest span is found as the greatest
-- of texts that begin with the self time in big-endian bytes: pairs are compared value by value, which costs ten times that.
SELECT
    Window, ServiceName, SpanName, SpanKind, ServiceVersion, Instance, Host,
    sum(requests) AS Requests,
    sum(errors) AS Errors,
    sum(origin_errors) AS OriginErrors,
    sum(duration_sum_ns) AS DurationSumNs,
    sum(self_sum_ns) AS SelfSumNs,
    CAST(sumMap(map(bucket, requests)), 'Map(Int16, UInt64)') AS Buckets,
    substring(max(slowest), 9) AS SlowestTraceId,
    max(error_trace_id) AS ErrorTraceId
FROM (
    SELECT
        Window, ServiceName, SpanName, SpanKind, ServiceVersion, Instance, Host,
        toInt16(ceil(log2(greatest(self_ns, 1000) / 1e6) * 16) - 1) AS bucket,
        count() AS requests,
        countIf(failed) AS errors,
        countIf(failed AND NOT child_failed) AS origin_errors,
        sum(Duration) AS duration_sum_ns,
        sum(self_ns) AS self_sum_ns,
        max(concat(reinterpretAsFixedString(byteSwap(toUInt64(self_ns))), TraceId)) AS slowest,
        maxIf(TraceId, failed AND NOT child_failed) AS error_trace_id
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
                if(ResourceAttributes['service.instance.id'] != '', ResourceAttributes['service.instance.id'],
                    if(ResourceAttributes['k8s.pod.name'] != '', ResourceAttributes['k8s.pod.name'],
                        ResourceAttributes['container.id'])) AS Instance,
                if(ResourceAttributes['host.name'] != '', ResourceAttributes['host.name'],
                    ResourceAttributes['k8s.node.name']) AS Host
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
    GROUP BY Window, ServiceName, SpanName, SpanKind, ServiceVersion, Instance, Host, bucket
)
GROUP BY Window, ServiceName, SpanName, SpanKind, ServiceVersion, Instance, Host
