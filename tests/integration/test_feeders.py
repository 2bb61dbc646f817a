"""Whoever writes OTLP to our topics on a real Kafka is stored: a Collector's kafkaexporter, and our SDK's exporters."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from confluent_kafka import Consumer as RawConsumer
from confluent_kafka import Producer as RawProducer
from confluent_kafka import TopicPartition
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans

from collectors.otlp.intake import Intake
from observe.errors import Unavailable
from observe.ingest import Mover
from observe.sdk.kafka import KafkaSpanExporter
from observe.settings import KafkaSettings, OtlpSettings
from observe.store import ClickHouseStore
from observe.stream.kafka import KafkaStream
from observe.types import TOPICS, BatchLimits, PartitionState
from tests.fixtures.records import Span, logs, metrics, request
from tests.fixtures.stores import Opened

pytestmark = pytest.mark.kafka

PATIENCE_S = 180.0
PARTITIONS = 2
SIGNAL_NAMES = ("traces", "metrics", "logs")
COLLECTORS = sorted((Path(__file__).parents[2] / ".cache").glob("collector-*"))
"""A Collector with otlpreceiver and kafkaexporter, compiled by the benchmark of rivals."""

# As a Collector's JSON marshaler writes it: 64-bit numbers as text, ids in hex, enums as integers.
JSON_SPANS = """{"resourceSpans":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"SERVICE"}}]},
"scopeSpans":[{"scope":{"name":"lib"},"spans":[{"traceId":"0af7651916cd43dd8448eb211c80319c","spanId":"b7ad6b7169203331",
"parentSpanId":"","flags":256,"name":"GET /json","kind":2,"startTimeUnixNano":"NOW","endTimeUnixNano":"NOW",
"attributes":[{"key":"http.response.status_code","value":{"intValue":"503"}},
{"key":"tags","value":{"arrayValue":{"values":[{"stringValue":"a"},{"boolValue":true}]}}}],
"status":{"message":"away","code":2}}]}]}]}"""
JSON_LOGS = """{"resourceLogs":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"SERVICE"}}]},
"scopeLogs":[{"scope":{},"logRecords":[{"timeUnixNano":"NOW","observedTimeUnixNano":"NOW","severityNumber":17,
"severityText":"ERROR","body":{"stringValue":"out of memory"},"traceId":"","spanId":""}]}]}]}"""
JSON_METRICS = """{"resourceMetrics":[{"resource":{"attributes":[{"key":"service.name",
"value":{"stringValue":"SERVICE"}}]},"scopeMetrics":[{"scope":{},"metrics":[{"name":"jobs","sum":{"dataPoints":[{"startTimeUnixNano":"NOW",
"timeUnixNano":"NOW","asInt":"7"}],"aggregationTemporality":2,"isMonotonic":true}}]}]}]}"""

SDK_SERVICE = """
import logging, sys, time
import observe
from opentelemetry import metrics, trace

observe.instrument("SERVICE", endpoint=f"kafka://{sys.argv[1]}", logs=True,
                   schedule_delay_ms=50, metric_interval_ms=200)
with trace.get_tracer("t").start_as_current_span("from the SDK"):
    logging.getLogger("shop").warning("sent by itself")
metrics.get_meter("t").create_counter("orders").add(3)
time.sleep(0.5)
"""


@pytest.fixture(scope="module")
def stream(kafka_bootstrap: str) -> KafkaStream:
    stream = KafkaStream(kafka_bootstrap, KafkaSettings(partitions=PARTITIONS))
    stream.admin().migrate()
    return stream


def _patiently(ask: Callable[[], list[PartitionState]]) -> list[PartitionState]:
    """A broker that has just started does not know yet who coordinates a group."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            return ask()
        except Unavailable:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


