-- A consumer that links to what was produced; its parent is nothing, or something else. Where a service only receives
-- batches, in spans of kind Client, those are its consumers; where it processes them in spans of their own, these are.
SELECT
    consumer.window_s AS window_s,
    producer.service AS caller, producer.operation AS caller_operation,
    consumer.service AS callee, consumer.operation AS callee_operation,
    'link' AS connection,
    producer.failed OR consumer.failed AS failed,
    CAST(NULL, 'Nullable(UInt64)') AS client_ns,
    toNullable(consumer.duration) AS server_ns
FROM (
    SELECT *, cityHash64(link.1, link.2) AS linked_id
    FROM (
        SELECT
            cityHash64(TraceId, SpanId) AS id, TraceId, ParentSpanId, toUnixTimestamp(Window) AS window_s,
            Service AS service, <<operation>> AS operation, Duration AS duration, StatusCode = 'Error' AS failed,
            SpanKind AS kind, countIf(SpanKind = 'Consumer') OVER (PARTITION BY Window, Service) AS processed,
            least({lookback:UInt32}, greatest({reach:UInt32}, toUInt32(intDiv(Duration, 1000000000)) + 20)) AS reach_s,
            arrayJoin(arrayDistinct(arrayZip(`Links.TraceId`, `Links.SpanId`))) AS link
        FROM otel_traces
        WHERE Window >= toDateTime({from:UInt32}, 'UTC') AND Window < toDateTime({to:UInt32}, 'UTC')
            AND SpanKind IN ('Consumer', 'Client') AND notEmpty(`Links.TraceId`)
        LIMIT 1 BY id, link
    )
    WHERE link != (TraceId, ParentSpanId) AND (kind = 'Consumer' OR processed = 0)
) AS consumer
LEFT ANY JOIN (
    SELECT
        cityHash64(TraceId, SpanId) AS id, toUnixTimestamp(Window) AS window_s, Service AS service,
        <<operation>> AS operation, SpanKind AS kind, StatusCode = 'Error' AS failed
    FROM otel_traces
    WHERE Window >= toDateTime({first:UInt32}, 'UTC') AND Window <= toDateTime({to:UInt32} - 10 + {slack:UInt32}, 'UTC')
        AND SpanKind IN ('Producer', 'Client')
) AS producer ON consumer.linked_id = producer.id
WHERE producer.id != 0 AND producer.service != consumer.service
    AND (consumer.kind = 'Consumer' OR producer.kind = 'Producer')
    AND producer.window_s + consumer.reach_s >= consumer.window_s
    AND producer.window_s <= consumer.window_s + {slack:UInt32}
