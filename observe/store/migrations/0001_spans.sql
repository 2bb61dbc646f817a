-- Spans: the layout of the OpenTelemetry ClickHouse exporter, so that its readers work here; columns of our own are
-- MATERIALIZED or have a DEFAULT. TTLs are not here: settings.retention is applied after the migrations.
-- Every table that a view writes to needs its deduplication window, or a repeated batch would count twice there.

CREATE TABLE IF NOT EXISTS otel_traces (
    Timestamp DateTime64(9) CODEC(Delta, ZSTD(1)),
    TraceId String CODEC(ZSTD(1)),
    SpanId String CODEC(ZSTD(1)),
    ParentSpanId String CODEC(ZSTD(1)),
    TraceState String CODEC(ZSTD(1)),
    SpanName LowCardinality(String) CODEC(ZSTD(1)),
    SpanKind LowCardinality(String) CODEC(ZSTD(1)),
    ServiceName LowCardinality(String) CODEC(ZSTD(1)),
    ResourceAttributes Map(LowCardinality(String), String) CODEC(ZSTD(1)),
    ScopeName String CODEC(ZSTD(1)),
    ScopeVersion String CODEC(ZSTD(1)),
    SpanAttributes Map(LowCardinality(String), String) CODEC(ZSTD(1)),
    Duration UInt64 CODEC(ZSTD(1)),
    StatusCode LowCardinality(String) CODEC(ZSTD(1)),
    StatusMessage String CODEC(ZSTD(1)),
    Events Nested (
        Timestamp DateTime64(9),
        Name LowCardinality(String),
        Attributes Map(LowCardinality(String), String)
    ) CODEC(ZSTD(1)),
    Links Nested (
        TraceId String,
        SpanId String,
        TraceState String,
        Attributes Map(LowCardinality(String), String)
    ) CODEC(ZSTD(1)),
    Flags UInt32 DEFAULT 0 CODEC(ZSTD(1)),
    ResourceSchemaUrl LowCardinality(String) DEFAULT '' CODEC(ZSTD(1)),
    ScopeSchemaUrl LowCardinality(String) DEFAULT '' CODEC(ZSTD(1)),
    ScopeAttributes Map(LowCardinality(String), String) DEFAULT map() CODEC(ZSTD(1)),
    DroppedAttributesCount UInt32 DEFAULT 0 CODEC(ZSTD(1)),
    DroppedEventsCount UInt32 DEFAULT 0 CODEC(ZSTD(1)),
    DroppedLinksCount UInt32 DEFAULT 0 CODEC(ZSTD(1)),
    Origin LowCardinality(String) DEFAULT '' COMMENT 'topic/partition' CODEC(ZSTD(1)),
    Window DateTime('UTC') MATERIALIZED
        toDateTime(intDiv(toUnixTimestamp64Nano(Timestamp) + toInt64(Duration), 10000000000) * 10, 'UTC')
        COMMENT 'start of the 10 s in which the span ends' CODEC(Delta, ZSTD(1)),
    -- Rollups and frames read by window, the interface by time.
    INDEX idx_window Window TYPE minmax GRANULARITY 1,
    INDEX idx_timestamp Timestamp TYPE minmax GRANULARITY 1,
    -- A trace by its id, within the time that otel_traces_trace_id_ts gives.
    INDEX idx_trace_id TraceId TYPE bloom_filter(0.01) GRANULARITY 1
)
ENGINE = MergeTree
PARTITION BY toDate(Timestamp)
ORDER BY (ServiceName, SpanName, toDateTime(Timestamp))
SETTINGS index_granularity = 8192, ttl_only_drop_parts = 1, non_replicated_deduplication_window = 10000;

CREATE TABLE IF NOT EXISTS otel_traces_trace_id_ts (
    TraceId String CODEC(ZSTD(1)),
    Start DateTime CODEC(Delta, ZSTD(1)),
    End DateTime CODEC(Delta, ZSTD(1)),
    INDEX idx_trace_id TraceId TYPE bloom_filter(0.01) GRANULARITY 1
)
ENGINE = MergeTree
PARTITION BY toDate(Start)
ORDER BY (TraceId, Start)
SETTINGS index_granularity = 8192, ttl_only_drop_parts = 1, non_replicated_deduplication_window = 10000;