class Writer:
    """A writer that begins at what is sent from now on."""

    def __init__(self, brokers: str, stream: KafkaStream, store: ClickHouseStore) -> None:
        self.group = uuid.uuid4().hex
        states = _patiently(lambda: stream.admin().partitions(self.group))
        raw = RawConsumer({"bootstrap.servers": brokers, "group.id": self.group})
        raw.commit(offsets=[TopicPartition(s.topic, s.partition, s.end) for s in states], asynchronous=False)
        raw.close()
        self._consumer = stream.consumer(self.group, tuple(TOPICS.values()), BatchLimits(max_age_s=0.1))
        self._dead_letters = stream.producer()
        self._store = store
        self._mover = Mover(self._consumer, store, self._dead_letters, stop=lambda: False)

    def until(self, sql: str, service: str, rows: int) -> list[dict[str, Any]]:
        """Stores what comes until the query has that many rows."""
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            if batch := self._consumer.poll(0.2):
                self._mover.move(batch)
            found = self._store.query(sql, {"service": service}).to_dicts()
            if len(found) >= rows:
                return found
        raise AssertionError(f"{rows} rows did not come in {PATIENCE_S:.0f} s: {sql}")

    def close(self) -> None:
        self._consumer.close()
        self._dead_letters.close()


@pytest.fixture(scope="module")
def writer(kafka_bootstrap: str, stream: KafkaStream, opened_store: Opened) -> Iterator[Writer]:
    with opened_store("chdb") as store:
        writer = Writer(kafka_bootstrap, stream, store)
        yield writer
        writer.close()


def like_a_collector(brokers: str, compression: str, *records: tuple[str, bytes]) -> None:
    """Null keys, no headers, acknowledged by the leader alone: the defaults of the kafkaexporter."""
    lost: list[Any] = []
    producer = RawProducer({"bootstrap.servers": brokers, "compression.type": compression, "acks": 1})
    for topic, value in records:
        producer.produce(topic, value, on_delivery=lambda error, _: lost.append(error) if error else None)
    assert producer.flush(PATIENCE_S) == 0
    assert not lost


@pytest.mark.parametrize("compression", ["none", "gzip", "zstd"])
def test_protobuf_of_a_collector_is_stored(kafka_bootstrap: str, writer: Writer, compression: str) -> None:
    service = f"proto-{compression}"
    now_ns = time.time_ns()
    message, points = metrics(service)
    points.add(name="depth").gauge.data_points.add(time_unix_nano=now_ns, as_double=4.5)
    like_a_collector(
        kafka_bootstrap,
        compression,
        ("otlp_spans", request([Span(service, f"op {i}") for i in range(20)], now_ns)),
        ("otlp_metrics", message.SerializeToString()),
        ("otlp_logs", logs(service, [{"body": "plain", "time_unix_nano": now_ns, "severity_number": 9}])),
    )
    named = "ServiceName = {service:String}"
    spans = writer.until(f"SELECT SpanName, Origin FROM otel_traces WHERE {named}", service, 20)
    assert {row["SpanName"] for row in spans} == {f"op {i}" for i in range(20)}
    assert spans[0]["Origin"].startswith("otlp_spans/")
    assert writer.until(f"SELECT Body FROM otel_logs WHERE {named}", service, 1) == [{"Body": "plain"}]
    gauges = writer.until(f"SELECT MetricName, Value FROM otel_metrics_gauge WHERE {named}", service, 1)
    assert gauges == [{"MetricName": "depth", "Value": 4.5}]


def test_json_of_a_collector_is_stored(kafka_bootstrap: str, writer: Writer) -> None:
    """No header says what a record is: its first byte does."""
    service = "json"
    texts = (("otlp_spans", JSON_SPANS), ("otlp_logs", JSON_LOGS), ("otlp_metrics", JSON_METRICS))
    now = str(time.time_ns())
    filled = ((topic, text.replace("SERVICE", service).replace("NOW", now).encode()) for topic, text in texts)
    like_a_collector(kafka_bootstrap, "none", *filled)
    named = "ServiceName = {service:String}"
    (span,) = writer.until(f"SELECT * FROM otel_traces WHERE {named}", service, 1)
    assert (span["TraceId"], span["ParentSpanId"]) == ("0af7651916cd43dd8448eb211c80319c", "")
    assert (span["SpanKind"], span["StatusCode"], span["StatusMessage"]) == ("Server", "Error", "away")
    assert dict(span["SpanAttributes"]) == {"http.response.status_code": "503", "tags": '["a",true]'}
    assert span["Flags"] == 256
    (record,) = writer.until(f"SELECT Body, SeverityNumber FROM otel_logs WHERE {named}", service, 1)
    assert record == {"Body": "out of memory", "SeverityNumber": 17}
    (point,) = writer.until(f"SELECT MetricName, Value, IsMonotonic FROM otel_metrics_sum WHERE {named}", service, 1)
    assert point == {"MetricName": "jobs", "Value": 7.0, "IsMonotonic": True}


