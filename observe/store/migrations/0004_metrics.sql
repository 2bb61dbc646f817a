-- Metrics: the layout of the OpenTelemetry ClickHouse exporter. Attributes of points and exemplars are typed one level
-- deep (an array in them is kept as base64 of its bytes): they identify series, and lists are not found in them.

CREATE TABLE IF NOT EXISTS otel_metrics_gauge (
    ResourceAttributes Map(LowCardinality(String), String) CODEC(ZSTD(1)),
    ResourceSchemaUrl String CODEC(ZSTD(1)),
    ScopeName String CODEC(ZSTD(1)),
    ScopeVersion String CODEC(ZSTD(1)),
    ScopeAttributes Map(LowCardinality(String), String) CODEC(ZSTD(1)),
    ScopeDroppedAttrCount UInt32 CODEC(ZSTD(1)),
    ScopeSchemaUrl String CODEC(ZSTD(1)),
    ServiceName LowCardinality(String) CODEC(ZSTD(1)),
    MetricName LowCardinality(String) CODEC(ZSTD(1)),
    MetricDescription LowCardinality(String) CODEC(ZSTD(1)),
    MetricUnit LowCardinality(String) CODEC(ZSTD(1)),
    Attributes Map(LowCardinality(String), String) CODEC(ZSTD(1)),
    StartTimeUnix DateTime64(9) CODEC(Delta, ZSTD(1)),
    TimeUnix DateTime64(9) CODEC(Delta, ZSTD(1)),
    Flags UInt32 CODEC(ZSTD(1)),
    Value Float64 CODEC(ZSTD(1)),
    Exemplars Nested (
        FilteredAttributes Map(LowCardinality(String), String),
        TimeUnix DateTime64(9),
        Value Float64,
        SpanId String,
        TraceId String
    ) CODEC(ZSTD(1)),
    Origin LowCardinality(String) DEFAULT '' COMMENT 'topic/partition' CODEC(ZSTD(1)),
    Window DateTime('UTC') MATERIALIZED toDateTime(intDiv(toUnixTimestamp64Nano(TimeUnix), 10000000000) * 10, 'UTC')
        CODEC(Delta, ZSTD(1)),
    -- Frames read these instead of the maps.
    Series UInt64 MATERIALIZED cityHash64(ServiceName, MetricName, mapSort(Attributes), mapSort(ResourceAttributes),
        ScopeName) CODEC(ZSTD(1)),
    Instance LowCardinality(String) MATERIALIZED ResourceAttributes['service.instance.id'] CODEC(ZSTD(1)),
    Host LowCardinality(String) MATERIALIZED arrayFirst(name -> name != '', [ResourceAttributes['host.name'],
        Attributes['host.name'], Attributes['Hostname'], Attributes['hostname']]) CODEC(ZSTD(1)),
    HwId LowCardinality(String) MATERIALIZED arrayFirst(name -> name != '', [Attributes['hw.id'], Attributes['UUID'],
        Attributes['gpu_uuid'], Attributes['hw.gpu.id']]) CODEC(ZSTD(1)),
    Labels LowCardinality(String) MATERIALIZED arrayStringConcat(arraySort(arrayMap((k, v) -> concat(k, '=', v),
        mapKeys(mapFilter((k, v) -> k NOT IN ('host.name', 'Hostname', 'hostname', 'hw.id', 'UUID', 'gpu_uuid',
            'hw.gpu.id'), Attributes) AS rest), mapValues(rest))), ',') CODEC(ZSTD(1)),
    INDEX idx_window Window TYPE minmax GRANULARITY 1
)
ENGINE = MergeTree
PARTITION BY toDate(TimeUnix)
ORDER BY (ServiceName, MetricName, Attributes, toUnixTimestamp64Nano(TimeUnix))
SETTINGS index_granularity = 8192, ttl_only_drop_parts = 1, non_replicated_deduplication_window = 10000;

