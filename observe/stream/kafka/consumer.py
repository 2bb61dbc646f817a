"""Reading from Kafka: one member of a group, batches per partition, commits that carry what is being inserted."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Collection, Sequence
from typing import Any, Literal

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition

from observe.errors import Lost, Misconfigured, ObserveError
from observe.settings import KafkaSettings
from observe.stream.kafka import config
from observe.stream.kafka.epochs import Epochs
from observe.stream.ranges import Range, from_metadata, may_follow, range_of, to_metadata
from observe.types import Batch, BatchLimits, Record

DRAIN_RECORDS = 64  # taken at once; bounds what is buffered beyond the limits of a batch
WAIT_S = 0.5  # librdkafka's waits cannot be interrupted
ASK_S = 5.0
COMMIT_S = 10.0
HELD_BATCHES = 6  # of full size, over all partitions; without it each of a hundred would fill up to its own
GONE = (
    KafkaError.ILLEGAL_GENERATION,
    KafkaError.UNKNOWN_MEMBER_ID,
    KafkaError.FENCED_INSTANCE_ID,
    KafkaError._ASSIGNMENT_LOST,
)
"""Answers to a commit of a member whose partitions have gone to others."""

log = logging.getLogger(__name__)
Key = tuple[str, int]


class _Partition:
    """One partition while this member holds it. A new assignment makes a new one: nothing of the old is valid."""

    def __init__(self) -> None:
        self.resolved = False  # whether the commit that the last owner left has been read
        self.rewind = False  # whether what was read before must be read again
        self.epoch = ""
        self.intent: Range | None = None  # what the last owner was inserting: it must come next, whole
        self.records: deque[Record] = deque()
        self.bytes = 0
        self.since = 0.0  # monotonic arrival of the first record
        self.handed: list[Range] = []  # given out, not committed yet
        self.intended: Range | None = None

    def add(self, record: Record) -> None:
        if not self.records:
            self.since = time.monotonic()
        self.records.append(record)
        self.bytes += len(record.value)

    def due(self, limits: BatchLimits) -> float:
        """Monotonic time at which the records that are there are old enough."""
        return self.since + limits.age_s(self.records[0].topic)

    def complete(self, limits: BatchLimits) -> bool:
        if not self.resolved or not self.records:
            return False
        if self.intent is not None:
            return self.records[-1].offset >= self.intent.last
        return (
            self.bytes >= limits.max_bytes
            or len(self.records) >= limits.max_records
            or time.monotonic() >= self.due(limits)
        )

    def take(self, limits: BatchLimits) -> Batch | None:
        """The next batch; None where all records of the range to repeat have expired."""
        intent, self.intent = self.intent, None
        taken: list[Record] = []
        size = 0
        while self.records:
            record = self.records[0]
            size += len(record.value)
            if record.offset > intent.last if intent else taken and _over(limits, len(taken), size):
                break
            taken.append(self.records.popleft())
        self.bytes -= sum(len(record.value) for record in taken)
        self.since = time.monotonic()
        if not taken:
            return None
        handed = intent or Range(taken[0].offset, taken[-1].offset)
        self.handed.append(handed)
        return Batch(tuple(taken), handed.first, handed.last, self.epoch)

    def may_intend(self, wanted: Range) -> bool:
        """Only what was given out since the assignment, or the first part of what was intended since."""
        return wanted in self.handed or (self.intended is not None and may_follow(wanted, self.intended, self.intended))

    def may_commit(self, batch: Batch) -> bool:
        done = range_of(batch)
        return done in self.handed or (done == self.intended and any(_begins(batch, given) for given in self.handed))

    def forget(self, batch: Batch) -> None:
        """The batch is done; what was given out with it and lies behind it is not."""
        handed = next(handed for handed in self.handed if _begins(batch, handed))
        self.handed.remove(handed)
        if batch.last_offset < handed.last:
            self.handed.append(Range(batch.last_offset + 1, handed.last))


class KafkaConsumer:
    """Not safe from several threads. Rebalances happen inside `poll` and `heartbeat` only."""

    def __init__(
        self, brokers: str, settings: KafkaSettings, group: str, topics: Sequence[str], limits: BatchLimits
    ) -> None:
        self._limits = limits
        self._partitions: dict[Key, _Partition] = {}
        self._rotation: deque[Key] = deque()  # longest unread first: no partition starves another
        self._paused = False
        self._asked = float("-inf")
        self._answer: KafkaError | Literal["done"] | None = None  # to the commit under way
        self._awaited = ("", -1, -1, "")
        self._epochs = Epochs(brokers, settings)
        wanted = config.consumer(brokers, settings, group) | {"on_commit": self._committed}
        self._consumer = config.connect(Consumer, wanted)
        self._consumer.subscribe(list(topics), on_assign=self._assigned, on_revoke=self._revoked, on_lost=self._revoked)

    def poll(self, timeout_s: float, /) -> Batch | None:
        self._resume()
        deadline = time.monotonic() + timeout_s
        while True:
            self._resolve()
            batch = self._next()
            rest_s = deadline - time.monotonic()
            if batch is not None or rest_s <= 0:
                return batch
            self._receive(min(rest_s, self._until_complete()))

    def intend(self, batch: Batch, /) -> None:
        partition = self._partitions.get((batch.topic, batch.partition))
        if partition is None or not partition.may_intend(range_of(batch)):
            raise Lost(f"{batch.token}: the partition was taken over")
        try:
            self._commit(batch, batch.first_offset, to_metadata(range_of(batch)))
        except Lost:
            self._begin_again((batch.topic, batch.partition), partition)
            raise
        partition.intended = range_of(batch)

    def commit(self, batch: Batch, /) -> None:
        key = batch.topic, batch.partition
        partition = self._partitions.get(key)
        if partition is None or not partition.may_commit(batch):
            return  # committed already, or for its new owner to commit
        try:
            self._commit(batch, batch.last_offset + 1, "")
        except Lost as error:
            log.warning("not committed: %s", error)
            self._begin_again(key, partition)  # nobody else may come: what was intended is found stored, and committed
        else:
            partition.forget(batch)

    def heartbeat(self) -> None:
        if not self._paused:
            self._paused = True
            self._consumer.pause(_topic_partitions(self._partitions))
        self._receive(0.0)

    def close(self) -> None:
        self._consumer.close()

    # ── what Kafka tells ────────────────────────────────────────────────────────────────────────────────────────────

    def _assigned(self, consumer: Any, partitions: list[TopicPartition]) -> None:
        consumer.incremental_assign(partitions)
        for p in partitions:
            self._partitions[p.topic, p.partition] = _Partition()
            self._rotation.append((p.topic, p.partition))
        # librdkafka remembers that a partition was paused when it was held before: it would come back silent.
        (consumer.pause if self._paused else consumer.resume)(partitions)
        self._asked = float("-inf")

    def _revoked(self, consumer: Any, partitions: list[TopicPartition]) -> None:
        """Nothing is committed here: what was intended is repeated by the next owner, under the same token."""
        for p in partitions:
            if self._partitions.pop((p.topic, p.partition), None) is not None:
                self._rotation.remove((p.topic, p.partition))
        consumer.incremental_unassign(partitions)

    def _begin_again(self, key: Key, partition: _Partition) -> None:
        """A rebalance may make a commit invalid and yet leave the partition here: what was given out is not stored, and
        must come again before what lies behind it."""
        if self._partitions.get(key) is partition:
            self._partitions[key] = fresh = _Partition()
            fresh.rewind = True
            self._asked = float("-inf")

    def _resolve(self) -> None:
        """Reads what the last owners left behind; until that is known, nothing is handed out."""
        open_keys = [key for key, partition in self._partitions.items() if not partition.resolved]
        if not open_keys or time.monotonic() - self._asked < 1.0:
            return
        self._asked = time.monotonic()
        try:
            epochs = self._epochs.of({topic for topic, _ in open_keys})
            for answer in self._consumer.committed(_topic_partitions(open_keys), timeout=ASK_S):
                if answer.error is None:
                    partition = self._partitions[answer.topic, answer.partition]
                    partition.epoch = epochs[answer.topic]
                    self._settle(partition, answer)
        except KafkaException as error:
            _refuse_to_wait("cannot read what is committed", error)
            log.info("Kafka: what is committed cannot be read, trying again: %s", error.args[0].str())

    def _settle(self, partition: _Partition, answer: TopicPartition) -> None:
        intent = from_metadata(answer.metadata)
        if intent is not None:
            low, _ = self._consumer.get_watermark_offsets(TopicPartition(answer.topic, answer.partition), timeout=ASK_S)
            if low > intent.last:
                log.warning("%s-%s: %s has expired before it was stored", answer.topic, answer.partition, intent)
                intent = None
        if partition.rewind:
            at = answer.offset if answer.offset >= 0 else OFFSET_BEGINNING
            self._consumer.seek(TopicPartition(answer.topic, answer.partition, at))
            partition.records.clear()
            partition.bytes, partition.rewind = 0, False
        partition.intent, partition.resolved = intent, True

    def _receive(self, timeout_s: float, *, drain: bool = True) -> None:
        first = self._consumer.poll(timeout_s)
        if first is None:
            return
        for message in (first, *(self._consumer.consume(DRAIN_RECORDS, 0) if drain else ())):
            error = message.error()
            partition = self._partitions.get((message.topic(), message.partition()))
            if error is not None:
                _refuse_to_wait("cannot read", error)
                log.info("Kafka: %s", error.str())
            elif partition is not None:
                partition.add(to_record(message))

    # ── what goes out ───────────────────────────────────────────────────────────────────────────────────────────────

    def _next(self) -> Batch | None:
        for _ in range(len(self._rotation)):
            partition = self._partitions[self._rotation[0]]
            self._rotation.rotate(-1)
            if partition.complete(self._limits) and (batch := partition.take(self._limits)) is not None:
                return batch
        crowded = fullest_of_too_much(self._partitions.values(), self._limits)
        return crowded.take(self._limits) if crowded else None

    def _until_complete(self) -> float:
        """Seconds until some batch is old enough, `WAIT_S` at most."""
        due = [p.due(self._limits) for p in self._partitions.values() if p.records and not p.intent]
        return min(WAIT_S, max(0.001, min(due, default=float("inf")) - time.monotonic()))

    def _resume(self) -> None:
        if self._paused:
            self._paused = False
            self._consumer.resume(_topic_partitions(self._partitions))

    def _commit(self, batch: Batch, offset: int, metadata: str) -> None:
        """Commits, and polls until the answer is there: a rebalance that others wait for must go on meanwhile."""
        where = TopicPartition(batch.topic, batch.partition, offset, metadata)
        key, deadline = (batch.topic, batch.partition), time.monotonic() + COMMIT_S
        partition = self._partitions[key]
        self._answer, self._awaited = None, (*key, offset, metadata)
        try:
            self._consumer.commit(offsets=[where], asynchronous=True)
            while self._answer is None and self._partitions.get(key) is partition:
                if time.monotonic() > deadline:
                    raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
                self._receive(0.005, drain=False)
        except KafkaException as error:
            raise config.unavailable(f"cannot commit {batch.token}", error) from error
        if self._partitions.get(key) is not partition:
            raise Lost(f"{batch.token}: the partition was taken over")
        self._judge(batch)

    def _judge(self, batch: Batch) -> None:
        error = self._answer
        if isinstance(error, KafkaError):
            if error.code() in GONE:
                raise Lost(f"{batch.token}: {error.str()}")
            raise config.unavailable(f"cannot commit {batch.token}", error)

    def _committed(self, error: KafkaError | None, partitions: list[TopicPartition]) -> None:
        for p in partitions:
            # Not the late answer to one given up. The commit after a batch and the intent of the next one stand at one
            # offset; only what is written there tells them apart.
            if (p.topic, p.partition, p.offset, p.metadata or "") == self._awaited:
                self._answer = error or p.error or "done"


def fullest_of_too_much(partitions: Collection[_Partition], limits: BatchLimits) -> _Partition | None:
    """Which partition must give out what it has, though it is neither full nor old: together they hold too much."""
    if sum(partition.bytes for partition in partitions) < HELD_BATCHES * limits.max_bytes:
        return None
    free = [partition for partition in partitions if partition.resolved and partition.intent is None]
    return max(free, key=lambda partition: partition.bytes, default=None)


def to_record(message: Any) -> Record:
    headers = tuple((name, value or b"") for name, value in message.headers() or ())
    return Record(
        message.topic(),
        message.partition(),
        message.offset(),
        message.value() or b"",  # a tombstone: nothing in it
        max(0, message.timestamp()[1]),
        message.key(),
        headers,
    )


def _begins(batch: Batch, handed: Range) -> bool:
    return handed.first == batch.first_offset and batch.last_offset <= handed.last


def _over(limits: BatchLimits, records: int, size: int) -> bool:
    return records >= limits.max_records or size > limits.max_bytes


def _topic_partitions(keys: Any) -> list[TopicPartition]:
    return [TopicPartition(topic, partition) for topic, partition in keys]


def _refuse_to_wait(what: str, error: KafkaError | KafkaException) -> None:
    """Raises where waiting cannot help."""
    ours: ObserveError = config.unavailable(what, error)
    if isinstance(ours, Misconfigured):
        raise ours
