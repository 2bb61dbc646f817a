"""The landing tables' columns and the schema to parse with, both from one description: the .proto files beside this.

ClickHouse decodes OTLP itself. It needs the protobuf schema (sent with each insert) and columns of the same shape
(the landing table); two lists kept by hand would drift, so the columns are derived from the proto text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Literal

from observe.types import Batch, Signal

Landing = Literal["spans", "metrics", "logs", "points"]
"""What lands in `otlp_{landing}_in`: a signal, or `points`, which are metrics without arrays and maps in attributes of
points; see migrations/0014_points.sql."""

LANDINGS: Mapping[Signal, tuple[Landing, ...]] = {
    "spans": ("spans",),
    "metrics": ("points", "metrics"),
    "logs": ("logs",),
}
"""Where a batch may go: the first that does not refuse it."""

SCALARS: Mapping[str, str] = {
    "string": "String",
    "bytes": "String",
    "bool": "Bool",
    "int32": "Int32",
    "sint32": "Int32",
    "uint32": "UInt32",
    "fixed32": "UInt32",
    "int64": "Int64",
    "sfixed64": "Int64",
    "uint64": "UInt64",
    "fixed64": "UInt64",
    "double": "Float64",
}
DICTIONARIES = frozenset({"key"})
"""Strings that are read into a dictionary: reading costs the same, and the maps' keys need no second pass."""

ORIGIN_FIELD = 1000
POINT_KINDS = ("gauge", "sum", "histogram", "exponential_histogram", "summary")
_SYNTAX = 'syntax = "proto3";\n'
_POINT_ATTRIBUTES = re.compile(r"repeated KeyValue (attributes|filtered_attributes)\b")
_MESSAGE = re.compile(r"^message (\w+) \{\n(.*?)^\}", re.MULTILINE | re.DOTALL)
_FIELD = re.compile(r"^\s*(repeated |optional )?(\w+) (\w+) = (\d+);$", re.MULTILINE)
_ONEOF = re.compile(r"^\s*oneof (\w+) \{\n(.*?)^\s*\}", re.MULTILINE | re.DOTALL)


@cache
def proto(landing: Landing) -> str:
    """The proto3 text by which ClickHouse reads one batch; its message `Landing` is one row."""
    if landing == "points":
        plain = _POINT_ATTRIBUTES.sub(r"repeated PlainKeyValue \1", _file("metrics"))
        return _SYNTAX + _file("common") + _file("points") + plain
    return _SYNTAX + _file("common") + _file(landing)


@cache
def columns(landing: Landing) -> str:
    """Column definitions of the landing table, as they stand in CREATE TABLE.

    >>> columns("logs")[:48]
    'resource_logs Array(Tuple(resource Tuple(attribu'
    """
    messages = dict(_MESSAGE.findall(proto(landing)))
    return ",\n".join(_members(messages, "Landing"))


def plain() -> str:
    """The condition, on the columns of `points`, that each attribute of a point had a value of a plain kind."""
    metrics = "((resource_metrics).scope_metrics).metrics"
    points = [f"(({metrics}).{kind}).data_points" for kind in POINT_KINDS]
    attributes = [f"({list_}).attributes" for list_ in points]
    attributes += [f"(({list_}).exemplars).filtered_attributes" for list_ in points if "summary" not in list_]
    return "\n        AND ".join(f"NOT has(arrayFlatten((({list_}).value).value), 'unset')" for list_ in attributes)


def origin(batch: Batch, items: int, oldest_ns: int, newest_ns: int) -> bytes:
    """The `Origin` message as a top-level field, to be appended to the bytes of a batch."""
    numbers = (
        batch.partition,
        batch.first_offset,
        batch.last_offset,
        len(batch.records),
        items,
        oldest_ns,
        newest_ns,
    )
    topic = batch.topic.encode()
    body = b"\x0a" + _varint(len(topic)) + topic
    body += b"".join(_varint(field << 3) + _varint(number) for field, number in enumerate(numbers, start=2))
    return _varint(ORIGIN_FIELD << 3 | 2) + _varint(len(body)) + body


def _file(name: str) -> str:
    return (files("observe.store") / f"otlp_{name}.proto").read_text(encoding="utf-8")


def _members(messages: Mapping[str, str], name: str) -> list[str]:
    """`name Type` of each field. A oneof adds a member that tells which of its fields came: 0 is not nothing."""
    body = messages[name]
    members = [
        f"{field} {'LowCardinality(String)' if field in DICTIONARIES else _column(messages, label, kind)}"
        for label, kind, field, _ in _FIELD.findall(body)
    ]
    for oneof, choices in _ONEOF.findall(body):
        names = [f"'{field}' = {number}" for _, _, field, number in _FIELD.findall(choices)]
        members.append(f"{oneof} Enum8('unset' = 0, {', '.join(names)})")
    return members


def _column(messages: Mapping[str, str], label: str, kind: str) -> str:
    """An optional field that did not come is NULL, which is not 0."""
    column = SCALARS.get(kind) or f"Tuple({', '.join(_members(messages, kind))})"
    around = {"repeated ": "Array({})", "optional ": "Nullable({})"}.get(label, "{}")
    return around.format(column)


def _varint(number: int) -> bytes:
    if number < 0:
        number += 1 << 64
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)