CREATE TABLE IF NOT EXISTS otel_metrics_sum (
    ResourceAttributes Map(LowCardinality(String), String) CODEC(ZSTD(1)),
    ResourceSchemaUrl String CODEC(ZSTD(1)),
    ScopeName String CODEC(ZSTD(1)),
    ScopeVersion String CODEC(ZSTD(1)),
    ScopeAttributes Map(LowCardinality(String), String) CODEC(ZSTD(1)),
    ScopeDroppedAttrCount UInt32 CODEC(ZSTD(1)),
    ScopeSchemaUrl String CODEC(ZSTD(1)),
    ServiceName LowCardinality(String) CODEC(ZSTD(1)),
    MetricName LowCardinality(String) CODEC(ZSTD(1)),
    MetricDescription LowCardinality(String) CODEC(ZSTD(1)),
    MetricUnit LowCardinality(String) CODEC(ZSTD(1)),
    Attributes Map(LowCardinality(String), String) CODEC(ZSTD(1)),
    StartTimeUnix DateTime64(9) CODEC(Delta, ZSTD(1)),
    TimeUnix DateTime64(9) CODEC(Delta, ZSTD(1)),
    Flags UInt32 CODEC(ZSTD(1)),
    Value Float64 CODEC(ZSTD(1)),
    AggregationTemporality Int32 CODEC(ZSTD(1)),
    IsMonotonic Bool CODEC(ZSTD(1)),
    Exemplars Nested (
        FilteredAttributes Map(LowCardinality(String), String),
        TimeUnix DateTime64(9),
        Value Float64,
        SpanId String,
        TraceId String
    ) CODEC(ZSTD(1)),
    Origin LowCardinality(String) DEFAULT '' COMMENT 'topic/partition' CODEC(ZSTD(1)),
    Window DateTime('UTC') MATERIALIZED toDateTime(intDiv(toUnixTimestamp64Nano(TimeUnix), 10000000000) * 10, 'UTC')
        CODEC(Delta, ZSTD(1)),
    -- Frames read these instead of the maps.
    Series UInt64 MATERIALIZED cityHash64(ServiceName, MetricName, mapSort(Attributes), mapSort(ResourceAttributes),
        ScopeName) CODEC(ZSTD(1)),
    Instance LowCardinality(String) MATERIALIZED ResourceAttributes['service.instance.id'] CODEC(ZSTD(1)),
    Host LowCardinality(String) MATERIALIZED arrayFirst(name -> name != '', [ResourceAttributes['host.name'],
        Attributes['host.name'], Attributes['Hostname'], Attributes['hostname']]) CODEC(ZSTD(1)),
    HwId LowCardinality(String) MATERIALIZED arrayFirst(name -> name != '', [Attributes['hw.id'], Attributes['UUID'],
        Attributes['gpu_uuid'], Attributes['hw.gpu.id']]) CODEC(ZSTD(1)),
    Labels LowCardinality(String) MATERIALIZED arrayStringConcat(arraySort(arrayMap((k, v) -> concat(k, '=', v),
        mapKeys(mapFilter((k, v) -> k NOT IN ('host.name', 'Hostname', 'hostname', 'hw.id', 'UUID', 'gpu_uuid',
            'hw.gpu.id'), Attributes) AS rest), mapValues(rest))), ',') CODEC(ZSTD(1)),
    INDEX idx_window Window TYPE minmax GRANULARITY 1
)
ENGINE = MergeTree
PARTITION BY toDate(TimeUnix)
ORDER BY (ServiceName, MetricName, Attributes, toUnixTimestamp64Nano(TimeUnix))
SETTINGS index_granularity = 8192, ttl_only_drop_parts = 1, non_replicated_deduplication_window = 10000;

