"""What senders do while everything around them dies: send, retry until they hear OK, and sometimes send once more.

Every item has a number of its own, so that afterwards each one can be looked for: it is the span's id, a log record's
body, a point's value.
"""

from __future__ import annotations

import itertools
import os
import random
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")  # its handlers broke a broker's fork beside senders

import grpc
import httpx
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from observe.errors import BadRecord
from observe.stream.otlp import decode
from observe.types import SIGNALS, TOPICS, Signal

METHODS: dict[Signal, str] = {
    "spans": "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
    "metrics": "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
    "logs": "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
}
PATHS: dict[Signal, str] = {"spans": "/v1/traces", "metrics": "/v1/metrics", "logs": "/v1/logs"}
ITEMS = 40
WRONG_EVERY = 10  # in every tenth export the first item has a time that nobody believes
LATE_EVERY = 7  # every seventh export is half an hour late
AGAIN = 0.15  # how many exports are sent once more, although they had arrived
NO_OTLP = b"\x0a\xff\xff"

Sender = Callable[[Signal, bytes], bool]
"""Sends an export once; whether the answer was OK."""


def export(signal: Signal, number: int, now_ns: int) -> bytes:
    """The request with the items number × ITEMS … (number + 1) × ITEMS − 1."""
    ids = range(number * ITEMS, (number + 1) * ITEMS)
    at_ns = now_ns - (1800 * 10**9 if number % LATE_EVERY == 3 else 0)
    times = [1 if is_wrong(signal, item) else at_ns for item in ids]
    return bytes(_MAKERS[signal](ids, times).SerializeToString())


def is_wrong(signal: Signal, item: int) -> bool:
    return item % (ITEMS * WRONG_EVERY) == 0


def number_of(signal: Signal, value: bytes) -> int | None:
    """Which export these bytes are; None where they are none of ours."""
    try:
        request: Any = decode(signal, value)
    except BadRecord:
        return None
    if signal == "spans":
        return int.from_bytes(request.resource_spans[0].scope_spans[0].spans[0].span_id, "big") // ITEMS
    if signal == "logs":
        return int(request.resource_logs[0].scope_logs[0].log_records[0].body.string_value) // ITEMS
    return int(request.resource_metrics[0].scope_metrics[0].metrics[0].gauge.data_points[0].as_double) // ITEMS


