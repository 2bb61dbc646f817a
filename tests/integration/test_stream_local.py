"""What only the local stream has to see to by itself: retention, back-pressure, and files shared between processes."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from observe.errors import Misconfigured, Unavailable
from observe.interfaces import Consumer
from observe.settings import LocalSettings
from observe.stream.local import LocalStream
from observe.stream.local.groups import Groups
from observe.stream.local.log import Log
from observe.stream.local.retention import prune
from observe.types import DEAD_LETTERS, BatchLimits, PartitionState

SPANS = "otlp_spans"
MIB = 2**20
ALL_AT_ONCE = BatchLimits(max_bytes=10**9, max_records=10**6, max_age_s=0.01)


def send(stream: LocalStream, values: list[bytes], topic: str = SPANS) -> None:
    producer = stream.producer()
    for value in values:
        producer.send(topic, value, headers={"items": b"3"})
    assert producer.flush(10) == 0
    producer.close()


def commit_all(stream: LocalStream, group: str = "g") -> None:
    consumer = stream.consumer(group, [SPANS], ALL_AT_ONCE)
    while (batch := consumer.poll(0.2)) is not None:
        consumer.commit(batch)
    consumer.close()


def state(stream: LocalStream, topic: str = SPANS, group: str = "g") -> PartitionState:
    return next(s for s in stream.admin().partitions(group) if s.topic == topic)


def pruned(path: Path, settings: LocalSettings) -> None:
    log, groups = Log(path), Groups(path)
    prune(log, groups, settings)
    log.close()
    groups.close()


def eventually(check: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not check():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def test_committed_records_beyond_the_size_go_oldest_first(tmp_path: Path) -> None:
    settings = LocalSettings(retention_bytes=MIB)
    stream = LocalStream(tmp_path, settings)
    send(stream, [bytes(100_000)] * 30)
    before = state(stream)
    pruned(tmp_path, settings)
    assert state(stream) == before  # nothing is committed: nothing may go
    commit_all(stream)
    send(stream, [bytes(100_000)] * 20)  # not committed: more than the size, and yet kept
    pruned(tmp_path, settings)
    after = state(stream)
    assert after.begin == before.begin + 20  # ten committed records are a megabyte
    assert (after.committed, after.end) == (before.end, before.end + 20)
    assert sum(stream.admin().pending("g").values()) == 60


def test_a_second_group_holds_back_what_it_has_not_read(tmp_path: Path) -> None:
    settings = LocalSettings(retention_bytes=MIB)
    stream = LocalStream(tmp_path, settings)
    send(stream, [bytes(100_000)] * 5)
    commit_all(stream, "slow")
    send(stream, [bytes(100_000)] * 30)
    commit_all(stream)
    before = state(stream)
    pruned(tmp_path, settings)
    assert state(stream).begin == before.begin  # the half megabyte that both have passed is within the size
    commit_all(stream, "slow")
    pruned(tmp_path, settings)
    assert state(stream).begin == before.begin + 25


def test_old_committed_records_go_and_dead_letters_need_no_reader(tmp_path: Path) -> None:
    settings = LocalSettings(retention_hours=0.1 / 3600)
    stream = LocalStream(tmp_path, settings)
    send(stream, [b"x"] * 5)
    send(stream, [b"x"] * 5, DEAD_LETTERS)
    commit_all(stream)
    time.sleep(0.2)
    send(stream, [b"y"] * 2)
    time.sleep(0.2)
    pruned(tmp_path, settings)
    assert state(stream).end - state(stream).begin == 2
    assert state(stream, DEAD_LETTERS).end == state(stream, DEAD_LETTERS).begin


def test_a_producer_prunes_by_itself_and_the_file_stops_growing(tmp_path: Path) -> None:
    stream = LocalStream(tmp_path, LocalSettings(retention_bytes=4 * MIB))
    consumer = stream.consumer("g", [SPANS], ALL_AT_ONCE)
    producer = stream.producer()
    sizes = []
    for _ in range(4):
        for _ in range(200):
            producer.send(SPANS, bytes(100_000))
        assert producer.flush(10) == 0
        eventually(lambda: _drained(consumer, stream))
        sizes.append(_pages(tmp_path / "records.db"))
    producer.close()
    consumer.close()
    assert sizes[-1] <= sizes[0] * 1.5


def _pages(file: Path) -> int:
    connection = sqlite3.connect(file)
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    connection.close()
    return int(pages)


def _drained(consumer: Consumer, stream: LocalStream) -> bool:
    while (batch := consumer.poll(0.0)) is not None:
        consumer.commit(batch)
    now = state(stream)
    return now.end - now.begin <= 42 and now.end == now.committed


def test_producers_wait_while_consumers_are_too_far_behind(tmp_path: Path) -> None:
    stream = LocalStream(tmp_path, LocalSettings(max_pending_bytes=MIB))
    producer = stream.producer()
    for _ in range(15):
        producer.send(SPANS, bytes(100_000))
    producer.flush(10)
    eventually(lambda: _refused(producer.send))
    admin = stream.admin()
    assert admin.full() == "1 of 1 MiB wait (local.max_pending_bytes)"
    producer.send(DEAD_LETTERS, b"x").result(60)  # else a bad record could stop the writer that all wait for
    commit_all(stream)
    eventually(lambda: not _refused(producer.send))
    assert admin.full() == ""
    producer.close()


def _refused(send: Callable[..., object]) -> bool:
    try:
        send(SPANS, b"x")
    except Unavailable as error:
        return "local.max_pending_bytes" in str(error)
    return False


def test_a_new_log_never_repeats_offsets_of_a_deleted_one(tmp_path: Path) -> None:
    stream = LocalStream(tmp_path, LocalSettings())
    send(stream, [b"x"] * 100)
    end = state(stream).end
    shutil.rmtree(tmp_path)
    assert state(LocalStream(tmp_path, LocalSettings())).begin > end


def test_groups_without_their_records_are_refused(tmp_path: Path) -> None:
    stream = LocalStream(tmp_path, LocalSettings())
    send(stream, [b"x"])
    commit_all(stream)
    connection = sqlite3.connect(tmp_path / "groups.db")
    connection.execute("UPDATE offsets SET next = next + 1000")
    connection.commit()
    connection.close()
    consumer = stream.consumer("g", [SPANS], ALL_AT_ONCE)
    with pytest.raises(Misconfigured, match="do not belong together"):
        consumer.poll(0.1)
    consumer.close()


def test_files_that_cannot_be_read_need_a_person(tmp_path: Path) -> None:
    (tmp_path / "records.db").write_bytes(b"no database at all" * 1000)
    with pytest.raises(Misconfigured, match=r"records\.db"):
        LocalStream(tmp_path, LocalSettings()).producer()


def test_a_newer_format_is_not_touched(tmp_path: Path) -> None:
    LocalStream(tmp_path, LocalSettings()).admin()
    connection = sqlite3.connect(tmp_path / "records.db")
    connection.execute("PRAGMA user_version=99")
    connection.close()
    with pytest.raises(Misconfigured, match="newer release"):
        LocalStream(tmp_path, LocalSettings()).admin()


def test_more_partitions_may_be_asked_for_later_and_none_gets_lost(tmp_path: Path) -> None:
    send(LocalStream(tmp_path, LocalSettings(partitions=3)), [b"x"] * 9)
    fewer = LocalStream(tmp_path, LocalSettings(partitions=1))
    assert sum(fewer.admin().pending("g").values()) == 27
    assert fewer.admin().migrate() == []
    more = LocalStream(tmp_path, LocalSettings(partitions=4))
    assert len([s for s in more.admin().partitions("g") if s.topic == SPANS]) == 4


def test_many_processes_may_create_and_fill_one_stream_at_once(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from observe.stream.local import LocalStream;"
        "from observe.settings import LocalSettings;"
        "p = LocalStream(Path(sys.argv[1]), LocalSettings()).producer();"
        "[p.send('otlp_spans', b'%d' % n, headers={'items': b'1'}).result(60) for n in range(50)]; p.close()"
    )
    children = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "new")]) for _ in range(4)]
    assert [child.wait(180) for child in children] == [0] * 4
    stream = LocalStream(tmp_path / "new", LocalSettings())
    now = state(stream)
    assert (now.end - now.begin, sum(stream.admin().pending("g").values())) == (200, 200)
