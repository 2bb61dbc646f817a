    Origin LowCardinality(String) DEFAULT '' COMMENT 'topic/partition',
    -- Frames read these instead of the maps; 0014 tells how they are made from them.
    Window DateTime('UTC') CODEC(Delta, LZ4),
    Series UInt64,
    Instance LowCardinality(String),
    Host LowCardinality(String),
    HwId LowCardinality(String),
    Labels LowCardinality(String),
    INDEX idx_window Window TYPE minmax GRANULARITY 1
)
ENGINE = MergeTree
PARTITION BY toDate(TimeUnix)
-- Series stands for Attributes in the exporter's order: rows lie the same way, and maps need not be compared.
ORDER BY (ServiceName, MetricName, Series, TimeUnix)
SETTINGS index_granularity = 8192, merge_selector_base = 10, ttl_only_drop_parts = 1,
    non_replicated_deduplication_window = 10000
