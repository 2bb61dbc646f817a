-- What came in and where it went. One row for each batch as the writer counted it, and for each day the rows that the
-- views stored: rows that retention has dropped since are known from there.

CREATE TABLE IF NOT EXISTS ledger (
    IngestedAt DateTime64(3) DEFAULT now64(3) CODEC(Delta, ZSTD(1)),
    Topic LowCardinality(String),
    Partition Int32,
    FirstOffset Int64 CODEC(Delta, ZSTD(1)),
    LastOffset Int64 CODEC(Delta, ZSTD(1)),
    Records UInt64,
    Items UInt64
)
ENGINE = MergeTree
ORDER BY (Topic, Partition, FirstOffset)
SETTINGS non_replicated_deduplication_window = 10000;

CREATE TABLE IF NOT EXISTS stored_days (
    Origin LowCardinality(String) COMMENT 'topic/partition',
    Place LowCardinality(String) COMMENT 'the table that holds the rows',
    Day Date,
    Stored UInt64
)
ENGINE = SummingMergeTree
ORDER BY (Origin, Place, Day)
SETTINGS non_replicated_deduplication_window = 10000;

CREATE MATERIALIZED VIEW IF NOT EXISTS ledger_spans_mv TO ledger AS
SELECT
    (origin).topic AS Topic, (origin).partition AS Partition, (origin).first_offset AS FirstOffset,
    (origin).last_offset AS LastOffset, (origin).records AS Records, (origin).items AS Items
FROM otlp_spans_in;

CREATE MATERIALIZED VIEW IF NOT EXISTS ledger_logs_mv TO ledger AS
SELECT
    (origin).topic AS Topic, (origin).partition AS Partition, (origin).first_offset AS FirstOffset,
    (origin).last_offset AS LastOffset, (origin).records AS Records, (origin).items AS Items
FROM otlp_logs_in;

CREATE MATERIALIZED VIEW IF NOT EXISTS ledger_metrics_mv TO ledger AS
SELECT
    (origin).topic AS Topic, (origin).partition AS Partition, (origin).first_offset AS FirstOffset,
    (origin).last_offset AS LastOffset, (origin).records AS Records, (origin).items AS Items
FROM otlp_metrics_in;

CREATE MATERIALIZED VIEW IF NOT EXISTS stored_days_otel_traces_mv TO stored_days AS
SELECT Origin, 'otel_traces' AS Place, toDate(Timestamp) AS Day, count() AS Stored
FROM otel_traces
GROUP BY Origin, Day;

CREATE MATERIALIZED VIEW IF NOT EXISTS stored_days_otel_logs_mv TO stored_days AS
SELECT Origin, 'otel_logs' AS Place, toDate(Timestamp) AS Day, count() AS Stored
FROM otel_logs
GROUP BY Origin, Day;

CREATE MATERIALIZED VIEW IF NOT EXISTS stored_days_otel_metrics_gauge_mv TO stored_days AS
SELECT Origin, 'otel_metrics_gauge' AS Place, toDate(TimeUnix) AS Day, count() AS Stored
FROM otel_metrics_gauge
GROUP BY Origin, Day;

CREATE MATERIALIZED VIEW IF NOT EXISTS stored_days_otel_metrics_sum_mv TO stored_days AS
SELECT Origin, 'otel_metrics_sum' AS Place, toDate(TimeUnix) AS Day, count() AS Stored
FROM otel_metrics_sum
GROUP BY Origin, Day;

CREATE MATERIALIZED VIEW IF NOT EXISTS stored_days_otel_metrics_histogram_mv TO stored_days AS
SELECT Origin, 'otel_metrics_histogram' AS Place, toDate(TimeUnix) AS Day, count() AS Stored
FROM otel_metrics_histogram
GROUP BY Origin, Day;

CREATE MATERIALIZED VIEW IF NOT EXISTS stored_days_otel_metrics_exponential_histogram_mv TO stored_days AS
SELECT Origin, 'otel_metrics_exponential_histogram' AS Place, toDate(TimeUnix) AS Day, count() AS Stored
FROM otel_metrics_exponential_histogram
GROUP BY Origin, Day;

CREATE MATERIALIZED VIEW IF NOT EXISTS stored_days_otel_metrics_summary_mv TO stored_days AS
SELECT Origin, 'otel_metrics_summary' AS Place, toDate(TimeUnix) AS Day, count() AS Stored
FROM otel_metrics_summary
GROUP BY Origin, Day;

CREATE MATERIALIZED VIEW IF NOT EXISTS stored_days_rejected_mv TO stored_days AS
SELECT concat(Topic, '/', toString(Partition)) AS Origin, 'rejected' AS Place, toDate(IngestedAt) AS Day,
    count() AS Stored
FROM rejected
GROUP BY Origin, Day;
