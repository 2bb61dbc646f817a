"""Kafka that comes and goes under a producer, a writer and an admin of ours."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import confluent_kafka.admin
import pytest
from confluent_kafka import TopicPartition

from observe.errors import BadRecord, Lost, Misconfigured, Unavailable
from observe.interfaces import Consumer, Producer
from observe.settings import KafkaSettings
from observe.stream.inspection import halves
from observe.stream.kafka import KafkaStream
from observe.stream.kafka.consumer import KafkaConsumer
from observe.types import Batch, BatchLimits
from tests.fixtures.kafka import PASSWORD, USER, KafkaBroker, broker_or_skip

pytestmark = pytest.mark.kafka

SHORT = {"session.timeout.ms": "3000", "heartbeat.interval.ms": "300", "delivery.timeout.ms": "3000"}
PATIENT = {"delivery.timeout.ms": "50000"}  # for what is to arrive


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaBroker]:
    """A broker that the tests may stop: never the shared one."""
    broker_or_skip()
    broker = KafkaBroker(tmp_path_factory.mktemp("kafka-away"), secured=True)
    yield broker
    broker.stop()


@pytest.fixture
def running(broker: KafkaBroker) -> KafkaBroker:
    """The broker, started, with its topics."""
    if not broker.pid:
        broker.start()
    KafkaStream(broker.bootstrap, KafkaSettings(partitions=1, client=SHORT)).admin().migrate()
    return broker


def test_brokers_may_be_away_at_the_start_and_later(broker: KafkaBroker) -> None:
    stream = KafkaStream(broker.bootstrap, KafkaSettings(partitions=1, client=SHORT))
    consumer = stream.consumer("g", ["otlp_spans"], BatchLimits(max_records=2, max_age_s=0.1))
    producer = stream.producer()
    assert consumer.poll(0.5) is None  # no broker yet: nothing comes, nothing breaks
    with pytest.raises(Unavailable):
        producer.send("otlp_spans", b"lost to nobody: its sender is told").result(60)
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
    seen: list[Any] = []
    while not seen or seen[-1].records[-1].value != b"4":
        seen.append(_next(consumer))
        with contextlib.suppress(Lost):
            _insist(lambda: consumer.intend(seen[-1]))
            _insist(lambda: consumer.commit(seen[-1]))
    values = [r.value for b in seen for r in b.records]
    if seen[0].first_offset == batch.first_offset:
        # Not committed, so the batch comes again, and it is the same one although its neighbours have changed.
        assert seen[0].token == batch.token
        assert values == [b"0", b"1", b"2", b"3", b"4"]
    else:  # the commit got through once the broker was back
        assert values == [b"2", b"3", b"4"]
    producer.close()
    consumer.close()


def test_a_member_that_stood_still_while_the_store_was_away_reads_on(running: KafkaBroker) -> None:
    settings = KafkaSettings(partitions=1, client={**SHORT, **PATIENT, "max.poll.interval.ms": "3000"})
    stream = KafkaStream(running.bootstrap, settings)
    producer, consumer = stream.producer(), stream.consumer("still", ["otlp_metrics"], BatchLimits(max_age_s=0.1))
    producer.send("otlp_metrics", b"0").result(60)
    batch = _next(consumer)
    consumer.intend(batch)
    consumer.heartbeat()  # the store is away: nothing is read meanwhile
    time.sleep(5.0)  # the group goes on without this member
    with contextlib.suppress(Lost):
        consumer.commit(batch)
    producer.send("otlp_metrics", b"1").result(60)
    seen: list[Any] = []
    while not seen or seen[-1] != b"1":
        seen += [record.value for record in _next(consumer).records]
    assert seen in ([b"0", b"1"], [b"1"])
    producer.close()
    consumer.close()


class Rebalanced(NamedTuple):
    """A reader of `otlp_spans`, and the first of two batches that lie there for it."""

    stream: KafkaStream
    group: str
    consumer: KafkaConsumer
    batch: Batch


@pytest.fixture
def rebalanced(running: KafkaBroker, request: pytest.FixtureRequest) -> Iterator[Rebalanced]:
    stream, group = KafkaStream(running.bootstrap, KafkaSettings(partitions=1, client=SHORT)), request.node.name
    producer = stream.producer()
    consumer = stream.consumer(group, ["otlp_spans"], BatchLimits(max_records=1, max_age_s=0.2))
    for value in (f"{group}: first".encode(), f"{group}: second".encode()):
        _insist(lambda value=value: producer.send("otlp_spans", value, key=b"k").result(60))  # type: ignore[misc]
    while not (batch := _next(consumer)).records[0].value.endswith(f"{group}: first".encode()):
        consumer.commit(batch)
    yield Rebalanced(stream, group, consumer, batch)
    producer.close()
    consumer.close()


def refused(batch: Batch, *_: object) -> None:
    raise Lost(f"{batch.token}: Broker: Specified group generation id is not valid")


def test_a_batch_refused_in_a_rebalance_that_left_the_partition_here_comes_again(
    rebalanced: Rebalanced, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Brokers refuse a commit of the generation before, also where the partition stays with its reader."""
    consumer, batch = rebalanced.consumer, rebalanced.batch
    ahead = _next(consumer)
    with monkeypatch.context() as patch:
        patch.setattr(consumer, "_judge", refused)
        with pytest.raises(Lost):
            consumer.intend(batch)
    again = _next(consumer)
    assert again.token == batch.token
    with pytest.raises(Lost):
        consumer.intend(ahead)  # it was given out before, and must not be stored past what comes first
    consumer.intend(again)
    consumer.commit(again)
    assert _next(consumer).token == ahead.token


