"""Requests that are larger than a record of the stream may be: the same content in several smaller requests.

The only place where spans are looked at one by one; a request of usual size never comes here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from google.protobuf.message import Message

from observe.stream import otlp
from observe.types import Signal

# Fields from the request down to what is counted; `data` stands for the one kind of data that a metric has.
LEVELS: Final[dict[Signal, tuple[str, ...]]] = {
    "spans": ("resource_spans", "scope_spans", "spans"),
    "metrics": ("resource_metrics", "scope_metrics", "metrics", "data", "data_points"),
    "logs": ("resource_logs", "scope_logs", "log_records"),
}
FRAME_BYTES: Final = 6  # tag and length in front of an embedded message


@dataclass(frozen=True, slots=True)
class Part:
    """One request that fits, or None where the items cannot be brought below the limit."""

    value: bytes | None
    items: int


def split(signal: Signal, request: Message, max_bytes: int) -> Iterator[Part]:
    """Parts of at most `max_bytes`. Every item is in exactly one part, in order, under its resource and scope."""
    for part in _parts(request, LEVELS[signal], max_bytes):
        items = otlp.count(signal, part)
        yield Part(part.SerializeToString() if part.ByteSize() <= max_bytes else None, items)


def _parts(message: Any, levels: tuple[str, ...], room: int) -> Iterator[Any]:
    """Messages like `message` with some of its children each; larger than `room` only where dividing cannot help."""
    field = levels[0] if levels else ""
    if field == "data":
        field = message.WhichOneof("data") or ""
    if not field or message.ByteSize() <= room:
        yield message
        return
    shell = without(message, field)
    base = shell.ByteSize() + FRAME_BYTES
    if base > room // 2:  # repeating that much in every part would multiply the request
        yield message
    elif levels[0] == "data":
        yield from _wrap(shell, field, _parts(getattr(message, field), levels[1:], room - base))
    else:
        pieces = (p for child in getattr(message, field) for p in _parts(child, levels[1:], room - base))
        yield from _pack(shell, field, pieces, room)


def _pack(shell: Any, field: str, pieces: Iterator[Any], room: int) -> Iterator[Any]:
    """As many pieces in each copy of the shell as there is room for, and at least one."""
    base = shell.ByteSize()
    part, size = _copy(shell), base
    for piece in pieces:
        grown = piece.ByteSize() + FRAME_BYTES
        if size > base and size + grown > room:
            yield part
            part, size = _copy(shell), base
        getattr(part, field).append(piece)
        size += grown
    if size > base:
        yield part


def _wrap(shell: Any, field: str, pieces: Iterator[Any]) -> Iterator[Any]:
    for piece in pieces:
        part = _copy(shell)
        getattr(part, field).CopyFrom(piece)
        yield part


def without(message: Any, field: str) -> Any:
    """A copy of all but one field; that one may be large, so it is never copied."""
    shell = type(message)()
    for descriptor, value in message.ListFields():
        if descriptor.name == field:
            continue
        if descriptor.is_repeated:
            getattr(shell, descriptor.name).extend(value)
        elif descriptor.message_type is not None:
            getattr(shell, descriptor.name).CopyFrom(value)
        else:
            setattr(shell, descriptor.name, value)
    return shell


def _copy(message: Any) -> Any:
    copy = type(message)()
    copy.CopyFrom(message)
    return copy
