"""Appending to Kafka, idempotently; futures complete when all in-sync replicas have the record."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from concurrent.futures import Future
from functools import partial
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Producer

from observe.errors import BadRecord, Unavailable
from observe.settings import KafkaSettings
from observe.stream.kafka import config
from observe.stream.otlp import DIGEST_HEADER

BUFFER_BYTES = 128 * 2**20
TOO_LARGE = (KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.RECORD_LIST_TOO_LARGE)


class KafkaProducer:
    def __init__(self, brokers: str, settings: KafkaSettings, *, buffer_bytes: int = BUFFER_BYTES) -> None:
        self._limit = settings.max_message_bytes
        self._config = config.producer(brokers, settings, buffer_bytes)
        self._producer = config.connect(Producer, self._config)
        self._using = threading.Lock()  # while it is held, the producer is not replaced
        self._broken = threading.Event()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="kafka-deliveries", daemon=True)
        self._thread.start()

    def send(
        self, topic: str, value: bytes, /, *, key: bytes | None = None, headers: Mapping[str, bytes] | None = None
    ) -> Future[None]:
        future: Future[None] = Future()
        future.set_running_or_notify_cancel()  # once taken, a record cannot be taken back
        if self._closed.is_set():
            raise Unavailable("the stream is closing")
        if len(value) > self._limit:
            future.set_exception(
                BadRecord(f"a record of {len(value)} bytes is larger than kafka.max_message_bytes = {self._limit}")
            )
            return future
        if key is None and headers is not None:
            key = headers.get(DIGEST_HEADER)  # equal bytes to one partition, where the writer knows them
        try:
            with self._using:
                self._producer.produce(
                    topic,
                    value,
                    key,
                    headers=list((headers or {}).items()),
                    on_delivery=partial(self._delivered, future),
                )
        except BufferError as error:
            raise Unavailable("Kafka: the buffer is full: the brokers are away or behind") from error
        except KafkaException as error:
            if error.args[0].code() not in TOO_LARGE:
                self._note(error.args[0])
                raise config.unavailable(f"cannot send to {topic}", error) from error
            future.set_exception(BadRecord(f"{topic}: {error.args[0].str()}"))
        return future

    def flush(self, timeout_s: float, /) -> int:
        return int(self._producer.flush(timeout_s))

    def close(self) -> None:
        """Waits as long as deliveries may take; each future has completed afterwards."""
        self._producer.flush(float(self._config["delivery.timeout.ms"]) / 1000 + 1)
        self._closed.set()
        self._thread.join()
        _abandon(self._producer)

    def _run(self) -> None:
        while not self._closed.is_set():
            self._producer.poll(0.1)
            if self._broken.is_set():
                self._renew()

    def _renew(self) -> None:
        with self._using:
            old, self._producer = self._producer, config.connect(Producer, self._config)
            self._broken.clear()
        _abandon(old)

    def _delivered(self, future: Future[None], error: KafkaError | None, _: Any) -> None:
        if error is None:
            future.set_result(None)
        elif error.code() in TOO_LARGE:
            future.set_exception(BadRecord(f"Kafka: {error.str()}; raise max.message.bytes of the topic"))
        else:
            self._note(error)
            future.set_exception(config.unavailable("not delivered", error))

    def _note(self, error: KafkaError) -> None:
        """An idempotent producer gives up for good after errors that leave the order of records in doubt."""
        if error.fatal() or error.code() == KafkaError._FATAL:
            self._broken.set()


def _abandon(producer: Any) -> None:
    """Fails what is left in it, so that nobody waits for ever."""
    producer.purge()
    producer.flush(1.0)
