"""The SQL of a sentence: its question, as one statement that runs as it is on the store, and gives its numbers by name.

A sentence carries an address of the API. Who has a client of the database instead gets the same question in SQL: sums
over the kept windows, or the statement that the store itself runs, with all values written out. Windows are kept one
to two minutes after they end: while an incident is open sooner than while none is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from urllib.parse import parse_qs, urlsplit

from observe import noticed
from observe.errors import BadRecord
from observe.frames import AttributeQuestion
from observe.store.attributes import parameters
from observe.store.marks import POINT_LOOKBACK_S
from observe.store.noticed import statement
from observe.store.rollups import sql
from observe.store.written import text, written_out
from observe.wire import API_PREFIX, from_rfc3339

_S = 1_000_000_000


@dataclass(frozen=True, slots=True)
class _Asked:
    """The parameters of an address."""

    given: Mapping[str, list[str]]

    def one(self, name: str, otherwise: str = "") -> str:
        return self.given.get(name, [otherwise])[0]

    def text(self, name: str) -> str:
        return text(self.one(name))

    @property
    def bounds(self) -> tuple[int, int, int, int]:
        """[before from, before to, after from, after to) in seconds."""
        first, second = (self.one(side).split("/") for side in ("before", "after"))
        from_0, to_0, from_1, to_1 = (from_rfc3339(at) // _S for at in (*first, *second))
        return from_0, to_0, from_1, to_1

    @property
    def values(self) -> str:
        return ", ".join(text(value) for value in self.given.get("value", [])) or "''"


def sql_of(address: str) -> str:
    """The statement that gives the numbers of a sentence with this address; "" where there is none: shares, onsets and
    confidences come out of the whole diagnosis, which only its replay gives."""
    parts = urlsplit(address)
    asked = _Asked(parse_qs(parts.query, keep_blank_values=True))
    if parts.path.startswith(f"{API_PREFIX}/traces/"):
        trace_id = parts.path.rpartition("/")[2]
        return f"SELECT * FROM otel_traces WHERE TraceId = {text(trace_id)} ORDER BY Timestamp"
    try:
        if parts.path == f"{API_PREFIX}/attributes":
            return _attribute(asked)
        if parts.path == noticed.PATH:
            return statement(noticed.asked(address))
        if parts.path == f"{API_PREFIX}/compare":
            return _STATEMENTS[asked.one("of")](asked)
    except (KeyError, ValueError, BadRecord):  # an address by another version of this program
        return ""
    return ""


# ── windows ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _windows(asked: _Asked, table: str) -> str:
    """Rows of both periods in the newest version of each window, `is_after` telling which."""
    from_0, to_0, from_1, to_1 = asked.bounds
    return f"""SELECT *, Window >= toDateTime({from_1}, 'UTC') AS is_after FROM {table}
    WHERE (Window >= toDateTime({from_0}, 'UTC') AND Window < toDateTime({to_0}, 'UTC')
        OR Window >= toDateTime({from_1}, 'UTC') AND Window < toDateTime({to_1}, 'UTC'))
        AND (Window, Version) IN (SELECT Window, max(Version) FROM settled GROUP BY Window)"""


def _selfs(asked: _Asked) -> str:
    return f"selfs AS (\n    {_windows(asked, 'self_windows')}\n)"


def _edges(asked: _Asked) -> str:
    return f"edges AS (\n    {_windows(asked, 'edge_windows')} AND Caller != Callee\n)"


def _entering(service: str) -> str:
    """Requests and their time by service: spans of kind Server and Consumer; where there are none, calls into it; where
    nobody calls it either, its operation of the largest duration."""
    mine = f" AND ServiceName = {service}" if service else ""
    into = f" AND Callee = {service}" if service else ""
    return f"""entering AS (
    SELECT ServiceName AS service, is_after, way, sum(Requests) AS requests, sum(Errors) AS errors,
        sum(DurationSumNs) AS ns
    FROM (
        SELECT ServiceName, is_after, 1 AS way, Requests, Errors, DurationSumNs FROM selfs
        WHERE SpanKind IN ('Server', 'Consumer'){mine}
        UNION ALL
        SELECT Callee, is_after, 2, Calls, Errors, assumeNotNull(ServerSumNs) FROM edges
        WHERE ServerSumNs IS NOT NULL{into}
        UNION ALL
        SELECT ServiceName, is_after, 3, Requests, Errors, DurationSumNs FROM selfs
        WHERE SpanKind != 'Client'{mine} AND (ServiceName, SpanName) IN (
            SELECT ServiceName, SpanName FROM (
                SELECT ServiceName, SpanName, sum(DurationSumNs) / sum(Requests) AS took FROM selfs
                WHERE SpanKind != 'Client' GROUP BY ServiceName, SpanName
                ORDER BY took DESC, SpanName LIMIT 1 BY ServiceName))
    ) GROUP BY service, is_after, way
),
requests AS (
    SELECT service, is_after, requests, errors, ns FROM entering
    WHERE (service, way) IN (SELECT service, min(way) FROM entering GROUP BY service)
)"""


def _count(period: int) -> str:
    return f"(SELECT greatest(sumIf(requests, is_after = {period}), 1) FROM requests)"


def _per_request(column: str, scale: str) -> Callable[[_Asked], str]:
    def statement(asked: _Asked) -> str:
        return f"""WITH {_selfs(asked)},
{_edges(asked)},
{_entering(asked.text("service"))}
SELECT sumIf({column}, NOT is_after) / {scale} / {_count(0)} AS before,
    sumIf({column}, is_after) / {scale} / {_count(1)} AS after,
    {_count(0)} AS requests_before, {_count(1)} AS requests_after
