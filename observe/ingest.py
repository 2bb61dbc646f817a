"""From stream to store, whatever is away or broken meanwhile.

Apart from `pipeline`, of which it is the first half, so that a writer loads nothing of detection and diagnosis: it is
up in a fifth of the time, and 100 MB smaller."""

from __future__ import annotations

import contextlib
import logging
import random
import time
from collections.abc import Callable
from concurrent.futures import TimeoutError as NotInTime
from dataclasses import replace
from typing import TypeVar

from observe.errors import BadRecord, Lost, Unavailable
from observe.interfaces import Consumer, Producer, Store
from observe.repeats import Repeats
from observe.stream.dead_letters import headers_of
from observe.stream.inspection import emptied, halves, inspect
from observe.stream.otlp import SIGNAL_OF
from observe.telemetry import DEAD_LETTERED, INSERT_SECONDS, REPEATED, RETRIES, WRITTEN
from observe.types import DEAD_LETTERS, Batch, Digest, Record

FIRST_WAIT_S = 0.2
LONGEST_WAIT_S = 30.0
HEARTBEAT_S = 0.5
POLL_S = 0.5
CONFIRM_S = 15.0  # longer than any producer of ours tries

log = logging.getLogger(__name__)
T = TypeVar("T")


def ingest(
    consumer: Consumer,
    store: Store,
    dead_letters: Producer,
    *,
    stop: Callable[[], bool],
    wait: Callable[[float], None] = time.sleep,
    repeats: Repeats | None = None,
) -> None:
    """Moves batches from stream to store until `stop()`: none lost, none twice.

    poll, intend (a restart reads exactly this range again), insert (the range is the token, so a repeat changes
    nothing), commit. A batch under way when it stops is not committed. One batch is in memory at a time. `repeats` is
    for a stream that keeps an export twice when its sender did not hear the answer.
    """
    mover = Mover(consumer, store, dead_letters, stop=stop, wait=wait, repeats=repeats)
    while not stop():
        try:
            batch = consumer.poll(POLL_S)
            if batch is not None:
                mover.move(batch)
        except Lost as error:
            log.info("left to another writer: %s", error)
        except Unavailable as error:
            RETRIES.labels("stream").inc()
            log.warning("%s; trying again", error)
            with contextlib.suppress(Stopped):
                mover.pause(error.retry_after_s)
        except Stopped:
            return


class Stopped(Exception):
    """The process ends while a batch is under way: it is not committed, and comes again after the restart."""


