-- What incidents were diagnosed from: the inputs of a look, once for all incidents that it changed, and what it said.

CREATE TABLE IF NOT EXISTS looks (
    LookNs Int64,
    At DateTime64(3, 'UTC') MATERIALIZED fromUnixTimestamp64Nano(LookNs),
    Inputs String COMMENT 'zip file, base64' CODEC(ZSTD(1))
)
ENGINE = ReplacingMergeTree
PARTITION BY toDate(At)
ORDER BY LookNs
SETTINGS ttl_only_drop_parts = 1, index_granularity = 8;

CREATE TABLE IF NOT EXISTS diagnoses (
    IncidentId String,
    LookNs Int64,
    At DateTime64(3, 'UTC') MATERIALIZED fromUnixTimestamp64Nano(LookNs),
    Version UInt64,
    Body String COMMENT 'the incident as this look left it' CODEC(ZSTD(1))
)
ENGINE = ReplacingMergeTree
PARTITION BY toDate(At)
ORDER BY (IncidentId, LookNs)
SETTINGS ttl_only_drop_parts = 1;
