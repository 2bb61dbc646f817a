"""Names of operations in rollups: without what is different each time, and not more than a service can have.

A span's name should not hold ids, and many do. `Operation` has `{id}` in their place; what is still too many (names of
users, say) is counted together as OTHER. The raw name stays in otel_traces.
"""

from __future__ import annotations

OTHER = "(other)"

_UUID = "[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}"
_LONG_HEX = "(?:0x)?[0-9a-fA-F]{16,}"
IDS = rf"(/)(?:{_UUID}|{_LONG_HEX}|[0-9]+)\b|\b(?:{_UUID}|{_LONG_HEX}|[0-9]{{5,}})\b"
"""Any number that is a step of a path; anywhere, UUIDs, 16 and more hex digits, and numbers of 5 and more digits."""

FROM_SPAN_NAME = "replaceRegexpAll(SpanName, '{}', '\\\\1{{id}}')".format(IDS.replace("\\", "\\\\"))
"""SQL. On a LowCardinality column ClickHouse computes it once for each distinct name of a block."""

OF_SPAN = f"if((Service, Operation) IN (SELECT Service, Operation FROM operations), Operation, '{OTHER}')"
"""SQL: the operation under which rollups count a row of otel_traces."""

OFFENDERS = f"""
SELECT Service AS service, {OF_SPAN} AS operation, count() AS spans, uniq(SpanName) AS names,
       arraySort(groupUniqArray(3)(SpanName)) AS examples, operation = '{OTHER}' AS beyond_limit
FROM otel_traces
WHERE {{range}} AND ({{{{service:String}}}} = '' OR {{of_service}})
GROUP BY service, operation
HAVING names > 1 OR beyond_limit
ORDER BY beyond_limit DESC, names DESC, service, operation
LIMIT {{{{limit:UInt32}}}}"""
"""SQL: operations that stand for several span names, those beyond the limit first."""


def of_service(name: str = "service") -> str:
    """SQL: rows of the service in the parameter `name`, by the column that the tables are sorted by and by identity.

    The name without its namespace is what stands behind the first slash, or behind the last.
    """
    asked = f"{{{name}:String}}"
    plain = f"{asked}, substring({asked}, position({asked}, '/') + 1), splitByChar('/', {asked})[-1]"
    return f"(ServiceName IN ({plain}) AND Service = {asked})"