CREATE TABLE IF NOT EXISTS otel_metrics_histogram (
    ResourceAttributes Map(LowCardinality(String), String) CODEC(ZSTD(1)),
    ResourceSchemaUrl String CODEC(ZSTD(1)),
    ScopeName String CODEC(ZSTD(1)),
    ScopeVersion String CODEC(ZSTD(1)),
    ScopeAttributes Map(LowCardinality(String), String) CODEC(ZSTD(1)),
    ScopeDroppedAttrCount UInt32 CODEC(ZSTD(1)),
    ScopeSchemaUrl String CODEC(ZSTD(1)),
    ServiceName LowCardinality(String) CODEC(ZSTD(1)),
    MetricName LowCardinality(String) CODEC(ZSTD(1)),
    MetricDescription LowCardinality(String) CODEC(ZSTD(1)),
    MetricUnit LowCardinality(String) CODEC(ZSTD(1)),
    Attributes Map(LowCardinality(String), String) CODEC(ZSTD(1)),
    StartTimeUnix DateTime64(9) CODEC(Delta, ZSTD(1)),
    TimeUnix DateTime64(9) CODEC(Delta, ZSTD(1)),
    Flags UInt32 CODEC(ZSTD(1)),
    Count UInt64 CODEC(ZSTD(1)),
    Sum Float64 CODEC(ZSTD(1)),
    BucketCounts Array(UInt64) CODEC(ZSTD(1)),
    ExplicitBounds Array(Float64) CODEC(ZSTD(1)),
    Min Float64 CODEC(ZSTD(1)),
    Max Float64 CODEC(ZSTD(1)),
    AggregationTemporality Int32 CODEC(ZSTD(1)),
    Exemplars Nested (
        FilteredAttributes Map(LowCardinality(String), String),
        TimeUnix DateTime64(9),
        Value Float64,
        SpanId String,
        TraceId String
    ) CODEC(ZSTD(1)),
    Origin LowCardinality(String) DEFAULT '' COMMENT 'topic/partition' CODEC(ZSTD(1)),
    Window DateTime('UTC') MATERIALIZED toDateTime(intDiv(toUnixTimestamp64Nano(TimeUnix), 10000000000) * 10, 'UTC')
        CODEC(Delta, ZSTD(1)),
    -- Frames read these instead of the maps.
    Series UInt64 MATERIALIZED cityHash64(ServiceName, MetricName, mapSort(Attributes), mapSort(ResourceAttributes),
        ScopeName) CODEC(ZSTD(1)),
    Instance LowCardinality(String) MATERIALIZED ResourceAttributes['service.instance.id'] CODEC(ZSTD(1)),
    Host LowCardinality(String) MATERIALIZED arrayFirst(name -> name != '', [ResourceAttributes['host.name'],
        Attributes['host.name'], Attributes['Hostname'], Attributes['hostname']]) CODEC(ZSTD(1)),
    HwId LowCardinality(String) MATERIALIZED arrayFirst(name -> name != '', [Attributes['hw.id'], Attributes['UUID'],
        Attributes['gpu_uuid'], Attributes['hw.gpu.id']]) CODEC(ZSTD(1)),
    Labels LowCardinality(String) MATERIALIZED arrayStringConcat(arraySort(arrayMap((k, v) -> concat(k, '=', v),
        mapKeys(mapFilter((k, v) -> k NOT IN ('host.name', 'Hostname', 'hostname', 'hw.id', 'UUID', 'gpu_uuid',
            'hw.gpu.id'), Attributes) AS rest), mapValues(rest))), ',') CODEC(ZSTD(1)),
    INDEX idx_window Window TYPE minmax GRANULARITY 1
)
ENGINE = MergeTree
PARTITION BY toDate(TimeUnix)
ORDER BY (ServiceName, MetricName, Attributes, toUnixTimestamp64Nano(TimeUnix))
SETTINGS index_granularity = 8192, ttl_only_drop_parts = 1, non_replicated_deduplication_window = 10000;