def _spans(ids: Sequence[int], times: Sequence[int]) -> Any:
    request = ExportTraceServiceRequest()
    scope = _scope(request.resource_spans, "scope_spans")
    for item, at_ns in zip(ids, times, strict=True):
        scope.spans.add(
            trace_id=(item // 8 + 1).to_bytes(16, "big"), span_id=(item + 1).to_bytes(8, "big"), kind=2,
            name=f"op-{item % 5}", start_time_unix_nano=at_ns, end_time_unix_nano=at_ns + 10**6 * (item % 90),
        )  # fmt: skip
    return request


def _logs(ids: Sequence[int], times: Sequence[int]) -> Any:
    request = ExportLogsServiceRequest()
    scope = _scope(request.resource_logs, "scope_logs")
    for item, at_ns in zip(ids, times, strict=True):
        scope.log_records.add(time_unix_nano=at_ns).body.string_value = str(item)
    return request


def _points(ids: Sequence[int], times: Sequence[int]) -> Any:
    request = ExportMetricsServiceRequest()
    scope = _scope(request.resource_metrics, "scope_metrics")
    gauge = scope.metrics.add(name="load.gauge").gauge.data_points
    counter = scope.metrics.add(name="load.counter").sum
    counter.aggregation_temporality, counter.is_monotonic = 2, True
    for item, at_ns in zip(ids, times, strict=True):
        points = gauge if item % 2 else counter.data_points
        points.add(as_double=float(item), time_unix_nano=at_ns, start_time_unix_nano=at_ns)
    return request


_MAKERS: dict[Signal, Callable[[Sequence[int], Sequence[int]], Any]] = {
    "spans": _spans,
    "logs": _logs,
    "metrics": _points,
}


def _scope(resources: Any, name: str) -> Any:
    resource = resources.add()
    resource.resource.attributes.add(key="service.name").value.string_value = "under-fire"
    return getattr(resource, name).add()


class Load:
    """Senders of all three signals, each with its own connection, between `begin` and `stop`.
    `acknowledged` is what they were told is safe."""

    def __init__(self, senders: Sequence[Callable[[ExitStack], Sender]], *, seed: int, exports_per_s: float) -> None:
        self.acknowledged: dict[Signal, set[int]] = {signal: set() for signal in SIGNALS}
        self.refused = 0
        self.repeated = 0
        self.failures: list[str] = []
        self._numbers = {signal: itertools.count() for signal in SIGNALS}
        self._lock = threading.Lock()
        self._ending = threading.Event()
        self._abandoned = False
        self._pause_s = len(senders) / exports_per_s
        self._senders = [(make, random.Random(seed + n)) for n, make in enumerate(senders)]
        self._threads: list[threading.Thread] = []

    def begin(self) -> None:
        """Sends, or goes on to send after a stop."""
        self._ending.clear()
        self._threads = [
            threading.Thread(target=self._guarded, args=sender, name=f"sender-{n}", daemon=True)
            for n, sender in enumerate(self._senders)
        ]
        for thread in self._threads:
            thread.start()

    def abandon(self) -> None:
        """Without waiting for what is under way."""
        self._abandoned = True
        self._ending.set()

    def stop(self, patience_s: float = 120.0) -> None:
        """Returns when everything that was begun has been acknowledged."""
        self._ending.set()
        deadline = time.monotonic() + patience_s
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        assert not any(thread.is_alive() for thread in self._threads), "senders were never acknowledged"
        assert not self.failures, self.failures

    def items(self) -> int:
        return sum(len(items) for items in self.acknowledged.values())

    def _guarded(self, make: Callable[[ExitStack], Sender], chance: random.Random) -> None:
        try:
            self._run(make, chance)
        except Exception as error:
            self.failures.append(repr(error))

    def _run(self, make: Callable[[ExitStack], Sender], chance: random.Random) -> None:
        with ExitStack() as closing:
            self._send_on(make(closing), chance)

    def _send_on(self, send: Sender, chance: random.Random) -> None:
        while not self._ending.is_set():
            signal = chance.choice(SIGNALS)
            with self._lock:
                number = next(self._numbers[signal])
            body = export(signal, number, time.time_ns())
            self._insist(send, signal, body)
            with self._lock:
                self.acknowledged[signal].update(range(number * ITEMS, (number + 1) * ITEMS))
            if chance.random() < AGAIN:
                self._insist(send, signal, body)
                self.repeated += 1
            self._ending.wait(self._pause_s * 2 * chance.random())

    def _insist(self, send: Sender, signal: Signal, body: bytes) -> None:
        while not send(signal, body):
            self.refused += 1
            assert not self._abandoned, "given up"
            time.sleep(0.1)


def over_http(addresses: Sequence[str]) -> Callable[[ExitStack], Sender]:
    """A sender that takes the next receiver after each failure, as behind a load balancer."""

    def make(closing: ExitStack) -> Sender:
        turn = itertools.cycle(addresses)
        here = next(turn)
        client = closing.enter_context(httpx.Client(trust_env=False, timeout=20.0))

        def send(signal: Signal, body: bytes) -> bool:
            nonlocal here
            url = f"http://{here}{PATHS[signal]}"
            try:
                answer = client.post(url, content=body, headers={"content-type": "application/x-protobuf"})
            except httpx.HTTPError:
                here = next(turn)
                return False
            assert answer.status_code == 200 or answer.headers.get("retry-after"), (answer.status_code, answer.text)
            if answer.status_code != 200:
                here = next(turn)
            return answer.status_code == 200

        return send

    return make


def over_grpc(addresses: Sequence[str]) -> Callable[[ExitStack], Sender]:
    def make(closing: ExitStack) -> Sender:
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_reconnect_backoff_ms", 500)]
        channels = [grpc.insecure_channel(address, options=options) for address in addresses]
        turn = itertools.cycle([closing.enter_context(channel) for channel in channels])
        here = next(turn)

        def send(signal: Signal, body: bytes) -> bool:
            nonlocal here
            try:
                here.unary_unary(METHODS[signal])(body, timeout=20.0)
            except grpc.RpcError as error:
                code = error.code()
                assert code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED,
                                grpc.StatusCode.CANCELLED), code  # fmt: skip
                here = next(turn)
                return False
            return True

        return send

    return make


def to_kafka(bootstrap: str) -> Callable[[ExitStack], Sender]:
    """As another exporter feeds the topics: no headers, and sometimes the same record twice, next to itself."""

    def make(closing: ExitStack) -> Sender:
        from confluent_kafka import Producer

        producer = Producer(
            {
                "bootstrap.servers": bootstrap, "log_level": 0, "delivery.timeout.ms": 4000,
                "enable.idempotence": False, "acks": "all", "linger.ms": 5,
            }
        )  # fmt: skip

        def send(signal: Signal, body: bytes) -> bool:
            errors: list[Any] = []
            key = body[-16:]
            for _ in range(2 if body[-17] % 4 == 0 else 1):
                producer.produce(TOPICS[signal], body, key, on_delivery=lambda error, _: errors.append(error))
            producer.flush(6.0)
            return bool(errors) and errors[0] is None

        return send

    return make


def put_garbage(bootstrap: str) -> int:
    """One record on each topic that is no OTLP; how many."""
    from confluent_kafka import Producer

    producer = Producer({"bootstrap.servers": bootstrap, "log_level": 0})
    for topic in TOPICS.values():
        producer.produce(topic, NO_OTLP, b"garbage")
    assert producer.flush(20.0) == 0
    return len(TOPICS)
