"""librdkafka's settings: what we choose, what users may add, and what they may not change."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Any

from confluent_kafka import KafkaError, KafkaException

from observe.errors import Misconfigured, ObserveError, Unavailable
from observe.settings import KafkaSettings

log = logging.getLogger("observe.kafka")


class _Calm(logging.Filter):
    """Lets each kind of message of librdkafka through once in `SILENCE_S`: while a broker is away, each client would
    repeat itself twice a second."""

    SILENCE_S = 30.0

    def __init__(self) -> None:
        super().__init__()
        self._said: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        # "FAIL [observe#producer-1] [thrd:…]: …"; the number of the client says nothing to people.
        kind, _, rest = record.getMessage().partition(" ")
        if kind == "CONFWARN":  # the user's settings go to all kinds of clients; each warns of those for the others
            return False
        topic = kind + rest.partition("]: ")[2][:60]
        now = time.monotonic()
        if now - self._said.get(topic, float("-inf")) < self.SILENCE_S:
            return False
        self._said = {k: at for k, at in self._said.items() if now - at < self.SILENCE_S} | {topic: now}
        return True


log.addFilter(_Calm())

HEADROOM_BYTES = 64 * 2**10  # key, headers and framing of one record
REFUSALS = frozenset(
    (
        KafkaError._AUTHENTICATION,
        KafkaError.SASL_AUTHENTICATION_FAILED,
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError.UNSUPPORTED_SASL_MECHANISM,
    )
)
"""Errors that stay until a person acts."""


def client(brokers: str, settings: KafkaSettings) -> dict[str, Any]:
    """What every client needs. The user's settings come last: TLS, SASL, and whatever their cluster asks for."""
    return {
        "bootstrap.servers": brokers,
        "client.id": "observe",
        "reconnect.backoff.max.ms": 2000,
        "topic.metadata.refresh.interval.ms": 10_000,  # topics that are created later are found soon
        "error_cb": log_error,
        **settings.client,
    }


def producer(brokers: str, settings: KafkaSettings, buffer_bytes: int) -> dict[str, Any]:
    return {
        "linger.ms": 20,
        "compression.type": "zstd",
        "partitioner": "fnv1a_random",  # agrees with the hash of the Collector's exporter
        "sticky.partitioning.linger.ms": 40,
        "delivery.timeout.ms": 8000,  # exporters wait 10 s for an answer
        "queue.buffering.max.kbytes": buffer_bytes // 1024,
        **client(brokers, settings),
        "message.max.bytes": settings.max_message_bytes + HEADROOM_BYTES,
        "enable.idempotence": True,
    }


def consumer(brokers: str, settings: KafkaSettings, group: str) -> dict[str, Any]:
    largest = settings.max_message_bytes + HEADROOM_BYTES
    fetch = max(16 * 2**20, 2 * largest)
    return {
        "session.timeout.ms": 10_000,  # after a crash the partitions move on within this
        "heartbeat.interval.ms": 3000,
        "partition.assignment.strategy": "cooperative-sticky",
        "auto.offset.reset": "earliest",
        "fetch.wait.max.ms": 100,
        "queued.min.messages": 10_000,
        "queued.max.messages.kbytes": 32 * 1024,
        "max.partition.fetch.bytes": max(2**20, largest),
        "fetch.max.bytes": fetch,
        "receive.message.max.bytes": fetch + 2**20,
        **client(brokers, settings),
        "group.id": group,
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
    }


def connect(make: Any, config: Mapping[str, Any]) -> Any:
    """A client of librdkafka; nothing is reached yet. A setting that it does not take is a person's matter."""
    try:
        return make(dict(config), logger=log)
    except KafkaException as error:
        raise Misconfigured(f"kafka.client: {error.args[0].str()}") from error


def unavailable(what: str, error: KafkaError | KafkaException) -> ObserveError:
    """The error of ours for one of Kafka's."""
    reason = error.args[0] if isinstance(error, KafkaException) else error
    if refused(reason):
        return Misconfigured(f"stream, kafka.client: {what}: {reason.str()}")
    return Unavailable(f"Kafka: {what}: {reason.str()}")


def refused(error: KafkaError) -> bool:
    """Whether only a person can help: a wrong password, a missing right, a certificate that nobody vouches for."""
    return error.code() in REFUSALS or (error.code() == KafkaError._SSL and "certificate" in error.str())


def log_error(error: KafkaError) -> None:
    log.log(logging.ERROR if error.code() in REFUSALS or error.fatal() else logging.INFO, "%s", error.str())
