"""When the stream takes no more: senders are told to wait and for how long, memory stays bounded, and nothing that was
acknowledged is lost. Real receivers, in a process of their own, flooded."""

from __future__ import annotations

import contextlib
import resource
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import RetryInfo
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as OverGrpc
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as OverHttp
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SpanExportResult

from observe.interfaces import StreamAdmin
from observe.settings import KafkaSettings, LocalSettings
from observe.stream.kafka import KafkaStream
from observe.stream.local import LocalStream
from observe.types import BatchLimits
from tests.fixtures.kafka import KafkaBroker, broker_or_skip
from tests.fixtures.ports import free_ports
from tests.fixtures.processes import PATIENCE_S, Command, wait_for
from tests.integration.otlp_parts import METHODS, PROTOBUF, details_of, request

MIB = 2**20
UNDER_WAY = 8 * MIB
BUFFERED = 64 * MIB  # what the local producer holds at most
SPANS = 20


class Receiver:
    """`observe collect otlp` on a stream."""

    def __init__(self, folder: Path, stream: str, *settings: str) -> None:
        self.grpc, self.http = (f"127.0.0.1:{port}" for port in free_ports(2))
        own = (f"collect.otlp.grpc={self.grpc}", f"collect.otlp.http={self.http}",
               f"collect.otlp.max_bytes_under_way={UNDER_WAY}")  # fmt: skip
        options = [part for setting in (*own, *settings) for part in ("--set", setting)]
        self.command = Command(folder, "observe", "collect", "otlp", "--stream", stream, *options)
        wait_for("the receiver", self.command.is_ready)

    def memory(self, what: str = "VmRSS") -> int:
        """Resident bytes, now (VmRSS) or at most (VmHWM)."""
        lines = Path(f"/proc/{self.command.process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(what)) * 1024


class Flood:
    """Senders that do not wait when they are told to; they note what was acknowledged and how they were refused."""

    def __init__(self, receiver: Receiver, padding: int, threads: int = 8) -> None:
        self.acknowledged = 0
        self.refusals: set[tuple[int, str | None]] = set()
        self._receiver, self._padding = receiver, padding
        self._lock, self._ending = threading.Lock(), threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(n,)) for n in range(threads)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._ending.set()
        for thread in self._threads:
            thread.join(PATIENCE_S)
            assert not thread.is_alive()

    def _run(self, sender: int) -> None:
        number = 0
        message = request("spans", SPANS, padding=self._padding // SPANS)
        with httpx.Client(trust_env=False, timeout=60) as client:
            while not self._ending.is_set():
                number += 1
                message.resource_spans[0].schema_url = f"{sender}-{number}"  # no two are the same
                answer = client.post(f"http://{self._receiver.http}/v1/traces", content=message.SerializeToString(),
                                     headers={"content-type": PROTOBUF})  # fmt: skip
                with self._lock:
                    if answer.status_code == 200:
                        self.acknowledged += 1
                    else:
                        self.refusals.add((answer.status_code, answer.headers.get("retry-after")))
                        self._ending.wait(0.02)


def hint_over_grpc(address: str) -> float:
    """Seconds to wait, as the refusal of a small export states them."""
    body = request("spans", 1).SerializeToString()
    options = [("grpc.use_local_subchannel_pool", 1)]
    with grpc.insecure_channel(address, options=options) as channel, pytest.raises(grpc.RpcError) as refused:
        channel.unary_unary(METHODS["spans"])(body, timeout=60.0)
    assert refused.value.code() == grpc.StatusCode.UNAVAILABLE
    (packed,) = details_of(refused.value).details
    info = RetryInfo()
    assert packed.Unpack(info)
    delay: Duration = info.retry_delay
    return delay.ToNanoseconds() / 1e9


def accepts(receiver: Receiver) -> bool:
    message = request("spans", SPANS)
    message.resource_spans[0].schema_url = f"again-{time.monotonic_ns()}"
    answer = httpx.post(f"http://{receiver.http}/v1/traces", content=message.SerializeToString(),
                        headers={"content-type": PROTOBUF}, trust_env=False, timeout=60)  # fmt: skip
    return answer.status_code == 200


def pending(admin: StreamAdmin) -> int:
    return sum(admin.pending("observe-writer").values())


def drain(stream: Any, records: int) -> int:
    """Items of so many records, read and committed as a writer would."""
    consumer = stream.consumer("observe-writer", ["otlp_spans"], BatchLimits(max_age_s=0.05))
    items = read = 0
    deadline = time.monotonic() + PATIENCE_S
    while read < records and time.monotonic() < deadline:
        batch = consumer.poll(0.5)
        if batch is not None:
            consumer.intend(batch)
            consumer.commit(batch)
            read += len(batch.records)
            items += sum(int(dict(record.headers)["items"]) for record in batch.records)
    consumer.close()
    return items


@contextlib.contextmanager
def waiting_exporters(receiver: Receiver) -> Iterator[list[Future[SpanExportResult]]]:
    """One export by each of the OpenTelemetry SDK's exporters as it comes; both have been refused already."""
    exporters = OverHttp(f"http://{receiver.http}/v1/traces"), OverGrpc(receiver.grpc, insecure=True)
    with ThreadPoolExecutor(2) as pool:
        exported = [pool.submit(exporter.export, [a_span()]) for exporter in exporters]
        time.sleep(1.0)
        assert not any(export.done() for export in exported)
        yield exported
    for exporter in exporters:
        exporter.shutdown()


def a_span() -> ReadableSpan:
    span = TracerProvider(shutdown_on_exit=False).get_tracer("test").start_span("refused at first")
    span.end()
    assert isinstance(span, ReadableSpan)
    return span


@pytest.fixture
def running() -> Iterator[list[Receiver]]:
    receivers: list[Receiver] = []
    yield receivers
    for receiver in receivers:
        receiver.command.kill9()


def test_a_local_stream_that_nobody_reads_makes_senders_wait(tmp_path: Path, running: list[Receiver]) -> None:
    receiver = Receiver(tmp_path, f"local://{tmp_path / 'stream'}", f"local.max_pending_bytes={24 * MIB}")
    running.append(receiver)
    idle = receiver.memory()
    flood = Flood(receiver, padding=MIB)
    # The first refusals may be of a disk that is behind: only acknowledged exports fill the stream.
    wait_for("a full stream", lambda: flood.acknowledged * MIB >= 24 * MIB)
    wait_for("a refusal", lambda: (503, "1") in flood.refusals)
    time.sleep(1.0)
    flood.stop()
    assert {status for status, _ in flood.refusals} == {503}
    assert all(hint and int(hint) >= 1 for _, hint in flood.refusals)
    assert hint_over_grpc(receiver.grpc) == 1.0
    assert receiver.memory("VmHWM") - idle < UNDER_WAY * 3 + BUFFERED

    stream = LocalStream(tmp_path / "stream", LocalSettings())
    with waiting_exporters(receiver) as exported:
        assert pending(stream.admin()) == flood.acknowledged * SPANS
        assert drain(stream, flood.acknowledged) == flood.acknowledged * SPANS
        assert [export.result(PATIENCE_S) for export in exported] == [SpanExportResult.SUCCESS] * 2
    assert pending(stream.admin()) == 2


def test_a_disk_without_space_makes_senders_wait(tmp_path: Path, running: list[Receiver]) -> None:
    receiver = Receiver(tmp_path, f"local://{tmp_path / 'stream'}")
    running.append(receiver)
    assert accepts(receiver)
    pid = receiver.command.process.pid
    before = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (4096, before[1]))
    assert hint_over_grpc(receiver.grpc) >= 0.5
    assert not accepts(receiver)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, before)
    wait_for("the receiver to take exports again", lambda: accepts(receiver))
    assert pending(LocalStream(tmp_path / "stream", LocalSettings()).admin()) == 2 * SPANS


