-- Five minutes of a series in one row, by service first: error budgets are read over weeks.

CREATE TABLE IF NOT EXISTS service_blocks (
    Block DateTime('UTC') CODEC(Delta, ZSTD(1)),
    ServiceName LowCardinality(String),
    SpanName LowCardinality(String),
    SpanKind LowCardinality(String),
    Requests SimpleAggregateFunction(sum, UInt64),
    Errors SimpleAggregateFunction(sum, UInt64),
    Buckets SimpleAggregateFunction(sumMap, Map(Int16, UInt64))
)
ENGINE = AggregatingMergeTree
PARTITION BY toDate(Block)
ORDER BY (ServiceName, SpanName, SpanKind, Block)
SETTINGS ttl_only_drop_parts = 1, non_replicated_deduplication_window = 10000;

CREATE MATERIALIZED VIEW IF NOT EXISTS service_blocks_mv TO service_blocks AS
SELECT
    toDateTime(intDiv(toUnixTimestamp(Window), 300) * 300, 'UTC') AS Block, ServiceName, SpanName, SpanKind,
    sum(Requests) AS Requests, sum(Errors) AS Errors, sumMap(Buckets) AS Buckets
FROM service_windows
GROUP BY Block, ServiceName, SpanName, SpanKind;
