-- Who a span, point or record belongs to, and what it does, as rollups and the interface name it: `Service` is namespace
-- and name, `Operation` the span's name without what is different each time. The exporter's columns stay as they are.

ALTER TABLE otel_traces
    ADD COLUMN IF NOT EXISTS Service LowCardinality(String) DEFAULT if(ResourceAttributes['service.namespace'] = '',
        ServiceName, concat(ResourceAttributes['service.namespace'], '/', ServiceName)) CODEC(ZSTD(1)),
    ADD COLUMN IF NOT EXISTS Operation LowCardinality(String) DEFAULT {operation_of_span_name} CODEC(ZSTD(1));

ALTER TABLE otel_logs
    ADD COLUMN IF NOT EXISTS Service LowCardinality(String) DEFAULT if(ResourceAttributes['service.namespace'] = '',
        ServiceName, concat(ResourceAttributes['service.namespace'], '/', ServiceName)) CODEC(ZSTD(1));

ALTER TABLE otel_metrics_gauge
    ADD COLUMN IF NOT EXISTS Service LowCardinality(String) DEFAULT if(ResourceAttributes['service.namespace'] = '',
        ServiceName, concat(ResourceAttributes['service.namespace'], '/', ServiceName)) CODEC(ZSTD(1));

ALTER TABLE otel_metrics_sum
    ADD COLUMN IF NOT EXISTS Service LowCardinality(String) DEFAULT if(ResourceAttributes['service.namespace'] = '',
        ServiceName, concat(ResourceAttributes['service.namespace'], '/', ServiceName)) CODEC(ZSTD(1));

ALTER TABLE otel_metrics_histogram
    ADD COLUMN IF NOT EXISTS Service LowCardinality(String) DEFAULT if(ResourceAttributes['service.namespace'] = '',
        ServiceName, concat(ResourceAttributes['service.namespace'], '/', ServiceName)) CODEC(ZSTD(1));

ALTER TABLE otel_metrics_exponential_histogram
    ADD COLUMN IF NOT EXISTS Service LowCardinality(String) DEFAULT if(ResourceAttributes['service.namespace'] = '',
        ServiceName, concat(ResourceAttributes['service.namespace'], '/', ServiceName)) CODEC(ZSTD(1));

ALTER TABLE otel_metrics_summary
    ADD COLUMN IF NOT EXISTS Service LowCardinality(String) DEFAULT if(ResourceAttributes['service.namespace'] = '',
        ServiceName, concat(ResourceAttributes['service.namespace'], '/', ServiceName)) CODEC(ZSTD(1));

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

DROP VIEW IF EXISTS service_windows_mv;

-- Grouped twice: a map for each bucket of a block costs far less than a map for each span.
-- Bucket i covers (2^(i/16), 2^((i+1)/16)] ms; all below a microsecond counts as one microsecond.
-- In between, on the few rows that are left: an operation that is not known yet takes a free place, the busiest first.
CREATE MATERIALIZED VIEW service_windows_mv TO service_windows AS
SELECT
    Window, Service AS ServiceName, if(known OR place <= room, Operation, '(other)') AS SpanName, SpanKind, ServiceVersion,
    sum(requests) AS Requests, sum(errors) AS Errors, sum(duration_sum) AS DurationSumNs,
    max(duration_max) AS DurationMaxNs, sumMap(map(bucket, requests)) AS Buckets
FROM (
    SELECT *, dense_rank() OVER (PARTITION BY Service, known ORDER BY of_operation DESC, Operation) AS place
    FROM (
        SELECT
            block.*, has(names, Operation) AS known,
            toInt64((SELECT Operations FROM operation_limit)) - toInt64(length(names)) AS room,
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
            -- One that has not been seen for an hour leaves its place: no baseline is longer.
            SELECT Service, groupUniqArray(Operation) AS names
            FROM operations
            WHERE SeenAt >= now() - 3600
            GROUP BY Service
        ) AS known_operations USING (Service)
    )
)
GROUP BY Window, ServiceName, SpanName, SpanKind, ServiceVersion;

CREATE MATERIALIZED VIEW IF NOT EXISTS operations_mv TO operations AS
SELECT ServiceName AS Service, SpanName AS Operation, now() AS SeenAt
FROM service_windows
WHERE SpanName != '(other)'
GROUP BY ServiceName, SpanName;
