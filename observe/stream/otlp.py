"""OTLP requests as records: reading, counting, and their JSON form (OTLP 1.11, "JSON Protobuf Encoding").

`google.protobuf.json_format` is no help: OTLP's JSON writes ids in hex instead of base64, and only integers as enums.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import string
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import orjson
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import DecodeError, EncodeError, Message
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from observe.errors import BadRecord
from observe.types import SIGNALS, TOPICS, Record, Signal

ITEMS_HEADER: Final = "items"
"""Header in which our receivers state how many spans, points or log records a record holds: ASCII digits."""

DIGEST_HEADER: Final = "digest"
"""Header that names a record's bytes, see `digest`."""

DIGEST_ENDS: Final = 4096

REQUESTS: Final[Mapping[Signal, type[Message]]] = {
    "spans": ExportTraceServiceRequest,
    "metrics": ExportMetricsServiceRequest,
    "logs": ExportLogsServiceRequest,
}
SIGNAL_OF: Final[Mapping[str, Signal]] = {TOPICS[signal]: signal for signal in SIGNALS}
MAX_DEPTH: Final = 100  # protobuf's own limit on nested messages; deeper ones could not be read back


def decode(signal: Signal, value: bytes) -> Message:
    """The request that `value` holds, protobuf or JSON. Raises BadRecord where it is neither."""
    if is_json(value):
        return _from_json(signal, value)
    request = REQUESTS[signal]()
    try:
        request.ParseFromString(value)
    except DecodeError as error:
        raise BadRecord(f"no protobuf of {request.DESCRIPTOR.name}: {error}") from error
    return request


def count_items(signal: Signal, value: bytes) -> int:
    """How many spans, metric points or log records `value` holds. Raises BadRecord where it cannot be read."""
    return count(signal, decode(signal, value))


def count(signal: Signal, request: Any) -> int:
    """How many spans, metric points or log records a decoded request holds."""
    if signal == "spans":
        return sum(len(scope.spans) for resource in request.resource_spans for scope in resource.scope_spans)
    if signal == "logs":
        return sum(len(scope.log_records) for resource in request.resource_logs for scope in resource.scope_logs)
    scopes = (scope for resource in request.resource_metrics for scope in resource.scope_metrics)
    return sum(_points(metric) for scope in scopes for metric in scope.metrics)


def items_of(record: Record) -> int:
    """How many items a record holds: what its header states, else counted. Raises BadRecord where neither works."""
    for name, value in record.headers:
        if name == ITEMS_HEADER and value.isdigit() and len(value) < 10:
            return int(value)
    signal = SIGNAL_OF.get(record.topic)
    return 0 if signal is None else count_items(signal, record.value)


def digest_header(value: bytes) -> dict[str, bytes]:
    """Names the bytes of a record, so that a stream that remembers can tell a repeated export from a new one.

    >>> digest_header(b"spans") == digest_header(b"spans"), len(digest_header(b"")["digest"])
    (True, 16)
    """
    return {DIGEST_HEADER: digest(value)}


def digest(value: bytes) -> bytes:
    """Sixteen bytes that are the same for the same bytes.

    Random ids stand at the head of an export, so head and tail are hashed; a checksum, five times as fast as a hash,
    tells apart the rest. Two different exports are taken for one only where length, head and tail are equal and the
    checksum of the rest meets by chance, once in 2^32 of such pairs.
    """
    ends = value if len(value) <= 2 * DIGEST_ENDS else value[:DIGEST_ENDS] + value[-DIGEST_ENDS:]
    summary = len(value).to_bytes(8, "big") + zlib.crc32(value).to_bytes(4, "big")
    return hashlib.blake2b(ends, digest_size=16, salt=summary).digest()


def digest_of(record: Record) -> bytes:
    """The digest of a record: what its header states, else of its bytes."""
    for name, stated in record.headers:
        if name == DIGEST_HEADER and len(stated) == 16:
            return stated
    return digest(record.value)


def items_header(items: int) -> dict[str, bytes]:
    """The headers of a record whose items have been counted.

    >>> items_header(512)
    {'items': b'512'}
    """
    return {ITEMS_HEADER: str(items).encode()}


def is_json(value: bytes) -> bool:
    """Whether it begins with a brace; as a protobuf tag that would be a group in field 15, which OTLP never had."""
    return value.startswith(b"{")


def json_to_protobuf(signal: Signal, value: bytes) -> bytes:
    """The serialized protobuf of a request in OTLP/JSON. Raises BadRecord, which names the field."""
    try:
        return bytes(_from_json(signal, value).SerializeToString())
    except EncodeError as error:
        raise BadRecord(f"cannot be written as protobuf: {error}") from error


