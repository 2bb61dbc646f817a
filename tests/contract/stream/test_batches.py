"""Which records make a batch, in which order, and when."""

from __future__ import annotations

import contextlib
import os
import time

from observe.types import BatchLimits
from tests.contract.stream.parts import PATIENCE_S, SPANS, Case, next_batch, read


def test_records_of_a_key_come_in_order_with_all_they_carry(case: Case) -> None:
    producer = case.producer()
    values = [b"%d" % n for n in range(200)]
    for value in values:
        producer.send(SPANS, value, key=b"one", headers={"items": b"3", "odd": b"\xff\x00"})
    assert producer.flush(PATIENCE_S) == 0
    consumer = case.consumer()
    batch = next_batch(consumer)
    record = batch.records[0]
    assert (record.topic, record.key, record.headers) == (SPANS, b"one", (("items", b"3"), ("odd", b"\xff\x00")))
    assert abs(record.timestamp_ms / 1000 - time.time()) < 60
    consumer.commit(batch)
    rest = read(consumer, 200 - len(batch.records)) if len(batch.records) < 200 else []
    assert [r.value for r in batch.records] + rest == values


def test_records_without_a_key_reach_all_partitions(case: Case) -> None:
    for _ in range(8):
        case.send([os.urandom(50) for _ in range(5)], key=None)
        time.sleep(0.02)
    grown = [s for s in case.stream.admin().partitions(case.group) if s.topic == SPANS and s.end > s.committed]
    assert len(grown) == 2
    consumer = case.consumer()
    assert len(read(consumer, 40)) == 40


def test_offsets_of_a_batch_are_consecutive_and_batches_follow_each_other(case: Case) -> None:
    case.send([b"x"] * 25)
    consumer = case.consumer(BatchLimits(max_records=10, max_age_s=0.1))
    first, second, third = (next_batch(consumer) for _ in range(3))
    assert [len(b.records) for b in (first, second, third)] == [10, 10, 5]
    assert (second.first_offset, third.first_offset) == (first.last_offset + 1, second.last_offset + 1)
    assert [r.offset for r in first.records] == list(range(first.first_offset, first.last_offset + 1))


def test_limit_by_bytes_is_kept_unless_one_record_is_larger(case: Case) -> None:
    case.send([b"a" * 4000] * 5 + [b"b" * 20_000] + [b"c" * 4000])
    consumer = case.consumer(BatchLimits(max_bytes=10_000, max_age_s=0.1))
    sizes = [next_batch(consumer).size_bytes for _ in range(5)]
    assert sizes == [8000, 8000, 4000, 20_000, 4000]


def test_a_small_batch_waits_for_its_age(case: Case) -> None:
    consumer = case.consumer(BatchLimits(max_age_s=1.5))
    with contextlib.suppress(AssertionError):
        consumer.poll(1.0)  # joins the group
    case.send([b"x"])
    sent = time.monotonic()
    assert len(next_batch(consumer).records) == 1
    assert time.monotonic() - sent > 0.5


def test_a_topic_may_have_an_age_of_its_own(case: Case) -> None:
    consumer = case.consumer(BatchLimits(max_age_s=60.0, topic_age_s={SPANS: 0.2}))
    case.send([b"x"])
    assert len(next_batch(consumer).records) == 1
