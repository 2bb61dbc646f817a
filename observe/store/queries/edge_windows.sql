-- Who waits for whom, in [from, to): the pairs of the three queries beside this, counted.
-- An edge belongs to the window in which the later of its two spans ends.
SELECT
    toDateTime(window_s, 'UTC') AS Window, caller AS Caller, caller_operation AS CallerOperation, callee AS Callee,
    callee_operation AS CalleeOperation, connection AS Connection,
    count() AS Calls,
    countIf(failed) AS Errors,
    sum(client_ns) AS ClientSumNs,
    sum(server_ns) AS ServerSumNs,
    CAST(sumMap(map(toInt16(ceil(log2(greatest(coalesce(client_ns, server_ns, 0), 1000) / 1e6) * 16) - 1), toUInt64(1))),
        'Map(Int16, UInt64)') AS Buckets
FROM (
    {direct_edges}
    UNION ALL
    {link_edges}
    UNION ALL
    {virtual_edges}
)
GROUP BY window_s, Caller, CallerOperation, Callee, CalleeOperation, Connection