def _points(metric: Any) -> int:
    kind = metric.WhichOneof("data")
    return len(getattr(metric, kind).data_points) if kind else 0


# ── JSON ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _from_json(signal: Signal, value: bytes) -> Message:
    try:
        body = orjson.loads(value)
    except orjson.JSONDecodeError as error:
        raise BadRecord(f"no JSON: {error}") from error
    request = REQUESTS[signal]()
    _fill(request, body, MAX_DEPTH)
    return request


@dataclass(frozen=True, slots=True)
class _Field:
    name: str
    repeated: bool
    oneof: str | None
    convert: Callable[[Any], Any] | None  # None: a message


@cache
def _fields(message: Descriptor) -> Mapping[str, _Field]:
    """Fields of a message by their JSON names."""
    return {
        field.json_name: _Field(
            field.name,
            field.is_repeated,
            field.containing_oneof.name if field.containing_oneof else None,
            _converter(field),
        )
        for field in message.fields
    }


def _fill(message: Any, body: Any, depth: int) -> None:
    if not isinstance(body, dict):
        raise BadRecord(f"{message.DESCRIPTOR.name} must be an object, not {_brief(body)}")
    if depth == 0:
        raise BadRecord(f"nested deeper than {MAX_DEPTH} messages")
    fields = _fields(message.DESCRIPTOR)
    for key, value in body.items():
        field = fields.get(key)
        if field is not None and value is not None:
            try:
                _set(message, field, value, depth)
            except (ValueError, TypeError) as error:
                raise BadRecord(f"{message.DESCRIPTOR.name}.{key}: {error}") from error


def _set(message: Any, field: _Field, value: Any, depth: int) -> None:
    if field.oneof is not None and message.WhichOneof(field.oneof) is not None:
        raise ValueError(f"another {field.oneof} is set already")
    if field.repeated:
        if not isinstance(value, list):
            raise ValueError(f"must be an array, not {_brief(value)}")
        _extend(getattr(message, field.name), field, value, depth)
    elif field.convert is None:
        inner = getattr(message, field.name)
        inner.SetInParent()  # an empty object is present, too
        _fill(inner, value, depth - 1)
    else:
        setattr(message, field.name, field.convert(value))


def _extend(items: Any, field: _Field, values: Iterable[Any], depth: int) -> None:
    if field.convert is not None:
        items.extend([field.convert(value) for value in values])
        return
    for value in values:
        _fill(items.add(), value, depth - 1)


def _converter(field: FieldDescriptor) -> Callable[[Any], Any] | None:
    kind = field.type
    if kind == FieldDescriptor.TYPE_MESSAGE:
        return None
    if kind == FieldDescriptor.TYPE_STRING:
        return _string
    if kind == FieldDescriptor.TYPE_BYTES:
        return _hex if field.name.endswith("_id") else _base64
    if kind == FieldDescriptor.TYPE_BOOL:
        return _boolean
    if kind in (FieldDescriptor.TYPE_DOUBLE, FieldDescriptor.TYPE_FLOAT):
        return _double
    return _enum if kind == FieldDescriptor.TYPE_ENUM else _integer


def _string(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"must be a string, not {_brief(value)}")
    return value


def _boolean(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"must be true or false, not {_brief(value)}")
    return value


def _integer(value: Any) -> int:
    if isinstance(value, str) and value.removeprefix("-").isdecimal() and value.isascii():
        return int(value[:32])  # no number of 64 bits is longer; int() of a megabyte of digits would take minutes
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    raise ValueError(f"must be an integer or a string of digits, not {_brief(value)}")


def _enum(value: Any) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise ValueError(f"must be the integer of the enum, not {_brief(value)}")


def _double(value: Any) -> float:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, str) and value in ("NaN", "Infinity", "-Infinity"):
        return float(value)
    if isinstance(value, str):
        return float(value[:400])
    raise ValueError(f"must be a number, not {_brief(value)}")


def _hex(value: Any) -> bytes:
    text = _string(value)
    if not set(text) <= set(string.hexdigits) or len(text) % 2:  # fromhex would also skip blanks
        raise ValueError(f"must be hexadecimal, not {_brief(value)}")
    return bytes.fromhex(text)


def _base64(value: Any) -> bytes:
    text = _string(value).replace("-", "+").replace("_", "/").rstrip("=")
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, UnicodeEncodeError) as error:
        raise ValueError(f"must be base64, not {_brief(value)}") from error


def _brief(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…"