CREATE TABLE IF NOT EXISTS rejected (
    IngestedAt DateTime64(3) DEFAULT now64(3) CODEC(Delta, ZSTD(1)),
    Signal LowCardinality(String),
    Topic LowCardinality(String),
    Partition Int32,
    Reason LowCardinality(String),
    ServiceName LowCardinality(String),
    Name String,
    TraceId String,
    SpanId String,
    ParentSpanId String,
    StartUnixNano UInt64,
    EndUnixNano UInt64
)
ENGINE = MergeTree
PARTITION BY toDate(IngestedAt)
ORDER BY (Signal, Reason, IngestedAt)
SETTINGS ttl_only_drop_parts = 1, non_replicated_deduplication_window = 10000;

CREATE TABLE IF NOT EXISTS otlp_spans_in ({otlp_spans}) ENGINE = Null;

-- One row a span, judged: the views below part the good from the bad without flattening twice.
CREATE TABLE IF NOT EXISTS otlp_spans_flat (
    Timestamp DateTime64(9),
    TraceId String,
    SpanId String,
    ParentSpanId String,
    TraceState String,
    SpanName LowCardinality(String),
    SpanKind LowCardinality(String),
    ServiceName LowCardinality(String),
    ResourceAttributes Map(LowCardinality(String), String),
    ScopeName String,
    ScopeVersion String,
    SpanAttributes Map(LowCardinality(String), String),
    Duration UInt64,
    StatusCode LowCardinality(String),
    StatusMessage String,
    `Events.Timestamp` Array(DateTime64(9)),
    `Events.Name` Array(LowCardinality(String)),
    `Events.Attributes` Array(Map(LowCardinality(String), String)),
    `Links.TraceId` Array(String),
    `Links.SpanId` Array(String),
    `Links.TraceState` Array(String),
    `Links.Attributes` Array(Map(LowCardinality(String), String)),
    Flags UInt32,
    ResourceSchemaUrl LowCardinality(String),
    ScopeSchemaUrl LowCardinality(String),
    ScopeAttributes Map(LowCardinality(String), String),
    DroppedAttributesCount UInt32,
    DroppedEventsCount UInt32,
    DroppedLinksCount UInt32,
    Origin LowCardinality(String),
    Topic LowCardinality(String),
    Partition Int32,
    StartUnixNano UInt64,
    EndUnixNano UInt64,
    Reason LowCardinality(String)
)
ENGINE = Null;

CREATE MATERIALIZED VIEW IF NOT EXISTS otlp_spans_flat_mv TO otlp_spans_flat AS
WITH
    v -> multiIf(
        v.value = 'string_value', toJSONString(v.string_value),
        v.value = 'int_value', toString(v.int_value),
        v.value = 'bool_value', if(v.bool_value, 'true', 'false'),
        v.value = 'double_value', toJSONString(v.double_value),
        v.value = 'bytes_value', toJSONString(base64Encode(v.bytes_value)),
        v.value = 'array_value', concat('{"otlp.array":"', base64Encode(v.array_value), '"}'),
        v.value = 'kvlist_value', concat('{"otlp.kvlist":"', base64Encode(v.kvlist_value), '"}'),
        'null') AS inner_json,
    v -> multiIf(
        v.value = 'string_value', v.string_value,
        v.value = 'int_value', toString(v.int_value),
        v.value = 'bool_value', if(v.bool_value, 'true', 'false'),
        v.value = 'double_value', toString(v.double_value),
        v.value = 'bytes_value', base64Encode(v.bytes_value),
        v.value = 'array_value',
            concat('[', arrayStringConcat(arrayMap(i -> inner_json(i), v.array_value.values), ','), ']'),
        v.value = 'kvlist_value',
            concat('{', arrayStringConcat(arrayMap(
                i -> concat(toJSONString(i.key), ':', inner_json(i.value)), v.kvlist_value.values), ','), '}'),
        '') AS text,
    attributes -> CAST(mapFromArrays(attributes.key, arrayMap(a -> text(a), attributes.value)), 'Map(LowCardinality(String), String)') AS as_map
