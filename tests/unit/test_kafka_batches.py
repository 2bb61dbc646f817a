"""What a Kafka consumer holds before it hands it out."""

from __future__ import annotations

from observe.stream.kafka.consumer import HELD_BATCHES, _Partition, fullest_of_too_much
from observe.stream.ranges import Range
from observe.types import BatchLimits, Record

LIMITS = BatchLimits(max_bytes=1000, max_age_s=3600.0)
FULL = (450, 450)


def partition(*sizes: int, resolved: bool = True) -> _Partition:
    made = _Partition()
    made.resolved = resolved
    for offset, size in enumerate(sizes):
        made.add(Record("otlp_spans", 0, offset, bytes(size), 0))
    return made


def test_partitions_that_hold_too_much_together_give_out_the_fullest() -> None:
    many = [partition(*FULL) for _ in range(HELD_BATCHES)]
    large = partition(*FULL, 50)
    assert not any(held.complete(LIMITS) for held in (*many, large))
    assert fullest_of_too_much(many, LIMITS) is None

    assert fullest_of_too_much([*many, large], LIMITS) is large
    taken = large.take(LIMITS)
    assert taken is not None
    assert [record.offset for record in taken.records] == [0, 1, 2]
    assert fullest_of_too_much([*many, large], LIMITS) is None


def test_what_must_be_repeated_whole_and_what_is_not_known_yet_are_waited_for() -> None:
    unknown, repeated = partition(*(900,) * 5, resolved=False), partition(*(600,) * 5)
    repeated.intent = Range(0, 9)
    assert fullest_of_too_much([unknown, repeated], LIMITS) is None
    few = partition(10)
    assert fullest_of_too_much([unknown, repeated, few], LIMITS) is few


def test_a_partition_without_records_gives_out_nothing() -> None:
    unknown, empty = partition(9000, resolved=False), partition()
    crowded = fullest_of_too_much([unknown, empty], LIMITS)
    assert crowded is None or crowded.take(LIMITS) is None
