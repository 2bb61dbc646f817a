-- Spans: the layout of the OpenTelemetry ClickHouse exporter, so that its readers work here; columns of our own are
-- MATERIALIZED or have a DEFAULT. TTLs are not here: settings.retention is applied after the migrations.
-- Every table that a view writes to needs its deduplication window, or a repeated batch would count twice there.

CREATE TABLE IF NOT EXISTS otel_traces (
    Timestamp DateTime64(9) CODEC(Delta, LZ4),
    TraceId String CODEC(ZSTD(1)),
    SpanId String CODEC(ZSTD(1)),
    ParentSpanId String CODEC(ZSTD(1)),
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
    StatusMessage String CODEC(ZSTD(1)),
    Events Nested (
        Timestamp DateTime64(9),
        Name LowCardinality(String),
        Attributes Map(LowCardinality(String), String),
        DroppedAttributesCount UInt32
    ) CODEC(ZSTD(1)),
    Links Nested (
        TraceId String,
        SpanId String,
        TraceState String,
        Attributes Map(LowCardinality(String), String),
        DroppedAttributesCount UInt32,
        Flags UInt32
    ) CODEC(ZSTD(1)),
    Flags UInt32 DEFAULT 0,
    ResourceSchemaUrl LowCardinality(String) DEFAULT '',
    ScopeSchemaUrl LowCardinality(String) DEFAULT '',
    ScopeAttributes Map(LowCardinality(String), String) DEFAULT map(),
    DroppedAttributesCount UInt32 DEFAULT 0,
    DroppedEventsCount UInt32 DEFAULT 0,
    DroppedLinksCount UInt32 DEFAULT 0,
    ResourceDroppedAttributesCount UInt32 DEFAULT 0,
    ScopeDroppedAttributesCount UInt32 DEFAULT 0,
    ResourceEntities LowCardinality(String) DEFAULT '' COMMENT 'entity references as JSON',
    Service LowCardinality(String) DEFAULT if(ResourceAttributes['service.namespace'] = '', ServiceName,
        concat(ResourceAttributes['service.namespace'], '/', ServiceName))
        COMMENT 'with its namespace',
    Operation LowCardinality(String) DEFAULT {operation_of_span_name}
        COMMENT 'the span name without ids',
    Origin LowCardinality(String) DEFAULT '' COMMENT 'topic/partition',
    Window DateTime('UTC') MATERIALIZED
        toDateTime(intDiv(toUnixTimestamp64Nano(Timestamp) + toInt64(Duration), 10000000000) * 10, 'UTC')
        COMMENT 'start of the 10 s in which the span ends' CODEC(Delta, LZ4),
    -- Rollups and frames read by window, the interface by time.
    INDEX idx_window Window TYPE minmax GRANULARITY 1,
    INDEX idx_timestamp Timestamp TYPE minmax GRANULARITY 1,
    -- A trace by its id, within the time that otel_traces_trace_id_ts gives.
    INDEX idx_trace_id TraceId TYPE bloom_filter(0.01) GRANULARITY 1
)
ENGINE = MergeTree
PARTITION BY toDate(Timestamp)
ORDER BY (ServiceName, SpanName, toDateTime(Timestamp))
SETTINGS index_granularity = 8192, merge_selector_base = 10, ttl_only_drop_parts = 1,
    non_replicated_deduplication_window = 10000;

CREATE TABLE IF NOT EXISTS otel_traces_trace_id_ts (
    TraceId String CODEC(ZSTD(1)),
    Start DateTime CODEC(Delta, LZ4),
    End DateTime CODEC(Delta, LZ4),
    INDEX idx_trace_id TraceId TYPE bloom_filter(0.01) GRANULARITY 1
)
ENGINE = MergeTree
PARTITION BY toDate(Start)
ORDER BY (TraceId, Start)
SETTINGS index_granularity = 8192, merge_selector_base = 10, ttl_only_drop_parts = 1,
    non_replicated_deduplication_window = 10000;

CREATE TABLE IF NOT EXISTS rejected (
    IngestedAt DateTime64(3) DEFAULT now64(3) CODEC(Delta, LZ4),
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
    `Events.DroppedAttributesCount` Array(UInt32),
    `Links.TraceId` Array(String),
    `Links.SpanId` Array(String),
    `Links.TraceState` Array(String),
    `Links.Attributes` Array(Map(LowCardinality(String), String)),
    `Links.DroppedAttributesCount` Array(UInt32),
    `Links.Flags` Array(UInt32),
    Flags UInt32,
    ResourceSchemaUrl LowCardinality(String),
    ScopeSchemaUrl LowCardinality(String),
    ScopeAttributes Map(LowCardinality(String), String),
    DroppedAttributesCount UInt32,
    DroppedEventsCount UInt32,
    DroppedLinksCount UInt32,
    ResourceDroppedAttributesCount UInt32,
    ScopeDroppedAttributesCount UInt32,
    ResourceEntities LowCardinality(String),
    Service LowCardinality(String),
    Origin LowCardinality(String),
    Topic LowCardinality(String),
    Partition Int32,
    StartUnixNano UInt64,
    EndUnixNano UInt64,
    Reason LowCardinality(String)
)
ENGINE = Null;