SELECT
    fromUnixTimestamp64Nano(reinterpretAsInt64(s.start_time_unix_nano)) AS Timestamp,
    lower(hex(s.trace_id)) AS TraceId,
    lower(hex(s.span_id)) AS SpanId,
    if(s.parent_span_id = unhex('0000000000000000'), '', lower(hex(s.parent_span_id))) AS ParentSpanId,
    s.trace_state AS TraceState,
    s.name AS SpanName,
    transform(s.kind, [1, 2, 3, 4, 5], ['Internal', 'Server', 'Client', 'Producer', 'Consumer'], 'Unspecified') AS SpanKind,
    ServiceName,
    ResourceAttributes,
    scope.name AS ScopeName,
    scope.version AS ScopeVersion,
    as_map(s.attributes) AS SpanAttributes,
    s.end_time_unix_nano - s.start_time_unix_nano AS Duration,
    transform(s.status.code, [1, 2], ['Ok', 'Error'], 'Unset') AS StatusCode,
    s.status.message AS StatusMessage,
    arrayMap(e -> fromUnixTimestamp64Nano(reinterpretAsInt64(e)), s.events.time_unix_nano) AS `Events.Timestamp`,
    s.events.name AS `Events.Name`,
    arrayMap(e -> as_map(e.attributes), s.events) AS `Events.Attributes`,
    arrayMap(l -> lower(hex(l)), s.links.trace_id) AS `Links.TraceId`,
    arrayMap(l -> lower(hex(l)), s.links.span_id) AS `Links.SpanId`,
    s.links.trace_state AS `Links.TraceState`,
    arrayMap(l -> as_map(l.attributes), s.links) AS `Links.Attributes`,
    s.flags AS Flags,
    ResourceSchemaUrl,
    ScopeSchemaUrl,
    ScopeAttributes,
    s.dropped_attributes_count AS DroppedAttributesCount,
    s.dropped_events_count AS DroppedEventsCount,
    s.dropped_links_count AS DroppedLinksCount,
    concat(Topic, '/', toString(Partition)) AS Origin,
    Topic,
    Partition,
    s.start_time_unix_nano AS StartUnixNano,
    s.end_time_unix_nano AS EndUnixNano,
    multiIf(
        length(s.trace_id) != 16, 'trace_id_length',
        length(s.span_id) != 8, 'span_id_length',
        length(s.parent_span_id) NOT IN (0, 8), 'parent_span_id_length',
        StartUnixNano < oldest OR StartUnixNano > newest OR EndUnixNano < oldest OR EndUnixNano > newest, 'time_out_of_range',
        EndUnixNano < StartUnixNano, 'negative_duration',
        '') AS Reason
FROM (
    SELECT
        *, as_map(scope.attributes) AS ScopeAttributes, arrayJoin(spans) AS s
    FROM (
        SELECT
            ResourceAttributes, ResourceAttributes['service.name'] AS ServiceName, ResourceSchemaUrl, Topic, Partition, oldest, newest,
            (arrayJoin(scope_spans) AS ss).scope AS scope, ss.spans AS spans, ss.schema_url AS ScopeSchemaUrl
        FROM (
            SELECT
                as_map((arrayJoin(resource_spans) AS rs).resource.attributes) AS ResourceAttributes,
                rs.scope_spans AS scope_spans, rs.schema_url AS ResourceSchemaUrl,
                origin.topic AS Topic, origin.partition AS Partition, origin.oldest_ns AS oldest, origin.newest_ns AS newest
            FROM otlp_spans_in
        )
    )
);

CREATE MATERIALIZED VIEW IF NOT EXISTS otel_traces_mv TO otel_traces AS
SELECT * EXCEPT (Topic, Partition, StartUnixNano, EndUnixNano, Reason)
FROM otlp_spans_flat
WHERE Reason = '';

CREATE MATERIALIZED VIEW IF NOT EXISTS rejected_spans_mv TO rejected AS
SELECT 'spans' AS Signal, Topic, Partition, Reason, ServiceName, SpanName AS Name, TraceId, SpanId, ParentSpanId,
    StartUnixNano, EndUnixNano
FROM otlp_spans_flat
WHERE Reason != '';

CREATE MATERIALIZED VIEW IF NOT EXISTS otel_traces_trace_id_ts_mv TO otel_traces_trace_id_ts AS
SELECT TraceId, min(Timestamp) AS Start, max(Timestamp) AS End
FROM otel_traces
WHERE TraceId != ''
GROUP BY TraceId;
