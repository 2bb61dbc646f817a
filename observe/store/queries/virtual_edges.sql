-- A call to something that sends no spans: a database, an address outside. Named by what the caller says of its peer.
-- A span with a child of another service is a call to that; one with a client span below it is that one's wrapper.
SELECT
    call.window_s AS window_s,
    call.service AS caller, call.operation AS caller_operation,
    call.peer AS callee, call.operation AS callee_operation,
    if(call.database, 'database', 'external') AS connection,
    call.failed AS failed,
    toNullable(call.duration) AS client_ns,
    CAST(NULL, 'Nullable(UInt64)') AS server_ns
FROM (
    SELECT
        cityHash64(TraceId, SpanId) AS id, toUnixTimestamp(Window) AS window_s, Service AS service,
        <<operation>> AS operation, Duration AS duration, StatusCode = 'Error' AS failed,
        least({lookback:UInt32}, greatest({reach:UInt32}, toUInt32(intDiv(Duration, 1000000000)) + 20)) AS reach_s,
        SpanAttributes AS a,
        arrayFirst(name -> name != '', [
            if(a['service.peer.name'] != '' AND a['service.peer.namespace'] != '',
                concat(a['service.peer.namespace'], '/', a['service.peer.name']), ''),
            <<a|service.peer.name>>,
            -- Not every old spelling of server.address: net.host.name was the caller's own.
            a['server.address'], a['net.peer.name'], a['http.host'], domain(a['url.full']), domain(a['http.url']),
            <<a|network.peer.address>>, <<a|db.namespace>>, <<a|db.system.name>>, <<a|gen_ai.provider.name>>,
            <<a|messaging.destination.name>>, a['messaging.system']
        ]) AS peer,
        concat(<<a|db.system.name>>, <<a|db.namespace>>) != '' AS database
    FROM otel_traces
    WHERE Window >= toDateTime({from:UInt32}, 'UTC') AND Window < toDateTime({to:UInt32}, 'UTC')
        AND SpanKind IN ('Client', 'Producer')
        -- Who polls for messages waits for nobody: there just are none.
        AND SpanAttributes['messaging.operation.type'] NOT IN ('receive', 'settle')
        AND SpanAttributes['messaging.operation'] != 'receive'
    LIMIT 1 BY id
) AS call
LEFT ANY JOIN (
    SELECT
        cityHash64(TraceId, ParentSpanId) AS id,
        groupArray((Service, SpanKind IN ('Client', 'Producer'), toUnixTimestamp(Window))) AS children
    FROM otel_traces
    WHERE Window >= toDateTime({first:UInt32}, 'UTC') AND Window <= toDateTime({to:UInt32} - 10 + {slack:UInt32}, 'UTC')
        AND ParentSpanId != ''
    GROUP BY id
) AS child ON call.id = child.id
WHERE call.peer NOT IN ('', call.service)
    AND NOT arrayExists(c -> (c.1 != call.service OR c.2)
        AND c.3 + call.reach_s >= call.window_s AND c.3 <= call.window_s + {slack:UInt32}, child.children)
