"""Counting a backlog: right from every offset, in bounded memory, and in as many attempts as it takes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from observe.errors import Counting
from observe.settings import KafkaSettings
from observe.stream.kafka import admin
from observe.stream.kafka.counts import BLOCKS, Counts
from observe.types import PartitionState, Record

TOPIC = "otlp_spans"


@given(
    begin=st.integers(0, 5),
    records=st.lists(st.tuples(st.integers(1, 3), st.integers(0, 9)), max_size=1500),
    forget=st.integers(0, 1500),
    start=st.integers(0, 1500),
)
def test_items_from_any_offset_on_are_those_of_its_records(
    begin: int, records: list[tuple[int, int]], forget: int, start: int
) -> None:
    counts, offset, held = Counts(begin), begin - 1, []
    for step, items in records:
        offset += step  # markers of transactions leave gaps
        counts.add(offset, items)
        held.append((offset, items))
    counts.forget(forget)
    start = max(start, forget, begin)
    again = range(*counts.cut(start))
    found = counts.whole(start) + sum(items for at, items in held if at in again)
    assert found == sum(items for at, items in held if at >= start)
    assert len(counts.blocks) <= BLOCKS
    assert counts.end == offset + 1


def test_a_count_from_somewhere_reads_a_small_part_again() -> None:
    counts = Counts(0)
    for offset in range(100_000):
        counts.add(offset, 1)
    again = [end - begin for begin, end in (counts.cut(start) for start in range(0, 100_000, 777))]
    assert max(again) <= 100_000 // 50


class Backlog(admin.KafkaAdmin):
    """20 records of two items; `clock` moves a second with each that is read."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__("127.0.0.1:1", KafkaSettings())
        self.clock, self.committed, self.was_read = 0.0, 0, 0
        monkeypatch.setattr("time.monotonic", lambda: self.clock)

    def partitions(self, group: str, /) -> list[PartitionState]:
        return [PartitionState(TOPIC, 0, 0, self.committed, 20)]

    def _read(self, ranges: Mapping[tuple[str, int], tuple[int, int]]) -> Iterator[Record]:
        for (topic, partition), (start, end) in ranges.items():
            for offset in range(start, end):
                self.clock += 1.0
                self.was_read += 1
                yield Record(topic, partition, offset, b"", headers=(("items", b"2"),))


def test_a_count_that_takes_too_long_goes_on_where_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    backlog = Backlog(monkeypatch)
    backlog.count_s = 12.0
    with pytest.raises(Counting, match="13 of 20 pending records are counted; ask again"):
        backlog.pending("g")
    assert backlog.pending("g") == {(TOPIC, 0): 40}
    assert backlog.was_read == 20
    backlog.committed = 15
    assert backlog.pending("g") == {(TOPIC, 0): 10}
    assert backlog.pending("g", {(TOPIC, 0): 18}) == {(TOPIC, 0): 4}
    assert backlog.was_read == 20  # single records are known: the blocks are still small