CREATE TABLE IF NOT EXISTS otel_metrics_exponential_histogram (
    ResourceAttributes Map(LowCardinality(String), String) CODEC(ZSTD(1)),
    ResourceSchemaUrl String CODEC(ZSTD(1)),
    ScopeName String CODEC(ZSTD(1)),
    ScopeVersion String CODEC(ZSTD(1)),
    ScopeAttributes Map(LowCardinality(String), String) CODEC(ZSTD(1)),
    ScopeDroppedAttrCount UInt32 CODEC(ZSTD(1)),
    ScopeSchemaUrl String CODEC(ZSTD(1)),
    ServiceName LowCardinality(String) CODEC(ZSTD(1)),
    MetricName LowCardinality(String) CODEC(ZSTD(1)),
    MetricDescription LowCardinality(String) CODEC(ZSTD(1)),
    MetricUnit LowCardinality(String) CODEC(ZSTD(1)),
    Attributes Map(LowCardinality(String), String) CODEC(ZSTD(1)),
    StartTimeUnix DateTime64(9) CODEC(Delta, ZSTD(1)),
    TimeUnix DateTime64(9) CODEC(Delta, ZSTD(1)),
    Flags UInt32 CODEC(ZSTD(1)),
    Count UInt64 CODEC(ZSTD(1)),
    Sum Float64 CODEC(ZSTD(1)),
    Scale Int32 CODEC(ZSTD(1)),
    ZeroCount UInt64 CODEC(ZSTD(1)),
    PositiveOffset Int32 CODEC(ZSTD(1)),
    PositiveBucketCounts Array(UInt64) CODEC(ZSTD(1)),
    NegativeOffset Int32 CODEC(ZSTD(1)),
    NegativeBucketCounts Array(UInt64) CODEC(ZSTD(1)),
    Min Float64 CODEC(ZSTD(1)),
    Max Float64 CODEC(ZSTD(1)),
    AggregationTemporality Int32 CODEC(ZSTD(1)),
    ZeroThreshold Float64 DEFAULT 0 CODEC(ZSTD(1)),
    Exemplars Nested (
        FilteredAttributes Map(LowCardinality(String), String),
        TimeUnix DateTime64(9),
        Value Float64,
        SpanId String,
        TraceId String
    ) CODEC(ZSTD(1)),
    Origin LowCardinality(String) DEFAULT '' COMMENT 'topic/partition' CODEC(ZSTD(1)),
    Window DateTime('UTC') MATERIALIZED toDateTime(intDiv(toUnixTimestamp64Nano(TimeUnix), 10000000000) * 10, 'UTC')
        CODEC(Delta, ZSTD(1)),
    -- Frames read these instead of the maps.
    Series UInt64 MATERIALIZED cityHash64(ServiceName, MetricName, mapSort(Attributes), mapSort(ResourceAttributes),
        ScopeName) CODEC(ZSTD(1)),
    Instance LowCardinality(String) MATERIALIZED ResourceAttributes['service.instance.id'] CODEC(ZSTD(1)),
    Host LowCardinality(String) MATERIALIZED arrayFirst(name -> name != '', [ResourceAttributes['host.name'],
        Attributes['host.name'], Attributes['Hostname'], Attributes['hostname']]) CODEC(ZSTD(1)),
    HwId LowCardinality(String) MATERIALIZED arrayFirst(name -> name != '', [Attributes['hw.id'], Attributes['UUID'],
        Attributes['gpu_uuid'], Attributes['hw.gpu.id']]) CODEC(ZSTD(1)),
    Labels LowCardinality(String) MATERIALIZED arrayStringConcat(arraySort(arrayMap((k, v) -> concat(k, '=', v),
        mapKeys(mapFilter((k, v) -> k NOT IN ('host.name', 'Hostname', 'hostname', 'hw.id', 'UUID', 'gpu_uuid',
            'hw.gpu.id'), Attributes) AS rest), mapValues(rest))), ',') CODEC(ZSTD(1)),
    INDEX idx_window Window TYPE minmax GRANULARITY 1
)
ENGINE = MergeTree
PARTITION BY toDate(TimeUnix)
ORDER BY (ServiceName, MetricName, Attributes, toUnixTimestamp64Nano(TimeUnix))
SETTINGS index_granularity = 8192, ttl_only_drop_parts = 1, non_replicated_deduplication_window = 10000;