def test_a_commit_refused_in_a_rebalance_that_left_the_partition_here_is_made_up_for(
    rebalanced: Rebalanced, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the group would stand before what is stored until more records come, or a writer starts."""
    consumer = rebalanced.consumer
    consumer.intend(rebalanced.batch)
    consumer.commit(rebalanced.batch)
    last = _next(consumer)
    consumer.intend(last)
    with monkeypatch.context() as patch:
        patch.setattr(consumer, "_commit", refused)
        consumer.commit(last)
    again = _next(consumer)
    assert again.token == last.token
    consumer.intend(again)
    consumer.commit(again)
    states = rebalanced.stream.admin().partitions(rebalanced.group)
    assert [s.committed == s.end for s in states if s.topic == "otlp_spans"] == [True]


def test_the_late_answer_to_a_commit_says_nothing_of_the_next_intent(
    rebalanced: Rebalanced, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both stand at one offset. After an intent that is taken for written and is not, the next owner of the partition
    would cut its batches otherwise, under other tokens."""
    consumer, batch = rebalanced.consumer, rebalanced.batch
    consumer.intend(batch)
    consumer.commit(batch)
    after = _next(consumer)
    assert after.first_offset == batch.last_offset + 1

    class Late:
        """Answers with what was asked before, and never to what is asked now."""

        def commit(self, offsets: list[TopicPartition], asynchronous: bool) -> None:
            assert asynchronous
            consumer._committed(None, [TopicPartition(after.topic, after.partition, offsets[0].offset, "")])

        def __getattr__(self, name: str) -> Any:
            return getattr(real, name)

    real = consumer._consumer
    with monkeypatch.context() as patch:
        patch.setattr(consumer, "_consumer", Late())
        patch.setattr("observe.stream.kafka.consumer.COMMIT_S", 0.1)
        with pytest.raises(Unavailable):
            consumer.intend(after)
    consumer.intend(after)
    consumer.commit(after)


def test_a_topic_with_a_smaller_limit_is_named(running: KafkaBroker) -> None:
    roomy = KafkaStream(running.bootstrap, KafkaSettings(max_message_bytes=32 * 2**20))
    with pytest.raises(Misconfigured, match=r"kafka\.max_message_bytes = 33554432: topic otlp_\w+ takes \d+ at most"):
        roomy.admin().migrate()
    producer = roomy.producer()
    with pytest.raises(BadRecord, match=r"max\.message\.bytes"):
        producer.send("otlp_spans", os.urandom(20 * 2**20)).result(60)
    producer.close()


def secured(broker: KafkaBroker, **changes: str) -> KafkaStream:
    """As an operator writes it under [kafka.client]."""
    client = {
        "security.protocol": "SASL_SSL", "sasl.mechanisms": "PLAIN", "sasl.username": USER, "sasl.password": PASSWORD,
        "ssl.ca.location": str(broker.ca),
    }  # fmt: skip
    return KafkaStream(
        broker.secured_bootstrap, KafkaSettings(partitions=1, client={**SHORT, **PATIENT, **client, **changes})
    )


def test_tls_and_a_password(running: KafkaBroker) -> None:
    stream = secured(running)
    assert stream.admin().migrate() == []
    before = {(s.topic, s.partition): s.end for s in stream.admin().partitions("secured")}
    producer, consumer = stream.producer(), stream.consumer("secured", ["otlp_logs"], BatchLimits(max_age_s=0.1))
    producer.send("otlp_logs", b"a secret").result(60)
    batch = _next(consumer)
    consumer.intend(batch)
    consumer.commit(batch)
    assert [record.value for record in batch.records] == [b"a secret"]
    after = {(s.topic, s.partition): s.committed for s in stream.admin().partitions("secured")}
    assert after["otlp_logs", 0] == before["otlp_logs", 0] + 1
    producer.close()
    consumer.close()


@pytest.fixture
def asked_briefly(monkeypatch: pytest.MonkeyPatch) -> None:
    """A broker that lets nobody in is asked for less long: what it says comes at once."""
    monkeypatch.setattr("observe.stream.kafka.admin.ASK_S", 4.0)


@pytest.mark.usefixtures("asked_briefly")
def test_a_wrong_password_stops_the_start_and_is_named(running: KafkaBroker) -> None:
    stream = secured(running, **{"sasl.password": "guessed"})
    with pytest.raises(Misconfigured, match=r"kafka\.client.*[Aa]uthentication"):
        stream.admin().migrate()


@pytest.mark.usefixtures("asked_briefly")
def test_a_certificate_that_nobody_vouches_for_is_named(running: KafkaBroker, tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match=r"kafka\.client.*certificate"):
        secured(running, **{"ssl.ca.location": "probe"}).admin().migrate()
    with pytest.raises(Misconfigured, match=r"kafka\.client.*ssl\.ca\.location"):
        secured(running, **{"ssl.ca.location": str(tmp_path / "nowhere.pem")}).admin()


def test_settings_that_librdkafka_does_not_know_are_named() -> None:
    with pytest.raises(Misconfigured, match=r"kafka\.client.*no\.such\.thing"):
        KafkaStream("127.0.0.1:1", KafkaSettings(client={"no.such.thing": "1"})).producer()


def test_a_topic_that_is_created_anew_repeats_offsets_and_no_tokens(running: KafkaBroker) -> None:
    stream = KafkaStream(running.bootstrap, KafkaSettings(partitions=1, client=SHORT))
    operator: Any = confluent_kafka.admin.AdminClient({"bootstrap.servers": running.bootstrap})
    batches = []
    for group in ("before", "after"):
        operator.delete_topics(["otlp_logs"])["otlp_logs"].result(60)
        _insist(lambda: _created_again(stream))
        producer, consumer = stream.producer(), stream.consumer(group, ["otlp_logs"], BatchLimits(max_age_s=0.1))
        _insist(lambda producer=producer: producer.send("otlp_logs", b"x").result(60))  # type: ignore[misc]
        batches.append(_next(consumer))
        producer.close()
        consumer.close()
    first, second = batches
    assert (first.first_offset, first.last_offset) == (second.first_offset, second.last_offset) == (0, 0)
    assert first.token != second.token
    assert first.token.startswith("otlp_logs-0-0-0-")
    whole = replace(second, records=second.records * 2)
    assert {half.epoch for half in halves(whole)} == {second.epoch}


def _created_again(stream: KafkaStream) -> None:
    if not stream.admin().migrate():
        raise Unavailable("the topic is still there")


def _next(consumer: Consumer) -> Batch:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if (batch := consumer.poll(0.5)) is not None:
            return batch
    raise AssertionError("no batch came")


def _send(producer: Producer, value: bytes) -> None:
    _insist(lambda: producer.send("otlp_spans", value, key=b"k").result(60))


def _insist(step: Callable[[], object]) -> None:
    for _ in range(100):
        try:
            step()
            return
        except Unavailable:
            time.sleep(0.5)
    raise AssertionError("it stayed away")
