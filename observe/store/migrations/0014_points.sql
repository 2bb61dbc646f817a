-- How metrics get into their tables: each point is taken apart once, whatever its kind, and each kind picks its own.
--
-- Two landing tables: attributes of points are nearly always plain (text, numbers, booleans), and columns for arrays and
-- maps in them cost more than all else that is read. otlp_points_in has none, and refuses a batch that needs one; such a
-- batch goes into otlp_metrics_in, which reads everything.

ALTER TABLE otel_metrics_gauge
    {derived_columns};

ALTER TABLE otel_metrics_sum
    {derived_columns};

ALTER TABLE otel_metrics_histogram
    {derived_columns};

ALTER TABLE otel_metrics_exponential_histogram
    {derived_columns};

ALTER TABLE otel_metrics_summary
    {derived_columns};

CREATE TABLE IF NOT EXISTS otlp_metric_points (
    {metric_head}
    {exemplars}
    Origin LowCardinality(String),
    Window DateTime('UTC'),
    Series UInt64,
    Instance LowCardinality(String),
    Host LowCardinality(String),
    HwId LowCardinality(String),
    Labels LowCardinality(String),
    Kind LowCardinality(String),
    Reason LowCardinality(String),
    Topic LowCardinality(String),
    Partition Int32,
    UnixNano UInt64,
    Value Float64,
    IntValue Nullable(Int64),
    AggregationTemporality Int32,
    IsMonotonic Bool,
    Count UInt64,
    Sum Float64,
    HasSum Bool,
    Min Float64,
    HasMin Bool,
    Max Float64,
    HasMax Bool,
    BucketCounts Array(UInt64),
    ExplicitBounds Array(Float64),
    Scale Int32,
    ZeroCount UInt64,
    ZeroThreshold Float64,
    PositiveOffset Int32,
    PositiveBucketCounts Array(UInt64),
    NegativeOffset Int32,
    NegativeBucketCounts Array(UInt64),
    ValueAtQuantiles Nested (
        Quantile Float64,
        Value Float64
    )
)
ENGINE = Null;

CREATE MATERIALIZED VIEW IF NOT EXISTS otel_metrics_gauge_points_mv TO otel_metrics_gauge AS
SELECT
    {point_columns}
    {exemplar_columns}
    Value, IntValue
FROM otlp_metric_points
WHERE Kind = 'gauge' AND Reason = '';

CREATE MATERIALIZED VIEW IF NOT EXISTS otel_metrics_sum_points_mv TO otel_metrics_sum AS
SELECT
    {point_columns}
    {exemplar_columns}
    Value, IntValue, AggregationTemporality, IsMonotonic
FROM otlp_metric_points
WHERE Kind = 'sum' AND Reason = '';

CREATE MATERIALIZED VIEW IF NOT EXISTS otel_metrics_histogram_points_mv TO otel_metrics_histogram AS
SELECT
    {point_columns}
    {exemplar_columns}
    Count, Sum, HasSum, BucketCounts, ExplicitBounds, Min, HasMin, Max, HasMax, AggregationTemporality
FROM otlp_metric_points
WHERE Kind = 'histogram' AND Reason = '';

CREATE MATERIALIZED VIEW IF NOT EXISTS otel_metrics_exponential_histogram_points_mv TO otel_metrics_exponential_histogram AS
SELECT
    {point_columns}
    {exemplar_columns}
    Count, Sum, HasSum, Scale, ZeroCount, ZeroThreshold, PositiveOffset, PositiveBucketCounts, NegativeOffset,
    NegativeBucketCounts, Min, HasMin, Max, HasMax, AggregationTemporality
FROM otlp_metric_points
WHERE Kind = 'exponential_histogram' AND Reason = '';

CREATE MATERIALIZED VIEW IF NOT EXISTS otel_metrics_summary_points_mv TO otel_metrics_summary AS
SELECT
    {point_columns}
    Count, Sum, `ValueAtQuantiles.Quantile`, `ValueAtQuantiles.Value`
FROM otlp_metric_points
WHERE Kind = 'summary' AND Reason = '';

CREATE MATERIALIZED VIEW IF NOT EXISTS rejected_points_mv TO rejected AS
SELECT 'metrics' AS Signal, Topic, Partition, Reason, ServiceName, MetricName AS Name, UnixNano AS StartUnixNano
FROM otlp_metric_points
WHERE Reason != '';

-- Nothing may come in while one set of views takes the place of the other: until `upgrading` is gone, an insert fails
-- and is tried again. Two processes may both do this; whoever drops a view drops one that nobody makes any more.
ALTER TABLE otlp_metrics_in
    ADD COLUMN IF NOT EXISTS upgrading UInt8 DEFAULT throwIf(length((origin).topic) >= 0, 'the tables are being upgraded');

CREATE TABLE IF NOT EXISTS otlp_points_in ({otlp_points},
    CONSTRAINT plain_attributes CHECK {plain_points})
ENGINE = Null;

DROP VIEW IF EXISTS otel_metrics_gauge_mv;

DROP VIEW IF EXISTS otel_metrics_sum_mv;

DROP VIEW IF EXISTS otel_metrics_histogram_mv;

DROP VIEW IF EXISTS otel_metrics_exponential_histogram_mv;

DROP VIEW IF EXISTS otel_metrics_summary_mv;

DROP VIEW IF EXISTS rejected_metrics_mv;

DROP VIEW IF EXISTS otlp_metrics_flat_mv;

DROP TABLE IF EXISTS otlp_metrics_flat;

CREATE MATERIALIZED VIEW IF NOT EXISTS otlp_metrics_in_mv TO otlp_metric_points AS
WITH
    {values},
    attributes -> as_map(attributes) AS point_map
{points_head}
                        FROM (SELECT origin, arrayJoin(resource_metrics) AS in_resource FROM otlp_metrics_in)
{points_tail};

CREATE MATERIALIZED VIEW IF NOT EXISTS ledger_points_mv TO ledger AS
SELECT
    (origin).topic AS Topic, (origin).partition AS Partition, (origin).first_offset AS FirstOffset,
    (origin).last_offset AS LastOffset, (origin).records AS Records, (origin).items AS Items
FROM otlp_points_in;

CREATE MATERIALIZED VIEW IF NOT EXISTS otlp_points_in_mv TO otlp_metric_points AS
WITH
    {values},
    {plain_values}
{points_head}
                        FROM (SELECT origin, arrayJoin(resource_metrics) AS in_resource FROM otlp_points_in)
{points_tail};

ALTER TABLE otlp_metrics_in DROP COLUMN IF EXISTS upgrading;