-- `(x).member` and not `x.member`: the latter looks through all of x's nested type, which is deep, and that costs
-- 2 ms a time, on every insert. Lambdas take the members of a value as arguments for the same reason.
CREATE MATERIALIZED VIEW IF NOT EXISTS otlp_spans_flat_mv TO otlp_spans_flat AS
WITH
    {values}
SELECT
    fromUnixTimestamp64Nano(reinterpretAsInt64(start_ns)) AS Timestamp,
    lower(hex(trace_id)) AS TraceId,
    lower(hex(span_id)) AS SpanId,
    if(parent_id = unhex('0000000000000000'), '', lower(hex(parent_id))) AS ParentSpanId,
    (span).trace_state AS TraceState,
    (span).name AS SpanName,
    ['Unspecified', 'Internal', 'Server', 'Client', 'Producer', 'Consumer'][if(kind BETWEEN 1 AND 5, kind, 0) + 1]
        AS SpanKind,
    service AS ServiceName,
    maps[1] AS ResourceAttributes,
    (scope).name AS ScopeName,
    (scope).version AS ScopeVersion,
    as_map((span).attributes) AS SpanAttributes,
    end_ns - start_ns AS Duration,
    ['Unset', 'Ok', 'Error'][if(code BETWEEN 1 AND 2, code, 0) + 1] AS StatusCode,
    (status).message AS StatusMessage,
    arrayMap(t -> fromUnixTimestamp64Nano(reinterpretAsInt64(t)), (events).time_unix_nano) AS `Events.Timestamp`,
    (events).name AS `Events.Name`,
    arraySlice(others, 1, length(events)) AS `Events.Attributes`,
    (events).dropped_attributes_count AS `Events.DroppedAttributesCount`,
    arrayMap(id -> lower(hex(id)), (links).trace_id) AS `Links.TraceId`,
    arrayMap(id -> lower(hex(id)), (links).span_id) AS `Links.SpanId`,
    (links).trace_state AS `Links.TraceState`,
    arraySlice(others, length(events) + 1) AS `Links.Attributes`,
    (links).dropped_attributes_count AS `Links.DroppedAttributesCount`,
    (links).flags AS `Links.Flags`,
    (span).flags AS Flags,
    resource_url AS ResourceSchemaUrl,
    scope_url AS ScopeSchemaUrl,
    maps[2] AS ScopeAttributes,
    (span).dropped_attributes_count AS DroppedAttributesCount,
    (span).dropped_events_count AS DroppedEventsCount,
    (span).dropped_links_count AS DroppedLinksCount,
    resource_dropped AS ResourceDroppedAttributesCount,
    (scope).dropped_attributes_count AS ScopeDroppedAttributesCount,
    entities AS ResourceEntities,
    identity AS Service,
    concat(topic, '/', toString(partition)) AS Origin,
    topic AS Topic,
    partition AS Partition,
    start_ns AS StartUnixNano,
    end_ns AS EndUnixNano,
    multiIf(
        length(trace_id) != 16, 'trace_id_length',
        length(span_id) != 8, 'span_id_length',
        length(parent_id) NOT IN (0, 8), 'parent_span_id_length',
        least(start_ns, end_ns) < oldest_ns OR greatest(start_ns, end_ns) > newest_ns, 'time_out_of_range',
        end_ns < start_ns, 'negative_duration',
        '') AS Reason
FROM (
    SELECT
        topic, partition, oldest_ns, newest_ns, resource_url, resource_dropped, entities, service, identity,
        scope_url, scope, maps, span,
        (span).trace_id AS trace_id, (span).span_id AS span_id, (span).parent_span_id AS parent_id,
        (span).kind AS kind, (span).status AS status, (status).code AS code,
        (span).start_time_unix_nano AS start_ns, (span).end_time_unix_nano AS end_ns,
        (span).events AS events, (span).links AS links,
        arrayMap(as_map, arrayConcat((events).attributes, (links).attributes)) AS others
    FROM (
        SELECT
            topic, partition, oldest_ns, newest_ns, resource_url, resource_dropped, entities, scope_url, scope, maps,
            toLowCardinality(maps[1]['service.name']) AS service,
            toLowCardinality(if(maps[1]['service.namespace'] = '', maps[1]['service.name'],
                concat(maps[1]['service.namespace'], '/', maps[1]['service.name']))) AS identity,
            arrayJoin(spans) AS span
        FROM (
            SELECT
                topic, partition, oldest_ns, newest_ns, resource_url, resource_dropped,
                toLowCardinality(if(empty(entity_refs), '', toJSONString(entity_refs))) AS entities,
                (in_scope).schema_url AS scope_url, (in_scope).scope AS scope,
                arrayMap(as_map, [resource_attributes, (scope).attributes]) AS maps,
                (in_scope).spans AS spans
            FROM (
                SELECT
                    (origin).topic AS topic, (origin).partition AS partition,
                    (origin).oldest_ns AS oldest_ns, (origin).newest_ns AS newest_ns,
                    ((in_resource).resource).attributes AS resource_attributes,
                    ((in_resource).resource).dropped_attributes_count AS resource_dropped,
                    ((in_resource).resource).entity_refs AS entity_refs,
                    (in_resource).schema_url AS resource_url,
                    arrayJoin((in_resource).scope_spans) AS in_scope
                FROM (SELECT origin, arrayJoin(resource_spans) AS in_resource FROM otlp_spans_in)
            )
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
