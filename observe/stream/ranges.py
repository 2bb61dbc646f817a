"""The metadata of a commit: which range of offsets is being inserted right now."""

from __future__ import annotations

import json
from typing import NamedTuple

from observe.types import Batch


class Range(NamedTuple):
    """Offsets of a batch, both ends included."""

    first: int
    last: int


def range_of(batch: Batch) -> Range:
    return Range(batch.first_offset, batch.last_offset)


def to_metadata(intent: Range) -> str:
    """
    >>> to_metadata(Range(3, 9))
    '{"first":3,"last":9}'
    """
    return json.dumps(intent._asdict(), separators=(",", ":"))


def from_metadata(text: str | None) -> Range | None:
    """The range that is named, or None: other tools write their own text there, which says nothing to us.

    >>> from_metadata('{"first":3,"last":9}')
    Range(first=3, last=9)
    >>> from_metadata("") is from_metadata("by hand") is from_metadata('{"first":9,"last":3}') is None
    True
    """
    try:
        body = json.loads(text or "null")
        intent = Range(int(body["first"]), int(body["last"]))
    except (ValueError, TypeError, KeyError):
        return None
    return intent if 0 <= intent.first <= intent.last else None


def may_replace(intent: Range | None, wanted: Range) -> bool:
    """Whether a writer may go on with `wanted` where `intent` is written down: the same, or its first part.

    A batch that the store refuses as a whole is tried in parts.

    >>> may_replace(None, Range(3, 9)), may_replace(Range(3, 9), Range(3, 5)), may_replace(Range(3, 9), Range(3, 12))
    (True, True, False)
    """
    return intent is None or (intent.first == wanted.first and wanted.last <= intent.last)
