-- What gauges and counters say, window by window. Points are taken once by their time, and in the order of their values,
-- so that a sum of floats comes out the same every time. A counter's rate belongs to the window of the later point.
-- Metrics of pods and containers are told by the pod, which only the maps of attributes hold: those few are read apart.
WITH
    points AS (
        SELECT
            Window, Service, Instance, Host, HwId, MetricName, MetricUnit, Labels, 'gauge' AS Kind,
            arraySort(groupUniqArray((toUnixTimestamp64Nano(TimeUnix), Value)).2) AS xs
        FROM (
            SELECT Window, Service, Instance, Host, HwId, MetricName, MetricUnit, Labels, TimeUnix, Value, Flags
            FROM otel_metrics_gauge
            WHERE Window >= toDateTime({from:UInt32}, 'UTC') AND Window < toDateTime({to:UInt32}, 'UTC')
                AND MetricName NOT IN (<<pod metrics>>)
            UNION ALL
            SELECT Window, Service, <<pod>>, <<node>>, HwId, MetricName, MetricUnit, Labels, TimeUnix, Value, Flags
            FROM otel_metrics_gauge
            WHERE Window >= toDateTime({from:UInt32}, 'UTC') AND Window < toDateTime({to:UInt32}, 'UTC')
                AND MetricName IN (<<pod metrics>>)
            UNION ALL
            SELECT Window, Service, Instance, Host, HwId, MetricName, MetricUnit, Labels, TimeUnix, Value, Flags
            FROM otel_metrics_sum
            WHERE Window >= toDateTime({from:UInt32}, 'UTC') AND Window < toDateTime({to:UInt32}, 'UTC')
                AND NOT IsMonotonic AND AggregationTemporality != 1
                AND MetricName NOT IN (<<pod metrics>>)
            UNION ALL
            SELECT Window, Service, <<pod>>, <<node>>, HwId, MetricName, MetricUnit, Labels, TimeUnix, Value, Flags
            FROM otel_metrics_sum
            WHERE Window >= toDateTime({from:UInt32}, 'UTC') AND Window < toDateTime({to:UInt32}, 'UTC')
                AND NOT IsMonotonic AND AggregationTemporality != 1
                AND MetricName IN (<<pod metrics>>)
        )
        -- The flag says that there is no value; DCGM says so with numbers near the largest integer.
        WHERE bitAnd(Flags, 1) = 0 AND Value < 9223372036854775792 AND isFinite(Value)
        GROUP BY Window, Service, Instance, Host, HwId, MetricName, MetricUnit, Labels
    ),
    rates AS (
        SELECT
            Window, Service, Instance, Host, HwId, MetricName, MetricUnit, Labels, 'counter' AS Kind,
            arraySort(groupArray(rate)) AS xs
        FROM (
            SELECT
                *,
                lagInFrame(Value, 1, 0) OVER series AS before,
                lagInFrame(time_ns, 1, 0) OVER series AS before_ns,
                -- A series that has just begun counts from zero at its start; one that fell has begun anew.
                multiIf(
                    before_ns > 0 AND time_ns - before_ns <= {lookback:Int64} * 1000000000,
                        if(Value >= before, Value - before, Value) / ((time_ns - before_ns) / 1e9),
                    start_ns > 0 AND time_ns > start_ns AND time_ns - start_ns <= {lookback:Int64} * 1000000000,
                        Value / ((time_ns - start_ns) / 1e9),
                    NULL) AS rate
            FROM (
                SELECT * FROM (
                    SELECT
                        Series, Window, Service, Instance, Host, HwId, MetricName, MetricUnit, Labels, Value,
                        toUnixTimestamp64Nano(TimeUnix) AS time_ns, toUnixTimestamp64Nano(StartTimeUnix) AS start_ns
                    FROM otel_metrics_sum
                    WHERE Window >= toDateTime({from:UInt32} - {lookback:UInt32} - 10, 'UTC')
                        AND Window < toDateTime({to:UInt32}, 'UTC')
                        AND IsMonotonic AND AggregationTemporality = 2 AND bitAnd(Flags, 1) = 0
                        AND Value < 9223372036854775792 AND isFinite(Value)
                        AND MetricName NOT IN (<<pod metrics>>)
                    UNION ALL
                    SELECT
                        Series, Window, Service, <<pod>>, <<node>>, HwId, MetricName, MetricUnit, Labels, Value,
                        toUnixTimestamp64Nano(TimeUnix) AS time_ns, toUnixTimestamp64Nano(StartTimeUnix) AS start_ns
                    FROM otel_metrics_sum
                    WHERE Window >= toDateTime({from:UInt32} - {lookback:UInt32} - 10, 'UTC')
                        AND Window < toDateTime({to:UInt32}, 'UTC')
                        AND IsMonotonic AND AggregationTemporality = 2 AND bitAnd(Flags, 1) = 0
                        AND Value < 9223372036854775792 AND isFinite(Value)
                        AND MetricName IN (<<pod metrics>>)
                )
                ORDER BY Value DESC
                LIMIT 1 BY Series, time_ns
            )
            WINDOW series AS (PARTITION BY Series ORDER BY time_ns)
        )
        WHERE rate IS NOT NULL AND Window >= toDateTime({from:UInt32}, 'UTC')
        GROUP BY Window, Service, Instance, Host, HwId, MetricName, MetricUnit, Labels
    ),
    deltas AS (
        SELECT
            Window, Service, Instance, Host, HwId, MetricName, MetricUnit, Labels, 'counter' AS Kind,
            [arraySum(arraySort(groupUniqArray((toUnixTimestamp64Nano(TimeUnix), Value)).2)) / 10] AS xs
        FROM otel_metrics_sum
        WHERE Window >= toDateTime({from:UInt32}, 'UTC') AND Window < toDateTime({to:UInt32}, 'UTC')
            AND AggregationTemporality = 1 AND bitAnd(Flags, 1) = 0 AND Value < 9223372036854775792 AND isFinite(Value)
        GROUP BY Window, Service, Instance, Host, HwId, MetricName, MetricUnit, Labels
    )
SELECT
    toInt64(toUnixTimestamp(Window)) * 1000000000 AS window_start_ns, Service AS service, Instance AS instance,
    Host AS host, HwId AS hw_id, MetricName AS metric, MetricUnit AS unit, Labels AS labels, Kind AS kind,
    toUInt64(length(xs)) AS samples, assumeNotNull(arraySum(xs)) / length(xs) AS value_avg,
    assumeNotNull(arrayMin(xs)) AS value_min, assumeNotNull(arrayMax(xs)) AS value_max
FROM (SELECT * FROM points UNION ALL SELECT * FROM rates UNION ALL SELECT * FROM deltas)