FROM selfs WHERE ServiceName = {asked.text("service")} AND SpanKind != 'Client'"""

    return statement


def _mean(column: str, scale: str) -> Callable[[_Asked], str]:
    """Per request that comes in, of a column of `requests`."""

    def statement(asked: _Asked) -> str:
        return f"""WITH {_selfs(asked)},
{_edges(asked)},
{_entering(asked.text("service"))}
SELECT sumIf({column}, NOT is_after) / {scale} / {_count(0)} AS before,
    sumIf({column}, is_after) / {scale} / {_count(1)} AS after,
    {_count(0)} AS requests_before, {_count(1)} AS requests_after
FROM requests"""

    return statement


def _rate(asked: _Asked) -> str:
    from_0, to_0, from_1, to_1 = asked.bounds
    return f"""WITH {_selfs(asked)},
{_edges(asked)},
{_entering(asked.text("service"))}
SELECT sumIf(requests, NOT is_after) / {max(to_0 - from_0, 1)} AS before,
    sumIf(requests, is_after) / {max(to_1 - from_1, 1)} AS after
FROM requests"""


# A callee that died is known by an address: its own name, that of an instance, or of a host that runs nothing else.
def _calls(asked: _Asked) -> str:
    callee = asked.one("callee")
    bare = text(callee.rpartition("/")[2])
    return f"""places AS (
    SELECT arrayJoin([Instance, Host]) AS place FROM selfs WHERE place != ''
    GROUP BY place HAVING uniqExact(ServiceName) = 1 AND any(ServiceName) = {text(callee)}
),
calls AS (
    SELECT *, splitByChar(':', Callee)[1] AS host, splitByChar('.', host)[1] AS name FROM edges
    WHERE Caller = {asked.text("service")} AND (Callee = {text(callee)} OR ServerSumNs IS NULL AND (name = {bare}
        OR Connection != 'database'
            AND (Callee IN (SELECT place FROM places) OR host IN (SELECT place FROM places)
                OR name IN (SELECT place FROM places))))
)"""


def _per_call(total: str) -> Callable[[_Asked], str]:
    def statement(asked: _Asked) -> str:
        return f"""WITH {_selfs(asked)},
{_edges(asked)},
{_calls(asked)}
SELECT sumIf({total}, NOT is_after) / greatest(sumIf(Calls, NOT is_after), 1) AS before,
    sumIf({total}, is_after) / greatest(sumIf(Calls, is_after), 1) AS after,
    sumIf(Calls, NOT is_after) AS requests_before, sumIf(Calls, is_after) AS requests_after
