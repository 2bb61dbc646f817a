"""A generated fleet, sent as exporters send it, arrives byte for byte on the stream behind real receivers."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from typing import Literal

import pytest

from collectors.otlp import OtlpReceiver
from observe.bench.fleet import generate
from observe.bench.otlp_load import send
from observe.errors import BadRecord
from observe.settings import OtlpSettings
from observe.types import TOPICS


class Remembering:
    """A stream in memory."""

    def __init__(self) -> None:
        self.records: Counter[tuple[str, bytes]] = Counter()
        self._lock = threading.Lock()

    def send(
        self, topic: str, value: bytes, /, *, key: bytes | None = None, headers: Mapping[str, bytes] | None = None
    ) -> Future[None]:
        with self._lock:
            self.records[topic, bytes(value)] += 1
        done: Future[None] = Future()
        done.set_result(None)
        return done

    def flush(self, timeout_s: float, /) -> int:
        return 0

    def close(self) -> None:
        pass


@pytest.fixture
def stream() -> Remembering:
    return Remembering()


@pytest.fixture
def receiver(stream: Remembering) -> Iterator[OtlpReceiver]:
    receiver = OtlpReceiver(stream, OtlpSettings(grpc="127.0.0.1:0", http="127.0.0.1:0"))
    receiver.start()
    yield receiver
    receiver.stop(2.0)


@pytest.mark.parametrize("compress", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_everything_sent_is_on_the_stream(
    receiver: OtlpReceiver, stream: Remembering, protocol: Literal["grpc", "http"], compress: bool
) -> None:
    fleet = generate(1, 0.5, start_ns=1_790_000_000_000_000_000, kind="none")
    sent = list(fleet.requests())
    url = receiver.grpc_address if protocol == "grpc" else f"http://{receiver.http_address}"
    outcome = send(sent, url, protocol=protocol, compress=compress)
    assert (outcome.requests, outcome.rejected_items) == (len(sent), 0)
    assert stream.records == Counter((TOPICS[signal], body) for signal, body in sent)


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_what_is_refused_is_said(receiver: OtlpReceiver, protocol: Literal["grpc", "http"]) -> None:
    url = receiver.grpc_address if protocol == "grpc" else f"http://{receiver.http_address}"
    with pytest.raises(BadRecord):
        send([("spans", b"\xff\xff\xff no protobuf")], url, protocol=protocol)
