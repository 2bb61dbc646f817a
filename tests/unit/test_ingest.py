"""The writer's order of work against scripted parts: what is called, in which order, and what stays undone."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from observe.errors import BadRecord, Lost, Unavailable
from observe.ingest import ingest
from observe.types import Batch, Record

BAD = b"\x0a\xff\xff"


def spans(count: int, name: str = "x") -> bytes:
    request = ExportTraceServiceRequest()
    request.resource_spans.add().scope_spans.add().spans.extend([Span(name=name)] * count)
    return bytes(request.SerializeToString())


def batch(*values: bytes | tuple[bytes, int], first: int = 0) -> Batch:
    """Records from their bytes; with a number, their header states that many items."""
    records = []
    for offset, value in enumerate(values, start=first):
        body, items = value if isinstance(value, tuple) else (value, None)
        headers = () if items is None else (("items", str(items).encode()),)
        records.append(Record("otlp_spans", 0, offset, body, headers=headers))
    return Batch(tuple(records), first, first + len(values) - 1)


class Parts:
    """Consumer, store and dead letters in one, writing down what happens. `plan` has what each named call raises."""

    def __init__(self, *batches: Batch, plan: Mapping[str, Sequence[Exception | None]] | None = None) -> None:
        self.batches = deque(batches)
        self.plan = {name: deque(errors) for name, errors in (plan or {}).items()}
        self.refuse: Callable[[Batch], bool] = lambda batch: False
        self.calls: list[str] = []
        self.stored: dict[str, tuple[Batch, int]] = {}
        self.letters: list[tuple[bytes, Mapping[str, bytes]]] = []
        self.waited_s: list[float] = []
        self.stop_after_waits = 1_000

    def run(self) -> None:
        ingest(self, self, self, stop=self.stop, wait=self.waited_s.append)  # type: ignore[arg-type]

    def stop(self) -> bool:
        return len(self.waited_s) >= self.stop_after_waits or (not self.batches and "poll" in self.calls[-1:])

    def poll(self, timeout_s: float, /) -> Batch | None:
        self._call("poll")
        return self.batches.popleft() if self.batches else None

    def intend(self, batch: Batch, /) -> None:
        self._call("intend", batch)

    def commit(self, batch: Batch, /) -> None:
        self._call("commit", batch)

    def heartbeat(self) -> None:
        self._call("heartbeat")

    def insert(self, batch: Batch, items: int, /) -> None:
        self._call("insert", batch)
        if self.refuse(batch):
            raise BadRecord("cannot parse")
        self.stored.setdefault(batch.token, (batch, items))

    def send(self, topic: str, value: bytes, /, *, key: Any = None, headers: Any = None) -> Future[None]:
        assert topic == "otlp_dead_letters"
        self._call("send")
        self.letters.append((value, headers))
        future: Future[None] = Future()
        future.set_result(None)
        return future

    def _call(self, name: str, batch: Batch | None = None) -> None:
        self.calls.append(name if batch is None else f"{name} {batch.first_offset}-{batch.last_offset}")
        errors = self.plan.get(name)
        error = errors.popleft() if errors else None
        if error is not None:
            raise error

    def without(self, *names: str) -> list[str]:
        return [call for call in self.calls if call not in names]


def unparsable(batch: Batch) -> bool:
    """As ClickHouse does: the records joined are one message, or none."""
    try:
        ExportTraceServiceRequest.FromString(b"".join(record.value for record in batch.records))
    except Exception:
        return True
    return False


def test_intend_insert_commit_in_this_order() -> None:
    parts = Parts(batch(spans(2), (spans(3), 3)), batch(spans(1), first=2))
    parts.run()
    assert parts.without("poll") == ["intend 0-1", "insert 0-1", "commit 0-1", "intend 2-2", "insert 2-2", "commit 2-2"]
    assert [items for _, items in parts.stored.values()] == [5, 1]


def test_a_store_that_is_away_is_waited_for_inside_the_group() -> None:
    parts = Parts(batch(spans(1)), plan={"insert": [Unavailable("away")] * 6})
    parts.run()
    calls = parts.without("poll", "heartbeat")
    assert calls == ["intend 0-0", *["insert 0-0"] * 7, "commit 0-0"]
    assert parts.calls.count("heartbeat") == len(parts.waited_s) > 10
    assert max(parts.waited_s) <= 0.5  # never longer without a heartbeat
    assert sum(parts.waited_s) > 1 + 1 + 1 + 1 + 1.6 + 3.2  # at least half of each doubling, and what the error asks


def test_stopping_during_an_outage_leaves_the_batch_uncommitted() -> None:
    parts = Parts(batch(spans(1)), plan={"insert": [Unavailable("away")] * 100})
    parts.stop_after_waits = 8
    parts.run()
    assert not parts.stored
    assert not [call for call in parts.calls if call.startswith("commit")]
    assert len(parts.waited_s) == 8


@pytest.mark.parametrize("step", ["intend", "commit", "poll", "heartbeat"])
def test_a_stream_that_is_away_is_waited_for(step: str) -> None:
    plan = {step: [Unavailable("away"), Unavailable("away")], "insert": [Unavailable("so that hearts beat")]}
    parts = Parts(batch(spans(1)), plan=plan)
    parts.run()
    assert len(parts.stored) == 1
    assert parts.without("poll", "heartbeat")[-1] == "commit 0-0"


def test_a_lost_partition_is_left_to_its_new_owner() -> None:
    parts = Parts(batch(spans(1)), batch(spans(2), first=7), plan={"intend": [Lost("taken over")]})
    parts.run()
    assert parts.without("poll") == ["intend 0-0", "intend 7-7", "insert 7-7", "commit 7-7"]


@pytest.mark.parametrize("stated", [False, True])
def test_a_bad_record_is_put_aside_and_the_others_are_stored_under_the_same_token(stated: bool) -> None:
    bad: bytes | tuple[bytes, int] = (BAD, 9) if stated else BAD
    whole = batch((spans(2), 2), bad, (spans(3), 3), first=40)
    parts = Parts(whole)
    parts.refuse = unparsable
    parts.run()
    stored, items = parts.stored[whole.token]
    assert list(parts.stored) == ["otlp_spans-0-40-42"]
    assert ([r.value for r in stored.records], items) == ([spans(2), b"", spans(3)], 5)
    ((value, headers),) = parts.letters
    assert (value, headers["topic"], headers["partition"], headers["offset"]) == (BAD, b"otlp_spans", b"0", b"41")
    assert b"ExportTraceServiceRequest" in headers["reason"]
    assert parts.calls.index("send") < len(parts.calls) - 1 - parts.calls[::-1].index("commit 40-42")
    assert [call for call in parts.calls if call.startswith("commit")] == ["commit 40-42"]


def test_a_batch_of_bad_records_alone_still_has_its_place_in_the_ledger() -> None:
    parts = Parts(batch(BAD, BAD))
    parts.run()
    ((stored, items),) = parts.stored.values()
    assert ((stored.first_offset, stored.last_offset), items, len(parts.letters)) == ((0, 1), 0, 2)
    assert all(record.value == b"" for record in stored.records)


def test_json_of_a_foreign_feeder_is_stored_as_protobuf() -> None:
    body = {"resourceSpans": [{"scopeSpans": [{"spans": [{"name": "x"}, {"name": "x"}]}]}]}
    parts = Parts(batch(json.dumps(body).encode(), b'{"resourceSpans": 7}'))
    parts.run()
    ((stored, items),) = parts.stored.values()
    assert ([record.value for record in stored.records], items) == ([spans(2), b""], 2)
    assert parts.letters[0][0] == b'{"resourceSpans": 7}'


def test_a_valid_record_that_the_store_refuses_is_found_by_ranges_of_their_own() -> None:
    parts = Parts(batch(*[(spans(1), 1)] * 5, (spans(1, "poison"), 1), *[(spans(1), 1)] * 2))
    parts.refuse = lambda batch: any(b"poison" in record.value for record in batch.records)
    parts.run()
    assert [value for value, _ in parts.letters] == [spans(1, "poison")]
    assert b"refused by the store" in parts.letters[0][1]["reason"]
    ranges = [(b.first_offset, b.last_offset, items) for b, items in parts.stored.values()]
    assert ranges == [(0, 3, 4), (4, 4, 1), (5, 5, 0), (6, 7, 2)]  # all offsets, none twice, nothing poisonous
    for first, last, _ in ranges:  # each part is intended before it goes in, and committed before the next
        name = f"{first}-{last}"
        assert parts.calls.index(f"intend {name}") < parts.calls.index(f"insert {name}")
        assert parts.calls.index(f"commit {name}") > parts.calls.index(f"insert {name}")
    assert "commit 0-7" not in parts.calls


def test_a_store_that_refuses_even_nothing_is_waited_for() -> None:
    """The fault is its own then; a writer that ended by it would take all partitions down with it."""
    parts = Parts(batch((spans(1), 1)))
    attempts = iter(range(5))
    parts.refuse = lambda batch: next(attempts, None) is not None
    parts.run()
    assert len(parts.letters) == 1
    assert parts.without("poll", "heartbeat")[-2:] == ["insert 0-0", "commit 0-0"]
    assert [items for _, items in parts.stored.values()] == [0]


def test_what_cannot_be_put_aside_yet_is_not_committed_either() -> None:
    parts = Parts(batch(BAD), plan={"send": [Unavailable("full")] * 3})
    parts.run()
    calls = parts.without("poll", "heartbeat")
    assert calls == ["intend 0-0", "send", "send", "send", "send", "insert 0-0", "commit 0-0"]
    assert len(parts.letters) == 1