FROM calls"""

    return statement


_OUTSIDE_MS = """if(Connection IN ('messaging', 'link'), 0,
        ifNull(ClientSumNs, ifNull(ServerSumNs, 0)) - ifNull(ServerSumNs, 0)) / 1e6"""


def _calls_per_request(asked: _Asked) -> str:
    return f"""WITH {_selfs(asked)},
{_edges(asked)},
{_calls(asked)},
{_entering(asked.text("service"))}
SELECT sumIf(Calls, NOT is_after) / {_count(0)} AS before, sumIf(Calls, is_after) / {_count(1)} AS after,
    {_count(0)} AS requests_before, {_count(1)} AS requests_after
FROM calls"""


def _from_outside(asked: _Asked) -> str:
    from_0, to_0, from_1, to_1 = asked.bounds
    return f"""WITH {_selfs(asked)},
{_edges(asked)},
{_entering("")},
sent AS (SELECT Callee AS service, is_after, sum(Calls) AS calls FROM edges GROUP BY service, is_after)
SELECT sumIf(outside, NOT is_after) / {max(to_0 - from_0, 10)} AS before,
    sumIf(outside, is_after) / {max(to_1 - from_1, 10)} AS after
FROM (
    SELECT requests.is_after AS is_after, toInt64(requests.requests) - toInt64(ifNull(sent.calls, 0)) AS rest,
        greatest(rest, 0) AS outside
    FROM requests LEFT JOIN sent ON requests.service = sent.service AND requests.is_after = sent.is_after
)"""


# ── which of them ───────────────────────────────────────────────────────────────────────────────────────────────────


def _rows(asked: _Asked, total: str, value: str) -> str:
    """Sums of one service's own spans by operation and value, in both periods."""
    return f"""rows AS (
    SELECT SpanName, SpanKind, {value} AS value, sumIf(Requests, NOT is_after) AS n0, sumIf(Requests, is_after) AS n1,
        sumIf({total}, NOT is_after) AS total0, sumIf({total}, is_after) AS total1
    FROM selfs WHERE ServiceName = {asked.text("service")} AND SpanKind != 'Client'
    GROUP BY SpanName, SpanKind, value
)"""


def _excess(total: str) -> Callable[[_Asked], str]:
    def statement(asked: _Asked) -> str:
        column = {"version": "ServiceVersion", "host": "Host"}.get(asked.one("dimension"), "Instance")
        return f"""WITH {_selfs(asked)},
{_rows(asked, total, column)},
base AS (
    SELECT SpanName, SpanKind, sum(total0) / sum(n0) AS level FROM rows GROUP BY SpanName, SpanKind HAVING sum(n0) > 0
),
found AS (
    SELECT value, max(n1) AS requests, sum(total1 - n1 * level) AS excess
    FROM rows INNER JOIN base ON rows.SpanName = base.SpanName AND rows.SpanKind = base.SpanKind
    GROUP BY value HAVING requests > 0 AND value != ''
)
SELECT sumIf(excess, value IN ({asked.values})) / greatest(sumIf(requests, value IN ({asked.values})), 1) AS named,
    sumIf(excess, value NOT IN ({asked.values})) / greatest(sumIf(requests, value NOT IN ({asked.values})), 1) AS others
FROM found"""

    return statement


