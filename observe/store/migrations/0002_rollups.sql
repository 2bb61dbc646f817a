-- What detection and diagnosis read. Sums are of integers (nanoseconds, counts): they come out the same in any order.

CREATE TABLE IF NOT EXISTS service_windows (
    Window DateTime('UTC') CODEC(Delta, ZSTD(1)),
    ServiceName LowCardinality(String),
    SpanName LowCardinality(String),
    SpanKind LowCardinality(String),
    ServiceVersion LowCardinality(String),
    Requests SimpleAggregateFunction(sum, UInt64),
    Errors SimpleAggregateFunction(sum, UInt64),
    DurationSumNs SimpleAggregateFunction(sum, UInt64),
    DurationMaxNs SimpleAggregateFunction(max, UInt64),
    Buckets SimpleAggregateFunction(sumMap, Map(Int16, UInt64))
)
ENGINE = AggregatingMergeTree
PARTITION BY toDate(Window)
ORDER BY (Window, ServiceName, SpanName, SpanKind, ServiceVersion)
SETTINGS ttl_only_drop_parts = 1, non_replicated_deduplication_window = 10000;

-- The operations that rollups tell apart. The view `operation_limit` says how many of a service at once.
CREATE TABLE IF NOT EXISTS operations (
    Service LowCardinality(String),
    Operation LowCardinality(String),
    SeenAt SimpleAggregateFunction(max, DateTime) COMMENT 'when one was stored last'
)
ENGINE = AggregatingMergeTree
ORDER BY (Service, Operation)
SETTINGS non_replicated_deduplication_window = 10000;

CREATE VIEW IF NOT EXISTS operation_limit AS SELECT 200 AS Operations;

-- Grouped twice: a map for each bucket of a block costs far less than a map for each span.
-- Bucket i covers (2^(i/16), 2^((i+1)/16)] ms; all below a microsecond counts as one microsecond.
-- In between, on the few rows that are left: an operation that is not known yet takes a free place, the busiest first.
CREATE MATERIALIZED VIEW IF NOT EXISTS service_windows_mv TO service_windows AS
SELECT
    Window, Service AS ServiceName, if(known OR place <= room, Operation, '(other)') AS SpanName, SpanKind, ServiceVersion,
    sum(requests) AS Requests, sum(errors) AS Errors, sum(duration_sum) AS DurationSumNs,
    max(duration_max) AS DurationMaxNs, sumMap(map(bucket, requests)) AS Buckets
FROM (
    SELECT *, dense_rank() OVER (PARTITION BY Service, known ORDER BY of_operation DESC, Operation) AS place
    FROM (
        SELECT
            block.*,
            -- One that has not been seen for an hour leaves its place: no baseline is longer.
            (Service, Operation) IN (SELECT Service, Operation FROM operations WHERE SeenAt >= now() - 3600) AS known,
            toInt64((SELECT Operations FROM operation_limit)) - toInt64(taken) AS room,
            sum(requests) OVER (PARTITION BY Service, Operation) AS of_operation
        FROM (
            SELECT
                toDateTime(intDiv(toUnixTimestamp64Nano(Timestamp) + toInt64(Duration), 10000000000) * 10, 'UTC')
                    AS Window,
                Service, Operation, SpanKind, ResourceAttributes['service.version'] AS ServiceVersion,
                toInt16(ceil(log2(greatest(Duration, 1000) / 1e6) * 16) - 1) AS bucket,
                count() AS requests, countIf(StatusCode = 'Error') AS errors, sum(Duration) AS duration_sum,
                max(Duration) AS duration_max
            FROM otel_traces
            GROUP BY Window, Service, Operation, SpanKind, ServiceVersion, bucket
        ) AS block
        LEFT ANY JOIN (
            SELECT Service, uniqExact(Operation) AS taken
            FROM operations
            WHERE SeenAt >= now() - 3600
            GROUP BY Service
        ) AS places USING (Service)
    )
)
GROUP BY Window, ServiceName, SpanName, SpanKind, ServiceVersion;

CREATE MATERIALIZED VIEW IF NOT EXISTS operations_mv TO operations AS
SELECT ServiceName AS Service, SpanName AS Operation, now() AS SeenAt
FROM service_windows
WHERE SpanName != '(other)'
GROUP BY ServiceName, SpanName;

-- The joins, once their data has settled. A window computed again gets a higher Version; `settled` names the one that
-- counts, and the number of spans that it was computed from.
CREATE TABLE IF NOT EXISTS settled (
    Window DateTime('UTC') CODEC(Delta, ZSTD(1)),
    Version UInt64,
    Spans UInt64 COMMENT 'stored spans in the reach of the window when it was computed'
)
ENGINE = ReplacingMergeTree(Version)
PARTITION BY toDate(Window)
ORDER BY Window
SETTINGS ttl_only_drop_parts = 1;

CREATE TABLE IF NOT EXISTS self_windows (
    Window DateTime('UTC') CODEC(Delta, ZSTD(1)),
    Version UInt64,
    ServiceName LowCardinality(String),
    SpanName LowCardinality(String),
    SpanKind LowCardinality(String),
    ServiceVersion LowCardinality(String),
    Instance LowCardinality(String),
    Host LowCardinality(String),
    Requests UInt64,
    Errors UInt64,
    OriginErrors UInt64,
    DurationSumNs UInt64,
    SelfSumNs UInt64,
    Buckets Map(Int16, UInt64),
    SlowestTraceId String,
    ErrorTraceId String
)
ENGINE = MergeTree
PARTITION BY toDate(Window)
ORDER BY (Window, Version, ServiceName, SpanName)
SETTINGS ttl_only_drop_parts = 1;

CREATE TABLE IF NOT EXISTS edge_windows (
    Window DateTime('UTC') CODEC(Delta, ZSTD(1)),
    Version UInt64,
    Caller LowCardinality(String),
    CallerOperation LowCardinality(String),
    Callee LowCardinality(String),
    CalleeOperation LowCardinality(String),
    Connection LowCardinality(String),
    Calls UInt64,
    Errors UInt64,
    ClientSumNs Nullable(UInt64),
    ServerSumNs Nullable(UInt64),
    Buckets Map(Int16, UInt64)
)
ENGINE = MergeTree
PARTITION BY toDate(Window)
ORDER BY (Window, Version, Caller, Callee)
SETTINGS ttl_only_drop_parts = 1;