CREATE TABLE IF NOT EXISTS otel_metrics_summary (
    ResourceAttributes Map(LowCardinality(String), String) CODEC(ZSTD(1)),
    ResourceSchemaUrl String CODEC(ZSTD(1)),
    ScopeName String CODEC(ZSTD(1)),
    ScopeVersion String CODEC(ZSTD(1)),
    ScopeAttributes Map(LowCardinality(String), String) CODEC(ZSTD(1)),
    ScopeDroppedAttrCount UInt32 CODEC(ZSTD(1)),
    ScopeSchemaUrl String CODEC(ZSTD(1)),
    ServiceName LowCardinality(String) CODEC(ZSTD(1)),
    MetricName LowCardinality(String) CODEC(ZSTD(1)),
    MetricDescription LowCardinality(String) CODEC(ZSTD(1)),
    MetricUnit LowCardinality(String) CODEC(ZSTD(1)),
    Attributes Map(LowCardinality(String), String) CODEC(ZSTD(1)),
    StartTimeUnix DateTime64(9) CODEC(Delta, ZSTD(1)),
    TimeUnix DateTime64(9) CODEC(Delta, ZSTD(1)),
    Flags UInt32 CODEC(ZSTD(1)),
    Count UInt64 CODEC(ZSTD(1)),
    Sum Float64 CODEC(ZSTD(1)),
    ValueAtQuantiles Nested (
        Quantile Float64,
        Value Float64
    ) CODEC(ZSTD(1)),
    Origin LowCardinality(String) DEFAULT '' COMMENT 'topic/partition' CODEC(ZSTD(1)),
    Window DateTime('UTC') MATERIALIZED toDateTime(intDiv(toUnixTimestamp64Nano(TimeUnix), 10000000000) * 10, 'UTC')
        CODEC(Delta, ZSTD(1)),
    -- Frames read these instead of the maps.
    Series UInt64 MATERIALIZED cityHash64(ServiceName, MetricName, mapSort(Attributes), mapSort(ResourceAttributes),
        ScopeName) CODEC(ZSTD(1)),
    Instance LowCardinality(String) MATERIALIZED ResourceAttributes['service.instance.id'] CODEC(ZSTD(1)),
    Host LowCardinality(String) MATERIALIZED arrayFirst(name -> name != '', [ResourceAttributes['host.name'],
        Attributes['host.name'], Attributes['Hostname'], Attributes['hostname']]) CODEC(ZSTD(1)),
    HwId LowCardinality(String) MATERIALIZED arrayFirst(name -> name != '', [Attributes['hw.id'], Attributes['UUID'],
        Attributes['gpu_uuid'], Attributes['hw.gpu.id']]) CODEC(ZSTD(1)),
    Labels LowCardinality(String) MATERIALIZED arrayStringConcat(arraySort(arrayMap((k, v) -> concat(k, '=', v),
        mapKeys(mapFilter((k, v) -> k NOT IN ('host.name', 'Hostname', 'hostname', 'hw.id', 'UUID', 'gpu_uuid',
            'hw.gpu.id'), Attributes) AS rest), mapValues(rest))), ',') CODEC(ZSTD(1)),
    INDEX idx_window Window TYPE minmax GRANULARITY 1
)
ENGINE = MergeTree
PARTITION BY toDate(TimeUnix)
ORDER BY (ServiceName, MetricName, Attributes, toUnixTimestamp64Nano(TimeUnix))
SETTINGS index_granularity = 8192, ttl_only_drop_parts = 1, non_replicated_deduplication_window = 10000;

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
    (k, s, b, i, d, a, m, y) -> multiIf(
        k = 'string_value', toJSONString(s),
        k = 'int_value', toString(i),
        k = 'bool_value', toString(b),
        k = 'double_value', toJSONString(d),
        k = 'array_value', concat('{"otlp.array":"', base64Encode(a), '"}'),
        k = 'kvlist_value', concat('{"otlp.kvlist":"', base64Encode(m), '"}'),
        k = 'bytes_value', toJSONString(base64Encode(y)),
        'null') AS inner_json,
    v -> arrayMap(inner_json, (v).value, (v).string_value, (v).bool_value, (v).int_value, (v).double_value,
        (v).array_value, (v).kvlist_value, (v).bytes_value) AS inner_jsons,
    (k, s, b, i, d, a, m, y) -> multiIf(
        k = 'string_value', s,
        k = 'int_value', toString(i),
        k = 'bool_value', toString(b),
        k = 'double_value', toString(d),
        k = 'array_value', concat('[', arrayStringConcat(inner_jsons((a).values), ','), ']'),
        k = 'kvlist_value', concat('{', arrayStringConcat(arrayMap((n, j) -> concat(toJSONString(n), ':', j),
            ((m).values).key, inner_jsons(((m).values).value)), ','), '}'),
        k = 'bytes_value', base64Encode(y),
        '') AS text,
    v -> arrayMap(text, (v).value, (v).string_value, (v).bool_value, (v).int_value, (v).double_value,
        (v).array_value, (v).kvlist_value, (v).bytes_value) AS texts,
    attributes -> mapFromArrays((attributes).key::Array(LowCardinality(String)), texts((attributes).value)) AS as_map
SELECT
    maps[1] AS ResourceAttributes,
    resource_url AS ResourceSchemaUrl,
    (scope).name AS ScopeName,
    (scope).version AS ScopeVersion,
    maps[2] AS ScopeAttributes,
    (scope).dropped_attributes_count AS ScopeDroppedAttrCount,
    scope_url AS ScopeSchemaUrl,
    maps[1]['service.name'] AS ServiceName,
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
    SELECT topic, partition, oldest_ns, newest_ns, resource_url, scope_url, scope, maps, arrayJoin(metrics) AS metric
    FROM (
        SELECT
            topic, partition, oldest_ns, newest_ns, resource_url,
            (in_scope).schema_url AS scope_url, (in_scope).scope AS scope,
            arrayMap(as_map, [resource_attributes, (scope).attributes]) AS maps,
            (in_scope).metrics AS metrics
        FROM (
            SELECT
                (origin).topic AS topic, (origin).partition AS partition,
                (origin).oldest_ns AS oldest_ns, (origin).newest_ns AS newest_ns,
                ((in_resource).resource).attributes AS resource_attributes,
                (in_resource).schema_url AS resource_url,
                arrayJoin((in_resource).scope_metrics) AS in_scope
            FROM (SELECT origin, arrayJoin(resource_metrics) AS in_resource FROM otlp_metrics_in)
        )
    )
);