def _release(total: str) -> Callable[[_Asked], str]:
    def statement(asked: _Asked) -> str:
        return f"""WITH {_selfs(asked)},
{_rows(asked, total, "ServiceVersion")},
old AS (
    SELECT SpanName, SpanKind, sum(total0) / sum(n0) AS level FROM rows
    WHERE value NOT IN ({asked.values}) GROUP BY SpanName, SpanKind HAVING sum(n0) > 0
)
SELECT sum(total0 + total1 - (n0 + n1) * level) / max(n0 + n1) AS excess, max(n0 + n1) AS requests
FROM rows INNER JOIN old ON rows.SpanName = old.SpanName AND rows.SpanKind = old.SpanKind
WHERE value IN ({asked.values})"""

    return statement


def _instances(asked: _Asked) -> str:
    from_0, to_0, from_1, to_1 = asked.bounds
    mine = f"Instance IN ({asked.values})"
    return f"""WITH {_selfs(asked)}
SELECT sumIf(Requests, NOT is_after AND {mine}) / {to_0 - from_0} AS before,
    sumIf(Requests, is_after AND {mine}) / {to_1 - from_1} AS after,
    sumIf(Requests, NOT is_after AND NOT {mine}) / {to_0 - from_0} AS others_before,
    sumIf(Requests, is_after AND NOT {mine}) / {to_1 - from_1} AS others_after
FROM selfs
WHERE ServiceName = {asked.text("service")} AND SpanKind IN ('Server', 'Consumer') AND Instance != ''"""


# ── statements of the store itself ──────────────────────────────────────────────────────────────────────────────────


def _metric(asked: _Asked) -> str:
    from_0, to_0, from_1, to_1 = asked.bounds
    inner = written_out(sql("gauge_windows"), {"from": from_0, "to": to_1, "lookback": POINT_LOOKBACK_S})
    place = " AND ".join(f"{name} = {asked.text(name)}" for name in ("metric", "hw_id", "host", "instance", "labels"))
    service = f" AND service = {asked.text('service')}" if asked.one("service") else ""
    before = f"window_start_ns >= {from_0 * _S} AND window_start_ns < {to_0 * _S}"
    after = f"window_start_ns >= {from_1 * _S} AND window_start_ns < {to_1 * _S}"
    return f"""SELECT avgIf(value_avg, {before}) AS before, avgIf(value_avg, {after}) AS after,
    maxIf(value_max, {before}) AS before_max, maxIf(value_max, {after}) AS after_max
FROM (
{inner.rstrip()}
)
WHERE {place}{service}"""


def _attribute(asked: _Asked) -> str:
    from_0, to_0, from_1, to_1 = (at * _S for at in asked.bounds)
    question = AttributeQuestion(
        asked.one("service"), asked.one("operation"), asked.one("kind", "Server"),
        float(asked.one("slower_than_ms", "0")), from_0, to_0, from_1, to_1, int(asked.one("requests", "0")),
    )  # fmt: skip
    counts, limits = written_out(sql("attribute_counts"), parameters(question)).rsplit("SETTINGS", 1)
    one = f"service = {asked.text('of')} AND key = {asked.text('key')} AND value = {asked.text('value')}"
    return f"""SELECT key, value, bad, good, bad_before, good_before
FROM (
{counts.rstrip()}
)
WHERE key = '' OR {one}
ORDER BY key = ''
SETTINGS{limits.rstrip()}"""


_STATEMENTS: Mapping[str, Callable[[_Asked], str]] = {
    "self_time_ms": _per_request("SelfSumNs", "1e6"),
    "errors_begun": _per_request("OriginErrors", "1"),
    "duration_ms": _mean("ns", "1e6"),
    "error_ratio": _mean("errors", "1"),
    "requests_per_s": _rate,
    "edge_time_ms": _per_call(_OUTSIDE_MS),
    "call_errors": _per_call("Errors"),
    "calls_per_request": _calls_per_request,
    "outside_requests_per_s": _from_outside,
    "excess_ms": _excess("SelfSumNs / 1e6"),
    "excess_errors": _excess("OriginErrors"),
    "release_ms": _release("SelfSumNs / 1e6"),
    "release_errors": _release("OriginErrors"),
    "instance_requests_per_s": _instances,
    "metric": _metric,
}
