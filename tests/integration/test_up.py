"""`observe up` as its users meet it: one process, real ports, killed and restarted."""

from __future__ import annotations

import time

import grpc
import pytest

from observe.bench.traces import TraceLoad
from tests.fixtures.processes import PATIENCE_S, Command, Up, wait_for

EXPORT = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"


@pytest.fixture
def up(tmp_path):
    running = Up(tmp_path)
    yield running
    running.close()


def settled(up: Up) -> dict:
    """The audit once nothing is pending."""
    wait_for("the stream to be empty", lambda: up.client.audit()["signals"]["spans"]["pending"] == 0)
    return up.client.audit()


def test_what_is_sent_can_be_read_and_sigterm_loses_nothing(up):
    load = TraceLoad(spans_per_round=5_000)
    with grpc.insecure_channel(up.grpc) as channel:
        export = channel.unary_unary(EXPORT)
        sent = 0
        for body, spans in load.round(time.time_ns() - 60 * 10**9):
            export(body, timeout=PATIENCE_S)
            sent += spans
    assert up.command.stop() == 0, up.command.tail()
    up.command = up._started()
    audit = settled(up)
    assert audit["signals"]["spans"] == {"accepted": sent, "stored": sent, "rejected": 0, "pending": 0}
    assert audit["ok"]
    names = {service["service"] for service in up.client.services()}
    assert {"gateway", "router"} <= names
    assert sorted(entry.name for entry in up.folder.iterdir() if entry.suffix != ".log") == ["data"]


def test_a_second_process_in_the_same_folder_is_told_so(up):
    second = Command(up.folder, "observe", "up", "--data", str(up.folder / "data"), "--no-dashboard")
    assert second.process.wait(PATIENCE_S) == 2
    assert "in use by process" in second.tail()


def test_wrong_settings_stop_the_start(tmp_path):
    wrong = Command(tmp_path, "observe", "up", "--set", "detect.settel_s=3")
    assert wrong.process.wait(PATIENCE_S) == 2
    assert "did you mean detect.settle_s?" in wrong.tail()


def test_questions_to_nobody_exit_with_3(tmp_path):
    asked = Command(tmp_path, "observe", "incidents", "--api", "http://127.0.0.1:9")
    assert asked.process.wait(PATIENCE_S) == 3
