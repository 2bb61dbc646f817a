"""The loop of what is read at an interval."""

from __future__ import annotations

import logging
import threading
import time

import pytest

from collectors.host.reader import HostReader
from collectors.loop import run_every
from collectors.metrics import Instrument, MetricsRequest, Point, send
from observe.errors import Misconfigured, Unavailable
from tests.fixtures.memory import MemoryProducer


class Work:
    """Fails as often as it is told, then stops the loop."""

    def __init__(self, errors: list[Exception]) -> None:
        self.stop = threading.Event()
        self.errors = errors
        self.times: list[float] = []

    def __call__(self, now_ns: int) -> None:
        assert abs(now_ns - time.time_ns()) < 60 * 10**9
        self.times.append(time.monotonic())
        if self.errors:
            raise self.errors.pop(0)
        self.stop.set()


def test_errors_make_it_wait_longer_and_are_said_once(caplog: pytest.LogCaptureFixture) -> None:
    work = Work([Unavailable("away"), Unavailable("away"), ValueError("odd"), Unavailable("away")])
    with caplog.at_level(logging.INFO):
        run_every(0.02, work.stop, work, "tests")
    waits = [later - earlier for earlier, later in zip(work.times, work.times[1:], strict=False)]
    assert [wait >= least for wait, least in zip(waits, (0.02, 0.04, 0.08, 0.16), strict=True)] == [True] * 4
    assert [record.getMessage() for record in caplog.records] == ["tests: away", "tests: works again"]


def test_what_a_person_must_mend_ends_it() -> None:
    work = Work([Misconfigured("wrong")])
    with pytest.raises(Misconfigured):
        run_every(0.01, work.stop, work, "tests")


def test_a_stop_is_not_waited_for() -> None:
    stop = threading.Event()
    thread = threading.Thread(target=run_every, args=(60.0, stop, lambda _: None, "tests"))
    thread.start()
    stop.set()
    thread.join(30.0)
    assert not thread.is_alive()


def test_metrics_larger_than_a_record_are_divided() -> None:
    producer = MemoryProducer(max_record_bytes=2000)
    request = MetricsRequest("tests")
    for number in range(100):
        at = Point({"series": number, "padding": "x" * 50}, 1)
        request.resource({"service.name": "a"}).number(Instrument("m", "1"), at, number)
    assert send(producer, request, 1.0) == 100
    assert len(producer.records) > 3
    assert producer.items("metrics") == 100


def test_a_stream_that_does_not_confirm_is_unavailable() -> None:
    producer = MemoryProducer(delay_s=5.0)
    request = MetricsRequest("tests")
    request.resource({}).number(Instrument("m"), Point({}, 1), 1)
    with pytest.raises(Unavailable, match="did not confirm"):
        send(producer, request, 0.05)


def test_the_host_is_read() -> None:
    reader = HostReader()
    sum(number * number for number in range(300_000))  # some processor time to see
    time.sleep(0.05)
    request = MetricsRequest("tests")
    reader.read(request, time.time_ns())
    host, own = request.message.resource_metrics
    assert [a.key for a in host.resource.attributes] == ["host.name"]
    metrics = {metric.name: metric for metric in host.scope_metrics[0].metrics}
    cpu = metrics["system.cpu.utilization"].gauge.data_points
    assert sum(point.as_double for point in cpu) == pytest.approx(1.0)
    used = {p.attributes[0].value.string_value: p.as_int for p in metrics["system.memory.usage"].sum.data_points}
    assert 0 < used["used"] < metrics["system.memory.limit"].sum.data_points[0].as_int
    directions = {
        a.value.string_value
        for point in metrics["system.network.io"].sum.data_points
        for a in point.attributes
        if a.key == "network.io.direction"
    }
    assert directions == {"receive", "transmit"}
    assert {a.key for a in own.resource.attributes} == {"host.name", "service.name", "process.pid"}
    ours = {metric.name: metric for metric in own.scope_metrics[0].metrics}
    assert ours["process.memory.usage"].sum.data_points[0].as_int > 10 * 2**20
    assert ours["process.cpu.time"].sum.data_points[0].as_double > 0
