"""A sender that got no answer sends the same bytes again: the local stream keeps them once."""

from observe.settings import LocalSettings
from observe.stream.local import LocalStream
from observe.stream.local.log import REPEATS_MS, Log
from observe.stream.otlp import digest_header, items_header


def send(producer, value: bytes) -> None:
    producer.send("otlp_spans", value, headers=items_header(1) | digest_header(value)).result(60)


def kept(stream) -> int:
    admin = stream.admin()
    try:
        (spans,) = (p for p in admin.partitions("group") if p.topic == "otlp_spans")
        return spans.end - spans.begin
    finally:
        admin.close()


def test_the_same_bytes_are_kept_once_also_after_a_restart(tmp_path):
    stream = LocalStream(tmp_path, LocalSettings())
    for _ in range(2):
        producer = stream.producer()
        for value in (b"one", b"two", b"one"):
            send(producer, value)
        producer.close()
    assert kept(stream) == 2


def test_without_a_digest_nothing_is_taken_for_a_repeat(tmp_path):
    stream = LocalStream(tmp_path, LocalSettings())
    producer = stream.producer()
    for _ in range(2):
        producer.send("otlp_spans", b"same", headers=items_header(1)).result(60)
    producer.close()
    assert kept(stream) == 2


def test_digests_are_forgotten_when_nobody_tries_again(tmp_path):
    stream = LocalStream(tmp_path, LocalSettings())
    producer = stream.producer()
    send(producer, b"one")
    producer.close()
    log = Log(tmp_path)
    log.forget_digests(REPEATS_MS)  # nothing is that old
    (count,) = log._connection.execute("SELECT count(*) FROM digests").fetchone()
    assert count == 1
    log.forget_digests(10**15)
    (count,) = log._connection.execute("SELECT count(*) FROM digests").fetchone()
    assert count == 0
    log.close()
