"""Requests that are larger than a record may be."""

from __future__ import annotations

import asyncio
import random
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collectors.otlp.intake import Intake
from observe.settings import OtlpSettings
from observe.stream import otlp
from observe.stream.by_trace import by_trace
from observe.stream.split import LEVELS, split
from observe.types import SIGNALS, Signal
from tests.fixtures.memory import MemoryProducer


def build(signal: Signal, sizes: list[list[list[int]]]) -> Any:
    """A request with an item of about so many bytes for each number: resources, their scopes, their items."""
    request: Any = otlp.REQUESTS[signal]()
    serial = 0
    for scopes in sizes:
        resource = getattr(request, LEVELS[signal][0]).add(schema_url="https://r")
        resource.resource.attributes.add(key="service.name").value.string_value = f"service {len(scopes)}"
        for items in scopes:
            scope = getattr(resource, LEVELS[signal][1]).add(schema_url="https://s")
            scope.scope.name = f"scope {len(items)}"
            for size in items:
                serial += 1
                add_item(signal, scope, serial, size)
    return request


def add_item(signal: Signal, scope: Any, serial: int, size: int) -> None:
    if signal == "spans":
        scope.spans.add(name="x" * size, span_id=serial.to_bytes(8, "big"))
    elif signal == "logs":
        scope.log_records.add(time_unix_nano=serial).body.string_value = "x" * size
    else:
        metric = scope.metrics[0] if scope.metrics and serial % 5 else scope.metrics.add(name=f"m{serial}", unit="s")
        metric.sum.is_monotonic, metric.sum.aggregation_temporality = True, 2
        metric.sum.data_points.add(as_int=serial).attributes.add(key="k").value.string_value = "x" * size


def flat(signal: Signal, request: Any) -> list[tuple[bytes, ...]]:
    """Every item with all that it stands under, in order."""
    items: list[tuple[bytes, ...]] = []
    for resource in getattr(request, LEVELS[signal][0]):
        for scope in getattr(resource, LEVELS[signal][1]):
            above = (resource.resource.SerializeToString(), resource.schema_url, scope.scope.name, scope.schema_url)
            for child in getattr(scope, LEVELS[signal][2]):
                if signal == "metrics":
                    about = (child.name, child.unit, child.sum.is_monotonic, child.sum.aggregation_temporality)
                    items += [(*above, *about, point.SerializeToString()) for point in child.sum.data_points]
                else:
                    items.append((*above, child.SerializeToString()))
    return items


SIZES = st.lists(st.lists(st.lists(st.integers(0, 900), max_size=12), max_size=3), max_size=3)


@given(signal=st.sampled_from(SIGNALS), sizes=SIZES, limit=st.integers(1500, 5000))
@settings(max_examples=60, deadline=None)
def test_every_item_is_in_one_part_under_what_it_belongs_to(signal: Signal, sizes: Any, limit: int) -> None:
    request = build(signal, sizes)
    parts = list(split(signal, request, limit))
    assert all(part.value is not None and len(part.value) <= limit for part in parts)
    read = [otlp.decode(signal, part.value or b"") for part in parts]
    assert [item for part in read for item in flat(signal, part)] == flat(signal, request)
    assert [part.items for part in parts] == [otlp.count(signal, part) for part in read]


@pytest.mark.parametrize("signal", SIGNALS)
def test_what_cannot_be_divided_is_left_out_alone(signal: Signal) -> None:
    request = build(signal, [[[10, 5000, 10], [10]], [[20]]])
    parts = list(split(signal, request, 1000))
    assert sum(part.items for part in parts if part.value is None) == 1
    assert sum(part.items for part in parts if part.value is not None) == 4


def test_few_parts_where_items_are_small() -> None:
    request = build("spans", [[[100] * 1000]])
    size = request.ByteSize()
    assert len(list(split("spans", request, size // 4))) in (5, 6)
    assert [part.value for part in split("spans", request, size)] == [request.SerializeToString()]


def test_a_resource_that_fills_a_record_is_not_repeated() -> None:
    request = build("logs", [[[10] * 50]])
    request.resource_logs[0].resource.attributes.add(key="huge").value.string_value = "x" * 900
    assert [(part.value, part.items) for part in split("logs", request, 1000)] == [(None, 50)]


def traced(sizes: Any, chance: random.Random) -> Any:
    request = build("spans", sizes)
    for _, span in spans_of(request):
        span.trace_id = chance.choice((b"\x01" * 16, b"\x02" * 16, b"\xab" * 16, b""))
    return request


def spans_of(request: Any) -> list[tuple[Any, Any]]:
    return [(scope, span) for r in request.resource_spans for scope in r.scope_spans for span in scope.spans]


@given(sizes=SIZES, chance=st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_a_request_for_each_trace_holds_its_spans_and_no_others(sizes: Any, chance: random.Random) -> None:
    request = traced(sizes, chance)
    parts = list(by_trace(request))
    held = [{span.trace_id for _, span in spans_of(part)} for _, part in parts]
    assert [{(key and bytes.fromhex(key.decode())) or b""} for key, _ in parts] == held
    assert sorted(item for _, part in parts for item in flat("spans", part)) == sorted(flat("spans", request))
    assert len({key for key, _ in parts}) == len(parts)


def test_a_receiver_keys_records_by_trace_where_it_is_asked_to() -> None:
    request = traced([[[10] * 40, [10] * 20], [[10] * 30]], random.Random(1))
    producer = MemoryProducer(max_record_bytes=500)
    taken = OtlpSettings(partition_traces_by_id=True)
    with ThreadPoolExecutor(1) as workers:
        intake = Intake(producer, taken, workers)
        for signal, message in (("spans", request), ("logs", build("logs", [[[10]]]))):
            outcome = asyncio.run(_taken(intake, signal, message.SerializeToString()))
            assert outcome.rejected == 0
    assert producer.items("spans") == 90
    assert [record.key for record in producer.records if record.topic == "otlp_logs"] == [None]
    keys = [record.key for record in producer.records if record.topic == "otlp_spans"]
    assert set(keys) == {None, b"01" * 16, b"02" * 16, b"ab" * 16}
    assert len(keys) > 4, "parts of a large trace keep its key"


async def _taken(intake: Intake, signal: Any, body: bytes) -> Any:
    return await intake.take(signal, body, intake.lease())
