"""The stream of a cluster: Apache Kafka, by librdkafka. See docs/decisions.md, "Stream"."""

from __future__ import annotations

from collections.abc import Sequence

from observe.settings import KafkaSettings
from observe.stream.kafka.admin import KafkaAdmin
from observe.stream.kafka.consumer import KafkaConsumer
from observe.stream.kafka.producer import BUFFER_BYTES, KafkaProducer
from observe.types import BatchLimits


class KafkaStream:
    """`brokers` is host:port[,host:port…]. Nothing is reached before it is needed, and brokers may come and go."""

    def __init__(self, brokers: str, settings: KafkaSettings, *, buffer_bytes: int = BUFFER_BYTES) -> None:
        self._brokers = brokers
        self._settings = settings
        self._buffer_bytes = buffer_bytes

    def producer(self) -> KafkaProducer:
        return KafkaProducer(self._brokers, self._settings, buffer_bytes=self._buffer_bytes)

    def consumer(self, group: str, topics: Sequence[str], limits: BatchLimits, /) -> KafkaConsumer:
        return KafkaConsumer(self._brokers, self._settings, group, topics, limits)

    def admin(self) -> KafkaAdmin:
        return KafkaAdmin(self._brokers, self._settings)
