-- Errors in logs by what they say without what is different each time, and exceptions in spans by their type.
SELECT service, template, countIf(NOT is_after) AS before, countIf(is_after) AS after
FROM (
    SELECT
        Service AS service, toUnixTimestamp(Timestamp) >= {after_from:UInt32} AS is_after,
        concat('logs ', if(LogAttributes['exception.type'] != '', LogAttributes['exception.type'],
            substringUTF8(trimBoth(replaceRegexpAll(splitByChar('\n', substring(Body, 1, 2000))[1], {different:String}, '*')),
                1, 100))) AS template
    FROM otel_logs
    WHERE SeverityNumber >= 17 AND (empty({services:Array(String)}) OR Service IN {services:Array(String)})
        AND (Timestamp >= toDateTime({before_from:UInt32}, 'UTC') AND Timestamp < toDateTime({before_to:UInt32}, 'UTC')
            OR Timestamp >= toDateTime({after_from:UInt32}, 'UTC') AND Timestamp < toDateTime({after_to:UInt32}, 'UTC'))
    UNION ALL
    SELECT
        Service AS service, toUnixTimestamp(Window) >= {after_from:UInt32} AS is_after,
        concat('throws ', attributes['exception.type']) AS template
    FROM otel_traces
    ARRAY JOIN Events.Name AS name, Events.Attributes AS attributes
    WHERE has(Events.Name, 'exception') AND name = 'exception' AND attributes['exception.type'] != ''
        AND (empty({services:Array(String)}) OR Service IN {services:Array(String)})
        AND (Window >= toDateTime({before_from:UInt32}, 'UTC') AND Window < toDateTime({before_to:UInt32}, 'UTC')
            OR Window >= toDateTime({after_from:UInt32}, 'UTC') AND Window < toDateTime({after_to:UInt32}, 'UTC'))
)
WHERE template != 'logs '
GROUP BY service, template
ORDER BY after DESC, service, template
LIMIT {templates:UInt32}
SETTINGS max_execution_time = 8
