-- Records that are stored, by their bytes: how a writer knows an export that was sent again. See observe/repeats.py.

CREATE TABLE IF NOT EXISTS digests (
    IngestedAt DateTime DEFAULT now() CODEC(Delta, ZSTD(1)),
    Topic LowCardinality(String),
    Partition Int32,
    Offset Int64 CODEC(Delta, ZSTD(1)),
    RecordedAtMs Int64 CODEC(Delta, ZSTD(1)),
    Digest String COMMENT 'hexadecimal' CODEC(ZSTD(1)),
    Repeated UInt64 COMMENT 'items left out because the record was a repeat itself'
)
ENGINE = MergeTree
PARTITION BY toDate(IngestedAt)
ORDER BY (Topic, Partition, Offset)
SETTINGS ttl_only_drop_parts = 1, non_replicated_deduplication_window = 10000;
