"""Kafka that comes and goes under a producer, a writer and an admin of ours."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator

import pytest

from observe.errors import BadRecord, Lost, Misconfigured, Unavailable
from observe.interfaces import Consumer, Producer
from observe.settings import KafkaSettings
from observe.stream.kafka import KafkaStream
from observe.types import Batch, BatchLimits
from tests.fixtures.kafka import KafkaBroker, resolve, why_not

pytestmark = pytest.mark.kafka

SHORT = {"session.timeout.ms": "3000", "heartbeat.interval.ms": "300", "delivery.timeout.ms": "3000"}


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaBroker]:
    """A broker that the tests may stop: never the shared one."""
    if reason := why_not():
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    resolve()
    broker = KafkaBroker(tmp_path_factory.mktemp("kafka-away"))
    yield broker
    broker.stop()


def test_brokers_may_be_away_at_the_start_and_later(broker: KafkaBroker) -> None:
    stream = KafkaStream(broker.bootstrap, KafkaSettings(partitions=1, client=SHORT))
    consumer = stream.consumer("g", ["otlp_spans"], BatchLimits(max_records=2, max_age_s=0.1))
    producer = stream.producer()
    assert consumer.poll(0.5) is None  # no broker yet: nothing comes, nothing breaks
    with pytest.raises(Unavailable):
        producer.send("otlp_spans", b"lost to nobody: its sender is told").result(10)
    with pytest.raises(Unavailable):
        stream.admin().partitions("g")

    broker.start()
    created = stream.admin().migrate()
    assert len(created) == 4
    assert "72 h" in created[0]
    for number in range(4):
        _send(producer, b"%d" % number)
    batch = _next(consumer)
    consumer.intend(batch)

    broker.kill9()
    with contextlib.suppress(Unavailable):  # or the session ran out, and the partition is no longer ours to commit
        consumer.commit(batch)
    broker.start()
    _send(producer, b"4")
    seen = []
    while not seen or seen[-1].records[-1].value != b"4":
        seen.append(_next(consumer))
        with contextlib.suppress(Lost):
            _insist(lambda: consumer.intend(seen[-1]))
            _insist(lambda: consumer.commit(seen[-1]))
    # Not committed, so the batch comes again, and it is the same one although its neighbours have changed.
    assert seen[0].token == batch.token
    assert [r.value for b in seen for r in b.records] == [b"0", b"1", b"2", b"3", b"4"]
    producer.close()
    consumer.close()


def test_a_topic_with_a_smaller_limit_is_named(broker: KafkaBroker) -> None:
    roomy = KafkaStream(broker.bootstrap, KafkaSettings(max_message_bytes=32 * 2**20))
    with pytest.raises(Misconfigured, match=r"kafka\.max_message_bytes = 33554432: topic otlp_\w+ takes \d+ at most"):
        roomy.admin().migrate()
    producer = roomy.producer()
    with pytest.raises(BadRecord, match=r"max\.message\.bytes"):
        producer.send("otlp_spans", os.urandom(20 * 2**20)).result(10)
    producer.close()


def test_settings_that_librdkafka_does_not_know_are_named() -> None:
    with pytest.raises(Misconfigured, match=r"kafka\.client.*no\.such\.thing"):
        KafkaStream("127.0.0.1:1", KafkaSettings(client={"no.such.thing": "1"})).producer()


def _next(consumer: Consumer) -> Batch:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if (batch := consumer.poll(0.5)) is not None:
            return batch
    raise AssertionError("no batch came")


def _send(producer: Producer, value: bytes) -> None:
    _insist(lambda: producer.send("otlp_spans", value, key=b"k").result(10))


def _insist(step: Callable[[], object]) -> None:
    for _ in range(20):
        try:
            step()
            return
        except Unavailable:
            time.sleep(0.5)
    raise AssertionError("it stayed away")