@pytest.mark.kafka
def test_kafka_away_makes_senders_wait(tmp_path: Path, running: list[Receiver]) -> None:
    broker_or_skip()
    with contextlib.ExitStack() as exit_:
        broker = KafkaBroker(tmp_path / "kafka").start()
        exit_.callback(broker.stop)
        stream = KafkaStream(broker.bootstrap, KafkaSettings(partitions=1))
        stream.admin().migrate()
        receiver = Receiver(tmp_path, f"kafka://{broker.bootstrap}", "kafka.client.delivery.timeout.ms=2000")
        running.append(receiver)
        assert accepts(receiver)
        idle = receiver.memory()
        broker.kill9()
        flood = Flood(receiver, padding=MIB)
        wait_for("a refusal", lambda: any(status == 503 for status, _ in flood.refusals))
        time.sleep(3.0)
        assert hint_over_grpc(receiver.grpc) >= 0.2
        flood.stop()
        assert flood.acknowledged == 0
        assert all(status == 503 and hint and int(hint) >= 1 for status, hint in flood.refusals)
        assert receiver.memory("VmHWM") - idle < UNDER_WAY * 4 + 64 * MIB
        broker.start()
        wait_for("the receiver to take exports again", lambda: accepts(receiver))
        assert pending(stream.admin()) >= 2 * SPANS
