"""Any request that protobuf can express comes through OTLP/JSON unchanged.

The JSON is written by the encoder of protobuf, with the two changes of OTLP: ids in hex, enums as integers.
"""

from __future__ import annotations

import base64
from typing import Any

import orjson
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.json_format import MessageToDict
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from observe.stream import otlp
from observe.types import SIGNALS, Signal

IDS = {"traceId", "spanId", "parentSpanId"}
SCALARS = {
    FieldDescriptor.TYPE_STRING: st.text(st.characters(exclude_categories=("Cs",)), max_size=5),
    FieldDescriptor.TYPE_BYTES: st.binary(max_size=9),
    FieldDescriptor.TYPE_BOOL: st.booleans(),
    FieldDescriptor.TYPE_DOUBLE: st.floats(allow_nan=False),
    FieldDescriptor.TYPE_INT64: st.integers(-(2**63), 2**63 - 1),
    FieldDescriptor.TYPE_SFIXED64: st.integers(-(2**63), 2**63 - 1),
    FieldDescriptor.TYPE_UINT64: st.integers(0, 2**64 - 1),
    FieldDescriptor.TYPE_FIXED64: st.integers(0, 2**64 - 1),
    FieldDescriptor.TYPE_UINT32: st.integers(0, 2**32 - 1),
    FieldDescriptor.TYPE_FIXED32: st.integers(0, 2**32 - 1),
    FieldDescriptor.TYPE_INT32: st.integers(-(2**31), 2**31 - 1),
    FieldDescriptor.TYPE_SINT32: st.integers(-(2**31), 2**31 - 1),
    FieldDescriptor.TYPE_ENUM: st.integers(0, 5),
}
OTLP_DEPTH = 9  # request, resource, scope, metric, data, point, exemplar, attribute, value


@st.composite
def requests(draw: st.DrawFn, signal: Signal) -> Any:
    request = otlp.REQUESTS[signal]()
    fill(draw, request, OTLP_DEPTH)
    return request


def fill(draw: st.DrawFn, message: Any, depth: int) -> None:
    """Sets fields at random; of a oneof at most one."""
    taken: set[str] = set()
    for field in draw(
        st.lists(st.sampled_from(list(message.DESCRIPTOR.fields)), max_size=4, unique_by=lambda f: f.name)
    ):
        oneof = field.containing_oneof.name if field.containing_oneof else ""
        if oneof in taken or (depth == 0 and field.message_type is not None):
            continue
        taken |= {oneof} - {""}
        if field.message_type is not None:
            targets = [getattr(message, field.name).add() for _ in range(2)] if field.is_repeated else []
            for target in targets or [getattr(message, field.name)]:
                target.SetInParent()
                fill(draw, target, depth - 1)
        elif field.is_repeated:
            getattr(message, field.name).extend(draw(st.lists(SCALARS[field.type], max_size=3)))
        else:
            setattr(message, field.name, draw(SCALARS[field.type]))


def to_json(message: Any) -> bytes:
    tree = MessageToDict(message, use_integers_for_enums=True)
    hex_ids(tree, message.DESCRIPTOR)
    return orjson.dumps(tree)


def hex_ids(tree: Any, descriptor: Descriptor) -> None:
    for field in descriptor.fields:
        value = tree.get(field.json_name)
        if value is None:
            continue
        if field.message_type is not None:
            for child in value if field.is_repeated else [value]:
                hex_ids(child, field.message_type)
        elif field.json_name in IDS:
            tree[field.json_name] = base64.b64decode(value).hex()


@given(st.data())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_protobuf_to_json_and_back(data: st.DataObject) -> None:
    signal: Signal = data.draw(st.sampled_from(SIGNALS))
    request = data.draw(requests(signal))
    back = otlp.decode(signal, otlp.json_to_protobuf(signal, to_json(request)))
    assert back == request