def test_a_service_sends_to_kafka_by_itself(kafka_bootstrap: str, writer: Writer) -> None:
    service = "by-itself"
    command = [sys.executable, "-W", "error", "-c", SDK_SERVICE.replace("SERVICE", service), kafka_bootstrap]
    subprocess.run(command, check=True, timeout=PATIENCE_S)
    named = "ServiceName = {service:String}"
    (span,) = writer.until(f"SELECT SpanName, SpanId FROM otel_traces WHERE {named}", service, 1)
    assert span["SpanName"] == "from the SDK"
    (line,) = writer.until(f"SELECT Body, SpanId FROM otel_logs WHERE {named}", service, 1)
    assert line == {"Body": "sent by itself", "SpanId": span["SpanId"]}
    orders = f"SELECT max(Value) AS n FROM otel_metrics_sum WHERE MetricName = 'orders' AND {named} HAVING n > 0"
    assert writer.until(orders, service, 1) == [{"n": 3.0}]


def spans_of(service: str, traces: int) -> list[Any]:
    """Finished spans of the SDK, two a trace."""
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    kept = InMemorySpanExporter()
    provider = TracerProvider(resource=Resource({"service.name": service}), shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(kept))
    tracer = provider.get_tracer("t")
    for _ in range(traces):
        with tracer.start_as_current_span("outer"), tracer.start_as_current_span("inner"):
            pass
    return list(kept.get_finished_spans())


def fnv1a(key: bytes) -> int:
    """The 32-bit hash of Fowler, Noll and Vo (RFC 9923), read as a signed number."""
    value = 2166136261
    for byte in key:
        value = (value ^ byte) * 16777619 % 2**32
    return value - 2**32 if value >= 2**31 else value


def test_a_trace_has_the_partition_that_a_collector_gives_it(kafka_bootstrap: str, stream: KafkaStream) -> None:
    """The kafkaexporter's partitioner takes the remainder of the signed hash, and drops its sign."""
    spans = spans_of("keyed", 24)
    states = _patiently(lambda: stream.admin().partitions("nobody"))
    ends = {(s.topic, s.partition): s.end for s in states}
    exporter = KafkaSpanExporter(kafka_bootstrap, partition_traces_by_id=True)
    assert exporter.export(spans).name == "SUCCESS"
    exporter.shutdown()
    assert exporter.export(spans).name == "FAILURE"
    asyncio.run(received(stream, encode_spans(spans).SerializeToString()))
    raw = RawConsumer({"bootstrap.servers": kafka_bootstrap, "group.id": uuid.uuid4().hex})
    partitions = [p for topic, p in ends if topic == "otlp_spans"]
    raw.assign([TopicPartition("otlp_spans", p, ends["otlp_spans", p]) for p in partitions])
    places: list[tuple[bytes, int]] = []
    deadline = time.monotonic() + PATIENCE_S
    while len(places) < 48 and time.monotonic() < deadline:
        arrived: list[Any] = raw.consume(50, 0.2)
        for record in arrived:
            assert record.error() is None
            assert dict(record.headers())["items"] == b"2"
            places.append((record.key(), record.partition()))
    raw.close()
    found = dict(places)
    assert len(places) == 48
    assert set(places) == set(found.items()), "exporter and receiver agree"
    assert found.keys() == {format(s.context.trace_id, "032x").encode() for s in spans}
    assert found == {key: abs(fnv1a(key)) % len(partitions) for key in found}
    assert len(set(found.values())) > 1