CREATE MATERIALIZED VIEW IF NOT EXISTS otel_metrics_gauge_mv TO otel_metrics_gauge AS
WITH
    (k, s, b, i, d, a, m, y) -> multiIf(
        k = 'string_value', s,
        k = 'int_value', toString(i),
        k = 'bool_value', toString(b),
        k = 'double_value', toString(d),
        k = 'array_value', concat('{"otlp.array":"', base64Encode(a), '"}'),
        k = 'kvlist_value', concat('{"otlp.kvlist":"', base64Encode(m), '"}'),
        k = 'bytes_value', base64Encode(y),
        '') AS flat_text,
    attributes -> mapFromArrays((attributes).key::Array(LowCardinality(String)), arrayMap(flat_text,
        ((attributes).value).value, ((attributes).value).string_value, ((attributes).value).bool_value,
        ((attributes).value).int_value, ((attributes).value).double_value, ((attributes).value).array_value,
        ((attributes).value).kvlist_value, ((attributes).value).bytes_value)) AS as_map
SELECT
    ResourceAttributes, ResourceSchemaUrl, ScopeName, ScopeVersion, ScopeAttributes, ScopeDroppedAttrCount,
    ScopeSchemaUrl, ServiceName, MetricName, MetricDescription, MetricUnit,
    as_map((point).attributes) AS Attributes,
    fromUnixTimestamp64Nano(reinterpretAsInt64((point).start_time_unix_nano)) AS StartTimeUnix,
    fromUnixTimestamp64Nano(reinterpretAsInt64((point).time_unix_nano)) AS TimeUnix,
    (point).flags AS Flags,
    if((point).value = 'as_int', toFloat64((point).as_int), (point).as_double) AS Value,
    arrayMap(as_map, (exemplars).filtered_attributes) AS `Exemplars.FilteredAttributes`,
    arrayMap(t -> fromUnixTimestamp64Nano(reinterpretAsInt64(t)), (exemplars).time_unix_nano) AS `Exemplars.TimeUnix`,
    arrayMap((k, i, d) -> if(k = 'as_int', toFloat64(i), d), (exemplars).value, (exemplars).as_int,
        (exemplars).as_double) AS `Exemplars.Value`,
    arrayMap(id -> lower(hex(id)), (exemplars).span_id) AS `Exemplars.SpanId`,
    arrayMap(id -> lower(hex(id)), (exemplars).trace_id) AS `Exemplars.TraceId`,
    Origin
FROM (
    SELECT *, (point).exemplars AS exemplars
    FROM (SELECT * EXCEPT gauge, arrayJoin(gauge) AS point FROM otlp_metrics_flat WHERE notEmpty(gauge))
    WHERE (point).time_unix_nano BETWEEN OldestNs AND NewestNs
);

CREATE MATERIALIZED VIEW IF NOT EXISTS otel_metrics_sum_mv TO otel_metrics_sum AS
WITH
    (k, s, b, i, d, a, m, y) -> multiIf(
        k = 'string_value', s,
        k = 'int_value', toString(i),
        k = 'bool_value', toString(b),
        k = 'double_value', toString(d),
        k = 'array_value', concat('{"otlp.array":"', base64Encode(a), '"}'),
        k = 'kvlist_value', concat('{"otlp.kvlist":"', base64Encode(m), '"}'),
        k = 'bytes_value', base64Encode(y),
        '') AS flat_text,
    attributes -> mapFromArrays((attributes).key::Array(LowCardinality(String)), arrayMap(flat_text,
        ((attributes).value).value, ((attributes).value).string_value, ((attributes).value).bool_value,
        ((attributes).value).int_value, ((attributes).value).double_value, ((attributes).value).array_value,
        ((attributes).value).kvlist_value, ((attributes).value).bytes_value)) AS as_map
SELECT
    ResourceAttributes, ResourceSchemaUrl, ScopeName, ScopeVersion, ScopeAttributes, ScopeDroppedAttrCount,
    ScopeSchemaUrl, ServiceName, MetricName, MetricDescription, MetricUnit,
    as_map((point).attributes) AS Attributes,
    fromUnixTimestamp64Nano(reinterpretAsInt64((point).start_time_unix_nano)) AS StartTimeUnix,
    fromUnixTimestamp64Nano(reinterpretAsInt64((point).time_unix_nano)) AS TimeUnix,
    (point).flags AS Flags,
    if((point).value = 'as_int', toFloat64((point).as_int), (point).as_double) AS Value,
    Temporality AS AggregationTemporality,
    Monotonic AS IsMonotonic,
    arrayMap(as_map, (exemplars).filtered_attributes) AS `Exemplars.FilteredAttributes`,
    arrayMap(t -> fromUnixTimestamp64Nano(reinterpretAsInt64(t)), (exemplars).time_unix_nano) AS `Exemplars.TimeUnix`,
    arrayMap((k, i, d) -> if(k = 'as_int', toFloat64(i), d), (exemplars).value, (exemplars).as_int,
        (exemplars).as_double) AS `Exemplars.Value`,
    arrayMap(id -> lower(hex(id)), (exemplars).span_id) AS `Exemplars.SpanId`,
    arrayMap(id -> lower(hex(id)), (exemplars).trace_id) AS `Exemplars.TraceId`,
    Origin
