"""ClickHouse's own Kafka engine feeds the landing tables: real broker, real server, the statements that we print."""

from __future__ import annotations

import subprocess
import sys
import time
import uuid
from collections.abc import Iterator

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from observe.interfaces import StreamAdmin
from observe.settings import KafkaSettings, Settings, WriterSettings
from observe.store import ClickHouseStore, kafka_engine
from observe.stream.kafka import KafkaStream
from observe.types import TOPICS
from tests.fixtures.processes import wait_for
from tests.fixtures.records import Span, logs, metrics, request

pytestmark = [pytest.mark.kafka, pytest.mark.clickhouse]

COUNTS = """
SELECT 'spans' AS signal, count() AS rows FROM otel_traces WHERE ServiceName = {service:String}
UNION ALL SELECT 'logs', count() FROM otel_logs WHERE ServiceName = {service:String}
UNION ALL SELECT 'sums', count() FROM otel_metrics_sum WHERE ServiceName = {service:String}
"""


@pytest.fixture
def store(clickhouse_database: str) -> Iterator[ClickHouseStore]:
    store = ClickHouseStore(clickhouse_database)
    store.migrate()
    yield store
    for statement in kafka_engine.removal():
        store.execute(statement, {})
    store.close()


def test_the_server_reads_the_topics_into_the_same_tables(kafka_bootstrap: str, store: ClickHouseStore) -> None:
    group, service = uuid.uuid4().hex, f"engine-{uuid.uuid4().hex[:6]}"
    admin = KafkaStream(kafka_bootstrap, KafkaSettings(partitions=2)).admin()
    admin.migrate()
    begin_at_the_end(kafka_bootstrap, group)
    settings = Settings(stream=f"kafka://{kafka_bootstrap}", writer=WriterSettings(group=group))
    for statement in kafka_engine.statements(settings):
        store.execute(statement, {})

    now_ns = time.time_ns()
    points, into = metrics(service)
    into.add(name="jobs").sum.data_points.add(time_unix_nano=now_ns, as_int=7)
    producer = Producer({"bootstrap.servers": kafka_bootstrap})
    producer.produce(TOPICS["spans"], request([Span(service), Span(service)], now_ns), partition=0)
    producer.produce(TOPICS["spans"], b"no protobuf at all", partition=0)
    producer.produce(TOPICS["spans"], b'{"resourceSpans": []}', partition=0)
    producer.produce(TOPICS["spans"], request([Span(service)], now_ns), partition=0)
    producer.produce(TOPICS["logs"], logs(service, [{"body": "out of memory", "time_unix_nano": now_ns}]), partition=0)
    producer.produce(TOPICS["metrics"], points.SerializeToString(), partition=0)
    assert producer.flush(60) == 0

    def counts() -> dict[str, int]:
        return dict(store.query(COUNTS, {"service": service}).iter_rows())

    wait_for("rows of all signals", lambda: counts()["spans"] == 3 and all(counts().values()))
    unreadable = store.query("SELECT Topic, Partition, Record FROM otlp_unreadable").rows()
    assert (TOPICS["spans"], 0, "no protobuf at all") in unreadable
    assert (TOPICS["spans"], 0, '{"resourceSpans": []}') in unreadable
    ledger = store.ledger()
    spans = ledger.filter(topic=TOPICS["spans"], partition=0).row(0, named=True)
    assert (spans["accepted"], spans["stored"], spans["gaps"], spans["overlaps"]) == (3, 3, 0, 0)
    # The writer's own group: where the engine stops, `observe write` goes on.
    read = [state for state in admin.partitions(group) if state.topic in TOPICS.values() and state.partition == 0]
    wait_for("the commit", lambda: admin_has_committed(admin, group, {state.topic: state.end for state in read}))


def begin_at_the_end(brokers: str, group: str) -> None:
    """Records of other tests are not ours to read."""
    states = KafkaStream(brokers, KafkaSettings()).admin().partitions(group)
    consumer = Consumer({"bootstrap.servers": brokers, "group.id": group})
    consumer.commit(offsets=[TopicPartition(s.topic, s.partition, s.end) for s in states], asynchronous=False)
    consumer.close()


def admin_has_committed(admin: StreamAdmin, group: str, ends: dict[str, int]) -> bool:
    states = {state.topic: state for state in admin.partitions(group) if state.partition == 0}
    return all(states[topic].committed == end for topic, end in ends.items())


def test_the_statements_are_printed_for_a_person() -> None:
    command = [sys.executable, "-m", "observe.store.kafka_engine"]
    environ = {"OBSERVE_STREAM": "kafka://a:9092,b:9092", "OBSERVE_KAFKA__CLIENT__SASL_USERNAME": "it's"}
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=True)
    assert "kafka_broker_list = 'a:9092,b:9092'" in done.stdout
    assert r"kafka_sasl_username = 'it\'s'" in done.stdout
    refused = subprocess.run(command, env={"OBSERVE_STREAM": "local:///x"}, capture_output=True, text=True, check=False)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "kafka://" in refused.stderr
