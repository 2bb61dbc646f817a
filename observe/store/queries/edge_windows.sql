-- Who waits for whom, in [from, to): the pairs of the three queries beside this, counted.
-- An edge belongs to the window in which the later of its two spans ends.
-- Grouped twice, as a map for each bucket costs less than a map for each call.
SELECT
    toDateTime(window_s, 'UTC') AS Window, caller AS Caller, caller_operation AS CallerOperation, callee AS Callee,
    callee_operation AS CalleeOperation, connection AS Connection,
    sum(calls) AS Calls,
    sum(errors) AS Errors,
    sum(client_sum_ns) AS ClientSumNs,
    sum(server_sum_ns) AS ServerSumNs,
    CAST(sumMap(map(bucket, calls)), 'Map(Int16, UInt64)') AS Buckets
FROM (
    SELECT
        window_s, caller, caller_operation, callee, callee_operation, connection,
        toInt16(ceil(log2(greatest(coalesce(client_ns, server_ns, 0), 1000) / 1e6) * 16) - 1) AS bucket,
        count() AS calls,
        countIf(failed) AS errors,
        sum(client_ns) AS client_sum_ns,
        sum(server_ns) AS server_sum_ns
    FROM (
        {direct_edges}
        UNION ALL
        {link_edges}
        UNION ALL
        {virtual_edges}
    )
    GROUP BY window_s, caller, caller_operation, callee, callee_operation, connection, bucket
)
GROUP BY window_s, Caller, CallerOperation, Callee, CalleeOperation, Connection
