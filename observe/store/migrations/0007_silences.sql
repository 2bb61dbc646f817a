-- Services about which nobody is told for a while: written through the API, honoured by the watcher.

CREATE TABLE IF NOT EXISTS silences (
    Id String,
    Service String COMMENT 'shell pattern',
    Comment String,
    CreatedNs Int64,
    EndsNs Int64,
    Version UInt64 COMMENT 'nanoseconds since the epoch at which this row was written'
)
ENGINE = ReplacingMergeTree(Version)
ORDER BY Id;
