"""What every stream must do, on SQLite and on a real Apache Kafka."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path

import pytest
from confluent_kafka import Consumer as RawConsumer
from confluent_kafka import TopicPartition

from observe.errors import BadRecord, Lost, Unavailable
from observe.interfaces import Consumer, Producer, Stream
from observe.settings import KafkaSettings, LocalSettings, Settings
from observe.stream import open_stream
from observe.stream.inspection import halves
from observe.stream.kafka import KafkaStream
from observe.stream.local import LocalStream
from observe.types import DEAD_LETTERS, Batch, BatchLimits

SPANS, LOGS = "otlp_spans", "otlp_logs"
NOW = BatchLimits(max_age_s=0.05)
SMALL = 200_000  # bytes of the largest record
PATIENCE_S = 20.0


class Case:
    """One implementation: a stream with two partitions a topic, and a group that has read all there was."""

    def __init__(self, kind: str, url: str, stream: Stream) -> None:
        self.kind, self.url, self.stream = kind, url, stream
        self.group = uuid.uuid4().hex
        self._open: list[Consumer | Producer] = []
        stream.admin().migrate()
        if kind == "kafka":
            self._skip_to_end()

    def producer(self) -> Producer:
        producer = self.stream.producer()
        self._open.append(producer)
        return producer

    def consumer(self, limits: BatchLimits = NOW, topics: tuple[str, ...] = (SPANS,)) -> Consumer:
        consumer = self.stream.consumer(self.group, topics, limits)
        self._open.append(consumer)
        return consumer

    def send(self, values: list[bytes], topic: str = SPANS, key: bytes | None = b"k") -> None:
        producer = self.producer()
        for future in [producer.send(topic, value, key=key, headers={"items": b"2"}) for value in values]:
            future.result(PATIENCE_S)
        self.close(producer)

    def close(self, part: Consumer | Producer) -> None:
        self._open.remove(part)
        part.close()

    def close_all(self) -> None:
        for part in reversed(self._open):
            part.close()

    def _skip_to_end(self) -> None:
        states = self.stream.admin().partitions(self.group)
        raw = RawConsumer({"bootstrap.servers": self.url.removeprefix("kafka://"), "group.id": self.group})
        raw.commit(offsets=[TopicPartition(s.topic, s.partition, s.end) for s in states], asynchronous=False)
        raw.close()


@pytest.fixture(params=["local", pytest.param("kafka", marks=pytest.mark.kafka)])
def case(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Case]:
    if request.param == "local":
        url = f"local://{tmp_path / 'stream'}"
        stream: Stream = LocalStream(
            tmp_path / "stream", LocalSettings(partitions=2, max_message_bytes=SMALL), lease_s=1.0
        )
    else:
        url = f"kafka://{request.getfixturevalue('kafka_bootstrap')}"
        # The broker is shared: its topics keep the size that the tests after these expect.
        KafkaStream(url.removeprefix("kafka://"), KafkaSettings(partitions=2)).admin().migrate()
        stream = KafkaStream(
            url.removeprefix("kafka://"),
            KafkaSettings(
                partitions=2,
                max_message_bytes=SMALL,
                client={"session.timeout.ms": "3000", "heartbeat.interval.ms": "300"},
            ),
        )
    made = Case(request.param, url, stream)
    yield made
    made.close_all()


def next_batch(consumer: Consumer) -> Batch:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        if (batch := consumer.poll(0.5)) is not None:
            return batch
    raise AssertionError("no batch came")


def read(consumer: Consumer, count: int) -> list[bytes]:
    """The values of `count` records, each batch intended and committed."""
    values: list[bytes] = []
    while len(values) < count:
        batch = next_batch(consumer)
        consumer.intend(batch)
        consumer.commit(batch)
        values += [record.value for record in batch.records]
    return values


def eventually(check: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not check():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


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


def test_uncommitted_batches_come_back_with_the_same_token(case: Case) -> None:
    case.send([b"%d" % n for n in range(10)])
    consumer = case.consumer(BatchLimits(max_records=4, max_age_s=0.1))
    batch = next_batch(consumer)
    consumer.intend(batch)
    case.close(consumer)
    again = next_batch(case.consumer(BatchLimits(max_records=4, max_age_s=0.1)))
    assert (again.token, again.records) == (batch.token, batch.records)


@pytest.mark.parametrize("limits", [BatchLimits(max_records=2, max_age_s=0.05), BatchLimits(max_age_s=0.05)])
def test_an_intended_range_survives_other_limits(case: Case, limits: BatchLimits) -> None:
    case.send([b"%d" % n for n in range(10)])
    consumer = case.consumer(BatchLimits(max_records=5, max_age_s=0.1))
    batch = next_batch(consumer)
    consumer.intend(batch)
    case.close(consumer)
    consumer = case.consumer(limits)
    again = next_batch(consumer)
    assert (again.token, len(again.records)) == (batch.token, 5)
    consumer.intend(again)
    consumer.commit(again)
    assert read(consumer, 5) == [b"%d" % n for n in range(5, 10)]


def test_a_range_intended_but_not_stored_is_handed_out_after_a_second_restart_too(case: Case) -> None:
    case.send([b"%d" % n for n in range(6)])
    tokens = set()
    for records in (4, 2, 6):
        consumer = case.consumer(BatchLimits(max_records=records, max_age_s=0.1))
        batch = next_batch(consumer)
        consumer.intend(batch)
        tokens.add(batch.token)
        case.close(consumer)
    assert len(tokens) == 1


def test_commit_moves_past_the_batch_and_may_be_repeated(case: Case) -> None:
    case.send([b"%d" % n for n in range(6)])
    consumer = case.consumer(BatchLimits(max_records=3, max_age_s=0.1))
    first, second = next_batch(consumer), next_batch(consumer)
    for batch in (first, second):
        consumer.intend(batch)
        consumer.commit(batch)
        consumer.commit(batch)
    consumer.commit(first)  # must not move back
    case.close(consumer)
    case.send([b"new"])
    assert [r.value for r in next_batch(case.consumer()).records] == [b"new"]


class Member(threading.Thread):
    """A consumer in a thread of its own, as members of a group are; it notes what it committed."""

    def __init__(self, consumer: Consumer) -> None:
        super().__init__()
        self.done: list[tuple[int, int]] = []  # partition and offset
        self._consumer = consumer
        self._ending = threading.Event()
        self.start()

    def run(self) -> None:
        while not self._ending.is_set():
            with contextlib.suppress(Lost, Unavailable):
                if (batch := self._consumer.poll(0.2)) is not None:
                    self._consumer.intend(batch)
                    self._consumer.commit(batch)
                    self.done += [(batch.partition, record.offset) for record in batch.records]

    def end(self) -> None:
        self._ending.set()
        self.join()

    def partitions(self, since: int = 0) -> set[int]:
        return {partition for partition, _ in self.done[since:]}


def test_two_members_share_the_partitions_and_one_inherits(case: Case) -> None:
    consumers = [case.consumer(), case.consumer()]
    first, second = members = [Member(consumer) for consumer in consumers]
    try:
        eventually(lambda: _both_work(case, members))
        first.end()
        case.close(consumers[0])
        behind = len(second.done)
        eventually(lambda: _send_to_both(case) or len(second.partitions(behind)) == 2)
    finally:
        first.end()
        second.end()
    committed = first.done + second.done
    assert len(committed) == len(set(committed))


def _send_to_both(case: Case) -> None:
    for key in (b"a", b"b", b"c", b"d"):
        case.send([b"x"], key=key)


def _both_work(case: Case, members: list[Member]) -> bool:
    """Whether each member reads one of the partitions, both together all of them."""
    before = [len(member.done) for member in members]
    _send_to_both(case)
    time.sleep(0.5)
    shares = [member.partitions(count) for member, count in zip(members, before, strict=True)]
    return all(len(share) == 1 for share in shares) and len(set.union(*shares)) == 2


def test_a_member_killed_while_storing_hands_on_its_range(case: Case) -> None:
    case.send([b"%d" % n for n in range(8)])
    command = [sys.executable, "-m", "tests.contract.stream_child", "consume", case.url, case.group]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        token = child.stdout.readline().strip()
        child.send_signal(signal.SIGKILL)
    assert token
    started = time.monotonic()
    consumer = case.consumer(BatchLimits(max_records=100, max_age_s=0.1))
    batch = next_batch(consumer)
    assert (batch.token, len(batch.records)) == (token, 3)
    if case.kind == "local":
        assert time.monotonic() - started < 3  # the dead let go at once; no lease has to run out


def test_heartbeats_keep_the_partition_and_take_nothing(case: Case) -> None:
    case.send([b"%d" % n for n in range(4)])
    consumer = case.consumer(BatchLimits(max_records=2, max_age_s=0.1))
    batch = next_batch(consumer)
    consumer.intend(batch)
    for _ in range(20):  # longer than a lease or a session
        consumer.heartbeat()
        time.sleep(0.2)
    consumer.commit(batch)
    assert [r.value for r in next_batch(consumer).records] == [b"2", b"3"]


def test_a_batch_that_another_member_went_past_cannot_be_intended(case: Case) -> None:
    case.send([b"x"] * 4)
    first = case.consumer(BatchLimits(max_records=2, max_age_s=0.1))
    stale = next_batch(first)
    case.close(first)
    second = case.consumer(BatchLimits(max_records=3, max_age_s=0.1))
    second.intend(next_batch(second))  # and stores it, for all that others know
    case.close(second)
    third = case.consumer(BatchLimits(max_records=2, max_age_s=0.1))
    repeated = next_batch(third)
    with pytest.raises(Lost):
        third.intend(stale)
    third.commit(stale)  # must not move to the middle of what may be stored
    case.close(third)
    assert next_batch(case.consumer()).token == repeated.token


def test_a_refused_batch_may_be_intended_in_parts(case: Case) -> None:
    case.send([b"%d" % n for n in range(4)])
    consumer = case.consumer(BatchLimits(max_records=4, max_age_s=0.1))
    whole = next_batch(consumer)
    consumer.intend(whole)
    parts = list(halves(whole))
    consumer.intend(parts[0])
    consumer.commit(parts[0])
    consumer.intend(parts[1])
    case.close(consumer)
    consumer = case.consumer()
    again = next_batch(consumer)
    assert (again.token, [r.value for r in again.records]) == (parts[1].token, [b"2", b"3"])


def test_too_large_a_record_is_bad_and_the_others_pass(case: Case) -> None:
    producer = case.producer()
    large = producer.send(SPANS, bytes(SMALL + 1), key=b"k")
    fits = producer.send(SPANS, bytes(SMALL), key=b"k")
    with pytest.raises(BadRecord, match="max_message_bytes"):
        large.result(PATIENCE_S)
    fits.result(PATIENCE_S)
    assert [len(r.value) for r in next_batch(case.consumer()).records] == [SMALL]


def test_partitions_and_pending_tell_how_far_a_group_is(case: Case) -> None:
    admin = case.stream.admin()
    case.send([b"x"] * 6)
    consumer = case.consumer(BatchLimits(max_records=4, max_age_s=0.1))
    batch = next_batch(consumer)
    key = (SPANS, batch.partition)
    assert sum(admin.pending(case.group).values()) == 12
    consumer.intend(batch)
    assert admin.pending(case.group)[key] == 12
    assert admin.pending(case.group, {key: batch.last_offset + 1})[key] == 4  # stored, not committed yet
    consumer.commit(batch)
    assert admin.pending(case.group)[key] == 4
    state = next(s for s in admin.partitions(case.group) if (s.topic, s.partition) == key)
    assert (state.committed, state.end) == (batch.last_offset + 1, batch.last_offset + 3)
    assert state.begin <= batch.first_offset


def test_migrate_says_what_it_did_and_may_be_repeated(case: Case) -> None:
    admin = case.stream.admin()
    assert admin.migrate() == []
    topics = {state.topic for state in admin.partitions(case.group)}
    assert topics == {SPANS, LOGS, "otlp_metrics", DEAD_LETTERS}
    admin.close()


def test_dead_letters_come_newest_first(case: Case) -> None:
    producer = case.producer()
    for number in range(3):
        headers = {"reason": b"why %d" % number, "topic": SPANS.encode(), "partition": b"1", "offset": b"%d" % number}
        producer.send(DEAD_LETTERS, b"\xff", headers=headers).result(PATIENCE_S)
        time.sleep(0.01)
    letters = case.stream.admin().dead_letters(2)
    assert [(x["reason"], x["topic"], x["partition"], x["offset"]) for x in letters] == [
        ("why 2", SPANS, 1, 2),
        ("why 1", SPANS, 1, 1),
    ]


def test_what_was_acknowledged_survives_kill_9_of_the_producer(case: Case) -> None:
    command = [sys.executable, "-m", "tests.contract.stream_child", "produce", case.url]
    acknowledged: list[int] = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        for line in child.stdout:
            acknowledged.append(int(line))
            if len(acknowledged) == 500:
                child.send_signal(signal.SIGKILL)
    consumer = case.consumer(topics=(LOGS,))
    found: set[int] = set()
    while not found.issuperset(acknowledged):
        found.update(map(int, read(consumer, 1)))
    assert len(acknowledged) >= 500


def test_a_full_buffer_refuses_at_once_and_drops_nothing_silently(case: Case, tmp_path: Path) -> None:
    if case.kind == "local":
        stream: Stream = LocalStream(tmp_path / "stream", LocalSettings(partitions=2), buffer_bytes=100_000)
        block = _locked(tmp_path / "stream" / "records.db")
    else:
        away = KafkaSettings(client={"delivery.timeout.ms": "1500"})
        stream = KafkaStream("127.0.0.1:1", away, buffer_bytes=100_000)
        block = contextlib.nullcontext()
    taken: list[Future[None]] = []
    with block:
        producer = stream.producer()
        with pytest.raises(Unavailable):
            _fill(producer, taken)
    producer.close()
    assert taken
    failed = [future.exception(0) for future in taken]
    assert all(error is None if case.kind == "local" else isinstance(error, Unavailable) for error in failed)


def _fill(producer: Producer, taken: list[Future[None]]) -> None:
    taken.extend(producer.send(SPANS, bytes(20_000)) for _ in range(100))


@contextlib.contextmanager
def _locked(file: Path) -> Iterator[None]:
    import sqlite3

    connection = sqlite3.connect(file, isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    yield
    connection.execute("ROLLBACK")
    connection.close()


def test_a_url_chooses_the_stream(case: Case) -> None:
    assert type(open_stream(Settings(stream=case.url))) is type(case.stream)
