"""Records put aside: their headers, and how people see them."""

from __future__ import annotations

from collections.abc import Mapping

from observe.types import Json, Record
from observe.wire import rfc3339

MAX_REASON = 1000  # characters; parsers like to quote their whole input


def headers_of(record: Record, reason: str) -> Mapping[str, bytes]:
    """What is kept beside the bytes of a record that is put aside."""
    return {
        "reason": reason[:MAX_REASON].encode(),
        "topic": record.topic.encode(),
        "partition": str(record.partition).encode(),
        "offset": str(record.offset).encode(),
    }


def to_json(letter: Record) -> Json:
    """A record of the dead-letter topic for people; records that other tools put there lack a part of it."""
    headers = {name: value.decode(errors="replace") for name, value in letter.headers}
    return {
        "topic": headers.get("topic", ""),
        "partition": _number(headers.get("partition", "")),
        "offset": _number(headers.get("offset", "")),
        "reason": headers.get("reason", ""),
        "bytes": len(letter.value),
        "at": rfc3339(letter.timestamp_ms * 1_000_000),
    }


def _number(text: str) -> int:
    return int(text) if text.isdecimal() else -1