FROM (
    SELECT *, (point).exemplars AS exemplars
    FROM (SELECT * EXCEPT sum, arrayJoin(sum) AS point FROM otlp_metrics_flat WHERE notEmpty(sum))
    WHERE (point).time_unix_nano BETWEEN OldestNs AND NewestNs
);

CREATE MATERIALIZED VIEW IF NOT EXISTS otel_metrics_histogram_mv TO otel_metrics_histogram AS
WITH
    (k, s, b, i, d, a, m, y) -> multiIf(
        k = 'string_value', s,
        k = 'int_value', toString(i),
        k = 'bool_value', toString(b),
        k = 'double_value', toString(d),
        k = 'array_value', concat('{"otlp.array":"', base64Encode(a), '"}'),
        k = 'kvlist_value', concat('{"otlp.kvlist":"', base64Encode(m), '"}'),
        k = 'bytes_value', base64Encode(y),
        '') AS flat_text,
    attributes -> mapFromArrays((attributes).key::Array(LowCardinality(String)), arrayMap(flat_text,
        ((attributes).value).value, ((attributes).value).string_value, ((attributes).value).bool_value,
        ((attributes).value).int_value, ((attributes).value).double_value, ((attributes).value).array_value,
        ((attributes).value).kvlist_value, ((attributes).value).bytes_value)) AS as_map
SELECT
    ResourceAttributes, ResourceSchemaUrl, ScopeName, ScopeVersion, ScopeAttributes, ScopeDroppedAttrCount,
    ScopeSchemaUrl, ServiceName, MetricName, MetricDescription, MetricUnit,
    as_map((point).attributes) AS Attributes,
    fromUnixTimestamp64Nano(reinterpretAsInt64((point).start_time_unix_nano)) AS StartTimeUnix,
    fromUnixTimestamp64Nano(reinterpretAsInt64((point).time_unix_nano)) AS TimeUnix,
    (point).flags AS Flags,
    (point).count AS Count,
    (point).sum AS Sum,
    (point).bucket_counts AS BucketCounts,
    (point).explicit_bounds AS ExplicitBounds,
    (point).min AS Min,
    (point).max AS Max,
    Temporality AS AggregationTemporality,
    arrayMap(as_map, (exemplars).filtered_attributes) AS `Exemplars.FilteredAttributes`,
    arrayMap(t -> fromUnixTimestamp64Nano(reinterpretAsInt64(t)), (exemplars).time_unix_nano) AS `Exemplars.TimeUnix`,
    arrayMap((k, i, d) -> if(k = 'as_int', toFloat64(i), d), (exemplars).value, (exemplars).as_int,
        (exemplars).as_double) AS `Exemplars.Value`,
    arrayMap(id -> lower(hex(id)), (exemplars).span_id) AS `Exemplars.SpanId`,
    arrayMap(id -> lower(hex(id)), (exemplars).trace_id) AS `Exemplars.TraceId`,
    Origin
FROM (
    SELECT *, (point).exemplars AS exemplars
    FROM (SELECT * EXCEPT histogram, arrayJoin(histogram) AS point FROM otlp_metrics_flat WHERE notEmpty(histogram))
    WHERE (point).time_unix_nano BETWEEN OldestNs AND NewestNs
);

CREATE MATERIALIZED VIEW IF NOT EXISTS otel_metrics_exponential_histogram_mv TO otel_metrics_exponential_histogram AS
WITH
    (k, s, b, i, d, a, m, y) -> multiIf(
        k = 'string_value', s,
        k = 'int_value', toString(i),
        k = 'bool_value', toString(b),
        k = 'double_value', toString(d),
        k = 'array_value', concat('{"otlp.array":"', base64Encode(a), '"}'),
        k = 'kvlist_value', concat('{"otlp.kvlist":"', base64Encode(m), '"}'),
        k = 'bytes_value', base64Encode(y),
        '') AS flat_text,
    attributes -> mapFromArrays((attributes).key::Array(LowCardinality(String)), arrayMap(flat_text,
        ((attributes).value).value, ((attributes).value).string_value, ((attributes).value).bool_value,
        ((attributes).value).int_value, ((attributes).value).double_value, ((attributes).value).array_value,
        ((attributes).value).kvlist_value, ((attributes).value).bytes_value)) AS as_map
