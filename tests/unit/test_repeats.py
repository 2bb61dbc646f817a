"""Exports that come again: stored once, whatever restarts in between, and nothing else is taken for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from observe.repeats import MEMORY_MINUTES, Repeats
from observe.stream.otlp import digest, digest_header, digest_of
from observe.types import Batch, Digest, Record

MINUTE_MS = 60_000


def record(offset: int, value: bytes, minute: float = 0.0) -> Record:
    headers = (("items", b"2"), *digest_header(value).items())
    return Record("otlp_spans", 0, offset, value, int(minute * MINUTE_MS), headers=headers)


def batch(*records: Record) -> Batch:
    return Batch(records, records[0].offset, records[-1].offset)


class Memory:
    """A store that remembers digests once by token."""

    def __init__(self) -> None:
        self.saved: dict[str, list[Digest]] = {}
        self.asked = 0

    def save_digests(self, batch: Batch, digests: Sequence[Digest], /) -> None:
        self.saved.setdefault(batch.token, list(digests))

    def digests(self, topic: str, partition: int, before_offset: int, since_ms: int, /) -> list[Digest]:
        self.asked += 1
        return [
            one
            for digests in self.saved.values()
            for one in digests
            if one.offset < before_offset and one.timestamp_ms >= since_ms and not one.repeated
        ]


def store(repeats: Repeats, whole: Batch) -> list[bytes]:
    """The values that go in."""
    fresh, digests = repeats.left_out(whole)
    assert fresh.token == whole.token
    repeats.remember(fresh, digests)
    return [r.value for r in fresh.records if r.value]


def test_the_same_bytes_go_in_once_also_for_the_next_writer() -> None:
    memory = Memory()
    first = Repeats(memory)  # type: ignore[arg-type]
    assert store(first, batch(record(0, b"a"), record(1, b"b"), record(2, b"a"))) == [b"a", b"b"]
    assert store(first, batch(record(3, b"b"), record(4, b"c"))) == [b"c"]
    assert memory.asked == 1
    second = Repeats(memory)  # type: ignore[arg-type]
    assert store(second, batch(record(5, b"c"), record(6, b"d"))) == [b"d"]
    assert store(first, batch(record(7, b"d"))) == []  # the partition came back
    assert [one.repeated for digests in memory.saved.values() for one in digests if one.repeated] == [2] * 4


def test_what_was_put_aside_may_come_again() -> None:
    repeats = Repeats(Memory())  # type: ignore[arg-type]
    fresh, digests = repeats.left_out(batch(record(0, b"a"), record(1, b"b")))
    repeats.remember(replace(fresh, records=(replace(fresh.records[0], value=b""), fresh.records[1])), digests)
    assert store(repeats, batch(record(2, b"a"), record(3, b"b"))) == [b"a"]


def test_after_a_while_the_same_bytes_are_new() -> None:
    repeats = Repeats(Memory())  # type: ignore[arg-type]
    assert store(repeats, batch(record(0, b"a", 0.5))) == [b"a"]
    assert store(repeats, batch(record(1, b"a", MEMORY_MINUTES + 0.9))) == []
    assert store(repeats, batch(record(2, b"a", MEMORY_MINUTES + 1))) == [b"a"]


@pytest.mark.parametrize("together", [True, False])
def test_a_clock_that_runs_ahead_makes_nobody_forget(together: bool) -> None:
    repeats = Repeats(Memory(), now_s=lambda: 60.0)  # type: ignore[arg-type]
    records = (record(0, b"a", 1), record(1, b"b", 1), record(2, b"ahead", 600))
    for one in [batch(*records)] if together else [batch(single) for single in records]:
        store(repeats, one)
    assert store(repeats, batch(record(3, b"a", 1), record(4, b"c", 1))) == [b"c"]


def test_old_digests_leave_the_memory() -> None:
    repeats = Repeats(Memory())  # type: ignore[arg-type]
    for offset in range(200):
        store(repeats, batch(record(offset, str(offset).encode(), offset)))
    (memory,) = repeats._memory.values()
    assert 30 <= len(memory.minutes) <= 32


def test_a_tombstone_is_no_repeat() -> None:
    repeats = Repeats(Memory())  # type: ignore[arg-type]
    empty = Record("otlp_spans", 0, 0, b"")
    fresh, digests = repeats.left_out(batch(empty, replace(empty, offset=1)))
    assert (len(fresh.records), digests) == (2, ())


def test_bytes_alone_tell_where_a_feeder_states_no_digest() -> None:
    bare = Record("otlp_spans", 0, 0, b"x")
    assert digest_of(bare) == digest_of(record(9, b"x"))
    assert digest_of(replace(bare, headers=(("digest", b"short"),))) == digest(b"x")


@pytest.mark.parametrize("at", [0, 4095, 5000, 9999])
def test_one_other_byte_is_another_digest(at: int) -> None:
    value = bytes(10_000)
    assert digest(value) != digest(value[:at] + b"\x01" + value[at + 1 :])
    assert digest(value) != digest(value + b"\x00")


@given(
    st.lists(st.tuples(st.sampled_from(b"abcde"), st.integers(0, 40)), min_size=1, max_size=40),
    st.lists(st.integers(1, 6), min_size=40, max_size=40),
    st.lists(st.sampled_from(["on", "crash before", "crash after", "new writer"]), min_size=40, max_size=40),
)
def test_a_batch_that_is_inserted_again_leaves_out_the_same(
    sent: list[tuple[int, int]], sizes: list[int], fates: list[str]
) -> None:
    """Writers that die anywhere between insert and commit, against one that never does."""
    minute = 0.0
    records = []
    for offset, (value, pause) in enumerate(sent):
        minute += pause / 10
        records.append(record(offset, bytes([value]), minute))
    memory, calm = Memory(), Memory()
    steady, shaken = Repeats(calm), Repeats(memory)  # type: ignore[arg-type]
    at = 0
    for size, fate in zip(sizes, fates, strict=True):
        if at >= len(records):
            break
        whole = batch(*records[at : at + size])
        at += size
        expected = store(steady, whole)
        fresh, digests = shaken.left_out(whole)
        assert [r.value for r in fresh.records if r.value] == expected
        if fate == "crash after":
            shaken.remember(fresh, digests)
        if fate != "on":
            shaken = Repeats(memory)  # type: ignore[arg-type]
        assert store(shaken, whole) == expected
