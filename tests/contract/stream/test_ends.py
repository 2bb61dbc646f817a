"""Where a stream begins and ends: senders that are refused or killed, operators that ask, dead letters."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path

import pytest

from observe.errors import BadRecord, Unavailable
from observe.interfaces import Producer, Stream
from observe.settings import KafkaSettings, LocalSettings, Settings
from observe.stream import open_stream
from observe.stream.kafka import KafkaStream
from observe.stream.local import LocalStream
from observe.types import DEAD_LETTERS, BatchLimits
from tests.contract.stream.parts import LOGS, PATIENCE_S, SMALL, SPANS, Case, next_batch, read


def test_too_large_a_record_is_bad_and_the_others_pass(case: Case) -> None:
    producer = case.producer()
    large = producer.send(SPANS, bytes(SMALL + 1), key=b"k")
    fits = producer.send(SPANS, bytes(SMALL), key=b"k")
    with pytest.raises(BadRecord, match="max_message_bytes"):
        large.result(PATIENCE_S)
    fits.result(PATIENCE_S)
    assert [len(r.value) for r in next_batch(case.consumer()).records] == [SMALL]


def test_partitions_and_pending_tell_how_far_a_group_is(case: Case) -> None:
    admin = case.stream.admin()
    case.send([b"x"] * 6)
    consumer = case.consumer(BatchLimits(max_records=4, max_age_s=0.1))
    batch = next_batch(consumer)
    key = (SPANS, batch.partition)
    assert sum(admin.pending(case.group).values()) == 12
    consumer.intend(batch)
    assert admin.pending(case.group)[key] == 12
    assert admin.pending(case.group, {key: batch.last_offset + 1})[key] == 4  # stored, not committed yet
    consumer.commit(batch)
    assert admin.pending(case.group)[key] == 4
    state = next(s for s in admin.partitions(case.group) if (s.topic, s.partition) == key)
    assert (state.committed, state.end) == (batch.last_offset + 1, batch.last_offset + 3)
    assert state.begin <= batch.first_offset


def test_migrate_says_what_it_did_and_may_be_repeated(case: Case) -> None:
    admin = case.stream.admin()
    assert admin.migrate() == []
    topics = {state.topic for state in admin.partitions(case.group)}
    assert topics == {SPANS, LOGS, "otlp_metrics", DEAD_LETTERS}
    admin.close()


def test_dead_letters_come_newest_first(case: Case) -> None:
    producer = case.producer()
    for number in range(3):
        headers = {"reason": b"why %d" % number, "topic": SPANS.encode(), "partition": b"1", "offset": b"%d" % number}
        producer.send(DEAD_LETTERS, b"\xff", headers=headers).result(PATIENCE_S)
        time.sleep(0.01)
    letters = case.stream.admin().dead_letters(2)
    assert [(x["reason"], x["topic"], x["partition"], x["offset"]) for x in letters] == [
        ("why 2", SPANS, 1, 2),
        ("why 1", SPANS, 1, 1),
    ]


def test_what_was_acknowledged_survives_kill_9_of_the_producer(case: Case) -> None:
    command = [sys.executable, "-m", "tests.contract.stream_child", "produce", case.url]
    acknowledged: list[int] = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        for line in child.stdout:
            acknowledged.append(int(line))
            if len(acknowledged) == 500:
                child.send_signal(signal.SIGKILL)
    consumer = case.consumer(topics=(LOGS,))
    found: set[int] = set()
    while not found.issuperset(acknowledged):
        found.update(map(int, read(consumer, 1)))
    assert len(acknowledged) >= 500


def test_a_full_buffer_refuses_at_once_and_drops_nothing_silently(case: Case, tmp_path: Path) -> None:
    if case.kind == "local":
        stream: Stream = LocalStream(tmp_path / "stream", LocalSettings(partitions=2), buffer_bytes=100_000)
        block = _locked(tmp_path / "stream" / "records.db")
    else:
        away = KafkaSettings(client={"delivery.timeout.ms": "1500"})
        stream = KafkaStream("127.0.0.1:1", away, buffer_bytes=100_000)
        block = contextlib.nullcontext()
    taken: list[Future[None]] = []
    with block:
        producer = stream.producer()
        with pytest.raises(Unavailable):
            _fill(producer, taken)
    producer.close()
    assert taken
    failed = [future.exception(0) for future in taken]
    assert all(error is None if case.kind == "local" else isinstance(error, Unavailable) for error in failed)


def _fill(producer: Producer, taken: list[Future[None]]) -> None:
    taken.extend(producer.send(SPANS, bytes(20_000)) for _ in range(100))


@contextlib.contextmanager
def _locked(file: Path) -> Iterator[None]:
    import sqlite3

    connection = sqlite3.connect(file, isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    yield
    connection.execute("ROLLBACK")
    connection.close()


def test_a_url_chooses_the_stream(case: Case) -> None:
    assert type(open_stream(Settings(stream=case.url))) is type(case.stream)
