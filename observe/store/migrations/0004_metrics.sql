-- Metrics: the layout of the OpenTelemetry ClickHouse exporter.

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

-- One row a metric, with its points still in one array: each view below takes its own kind.
CREATE TABLE IF NOT EXISTS otlp_metrics_flat (
    ResourceAttributes Map(LowCardinality(String), String),
    ResourceSchemaUrl String,
    ScopeName String,
    ScopeVersion String,
    ScopeAttributes Map(LowCardinality(String), String),
    ScopeDroppedAttrCount UInt32,
    ScopeSchemaUrl String,
    ResourceDroppedAttributesCount UInt32,
    ResourceEntities LowCardinality(String),
    Service LowCardinality(String),
    Metadata Map(LowCardinality(String), String),
    ServiceName LowCardinality(String),
    MetricName LowCardinality(String),
    MetricDescription LowCardinality(String),
    MetricUnit LowCardinality(String),
    Temporality Int32,
    Monotonic Bool,
    gauge {otlp_metrics:Number},
    sum {otlp_metrics:Number},
    histogram {otlp_metrics:Histogram},
    exponential_histogram {otlp_metrics:ExponentialHistogram},
    summary {otlp_metrics:Summary},
    Origin LowCardinality(String),
    Topic LowCardinality(String),
    Partition Int32,
    OldestNs UInt64,
    NewestNs UInt64
)
ENGINE = Null;

CREATE MATERIALIZED VIEW IF NOT EXISTS otlp_metrics_flat_mv TO otlp_metrics_flat AS
WITH
    {values}
SELECT
    maps[1] AS ResourceAttributes,
    resource_url AS ResourceSchemaUrl,
    (scope).name AS ScopeName,
    (scope).version AS ScopeVersion,
    maps[2] AS ScopeAttributes,
    (scope).dropped_attributes_count AS ScopeDroppedAttrCount,
    scope_url AS ScopeSchemaUrl,
    resource_dropped AS ResourceDroppedAttributesCount,
    entities AS ResourceEntities,
    identity AS Service,
    as_map((metric).metadata) AS Metadata,
    service AS ServiceName,
    (metric).name AS MetricName,
    (metric).description AS MetricDescription,
    (metric).unit AS MetricUnit,
    greatest(((metric).sum).aggregation_temporality, ((metric).histogram).aggregation_temporality,
        ((metric).exponential_histogram).aggregation_temporality) AS Temporality,
    ((metric).sum).is_monotonic AS Monotonic,
    ((metric).gauge).data_points AS gauge,
    ((metric).sum).data_points AS sum,
    ((metric).histogram).data_points AS histogram,
    ((metric).exponential_histogram).data_points AS exponential_histogram,
    ((metric).summary).data_points AS summary,
    concat(topic, '/', toString(partition)) AS Origin,
    topic AS Topic,
    partition AS Partition,
    oldest_ns AS OldestNs,
    newest_ns AS NewestNs
FROM (
    SELECT
        topic, partition, oldest_ns, newest_ns, resource_url, resource_dropped, entities, scope_url, scope, maps,
        toLowCardinality(maps[1]['service.name']) AS service,
        toLowCardinality(if(maps[1]['service.namespace'] = '', maps[1]['service.name'],
            concat(maps[1]['service.namespace'], '/', maps[1]['service.name']))) AS identity,
        arrayJoin(metrics) AS metric
    FROM (
        SELECT
            topic, partition, oldest_ns, newest_ns, resource_url, resource_dropped,
            toLowCardinality(if(empty(entity_refs), '', toJSONString(entity_refs))) AS entities,
            (in_scope).schema_url AS scope_url, (in_scope).scope AS scope,
            arrayMap(as_map, [resource_attributes, (scope).attributes]) AS maps,
            (in_scope).metrics AS metrics
        FROM (
            SELECT
                (origin).topic AS topic, (origin).partition AS partition,
                (origin).oldest_ns AS oldest_ns, (origin).newest_ns AS newest_ns,
                ((in_resource).resource).attributes AS resource_attributes,
                ((in_resource).resource).dropped_attributes_count AS resource_dropped,
                ((in_resource).resource).entity_refs AS entity_refs,
                (in_resource).schema_url AS resource_url,
                arrayJoin((in_resource).scope_metrics) AS in_scope
            FROM (SELECT origin, arrayJoin(resource_metrics) AS in_resource FROM otlp_metrics_in)
        )
    )
);

CREATE MATERIALIZED VIEW IF NOT EXISTS otel_metrics_gauge_mv TO otel_metrics_gauge AS
WITH
    {values}
SELECT
    {point_columns}
    if((point).value = 'as_int', toFloat64((point).as_int), (point).as_double) AS Value,
    if((point).value = 'as_int', (point).as_int, NULL) AS IntValue,
    {exemplar_columns}
    Origin
FROM (
    SELECT *, arrayMap(as_map, arrayConcat([(point).attributes], (exemplars).filtered_attributes)) AS maps
    FROM (
        SELECT *, (point).exemplars AS exemplars
        FROM (
            SELECT * EXCEPT (gauge, sum, histogram, exponential_histogram, summary), arrayJoin(gauge) AS point
            FROM otlp_metrics_flat
            WHERE notEmpty(gauge)
        )
        WHERE (point).time_unix_nano BETWEEN OldestNs AND NewestNs
    )
);

