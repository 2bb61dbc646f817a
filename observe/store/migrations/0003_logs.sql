-- Log records: the layout of the OpenTelemetry ClickHouse exporter (its 2026 form).

CREATE TABLE IF NOT EXISTS otel_logs (
    Timestamp DateTime64(9) CODEC(Delta, LZ4),
    TraceId String CODEC(ZSTD(1)),
    SpanId String CODEC(ZSTD(1)),
    TraceFlags UInt8,
    SeverityText LowCardinality(String),
    SeverityNumber UInt8,
    ServiceName LowCardinality(String),
    Body String CODEC(ZSTD(1)),
    ResourceSchemaUrl LowCardinality(String),
    ResourceAttributes Map(LowCardinality(String), String),
    ScopeSchemaUrl LowCardinality(String),
    ScopeName String,
    ScopeVersion LowCardinality(String),
    ScopeAttributes Map(LowCardinality(String), String),
    LogAttributes Map(LowCardinality(String), String),
    EventName String,
    ObservedTimestamp DateTime64(9) DEFAULT Timestamp CODEC(Delta, LZ4),
    Flags UInt32 DEFAULT TraceFlags,
    ResourceDroppedAttributesCount UInt32 DEFAULT 0,
    ScopeDroppedAttributesCount UInt32 DEFAULT 0,
    ResourceEntities LowCardinality(String) DEFAULT '' COMMENT 'entity references as JSON',
    Service LowCardinality(String) DEFAULT if(ResourceAttributes['service.namespace'] = '', ServiceName,
        concat(ResourceAttributes['service.namespace'], '/', ServiceName))
        COMMENT 'with its namespace',
    DroppedAttributesCount UInt32 DEFAULT 0,
    Origin LowCardinality(String) DEFAULT '' COMMENT 'topic/partition',
    -- The logs of a trace.
    INDEX idx_trace_id TraceId TYPE bloom_filter(0.01) GRANULARITY 1
)
ENGINE = MergeTree
PARTITION BY toDate(Timestamp)
ORDER BY (toStartOfFiveMinutes(Timestamp), ServiceName, Timestamp)
SETTINGS index_granularity = 8192, merge_selector_base = 10, ttl_only_drop_parts = 1,
    non_replicated_deduplication_window = 10000;

CREATE TABLE IF NOT EXISTS otlp_logs_in ({otlp_logs}) ENGINE = Null;

CREATE TABLE IF NOT EXISTS otlp_logs_flat (
    Timestamp DateTime64(9),
    TraceId String,
    SpanId String,
    TraceFlags UInt8,
    SeverityText LowCardinality(String),
    SeverityNumber UInt8,
    ServiceName LowCardinality(String),
    Body String,
    ResourceSchemaUrl LowCardinality(String),
    ResourceAttributes Map(LowCardinality(String), String),
    ScopeSchemaUrl LowCardinality(String),
    ScopeName String,
    ScopeVersion LowCardinality(String),
    ScopeAttributes Map(LowCardinality(String), String),
    LogAttributes Map(LowCardinality(String), String),
    EventName String,
    ObservedTimestamp DateTime64(9),
    DroppedAttributesCount UInt32,
    Flags UInt32,
    ResourceDroppedAttributesCount UInt32,
    ScopeDroppedAttributesCount UInt32,
    ResourceEntities LowCardinality(String),
    Service LowCardinality(String),
    Origin LowCardinality(String),
    Topic LowCardinality(String),
    Partition Int32,
    UnixNano UInt64,
    Reason LowCardinality(String)
)
ENGINE = Null;

-- A record without a time of its own has the time at which it was observed.
CREATE MATERIALIZED VIEW IF NOT EXISTS otlp_logs_flat_mv TO otlp_logs_flat AS
WITH
    {values}
