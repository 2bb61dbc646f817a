-- A call to something that sends no spans: a database, an address outside. Named by what the caller says of its peer.
-- A span with a child of another service is a call to that; one with a client span below it is that one's wrapper. Those
-- are told first, by narrow columns: attributes are dear to read, and most calls have a child.
SELECT
    window_s,
    service AS caller, operation AS caller_operation,
    peer AS callee, operation AS callee_operation,
    if(database, 'database', 'external') AS connection,
    failed,
    toNullable(duration) AS client_ns,
    CAST(NULL, 'Nullable(UInt64)') AS server_ns
FROM (
    SELECT
        cityHash64(TraceId, SpanId) AS id, toUnixTimestamp(Window) AS window_s, Service AS service,
        <<operation>> AS operation, Duration AS duration, StatusCode = 'Error' AS failed, SpanAttributes AS a,
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
    PREWHERE Window >= toDateTime({from:UInt32}, 'UTC') AND Window < toDateTime({to:UInt32}, 'UTC')
        AND SpanKind IN ('Client', 'Producer')
        AND cityHash64(TraceId, SpanId) NOT IN (
            SELECT call.id
            FROM (
                SELECT
                    cityHash64(TraceId, ParentSpanId) AS parent_id, Service AS service,
                    SpanKind IN ('Client', 'Producer') AS calls, toUnixTimestamp(Window) AS window_s
                FROM otel_traces
                WHERE Window >= toDateTime({first:UInt32}, 'UTC')
                    AND Window <= toDateTime({to:UInt32} - 10 + {slack:UInt32}, 'UTC') AND ParentSpanId != ''
            ) AS child
            LEFT ANY JOIN (
                SELECT
                    cityHash64(TraceId, SpanId) AS id, toUnixTimestamp(Window) AS window_s, Service AS service,
                    least({lookback:UInt32}, greatest({reach:UInt32}, toUInt32(intDiv(Duration, 1000000000)) + 20))
                        AS reach_s
                FROM otel_traces
                WHERE Window >= toDateTime({from:UInt32}, 'UTC') AND Window < toDateTime({to:UInt32}, 'UTC')
                    AND SpanKind IN ('Client', 'Producer')
            ) AS call ON child.parent_id = call.id
            WHERE call.id != 0 AND (child.service != call.service OR child.calls)
                AND child.window_s + call.reach_s >= call.window_s AND child.window_s <= call.window_s + {slack:UInt32}
        )
    WHERE
        -- Who polls for messages waits for nobody: there just are none.
        SpanAttributes['messaging.operation.type'] NOT IN ('receive', 'settle')
        AND SpanAttributes['messaging.operation'] != 'receive'
    LIMIT 1 BY id
)
WHERE peer NOT IN ('', service)