CREATE MATERIALIZED VIEW IF NOT EXISTS otel_metrics_sum_mv TO otel_metrics_sum AS
WITH
    {values}
SELECT
    {point_columns}
    if((point).value = 'as_int', toFloat64((point).as_int), (point).as_double) AS Value,
    if((point).value = 'as_int', (point).as_int, NULL) AS IntValue,
    Temporality AS AggregationTemporality,
    Monotonic AS IsMonotonic,
    {exemplar_columns}
    Origin
FROM (
    SELECT *, arrayMap(as_map, arrayConcat([(point).attributes], (exemplars).filtered_attributes)) AS maps
    FROM (
        SELECT *, (point).exemplars AS exemplars
        FROM (
            SELECT * EXCEPT (gauge, sum, histogram, exponential_histogram, summary), arrayJoin(sum) AS point
            FROM otlp_metrics_flat
            WHERE notEmpty(sum)
        )
        WHERE (point).time_unix_nano BETWEEN OldestNs AND NewestNs
    )
);

CREATE MATERIALIZED VIEW IF NOT EXISTS otel_metrics_histogram_mv TO otel_metrics_histogram AS
WITH
    {values}
SELECT
    {point_columns}
    (point).count AS Count,
    ifNull((point).sum, 0) AS Sum,
    isNotNull((point).sum) AS HasSum,
    (point).bucket_counts AS BucketCounts,
    (point).explicit_bounds AS ExplicitBounds,
    ifNull((point).min, 0) AS Min,
    isNotNull((point).min) AS HasMin,
    ifNull((point).max, 0) AS Max,
    isNotNull((point).max) AS HasMax,
    Temporality AS AggregationTemporality,
    {exemplar_columns}
    Origin
FROM (
    SELECT *, arrayMap(as_map, arrayConcat([(point).attributes], (exemplars).filtered_attributes)) AS maps
    FROM (
        SELECT *, (point).exemplars AS exemplars
        FROM (
            SELECT * EXCEPT (gauge, sum, histogram, exponential_histogram, summary), arrayJoin(histogram) AS point
            FROM otlp_metrics_flat
            WHERE notEmpty(histogram)
        )
        WHERE (point).time_unix_nano BETWEEN OldestNs AND NewestNs
    )
);

CREATE MATERIALIZED VIEW IF NOT EXISTS otel_metrics_exponential_histogram_mv TO otel_metrics_exponential_histogram AS
WITH
    {values}
SELECT
    {point_columns}
    (point).count AS Count,
    ifNull((point).sum, 0) AS Sum,
    isNotNull((point).sum) AS HasSum,
    (point).scale AS Scale,
    (point).zero_count AS ZeroCount,
    ((point).positive).offset AS PositiveOffset,
    ((point).positive).bucket_counts AS PositiveBucketCounts,
    ((point).negative).offset AS NegativeOffset,
    ((point).negative).bucket_counts AS NegativeBucketCounts,
    ifNull((point).min, 0) AS Min,
    isNotNull((point).min) AS HasMin,
    ifNull((point).max, 0) AS Max,
    isNotNull((point).max) AS HasMax,
    Temporality AS AggregationTemporality,
    (point).zero_threshold AS ZeroThreshold,
    {exemplar_columns}
    Origin
FROM (
    SELECT *, arrayMap(as_map, arrayConcat([(point).attributes], (exemplars).filtered_attributes)) AS maps
    FROM (
        SELECT *, (point).exemplars AS exemplars
        FROM (
            SELECT * EXCEPT (gauge, sum, histogram, exponential_histogram, summary), arrayJoin(exponential_histogram) AS point
            FROM otlp_metrics_flat
            WHERE notEmpty(exponential_histogram)
        )
        WHERE (point).time_unix_nano BETWEEN OldestNs AND NewestNs
    )
);

CREATE MATERIALIZED VIEW IF NOT EXISTS otel_metrics_summary_mv TO otel_metrics_summary AS
WITH
    {values}
SELECT
    {point_columns}
    (point).count AS Count,
    (point).sum AS Sum,
    ((point).quantile_values).quantile AS `ValueAtQuantiles.Quantile`,
    ((point).quantile_values).value AS `ValueAtQuantiles.Value`,
    Origin
FROM (
    SELECT *, arrayMap(as_map, [(point).attributes]) AS maps
    FROM (
        SELECT * EXCEPT (gauge, sum, histogram, exponential_histogram, summary), arrayJoin(summary) AS point
        FROM otlp_metrics_flat
        WHERE notEmpty(summary)
    )
    WHERE (point).time_unix_nano BETWEEN OldestNs AND NewestNs
);

CREATE MATERIALIZED VIEW IF NOT EXISTS rejected_metrics_mv TO rejected AS
SELECT
    'metrics' AS Signal, Topic, Partition, 'time_out_of_range' AS Reason, ServiceName, MetricName AS Name,
    time_ns AS StartUnixNano
FROM (
    SELECT Topic, Partition, OldestNs, NewestNs, ServiceName, MetricName,
        arrayJoin(arrayConcat((gauge).time_unix_nano, (sum).time_unix_nano, (histogram).time_unix_nano,
            (exponential_histogram).time_unix_nano, (summary).time_unix_nano)) AS time_ns
    FROM otlp_metrics_flat
)
WHERE time_ns NOT BETWEEN OldestNs AND NewestNs;
