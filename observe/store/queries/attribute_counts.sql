-- In how many sampled traces does each attribute value occur, by whether their request was bad, and when it was?
-- Whole traces are sampled, by a hash of their id; ids of all kinds fall out, as they occur in one trace only.
WITH
    requests AS (
        SELECT
            TraceId, max(if({slower_than_ns:UInt64} = 0, StatusCode = 'Error', Duration > {slower_than_ns:UInt64})) AS is_bad,
            max(toUnixTimestamp(Window) >= {after_from:UInt32}) AS is_after
        FROM otel_traces
        WHERE <<of service>> AND <<operation>> = {operation:String} AND SpanKind = {kind:String}
            AND (Window >= toDateTime({before_from:UInt32}, 'UTC') AND Window < toDateTime({before_to:UInt32}, 'UTC')
                OR Window >= toDateTime({after_from:UInt32}, 'UTC') AND Window < toDateTime({after_to:UInt32}, 'UTC'))
            AND cityHash64(TraceId) % {every:UInt32} = 0
        GROUP BY TraceId
        ORDER BY cityHash64(TraceId), TraceId
        LIMIT {traces:UInt32}
    )
SELECT '' AS service, '' AS key, '' AS value,
    countIf(is_bad AND is_after) AS bad, countIf(NOT is_bad AND is_after) AS good,
    countIf(is_bad AND NOT is_after) AS bad_before, countIf(NOT is_bad AND NOT is_after) AS good_before
FROM requests
UNION ALL
SELECT * FROM (
    SELECT service, pair.1 AS key, pair.2 AS value,
        countIf(is_bad AND is_after) AS bad, countIf(NOT is_bad AND is_after) AS good,
        countIf(is_bad AND NOT is_after) AS bad_before, countIf(NOT is_bad AND NOT is_after) AS good_before
    FROM (
        SELECT TraceId, Service AS service, arrayJoin(groupUniqArrayArray(pairs)) AS pair
        FROM (
            SELECT TraceId, Service, arrayMap(
                p -> (p.1, if(match(p.1, '(tokens|size|length|bytes|count|rows)$') AND toFloat64OrZero(p.2) >= 16,
                    concat(toString(toUInt64(exp2(floor(log2(toFloat64OrZero(p.2)))))), ' or more, less than ',
                        toString(toUInt64(exp2(floor(log2(toFloat64OrZero(p.2))) + 1)))), substring(p.2, 1, 200))),
                arrayConcat(
                    arrayZip(mapKeys(SpanAttributes), mapValues(SpanAttributes)),
                    arrayZip(mapKeys(ResourceAttributes), mapValues(ResourceAttributes)),
                    [('service', Service), ('operation', Operation)])) AS pairs
            FROM otel_traces
            WHERE Window >= toDateTime({before_from:UInt32} - 60, 'UTC')
                AND Window < toDateTime({after_to:UInt32} + 60, 'UTC')
                AND cityHash64(TraceId) % {every:UInt32} = 0 AND TraceId IN (SELECT TraceId FROM requests)
        )
        GROUP BY TraceId, Service
    ) AS seen
    INNER JOIN requests ON seen.TraceId = requests.TraceId
    WHERE pair.2 != '' AND NOT match(pair.1, {private:String})
    GROUP BY service, key, value
    HAVING bad >= {least:UInt32}
    ORDER BY bad DESC, service, key, value
    LIMIT {values:UInt32}
)
SETTINGS max_execution_time = 8
