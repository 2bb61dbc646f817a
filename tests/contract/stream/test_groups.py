"""Members that share, lose and inherit partitions; ranges that are intended, repeated and committed."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import threading
import time

import pytest

from observe.errors import Lost, Unavailable
from observe.interfaces import Consumer
from observe.stream.inspection import halves
from observe.stream.local.consumer import LEASE_S
from observe.types import BatchLimits
from tests.contract.stream.parts import Case, eventually, next_batch, read


def test_uncommitted_batches_come_back_with_the_same_token(case: Case) -> None:
    case.send([b"%d" % n for n in range(10)])
    consumer = case.consumer(BatchLimits(max_records=4, max_age_s=0.1))
    batch = next_batch(consumer)
    consumer.intend(batch)
    case.close(consumer)
    again = next_batch(case.consumer(BatchLimits(max_records=4, max_age_s=0.1)))
    assert (again.token, again.records) == (batch.token, batch.records)


@pytest.mark.parametrize("limits", [BatchLimits(max_records=2, max_age_s=0.05), BatchLimits(max_age_s=0.05)])
def test_an_intended_range_survives_other_limits(case: Case, limits: BatchLimits) -> None:
    case.send([b"%d" % n for n in range(10)])
    consumer = case.consumer(BatchLimits(max_records=5, max_age_s=0.1))
    batch = next_batch(consumer)
    consumer.intend(batch)
    case.close(consumer)
    consumer = case.consumer(limits)
    again = next_batch(consumer)
    assert (again.token, len(again.records)) == (batch.token, 5)
    consumer.intend(again)
    consumer.commit(again)
    assert read(consumer, 5) == [b"%d" % n for n in range(5, 10)]


def test_a_range_intended_but_not_stored_is_handed_out_after_a_second_restart_too(case: Case) -> None:
    case.send([b"%d" % n for n in range(6)])
    tokens = set()
    for records in (4, 2, 6):
        consumer = case.consumer(BatchLimits(max_records=records, max_age_s=0.1))
        batch = next_batch(consumer)
        consumer.intend(batch)
        tokens.add(batch.token)
        case.close(consumer)
    assert len(tokens) == 1


def test_commit_moves_past_the_batch_and_may_be_repeated(case: Case) -> None:
    case.send([b"%d" % n for n in range(6)])
    consumer = case.consumer(BatchLimits(max_records=3, max_age_s=0.1))
    first, second = next_batch(consumer), next_batch(consumer)
    for batch in (first, second):
        consumer.intend(batch)
        consumer.commit(batch)
        consumer.commit(batch)
    consumer.commit(first)  # must not move back
    case.close(consumer)
    case.send([b"new"])
    assert [r.value for r in next_batch(case.consumer()).records] == [b"new"]


class Member(threading.Thread):
    """A consumer in a thread of its own, as members of a group are; it notes what it committed."""

    def __init__(self, consumer: Consumer) -> None:
        super().__init__()
        self.done: list[tuple[int, int]] = []  # partition and offset
        self._consumer = consumer
        self._ending = threading.Event()
        self.start()

    def run(self) -> None:
        while not self._ending.is_set():
            with contextlib.suppress(Lost, Unavailable):
                if (batch := self._consumer.poll(0.2)) is not None:
                    self._consumer.intend(batch)
                    self._consumer.commit(batch)
                    self.done += [(batch.partition, record.offset) for record in batch.records]

    def end(self) -> None:
        self._ending.set()
        self.join()

    def partitions(self, since: int = 0) -> set[int]:
        return {partition for partition, _ in self.done[since:]}


def test_two_members_share_the_partitions_and_one_inherits(case: Case) -> None:
    consumers = [case.consumer(), case.consumer()]
    first, second = members = [Member(consumer) for consumer in consumers]
    try:
        eventually(lambda: _both_work(case, members))
        first.end()
        case.close(consumers[0])
        behind = len(second.done)
        eventually(lambda: _send_to_both(case) or len(second.partitions(behind)) == 2)
    finally:
        first.end()
        second.end()
    committed = first.done + second.done
    assert len(committed) == len(set(committed))


def _send_to_both(case: Case) -> None:
    for key in (b"a", b"b", b"c", b"d"):
        case.send([b"x"], key=key)


def _both_work(case: Case, members: list[Member]) -> bool:
    """Whether each member reads one of the partitions, both together all of them."""
    before = [len(member.done) for member in members]
    _send_to_both(case)
    time.sleep(0.5)
    shares = [member.partitions(count) for member, count in zip(members, before, strict=True)]
    return all(len(share) == 1 for share in shares) and len(set.union(*shares)) == 2


def test_a_member_killed_while_storing_hands_on_its_range(case: Case) -> None:
    case.send([b"%d" % n for n in range(8)])
    command = [sys.executable, "-m", "tests.contract.stream_child", "consume", case.url, case.group]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        token = child.stdout.readline().strip()
        child.send_signal(signal.SIGKILL)
    assert token
    started = time.monotonic()
    consumer = case.consumer(BatchLimits(max_records=100, max_age_s=0.1))
    batch = next_batch(consumer)
    assert (batch.token, len(batch.records)) == (token, 3)
    if case.kind == "local":
        assert time.monotonic() - started < LEASE_S - 5  # the dead let go at once; no lease has to run out


def test_heartbeats_keep_the_partition_and_take_nothing(case: Case) -> None:
    case.send([b"%d" % n for n in range(4)])
    consumer = case.consumer(BatchLimits(max_records=2, max_age_s=0.1))
    batch = next_batch(consumer)
    consumer.intend(batch)
    for _ in range(8 if case.kind == "local" else 18):  # longer than a lease or a session
        consumer.heartbeat()
        time.sleep(0.2)
    consumer.commit(batch)
    assert [r.value for r in next_batch(consumer).records] == [b"2", b"3"]


def test_a_batch_that_another_member_went_past_cannot_be_intended(case: Case) -> None:
    case.send([b"x"] * 4)
    first = case.consumer(BatchLimits(max_records=2, max_age_s=0.1))
    stale = next_batch(first)
    case.close(first)
    second = case.consumer(BatchLimits(max_records=3, max_age_s=0.1))
    second.intend(next_batch(second))  # and stores it, for all that others know
    case.close(second)
    third = case.consumer(BatchLimits(max_records=2, max_age_s=0.1))
    repeated = next_batch(third)
    with pytest.raises(Lost):
        third.intend(stale)
    third.commit(stale)  # must not move to the middle of what may be stored
    case.close(third)
    assert next_batch(case.consumer()).token == repeated.token


def test_a_refused_batch_may_be_intended_in_parts(case: Case) -> None:
    case.send([b"%d" % n for n in range(4)])
    consumer = case.consumer(BatchLimits(max_records=4, max_age_s=0.1))
    whole = next_batch(consumer)
    consumer.intend(whole)
    parts = list(halves(whole))
    consumer.intend(parts[0])
    consumer.commit(parts[0])
    consumer.intend(parts[1])
    case.close(consumer)
    consumer = case.consumer()
    again = next_batch(consumer)
    assert (again.token, [r.value for r in again.records]) == (parts[1].token, [b"2", b"3"])
