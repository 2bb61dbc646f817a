"""A disk with little room left, and writes that failed, in a folder of chDB's."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path

import pytest

from observe.app import Process
from observe.errors import Damaged, Unavailable
from observe.store import room, unwritten

GIB = 2**30
Usage = namedtuple("Usage", "total used free")


def disk(monkeypatch: pytest.MonkeyPatch, total: int, free: Callable[[], int]) -> None:
    def usage(path: str) -> Usage:
        left = free()
        return Usage(total, total - left, left)

    monkeypatch.setattr(shutil, "disk_usage", usage)


@pytest.mark.parametrize(
    ("total", "free", "enough"),
    [
        (100 * GIB, GIB // 2, True),
        (100 * GIB, GIB // 2 - 1, False),
        (2 * GIB, GIB // 10, True),  # of a small disk a twentieth
        (2 * GIB, GIB // 10 - 10**6, False),
    ],
)
def test_nothing_is_written_where_little_room_is_left(
    monkeypatch: pytest.MonkeyPatch, total: int, free: int, enough: bool
) -> None:
    disk(monkeypatch, total, lambda: free)
    if enough:
        room.ensure("/somewhere")
    else:
        with pytest.raises(Unavailable, match=r"/somewhere has .* MiB left, and writes need .*: make room"):
            room.ensure("/somewhere")


def test_merges_rest_while_room_is_short_and_go_on_once(monkeypatch: pytest.MonkeyPatch) -> None:
    stop = threading.Event()
    left = iter([9 * GIB, 0, 0, 9 * GIB, 9 * GIB])
    told: list[str] = []

    def ask(statement: str) -> int:
        told.append(statement)
        return 0

    def free() -> int:
        now = next(left, None)
        if now is None:
            stop.set()
        return 9 * GIB if now is None else now

    disk(monkeypatch, 100 * GIB, free)
    monkeypatch.setattr(room, "LOOK_S", 0.0)
    room.Room("/somewhere", ask).watch(stop)
    assert [sql for sql in told if "MERGES" in sql] == ["SYSTEM STOP MERGES", "SYSTEM START MERGES"]


def test_a_failed_write_is_found_between_inserts(monkeypatch: pytest.MonkeyPatch) -> None:
    disk(monkeypatch, 100 * GIB, lambda: 9 * GIB)
    monkeypatch.setattr(room, "LOOK_S", 0.0)
    answers = iter([0, 3])
    looking = room.Room("/somewhere", lambda sql: next(answers))
    with pytest.raises(Damaged, match="3 writes to /somewhere failed"):
        looking.watch(threading.Event())


def test_a_damaged_process_closes_nothing_but_what_would_be_in_its_way() -> None:
    done: list[str] = []
    process = Process()
    process.on_stop(lambda: done.append("closed"))
    process.on_restart(lambda: done.append("child ended"))

    def fails(stop: threading.Event) -> None:
        raise Damaged("cut off")

    process.thread("disk", fails)
    with pytest.raises(Damaged, match="cut off"):
        process.run()
    process.close()
    assert done == ["child ended"]


AGAIN = """
import fcntl, os, sys
from observe import cli
from observe.errors import Damaged
def run(**_):
    lock = os.open("lock", os.O_CREAT | os.O_RDWR)
    os.set_inheritable(lock, True)  # as a library may open it
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    print(os.getpid(), sys.argv[1:], flush=True)
    if not os.path.exists("once"):
        open("once", "w").close()
        raise Damaged("cut off")
cli.cli.main = run
cli.main()
"""


def test_a_damaged_command_starts_again_as_the_same_process(tmp_path: Path) -> None:
    script = tmp_path / "command.py"
    script.write_text(AGAIN)
    command = [sys.executable, str(script), "up", "--data", "x y"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert first == second
    assert first.endswith("['up', '--data', 'x y']")


def log_of(folder: Path, lines: str, *parts: str) -> Path:
    table = folder / "store" / "abc" / "abc-def"
    logs = table / "deduplication_logs"
    logs.mkdir(parents=True)
    for part in parts:
        (table / part).mkdir()
    (logs / "deduplication_log_1.txt").write_text(lines)
    return logs / "deduplication_log_1.txt"


def test_tokens_without_rows_are_taken_back_wherever_they_stand(tmp_path: Path) -> None:
    lines = "1\t7_1_1_0\ta\n1\t7_2_2_0\tb\n1\t7_3_3_0\tc\n2\t7_4_4_0\td\n1\t7_5_5_0\te\n"
    log = log_of(tmp_path, lines, "7_1_1_0", "7_3_4_1")
    assert unwritten.forget_all(tmp_path) == ["7_2_2_0", "7_5_5_0"]
    assert log.read_text() == lines + "2\t7_2_2_0\tb\n2\t7_5_5_0\te\n"
    assert unwritten.forget_all(tmp_path) == []


def test_a_long_log_is_read_from_its_end(tmp_path: Path) -> None:
    lines = "".join(f"1\t7_{n}_{n}_0\ttoken-{n}\n" for n in range(1000))
    log_of(tmp_path, lines, "7_0_998_2")
    assert unwritten.forget_all(tmp_path) == ["7_999_999_0"]
