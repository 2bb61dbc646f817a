-- Who sends to and who takes from each message topic, in [from, to). Polls that fetched nothing name no topic's message
-- and are left out with all other settling and creating.
SELECT
    Service AS service, topic, receives,
    count() AS calls, countIf(StatusCode = 'Error') AS errors, sum(Duration) / 1e6 AS duration_sum_ms,
    sumMap(map(toInt16(ceil(log2(greatest(Duration, 1000) / 1e6) * 16) - 1), toUInt64(1))) AS buckets,
    CAST(arrayZip(mapKeys(buckets), mapValues(buckets)), 'Array(Tuple(bucket Int16, count UInt64))') AS latency_buckets
FROM (
    SELECT
        Service, StatusCode, Duration, cityHash64(TraceId, SpanId) AS id,
        arrayFirst(name -> name != '', [<<SpanAttributes|messaging.destination.name>>]) AS topic,
        concat(SpanAttributes['messaging.operation.type'], SpanAttributes['messaging.operation']) AS what,
        SpanKind = 'Consumer' OR what IN ('receive', 'process', 'deliver') AS receives
    FROM otel_traces
    WHERE Window >= toDateTime({from:UInt32}, 'UTC') AND Window < toDateTime({to:UInt32}, 'UTC')
        AND SpanKind IN ('Producer', 'Consumer', 'Client')
        AND topic != '' AND what NOT IN ('settle', 'create')
    LIMIT 1 BY id
)
GROUP BY service, topic, receives
