-- Durations that were sent as histograms, as windows of kind Metric. A cumulative histogram counts what it gained since
-- the point before; buckets go to the geometric middle of their bounds in ms (a hair above: no bound is met).
WITH
    multiIf(
        MetricUnit = 's', 1e3, MetricUnit = 'ms', 1, MetricUnit = 'us', 1e-3, MetricUnit = 'ns', 1e-6,
        MetricUnit = 'min', 6e4,
        MetricUnit != '', 0,
        endsWith(MetricName, '_seconds'), 1e3, endsWith(MetricName, '_milliseconds'), 1,
        0) AS unit_ms,
    points AS (
        SELECT
            Series, Window, Service, MetricName, ResourceAttributes['service.version'] AS version,
            Attributes['error.type'] != '' AS failed, AggregationTemporality AS temporality,
            toUnixTimestamp64Nano(TimeUnix) AS time_ns, toUnixTimestamp64Nano(StartTimeUnix) AS start_ns,
            Count AS n, Sum * unit_ms AS sum_ms,
            -- The first bucket begins at zero and the last has no end: half the bound below, twice the one above.
            arrayMap(i -> if(length(ExplicitBounds) = 0, Sum / greatest(Count, 1), multiIf(
                i = 1, ExplicitBounds[1] / 2,
                i > length(ExplicitBounds), ExplicitBounds[-1] * 2,
                ExplicitBounds[i - 1] <= 0, ExplicitBounds[i] / 2,
                sqrt(ExplicitBounds[i - 1] * ExplicitBounds[i]))) * unit_ms,
                arrayEnumerate(if(empty(BucketCounts), [Count], BucketCounts))) AS middles,
            if(empty(BucketCounts), [Count], BucketCounts) AS counts
        FROM otel_metrics_histogram
        WHERE Window >= toDateTime({from:UInt32} - {lookback:UInt32} - 10, 'UTC')
            AND Window < toDateTime({to:UInt32}, 'UTC') AND unit_ms > 0 AND bitAnd(Flags, 1) = 0
        UNION ALL
        SELECT
            Series, Window, Service, MetricName, ResourceAttributes['service.version'], Attributes['error.type'] != '',
            AggregationTemporality, toUnixTimestamp64Nano(TimeUnix), toUnixTimestamp64Nano(StartTimeUnix), Count,
            Sum * unit_ms,
            arrayConcat([0.001], arrayMap(i -> exp2((PositiveOffset + i - 0.51) * exp2(-Scale)) * unit_ms,
                arrayEnumerate(PositiveBucketCounts))),
            arrayConcat([ZeroCount], PositiveBucketCounts)
        FROM otel_metrics_exponential_histogram
        WHERE Window >= toDateTime({from:UInt32} - {lookback:UInt32} - 10, 'UTC')
            AND Window < toDateTime({to:UInt32}, 'UTC') AND unit_ms > 0 AND bitAnd(Flags, 1) = 0
    ),
    gains AS (
        SELECT
            Window, Service, MetricName, version, failed,
            -- Counters that fell have begun anew; buckets that moved (another scale or offset) are met by their middle.
            -- A point too old to count from is no point before, so that an answer does not depend on how far one reads.
            temporality = 1 OR before_ns = 0 OR time_ns - before_ns > {lookback:Int64} * 1000000000 OR n < before_n
                AS anew,
            temporality = 1 OR (before_ns > 0 AND time_ns - before_ns <= {lookback:Int64} * 1000000000)
                OR (start_ns > 0 AND time_ns > start_ns AND time_ns - start_ns <= {lookback:Int64} * 1000000000) AS known,
            toUInt64(if(anew, n, toUInt64(n - before_n))) AS gain,
            if(anew, sum_ms, greatest(sum_ms - before_sum, 0)) AS sum_gain_ms,
            arrayMap(m -> toInt16(ceil(log2(greatest(m, 0.001)) * 16) - 1), middles) AS places,
            arrayMap((c, m) -> if(anew, c, toUInt64(c - least(c, before_counts[indexOf(before_middles, m)]))),
                counts, middles) AS gained
        FROM (
            SELECT
                *,
                lagInFrame(time_ns, 1, 0) OVER series AS before_ns,
                lagInFrame(n, 1, 0) OVER series AS before_n,
                lagInFrame(sum_ms, 1, 0) OVER series AS before_sum,
                lagInFrame(counts) OVER series AS before_counts,
                lagInFrame(middles) OVER series AS before_middles
            FROM (SELECT * FROM points ORDER BY n DESC LIMIT 1 BY Series, time_ns)
            WINDOW series AS (PARTITION BY Series ORDER BY time_ns)
        )
        WHERE Window >= toDateTime({from:UInt32}, 'UTC')
    )
SELECT
    toInt64(toUnixTimestamp(Window)) * 1000000000 AS window_start_ns, Service AS service, MetricName AS operation,
    'Metric' AS kind, version, sum(gain) AS requests, sumIf(gain, failed) AS errors,
    arraySum(arraySort(groupArray(sum_gain_ms))) AS duration_sum_ms,
    CAST(arrayFilter(b -> b.2 > 0, arrayZip((sumMap(places, gained) AS b).1, b.2)),
        'Array(Tuple(bucket Int16, count UInt64))') AS latency_buckets
FROM gains
WHERE known AND gain > 0
GROUP BY Window, Service, MetricName, version