class Mover:
    """Stores batches of one consumer, exactly once, and puts aside what cannot be stored."""

    def __init__(
        self,
        consumer: Consumer,
        store: Store,
        dead_letters: Producer,
        *,
        stop: Callable[[], bool],
        wait: Callable[[float], None] = time.sleep,
        repeats: Repeats | None = None,
    ) -> None:
        self._repeats = repeats
        self._consumer = consumer
        self._store = store
        self._dead_letters = dead_letters
        self._stop = stop
        self._wait = wait

    def move(self, batch: Batch) -> None:
        """Raises Lost where the group went on without us, Stopped where the process ends first."""
        self.insist("stream", lambda: self._consumer.intend(batch))
        fresh, digests = self._without_repeats(batch)
        found = inspect(fresh)
        self._put_aside(found.bad)
        try:
            self._insert(found.batch, found.items)
        except BadRecord as error:
            self._without_the_bad(fresh, digests, {record.offset for record, _ in found.bad}, error)
        else:
            self._done(found.batch, digests)

    def _without_repeats(self, batch: Batch) -> tuple[Batch, tuple[Digest, ...]]:
        repeats = self._repeats
        if repeats is None:
            return batch, ()
        fresh, digests = self.insist("store", lambda: repeats.left_out(batch))
        again = [one.repeated for one in digests if one.repeated]
        if again:
            REPEATED.labels(SIGNAL_OF[batch.topic]).inc(sum(again))
            log.info("%s: %s records with %s items had been stored before", batch.token, len(again), sum(again))
        return fresh, digests

    def _done(self, stored: Batch, digests: tuple[Digest, ...]) -> None:
        """Between insert and commit: whoever reads on from here knows what lies before."""
        repeats = self._repeats
        if repeats is not None:
            self.insist("store", lambda: repeats.remember(stored, digests))
        self.insist("stream", lambda: self._consumer.commit(stored))

    def _without_the_bad(self, batch: Batch, digests: tuple[Digest, ...], known: set[int], error: BadRecord) -> None:
        """Reads every record; where that finds the bad ones, the rest goes in under the batch's own token."""
        found = inspect(batch, thorough=True)
        fresh = [(record, reason) for record, reason in found.bad if record.offset not in known]
        if not fresh:
            self._narrow(batch, error)
            return
        self._put_aside(fresh)
        try:
            self._insert(found.batch, found.items)
        except BadRecord as again:
            self._narrow(found.batch, again)
        else:
            self._done(found.batch, digests)

    def _narrow(self, batch: Batch, error: BadRecord) -> None:
        """All records can be read, and yet the store refuses them together: each half becomes a batch of its own.

        Inserting a part under the whole's token would let a repeat of the whole be taken for done. So each part is
        intended, inserted under the token of its own range, and committed before the next; nothing of the whole is
        in the store, as it was refused before its first row.
        """
        if len(batch.records) > 1:
            for half in halves(batch):
                self.move(half)
            return
        record = batch.records[0]
        log.error("%s: the store refuses a record that is valid OTLP: %s", batch.token, error)
        self._put_aside([(record, f"refused by the store: {error}")])
        nothing = replace(batch, records=(emptied(record),))
        self._insert(nothing, 0, refusable=False)
        self._done(nothing, ())

    def _insert(self, batch: Batch, items: int, *, refusable: bool = True) -> None:
        signal = SIGNAL_OF[batch.topic]

        def insert() -> None:
            try:
                with INSERT_SECONDS.labels(signal).time():
                    self._store.insert(batch, items)
            except BadRecord as error:
                if refusable:
                    raise
                raise Unavailable(f"{batch.token}: the store refuses even nothing: {error}") from error

        self.insist("store", insert)
        WRITTEN.labels(signal).inc(items)

    def _put_aside(self, bad: list[tuple[Record, str]] | tuple[tuple[Record, str], ...]) -> None:
        for record, reason in bad:
            self.insist("dead letters", lambda r=record, why=reason: self._send(r, why))  # type: ignore[misc]
            DEAD_LETTERED.labels(SIGNAL_OF[record.topic]).inc()
            log.warning("put aside: %s-%s-%s: %s", record.topic, record.partition, record.offset, reason)

    def _send(self, record: Record, reason: str) -> None:
        sent = self._dead_letters.send(DEAD_LETTERS, record.value, headers=headers_of(record, reason))
        try:
            sent.result(CONFIRM_S)
        except NotInTime as error:
            raise Unavailable("the dead letters are not confirmed") from error

    def insist(self, part: str, step: Callable[[], T]) -> T:
        """Does the step, again and again while something is away, staying in the group meanwhile."""
        attempt = 0
        while True:
            try:
                return step()
            except Unavailable as error:
                delay_s = wait_s(attempt, error.retry_after_s, random.random())
                RETRIES.labels(part).inc()
                log.warning("%s; trying again in %.1f s", error, delay_s)
            self.pause(delay_s)
            attempt += 1

    def pause(self, delay_s: float) -> None:
        """Waits as a member of the group; raises Stopped when it is time to end."""
        left_s = delay_s
        while left_s > 0:
            if self._stop():
                raise Stopped
            try:
                self._consumer.heartbeat()
            except Unavailable as error:
                log.debug("no heartbeat: %s", error)
            self._wait(min(HEARTBEAT_S, left_s))
            left_s -= HEARTBEAT_S


def wait_s(attempt: int, at_least_s: float, chance: float) -> float:
    """Doubling with every attempt up to `LONGEST_WAIT_S`, half of it by chance: writers must not come back in step.

    >>> [wait_s(n, 0.0, 1.0) for n in (0, 1, 2, 20)]
    [0.2, 0.4, 0.8, 30.0]
    >>> wait_s(2, 0.0, 0.0), wait_s(0, 5.0, 0.5), wait_s(0, 600.0, 0.5)
    (0.4, 5.0, 30.0)
    """
    doubled = FIRST_WAIT_S * 2 ** min(attempt, 16)
    return float(min(LONGEST_WAIT_S, max(at_least_s, min(LONGEST_WAIT_S, doubled) * (0.5 + chance / 2))))
