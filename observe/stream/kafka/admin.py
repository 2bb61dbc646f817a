"""What operators do with Kafka: create topics, and ask how far a group has come."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import confluent_kafka.admin
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from observe.errors import BadRecord, Counting, Misconfigured
from observe.settings import KafkaSettings
from observe.stream.dead_letters import to_json
from observe.stream.kafka import config
from observe.stream.kafka.counts import Counts
from observe.stream.kafka.reading import Key, read
from observe.stream.otlp import items_of
from observe.types import DEAD_LETTERS, TOPICS, Json, PartitionState, Record

log = logging.getLogger(__name__)
kafka: Any = confluent_kafka.admin  # its types are incomplete
T = TypeVar("T")

ASK_S = 10.0
RETRY_S = 0.2
CHANGING = (
    KafkaError.NOT_COORDINATOR,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.FENCED_LEADER_EPOCH,
    KafkaError.UNKNOWN_LEADER_EPOCH,
)
"""Answers while brokers start, or hand a partition or a group over: who is asked again is told who leads now."""
ALL_TOPICS = (*TOPICS.values(), DEAD_LETTERS)
SAY_S = 5.0  # how often a count that takes long says how far it is
COUNT_S = 20.0  # and how long it takes at once: somebody waits for the answer
REMEMBERED = 1000  # offsets before a start of which the count is kept
DEAD_LETTER_HOURS = 14 * 24.0  # people look at them later than machines look at the rest


class KafkaAdmin:
    """Safe from any thread."""

    def __init__(self, brokers: str, settings: KafkaSettings) -> None:
        self._brokers = brokers
        self._settings = settings
        self._refusal: KafkaError | None = None  # librdkafka tells the reason apart from the call that fails by it
        wanted = config.client(brokers, settings) | {"error_cb": self._heard}
        self._admin = config.connect(kafka.AdminClient, wanted)
        self._counting = threading.Lock()
        self._counted: dict[Key, Counts] = {}
        self.count_s = COUNT_S

    def migrate(self) -> list[str]:
        present = self._topics()
        missing = [topic for topic in ALL_TOPICS if topic not in present]
        self._check_sizes([topic for topic in ALL_TOPICS if topic in present])
        return [line for topic in missing for line in self._create(topic)]

    def partitions(self, group: str, /) -> list[PartitionState]:
        keys = [(topic, p) for topic, parts in sorted(self._topics().items()) for p in parts if topic in ALL_TOPICS]
        committed = self._committed(group, keys)  # first: it never passes an end that is read later
        begin, end = self._offsets(keys, kafka.OffsetSpec.earliest()), self._offsets(keys, kafka.OffsetSpec.latest())
        return [
            PartitionState(*key, begin[key], max(begin[key], committed.get(key, begin[key])), end[key]) for key in keys
        ]

    def pending(
        self, group: str, since: Mapping[tuple[str, int], int] | None = None, /
    ) -> Mapping[tuple[str, int], int]:
        """Kafka keeps no sums: each pending record is read once, and counted until it is committed. Raises Counting
        where that takes longer than `count_s`; the next question goes on from there."""
        states = {(s.topic, s.partition): s for s in self.partitions(group) if s.topic != DEAD_LETTERS}
        starts = {key: max(s.begin, (since or {}).get(key, s.committed)) for key, s in states.items()}
        with self._counting:
            return self._count({key: (start, states[key].end) for key, start in starts.items()})

    def full(self) -> str:
        return ""  # Kafka drops the oldest records instead, see kafka.retention_hours

    def dead_letters(self, limit: int, /) -> list[Json]:
        states = [state for state in self.partitions("observe-admin") if state.topic == DEAD_LETTERS]
        ranges = {(s.topic, s.partition): (max(s.begin, s.end - limit), s.end) for s in states}
        letters = list(read(self._brokers, self._settings, ranges))
        letters.sort(key=lambda letter: (letter.timestamp_ms, letter.offset), reverse=True)
        return [to_json(letter) for letter in letters[:limit]]

    def close(self) -> None:
        """Its connections end with it."""

    # ── topics ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def _topics(self) -> dict[str, list[int]]:
        try:
            metadata = self._admin.list_topics(timeout=ASK_S)
        except KafkaException as error:
            self._admin.poll(0)
            raise config.unavailable("cannot list topics", self._refusal or error) from error
        self._refusal = None
        return {name: sorted(topic.partitions) for name, topic in metadata.topics.items() if topic.error is None}

    def _heard(self, error: KafkaError) -> None:
        config.log_error(error)
        if config.refused(error):
            self._refusal = error

    def _create(self, topic: str) -> list[str]:
        ours = self._settings
        hours = max(ours.retention_hours, DEAD_LETTER_HOURS) if topic == DEAD_LETTERS else ours.retention_hours
        partitions = 1 if topic == DEAD_LETTERS else ours.partitions
        # The limit is on a batch of records as the broker stores it, so a little more than one record.
        settings = {
            "cleanup.policy": "delete",
            "retention.ms": str(int(hours * 3_600_000)),
            "max.message.bytes": str(ours.max_message_bytes + 2**20 + config.HEADROOM_BYTES),
        }
        new = kafka.NewTopic(
            topic, num_partitions=partitions, replication_factor=ours.replication_factor, config=settings
        )
        try:
            self._admin.create_topics([new], operation_timeout=ASK_S, request_timeout=ASK_S)[topic].result(ASK_S + 1)
        except KafkaException as error:
            code = error.args[0].code()
            if code == KafkaError.TOPIC_ALREADY_EXISTS:
                return []
            if code == KafkaError.INVALID_REPLICATION_FACTOR:
                raise Misconfigured(
                    f"kafka.replication_factor = {ours.replication_factor}: {error.args[0].str()}"
                ) from error
            raise config.unavailable(f"cannot create {topic}", error) from error
        return [
            f"topic {topic}: created with {partitions} partitions, {hours:g} h of retention,"
            f" records up to {ours.max_message_bytes} bytes"
        ]

    def _check_sizes(self, topics: Sequence[str]) -> None:
        resources = [kafka.ConfigResource(kafka.ConfigResource.Type.TOPIC, topic) for topic in topics]
        if not resources:
            return
        for resource, future in self._admin.describe_configs(resources, request_timeout=ASK_S).items():
            try:
                limit = int(future.result(ASK_S + 1)["max.message.bytes"].value)
            except KafkaException as error:
                raise config.unavailable(f"cannot describe {resource.name}", error) from error
            if limit < self._settings.max_message_bytes:
                raise Misconfigured(
                    f"kafka.max_message_bytes = {self._settings.max_message_bytes}: topic {resource.name} takes"
                    f" {limit} at most; raise its max.message.bytes, or lower the setting"
                )

    # ── offsets ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def _committed(self, group: str, keys: Sequence[Key]) -> dict[Key, int]:
        reader = config.connect(Consumer, config.consumer(self._brokers, self._settings, group))
        try:
            asked = [TopicPartition(*key) for key in keys]
            answers = patiently(lambda: reader.committed(asked, timeout=ASK_S)) if keys else []
        except KafkaException as error:
            raise config.unavailable(f"cannot read what {group} has committed", error) from error
        finally:
            reader.close()
        return {(a.topic, a.partition): a.offset for a in answers if a.error is None and a.offset >= 0}

    def _offsets(self, keys: Sequence[Key], spec: Any) -> dict[Key, int]:
        if not keys:
            return {}

        def ask() -> dict[Key, int]:
            asked = self._admin.list_offsets({TopicPartition(*key): spec for key in keys}, request_timeout=ASK_S)
            return {(tp.topic, tp.partition): future.result(ASK_S + 1).offset for tp, future in asked.items()}

        try:
            return patiently(ask)
        except KafkaException as error:
            raise config.unavailable("cannot read offsets", error) from error

    # ── pending items ───────────────────────────────────────────────────────────────────────────────────────────────

    def _count(self, wanted: Mapping[Key, tuple[int, int]]) -> dict[Key, int]:
        """Items of each range. What was counted before is known in blocks; of those only the one is read again in
        which a range begins. A count that takes too long goes on where it was, when it is asked for again."""
        for key, (start, _) in wanted.items():
            counts = self._counted.get(key)
            if counts is None or not counts.begin <= start <= counts.end:
                self._counted[key] = Counts(start)
        self._count_up({key: end for key, (_, end) in wanted.items()})
        found = {key: self._counted[key].whole(start) for key, (start, _) in wanted.items()}
        for record in self._read({key: self._counted[key].cut(start) for key, (start, _) in wanted.items()}):
            found[record.topic, record.partition] += _items(record)
        for key, (start, _) in wanted.items():
            self._counted[key].forget(start - REMEMBERED)  # another caller may ask from further back
        return found

    def _count_up(self, ends: Mapping[Key, int]) -> None:
        ranges = {key: (self._counted[key].end, end) for key, end in ends.items()}
        records = sum(max(0, end - start) for start, end in ranges.values())
        began = time.monotonic()
        say_at = began + SAY_S
        for number, record in enumerate(self._read(ranges), start=1):
            self._counted[record.topic, record.partition].add(record.offset, _items(record))
            now = time.monotonic()
            if now > say_at:
                say_at += SAY_S
                log.warning("counting what is pending on Kafka: %s of %s records", f"{number:,}", f"{records:,}")
            if now - began > self.count_s and number < records:
                raise Counting(number, records)

    def _read(self, ranges: Mapping[Key, tuple[int, int]]) -> Iterator[Record]:
        return read(self._brokers, self._settings, ranges)


def _items(record: Record) -> int:
    try:
        return items_of(record)
    except BadRecord:
        return 0  # the writer puts it aside; it holds nothing that could be pending


def patiently(ask: Callable[[], T]) -> T:
    """The answer, once leaders and coordinators are settled; raises KafkaException where they are not in `ASK_S`."""
    deadline = time.monotonic() + ASK_S
    while True:
        try:
            return ask()
        except KafkaException as error:
            if error.args[0].code() not in CHANGING or time.monotonic() > deadline:
                raise
        time.sleep(RETRY_S)
