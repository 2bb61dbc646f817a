-- A span whose parent belongs to another service, whatever the kinds of the two.
-- LEFT ANY, because INNER ANY would also keep only one child of each parent.
SELECT
    greatest(child.window_s, parent.window_s) AS window_s,
    parent.service AS caller, parent.operation AS caller_operation,
    child.service AS callee, child.operation AS callee_operation,
    if(parent.kind = 'Producer' OR child.kind = 'Consumer', 'messaging', 'direct') AS connection,
    parent.failed OR child.failed AS failed,
    if(parent.kind = 'Client', parent.duration, NULL) AS client_ns,
    toNullable(child.duration) AS server_ns
FROM (
    SELECT
        cityHash64(TraceId, SpanId) AS id, cityHash64(TraceId, ParentSpanId) AS parent_id,
        toUnixTimestamp(Window) AS window_s, Service AS service, <<operation>> AS operation, SpanKind AS kind,
        Duration AS duration, StatusCode = 'Error' AS failed,
        least({lookback:UInt32}, greatest({reach:UInt32}, toUInt32(intDiv(Duration, 1000000000)) + 20)) AS reach_s
    FROM otel_traces
    WHERE Window >= toDateTime({first:UInt32}, 'UTC') AND Window < toDateTime({to:UInt32}, 'UTC') AND ParentSpanId != ''
    LIMIT 1 BY id
) AS child
LEFT ANY JOIN (
    SELECT
        cityHash64(TraceId, SpanId) AS id, toUnixTimestamp(Window) AS window_s, Service AS service,
        <<operation>> AS operation, SpanKind AS kind, Duration AS duration, StatusCode = 'Error' AS failed,
        least({lookback:UInt32}, greatest({reach:UInt32}, toUInt32(intDiv(Duration, 1000000000)) + 20)) AS reach_s
    FROM otel_traces
    WHERE Window >= toDateTime({first:UInt32}, 'UTC') AND Window < toDateTime({to:UInt32}, 'UTC')
) AS parent ON child.parent_id = parent.id
WHERE parent.id != 0 AND child.service != parent.service
    AND greatest(child.window_s, parent.window_s) >= {from:UInt32}
    AND if(child.window_s > parent.window_s, parent.window_s + child.reach_s >= child.window_s,
        child.window_s + parent.reach_s >= parent.window_s)
