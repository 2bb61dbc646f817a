"""Stream, writer and chDB as they run: killed in the middle of their work, and everything adds up."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from observe.interfaces import StreamAdmin
from observe.settings import LocalSettings
from observe.stream.local import LocalStream
from observe.stream.otlp import count, items_header
from tests.integration.writer_child import GROUP

RECORDS, SPANS, KILLS = 120, 20, 3
PATIENCE_S = 180.0


def request(number: int) -> ExportTraceServiceRequest:
    """`SPANS` spans with ids of their own; in every tenth request one has an id of a wrong length."""
    now_ns = time.time_ns()
    made = ExportTraceServiceRequest()
    scope = made.resource_spans.add().scope_spans.add()
    for n in range(SPANS):
        span_id = (number * SPANS + n + 1).to_bytes(8, "big")
        short = number % 10 == 0 and n == 0
        scope.spans.append(
            Span(
                trace_id=os.urandom(4 if short else 16), span_id=span_id, name="work",
                start_time_unix_nano=now_ns - 10**6, end_time_unix_nano=now_ns,
            )
        )  # fmt: skip
    return made


def writer(stream: str, store: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", "tests.integration.writer_child", "write", stream, store])


def accounts(stream: str, store: str) -> Any:
    command = [sys.executable, "-m", "tests.integration.writer_child", "audit", stream, store]
    return json.loads(subprocess.run(command, capture_output=True, check=True, timeout=PATIENCE_S).stdout)


def committed(admin: StreamAdmin) -> int:
    return sum(state.committed for state in admin.partitions(GROUP) if state.topic == "otlp_spans")


def wait_past(admin: StreamAdmin, offset: int, child: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while committed(admin) <= offset:
        assert child.poll() is None, "the writer ended by itself"
        assert time.monotonic() < deadline, "the writer does not move"
        time.sleep(0.01)


def test_killed_again_and_again_every_span_is_stored_exactly_once(tmp_path: Path) -> None:
    seed = random.randrange(10**6)
    chance = random.Random(seed)
    stream_url, store_url = f"local://{tmp_path / 'stream'}", f"chdb://{tmp_path / 'store'}"
    stream = LocalStream(tmp_path / "stream", LocalSettings())
    producer, admin = stream.producer(), stream.admin()
    sent = 0
    for number in range(RECORDS):
        made = request(number)
        sent += count("spans", made)
        producer.send("otlp_spans", made.SerializeToString(), headers=items_header(SPANS))
    producer.send("otlp_spans", b"\x0a\xff\xff")  # no protobuf
    assert producer.flush(10) == 0
    producer.close()

    for _ in range(KILLS):
        child = writer(stream_url, store_url)
        wait_past(admin, committed(admin) + chance.randrange(15), child)
        time.sleep(chance.random() * 0.1)
        child.send_signal(signal.SIGKILL)
        child.wait()
    halfway = accounts(stream_url, store_url)
    child = writer(stream_url, store_url)
    wait_past(admin, max(s.end for s in admin.partitions(GROUP) if s.topic == "otlp_spans") - 1, child)
    child.send_signal(signal.SIGTERM)
    assert child.wait(30) == 0

    spans = halfway["signals"]["spans"]
    assert spans["accepted"] == spans["stored"] + spans["rejected"] + spans["pending"] == sent, f"seed {seed}"
    body = accounts(stream_url, store_url)
    bad = RECORDS // 10
    assert body["signals"]["spans"] == {"accepted": sent, "stored": sent - bad, "rejected": bad, "pending": 0}
    assert body["distinct"] == sent - bad, f"seed {seed}"
    assert body["dead_letters"] == 1
    assert sum(body["reasons"]["spans"].values()) == bad
    assert body["ok"] is True, f"seed {seed}: {body}"
