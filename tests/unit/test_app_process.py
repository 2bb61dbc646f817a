"""Threads of a process of ours: they start together, stop together, and one that fails stops all."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from observe.app import Process
from observe.bench.ingest import Threads


@pytest.mark.parametrize("count", [1, 3])
def test_all_threads_of_a_part_run_at_once_and_are_told_to_stop(count: int) -> None:
    process, together = Process(), threading.Barrier(count + 1)
    ended: list[int] = []

    def run(stop: threading.Event) -> None:
        together.wait(60)
        stop.wait(60)
        ended.append(threading.get_ident())

    process.thread("writer", run, count=count)
    together.wait(60)
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
        stop.wait(60)

    process.thread("writer", run, count=2)
    assert process.stopping.wait(60)
    process.close()
    assert process.failed
    assert "writer failed" in caplog.text


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_system_and_the_benchmark_know_a_part_by_its_name() -> None:
    process, busy, seen = Process(), threading.Event(), threading.Event()

    def run(stop: threading.Event) -> None:
        end_s = time.thread_time() + 0.05
        while time.thread_time() < end_s:
            pass
        busy.set()
        seen.wait(60)

    meter = Threads([os.getpid()])
    process.thread("the-writer-of-all", run)
    assert busy.wait(60)
    assert meter.total()["the-writer-of-a"] >= 4  # Linux keeps 15 bytes; a tick is 10 ms
    seen.set()
    process.close()
    assert meter.total()["the-writer-of-a"] >= 4  # what it took stays on the account after its end


STUCK = """
import os, signal, threading, time
from observe.app import Process
process = Process()
process.thread("watcher", lambda stop: time.sleep(60), join_s=0.1)
process.on_stop(lambda: print("closed", flush=True))
threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGTERM)).start()
threading.Thread(target=time.sleep, args=(60,)).start()  # as a library's thread, for which the interpreter would wait
process.run()
"""


def test_a_thread_that_hangs_does_not_keep_the_process(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", STUCK], cwd=tmp_path, capture_output=True, timeout=40, check=False)
    assert (done.returncode, done.stdout) == (0, b"closed\n")
