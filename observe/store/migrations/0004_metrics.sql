-- Metrics: the layout of the OpenTelemetry ClickHouse exporter. How batches get into these tables: 0014.

CREATE TABLE IF NOT EXISTS otel_metrics_gauge (
    {metric_head}
    Value Float64,
    IntValue Nullable(Int64) DEFAULT NULL COMMENT 'where the value was sent as an integer: no digit is lost',
    {exemplars}
    {metric_tail};

CREATE TABLE IF NOT EXISTS otel_metrics_sum (
    {metric_head}
    Value Float64,
    IntValue Nullable(Int64) DEFAULT NULL COMMENT 'where the value was sent as an integer: no digit is lost',
    AggregationTemporality Int32,
    IsMonotonic Bool,
    {exemplars}
    {metric_tail};

CREATE TABLE IF NOT EXISTS otel_metrics_histogram (
    {metric_head}
    Count UInt64,
    Sum Float64,
    BucketCounts Array(UInt64),
    ExplicitBounds Array(Float64),
    Min Float64,
    Max Float64,
    HasSum Bool DEFAULT true,
    HasMin Bool DEFAULT true,
    HasMax Bool DEFAULT true,
    AggregationTemporality Int32,
    {exemplars}
    {metric_tail};

CREATE TABLE IF NOT EXISTS otel_metrics_exponential_histogram (
    {metric_head}
    Count UInt64,
    Sum Float64,
    Scale Int32,
    ZeroCount UInt64,
    PositiveOffset Int32,
    PositiveBucketCounts Array(UInt64),
    NegativeOffset Int32,
    NegativeBucketCounts Array(UInt64),
    Min Float64,
    Max Float64,
    HasSum Bool DEFAULT true,
    HasMin Bool DEFAULT true,
    HasMax Bool DEFAULT true,
    AggregationTemporality Int32,
    ZeroThreshold Float64 DEFAULT 0,
    {exemplars}
    {metric_tail};

CREATE TABLE IF NOT EXISTS otel_metrics_summary (
    {metric_head}
    Count UInt64,
    Sum Float64,
    ValueAtQuantiles Nested (
        Quantile Float64,
        Value Float64
    ) CODEC(ZSTD(1)),
    {metric_tail};

CREATE TABLE IF NOT EXISTS otlp_metrics_in ({otlp_metrics}) ENGINE = Null;