SELECT
    ResourceAttributes, ResourceSchemaUrl, ScopeName, ScopeVersion, ScopeAttributes, ScopeDroppedAttrCount,
    ScopeSchemaUrl, ServiceName, MetricName, MetricDescription, MetricUnit,
    as_map((point).attributes) AS Attributes,
    fromUnixTimestamp64Nano(reinterpretAsInt64((point).start_time_unix_nano)) AS StartTimeUnix,
    fromUnixTimestamp64Nano(reinterpretAsInt64((point).time_unix_nano)) AS TimeUnix,
    (point).flags AS Flags,
    (point).count AS Count,
    (point).sum AS Sum,
    (point).scale AS Scale,
    (point).zero_count AS ZeroCount,
    ((point).positive).offset AS PositiveOffset,
    ((point).positive).bucket_counts AS PositiveBucketCounts,
    ((point).negative).offset AS NegativeOffset,
    ((point).negative).bucket_counts AS NegativeBucketCounts,
    (point).min AS Min,
    (point).max AS Max,
    Temporality AS AggregationTemporality,
    (point).zero_threshold AS ZeroThreshold,
    arrayMap(as_map, (exemplars).filtered_attributes) AS `Exemplars.FilteredAttributes`,
    arrayMap(t -> fromUnixTimestamp64Nano(reinterpretAsInt64(t)), (exemplars).time_unix_nano) AS `Exemplars.TimeUnix`,
    arrayMap((k, i, d) -> if(k = 'as_int', toFloat64(i), d), (exemplars).value, (exemplars).as_int,
        (exemplars).as_double) AS `Exemplars.Value`,
    arrayMap(id -> lower(hex(id)), (exemplars).span_id) AS `Exemplars.SpanId`,
    arrayMap(id -> lower(hex(id)), (exemplars).trace_id) AS `Exemplars.TraceId`,
    Origin
FROM (
    SELECT *, (point).exemplars AS exemplars
    FROM (SELECT * EXCEPT exponential_histogram, arrayJoin(exponential_histogram) AS point FROM otlp_metrics_flat WHERE notEmpty(exponential_histogram))
    WHERE (point).time_unix_nano BETWEEN OldestNs AND NewestNs
);

CREATE MATERIALIZED VIEW IF NOT EXISTS otel_metrics_summary_mv TO otel_metrics_summary AS
WITH
    (k, s, b, i, d, a, m, y) -> multiIf(
        k = 'string_value', s,
        k = 'int_value', toString(i),
        k = 'bool_value', toString(b),
        k = 'double_value', toString(d),
        k = 'array_value', concat('{"otlp.array":"', base64Encode(a), '"}'),
        k = 'kvlist_value', concat('{"otlp.kvlist":"', base64Encode(m), '"}'),
        k = 'bytes_value', base64Encode(y),
        '') AS flat_text,
    attributes -> mapFromArrays((attributes).key::Array(LowCardinality(String)), arrayMap(flat_text,
        ((attributes).value).value, ((attributes).value).string_value, ((attributes).value).bool_value,
        ((attributes).value).int_value, ((attributes).value).double_value, ((attributes).value).array_value,
        ((attributes).value).kvlist_value, ((attributes).value).bytes_value)) AS as_map
SELECT
    ResourceAttributes, ResourceSchemaUrl, ScopeName, ScopeVersion, ScopeAttributes, ScopeDroppedAttrCount,
    ScopeSchemaUrl, ServiceName, MetricName, MetricDescription, MetricUnit,
    as_map((point).attributes) AS Attributes,
    fromUnixTimestamp64Nano(reinterpretAsInt64((point).start_time_unix_nano)) AS StartTimeUnix,
    fromUnixTimestamp64Nano(reinterpretAsInt64((point).time_unix_nano)) AS TimeUnix,
    (point).flags AS Flags,
    (point).count AS Count,
    (point).sum AS Sum,
    ((point).quantile_values).quantile AS `ValueAtQuantiles.Quantile`,
    ((point).quantile_values).value AS `ValueAtQuantiles.Value`,
    Origin
FROM (
    SELECT *
    FROM (SELECT * EXCEPT summary, arrayJoin(summary) AS point FROM otlp_metrics_flat WHERE notEmpty(summary))
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
