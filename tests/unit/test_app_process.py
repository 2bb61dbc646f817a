"""Threads of a process of ours: they start together, stop together, and one that fails stops all."""

from __future__ import annotations

import threading

import pytest

from observe.app import Process


@pytest.mark.parametrize("count", [1, 3])
def test_all_threads_of_a_part_run_at_once_and_are_told_to_stop(count: int) -> None:
    process, together = Process(), threading.Barrier(count + 1)
    ended: list[int] = []

    def run(stop: threading.Event) -> None:
        together.wait(10)
        stop.wait(10)
        ended.append(threading.get_ident())

    process.thread("writer", run, count=count)
    together.wait(10)
    assert not ended
    process.close()
    assert len(set(ended)) == count
    assert not process.failed


def test_a_thread_that_fails_stops_the_process(caplog: pytest.LogCaptureFixture) -> None:
    process = Process()
    turns = iter([False, True])

    def run(stop: threading.Event) -> None:
        if next(turns):
            raise RuntimeError("broken")
        stop.wait(10)

    process.thread("writer", run, count=2)
    assert process.stopping.wait(10)
    process.close()
    assert process.failed
    assert "writer failed" in caplog.text