SELECT
    fromUnixTimestamp64Nano(reinterpretAsInt64(time_ns)) AS Timestamp,
    lower(hex(trace_id)) AS TraceId,
    lower(hex(span_id)) AS SpanId,
    toUInt8(bitAnd((record).flags, 255)) AS TraceFlags,
    (record).severity_text AS SeverityText,
    toUInt8(if((record).severity_number BETWEEN 0 AND 24, (record).severity_number, 0)) AS SeverityNumber,
    service AS ServiceName,
    text((body).value, (body).string_value, (body).bool_value, (body).int_value, (body).double_value,
        (body).array_value, (body).kvlist_value, (body).bytes_value) AS Body,
    resource_url AS ResourceSchemaUrl,
    maps[1] AS ResourceAttributes,
    scope_url AS ScopeSchemaUrl,
    (scope).name AS ScopeName,
    (scope).version AS ScopeVersion,
    maps[2] AS ScopeAttributes,
    as_map((record).attributes) AS LogAttributes,
    (record).event_name AS EventName,
    fromUnixTimestamp64Nano(reinterpretAsInt64((record).observed_time_unix_nano)) AS ObservedTimestamp,
    (record).dropped_attributes_count AS DroppedAttributesCount,
    (record).flags AS Flags,
    resource_dropped AS ResourceDroppedAttributesCount,
    (scope).dropped_attributes_count AS ScopeDroppedAttributesCount,
    entities AS ResourceEntities,
    identity AS Service,
    concat(topic, '/', toString(partition)) AS Origin,
    topic AS Topic,
    partition AS Partition,
    time_ns AS UnixNano,
    multiIf(
        length(trace_id) NOT IN (0, 16), 'trace_id_length',
        length(span_id) NOT IN (0, 8), 'span_id_length',
        time_ns < oldest_ns OR time_ns > newest_ns, 'time_out_of_range',
        '') AS Reason
FROM (
    SELECT
        topic, partition, oldest_ns, newest_ns, resource_url, resource_dropped, entities, service, identity,
        scope_url, scope, maps, record,
        (record).trace_id AS trace_id, (record).span_id AS span_id, (record).body AS body,
        if((record).time_unix_nano = 0, (record).observed_time_unix_nano, (record).time_unix_nano) AS time_ns
    FROM (
        SELECT
            topic, partition, oldest_ns, newest_ns, resource_url, resource_dropped, entities, scope_url, scope, maps,
            toLowCardinality(maps[1]['service.name']) AS service,
            toLowCardinality(if(maps[1]['service.namespace'] = '', maps[1]['service.name'],
                concat(maps[1]['service.namespace'], '/', maps[1]['service.name']))) AS identity,
            arrayJoin(records) AS record
        FROM (
            SELECT
                topic, partition, oldest_ns, newest_ns, resource_url, resource_dropped,
                toLowCardinality(if(empty(entity_refs), '', toJSONString(entity_refs))) AS entities,
                (in_scope).schema_url AS scope_url, (in_scope).scope AS scope,
                arrayMap(as_map, [resource_attributes, (scope).attributes]) AS maps,
                (in_scope).log_records AS records
            FROM (
                SELECT
                    (origin).topic AS topic, (origin).partition AS partition,
                    (origin).oldest_ns AS oldest_ns, (origin).newest_ns AS newest_ns,
                    ((in_resource).resource).attributes AS resource_attributes,
                    ((in_resource).resource).dropped_attributes_count AS resource_dropped,
                    ((in_resource).resource).entity_refs AS entity_refs,
                    (in_resource).schema_url AS resource_url,
                    arrayJoin((in_resource).scope_logs) AS in_scope
                FROM (SELECT origin, arrayJoin(resource_logs) AS in_resource FROM otlp_logs_in)
            )
        )
    )
);

CREATE MATERIALIZED VIEW IF NOT EXISTS otel_logs_mv TO otel_logs AS
SELECT * EXCEPT (Topic, Partition, UnixNano, Reason)
FROM otlp_logs_flat
WHERE Reason = '';

CREATE MATERIALIZED VIEW IF NOT EXISTS rejected_logs_mv TO rejected AS
SELECT 'logs' AS Signal, Topic, Partition, Reason, ServiceName, EventName AS Name, TraceId, SpanId, UnixNano AS StartUnixNano
FROM otlp_logs_flat
WHERE Reason != '';
