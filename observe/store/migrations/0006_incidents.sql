-- What people were told. The body is the incident as the API shows it; the other columns are for finding it.

CREATE TABLE IF NOT EXISTS incidents (
    Id String,
    Version UInt64,
    State LowCardinality(String),
    OnsetNs Int64,
    EndNs Int64 COMMENT 'resolved at; the largest number while it is open',
    Body String CODEC(ZSTD(1))
)
ENGINE = ReplacingMergeTree(Version)
ORDER BY Id;

CREATE TABLE IF NOT EXISTS notified (
    IncidentId String,
    Receiver String,
    Version UInt64,
    At DateTime64(3) DEFAULT now64(3)
)
ENGINE = ReplacingMergeTree(Version)
ORDER BY (IncidentId, Receiver);
