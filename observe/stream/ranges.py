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


def may_follow(wanted: Range, written: Range | None, own: Range | None) -> bool:
    """Whether a writer may intend `wanted` where `written` stands: nothing, the same, or what the writer itself (`own`)
    had intended, of which it now tries the first part alone, because the store refused the whole.

    >>> may_follow(Range(3, 9), None, None), may_follow(Range(3, 9), Range(3, 9), None)
    (True, True)
    >>> may_follow(Range(3, 5), Range(3, 9), Range(3, 9)), may_follow(Range(3, 5), Range(3, 9), None)
    (True, False)
    """
    if written is None or written == wanted:
        return True
    return written == own and written.first == wanted.first and wanted.last < written.last
