"""A stream under test, on SQLite or on a real Apache Kafka, and how tests read it."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable

from confluent_kafka import Consumer as RawConsumer
from confluent_kafka import TopicPartition

from observe.interfaces import Consumer, Producer, Stream
from observe.types import Batch, BatchLimits

SPANS, LOGS = "otlp_spans", "otlp_logs"
NOW = BatchLimits(max_age_s=0.05)
SMALL = 200_000  # bytes of the largest record
PATIENCE_S = 120.0


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
