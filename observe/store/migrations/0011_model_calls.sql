-- Model calls: spans that name a model or count tokens, by half octaves of tokens in and out, so that latency can be
-- judged given the work that was asked for. Read by service and model over weeks, and by window over an hour.

CREATE TABLE IF NOT EXISTS token_windows (
    Window DateTime('UTC') CODEC(Delta, ZSTD(1)),
    ServiceName LowCardinality(String),
    SpanName LowCardinality(String),
    SpanKind LowCardinality(String),
    ServiceVersion LowCardinality(String),
    Model LowCardinality(String),
    InputBucket Int16 COMMENT 'tokens in (2^((i-1)/2), 2^(i/2)]; -1 unknown',
    OutputBucket Int16 COMMENT 'likewise',
    Requests SimpleAggregateFunction(sum, UInt64),
    Errors SimpleAggregateFunction(sum, UInt64),
    InputTokens SimpleAggregateFunction(sum, UInt64),
    OutputTokens SimpleAggregateFunction(sum, UInt64),
    DurationSumNs SimpleAggregateFunction(sum, UInt64),
    Buckets SimpleAggregateFunction(sumMap, Map(Int16, UInt64)),
    FirstBuckets SimpleAggregateFunction(sumMap, Map(Int16, UInt64)) COMMENT 'time to first token',
    PerTokenBuckets SimpleAggregateFunction(sumMap, Map(Int16, UInt64)) COMMENT 'time for each further token',
    INDEX idx_window Window TYPE minmax GRANULARITY 1
)
ENGINE = AggregatingMergeTree
PARTITION BY toDate(Window)
ORDER BY (ServiceName, Model, SpanName, SpanKind, ServiceVersion, Window, InputBucket, OutputBucket)
SETTINGS ttl_only_drop_parts = 1, non_replicated_deduplication_window = 10000;

-- New names first, then those that older libraries and vLLM still send.
CREATE MATERIALIZED VIEW IF NOT EXISTS token_windows_mv TO token_windows AS
WITH
    ns -> toInt16(ceil(log2(greatest(ns, 1000) / 1e6) * 16) - 1) AS bucket,
    tokens -> toInt16(ceil(2 * log2(greatest(tokens, 1)))) AS half_octave
SELECT
    Window, ServiceName, SpanName, SpanKind, ServiceVersion, Model, InputBucket, OutputBucket,
    count() AS Requests, countIf(failed) AS Errors, sum(input) AS InputTokens, sum(output) AS OutputTokens,
    sum(Duration) AS DurationSumNs,
    sumMap(map(bucket(Duration), toUInt64(1))) AS Buckets,
    sumMapIf(map(bucket(first_ns), toUInt64(1)), first_ns > 0) AS FirstBuckets,
    sumMapIf(map(bucket(further_ns), toUInt64(1)), further_ns > 0) AS PerTokenBuckets
FROM (
    SELECT
        toDateTime(intDiv(toUnixTimestamp64Nano(Timestamp) + toInt64(Duration), 10000000000) * 10, 'UTC') AS Window,
        Service AS ServiceName, Operation AS SpanName, SpanKind, ResourceAttributes['service.version'] AS ServiceVersion, Duration,
        StatusCode = 'Error' AS failed,
        SpanAttributes AS a,
        arrayFirst(name -> name != '',
            [a['gen_ai.request.model'], a['gen_ai.response.model'], a['llm.model_name']]) AS Model,
        arrayFirst(text -> text != '', [a['gen_ai.usage.input_tokens'], a['gen_ai.usage.prompt_tokens'],
            a['llm.token_count.prompt']]) AS input_text,
        arrayFirst(text -> text != '', [a['gen_ai.usage.output_tokens'], a['gen_ai.usage.completion_tokens'],
            a['llm.token_count.completion']]) AS output_text,
        arrayFirst(text -> text != '', [a['gen_ai.response.time_to_first_chunk'],
            a['gen_ai.latency.time_to_first_token'], a['gen_ai.server.time_to_first_token']]) AS first_text,
        toUInt64OrZero(input_text) AS input,
        toUInt64OrZero(output_text) AS output,
        if(input_text = '', -1, half_octave(input)) AS InputBucket,
        if(output_text = '', -1, half_octave(output)) AS OutputBucket,
        least(toUInt64(greatest(toFloat64OrZero(first_text), 0) * 1e9), Duration) AS first_ns,
        -- Without the time to the first token its share is in the mean: with many tokens out it hardly counts.
        if(output > 1 AND first_ns > 0, intDiv(Duration - first_ns, output - 1), 0) AS further_ns
    FROM otel_traces
    WHERE hasAny(mapKeys(SpanAttributes), ['gen_ai.request.model', 'gen_ai.usage.input_tokens',
        'gen_ai.usage.prompt_tokens', 'gen_ai.response.model', 'llm.model_name'])
)
GROUP BY Window, ServiceName, SpanName, SpanKind, ServiceVersion, Model, InputBucket, OutputBucket;