async def received(stream: KafkaStream, body: bytes) -> None:
    """The same spans through our receiver, where it divides them by trace."""
    producer = stream.producer()
    with ThreadPoolExecutor(1) as workers:
        intake = Intake(producer, OtlpSettings(partition_traces_by_id=True), workers)
        await intake.take("spans", body, intake.lease())
    producer.close()


def test_a_broker_that_is_away_costs_the_service_nothing(caplog: pytest.LogCaptureFixture) -> None:
    exporter = KafkaSpanExporter("127.0.0.1:1", client={"delivery.timeout.ms": "200", "linger.ms": "5"})
    with caplog.at_level(logging.WARNING, "observe.sdk.kafka"):
        assert exporter.export(spans_of("alone", 1)).name == "FAILURE"
    assert "spans are lost" in caplog.text
    exporter.shutdown()


def collector_config(brokers: str, port: int, encoding: str) -> dict[str, Any]:
    topics = {s: {"topic": topic, "encoding": encoding} for s, topic in zip(SIGNAL_NAMES, TOPICS.values(), strict=True)}
    return {
        "receivers": {"otlp": {"protocols": {"http": {"endpoint": f"127.0.0.1:{port}"}}}},
        "exporters": {
            "kafka": {
                "brokers": [brokers], **topics, "partition_traces_by_id": True,
                "producer": {"compression": "zstd" if encoding == "otlp_proto" else "gzip"},
            }
        },
        "service": {
            "telemetry": {"metrics": {"level": "none"}},
            "pipelines": {s: {"receivers": ["otlp"], "exporters": ["kafka"]} for s in SIGNAL_NAMES},
        },
    }  # fmt: skip


@pytest.mark.collector
@pytest.mark.parametrize("encoding", ["otlp_proto", "otlp_json"])
def test_a_real_collector_feeds_the_topics(kafka_bootstrap: str, writer: Writer, tmp_path: Path, encoding: str) -> None:
    service, now_ns = f"through-{encoding}", time.time_ns()
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    config = tmp_path / "collector.json"
    config.write_text(json.dumps(collector_config(kafka_bootstrap, port, encoding)))
    message, points = metrics(service)
    points.add(name="depth").gauge.data_points.add(time_unix_nano=now_ns, as_double=4.5)
    attributes = {"n": 2**53 + 1, "list": ["a", 1, True], "bytes": b"\x00\xff"}
    bodies = {
        "traces": request([Span(service, f"op {i}", attributes=attributes) for i in range(20)], now_ns),
        "metrics": message.SerializeToString(),
        "logs": logs(service, [{"body": {"k": "v"}, "time_unix_nano": now_ns, "severity_number": 9}]),
    }
    with (tmp_path / "collector.log").open("wb") as log:
        collector = subprocess.Popen([COLLECTORS[-1], "--config", str(config)], stdout=log, stderr=log, cwd=tmp_path)
    try:
        with httpx.Client(transport=httpx.HTTPTransport(retries=20), trust_env=False) as http:
            for path, body in bodies.items():
                kind = {"content-type": "application/x-protobuf"}
                sent = http.post(f"http://127.0.0.1:{port}/v1/{path}", content=body, headers=kind, timeout=PATIENCE_S)
                assert sent.status_code == 200, (tmp_path / "collector.log").read_text()
        named = "ServiceName = {service:String}"
        spans = writer.until(f"SELECT TraceId, Origin, SpanAttributes FROM otel_traces WHERE {named}", service, 20)
        assert all(row["Origin"] == f"otlp_spans/{abs(fnv1a(row['TraceId'].encode())) % PARTITIONS}" for row in spans)
        assert dict(spans[0]["SpanAttributes"]) == {"n": str(2**53 + 1), "list": '["a",1,true]', "bytes": "AP8="}
        assert writer.until(f"SELECT Body FROM otel_logs WHERE {named}", service, 1) == [{"Body": '{"k":"v"}'}]
        gauges = writer.until(f"SELECT MetricName, Value FROM otel_metrics_gauge WHERE {named}", service, 1)
        assert gauges == [{"MetricName": "depth", "Value": 4.5}]
    finally:
        collector.terminate()
        collector.wait(PATIENCE_S)
