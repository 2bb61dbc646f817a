    Origin LowCardinality(String) DEFAULT '' COMMENT 'topic/partition',
    Window DateTime('UTC') MATERIALIZED toDateTime(intDiv(toUnixTimestamp64Nano(TimeUnix), 10000000000) * 10, 'UTC')
        CODEC(Delta, LZ4),
    -- Frames read these instead of the maps.
    Series UInt64 MATERIALIZED cityHash64(ServiceName, MetricName, mapSort(Attributes), mapSort(ResourceAttributes),
        ScopeName),
    Instance LowCardinality(String) MATERIALIZED ResourceAttributes['service.instance.id'],
    Host LowCardinality(String) MATERIALIZED arrayFirst(name -> name != '', [ResourceAttributes['host.name'],
        Attributes['host.name'], Attributes['Hostname'], Attributes['hostname']]),
    HwId LowCardinality(String) MATERIALIZED arrayFirst(name -> name != '', [Attributes['hw.id'], Attributes['UUID'],
        Attributes['gpu_uuid'], Attributes['hw.gpu.id']]),
    Labels LowCardinality(String) MATERIALIZED arrayStringConcat(arraySort(arrayMap((k, v) -> concat(k, '=', v),
        mapKeys(mapFilter((k, v) -> k NOT IN ('host.name', 'Hostname', 'hostname', 'hw.id', 'UUID', 'gpu_uuid',
            'hw.gpu.id'), Attributes) AS rest), mapValues(rest))), ','),
    INDEX idx_window Window TYPE minmax GRANULARITY 1
)
ENGINE = MergeTree
PARTITION BY toDate(TimeUnix)
ORDER BY (ServiceName, MetricName, Attributes, toUnixTimestamp64Nano(TimeUnix))
SETTINGS index_granularity = 8192, merge_selector_base = 10, ttl_only_drop_parts = 1,
    non_replicated_deduplication_window = 10000
