"""Exports that arrive twice: a sender that got no answer sends the same bytes again, and they are stored once.

The local stream recognises such a repeat when it appends. Kafka cannot, so the writer does: equal bytes have equal
digests, equal digests are sent to the same partition, and a partition is read in order by one writer. What is stored
is remembered beside it. The rule depends on nothing but the records and what lies before them in the partition; a batch
that is inserted again after a crash therefore leaves out exactly what it left out the first time.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from observe.interfaces import Store
from observe.stream.inspection import emptied
from observe.stream.otlp import digest_of, items_of
from observe.types import Batch, Digest, Record

MEMORY_MINUTES = 15
"""A sender that got no answer tries again for minutes (a Collector for five)."""

SLACK_MINUTES = 15
"""Records are not quite in the order of their times: so much more is kept than is asked for."""

Key = tuple[str, int]


@dataclass(slots=True)
class _Memory:
    """Digests of one partition by the minute of their records, complete up to the offset `next`."""

    next: int
    minutes: dict[int, set[bytes]] = field(default_factory=dict)

    def knows(self, digest: bytes, minute: int) -> bool:
        oldest = minute - MEMORY_MINUTES
        return any(digest in digests for at, digests in self.minutes.items() if at >= oldest)

    def add(self, digest: bytes, minute: int) -> None:
        self.minutes.setdefault(minute, set()).add(digest)

    def forget_before(self, minute: int) -> None:
        for at in [at for at in self.minutes if at < minute - MEMORY_MINUTES - SLACK_MINUTES]:
            del self.minutes[at]


class Repeats:
    """What one writer knows of the partitions that it reads. For one thread."""

    def __init__(self, store: Store, *, now_s: Callable[[], float] = time.time) -> None:
        self._store = store
        self._now_s = now_s
        self._memory: dict[Key, _Memory] = {}

    def left_out(self, batch: Batch) -> tuple[Batch, tuple[Digest, ...]]:
        """The batch with its repeats as empty requests, so that its range stays whole, and what is to be remembered of
        each record. May raise Unavailable."""
        memory = self._memory_of(batch)
        inside = _Memory(0)
        records: list[Record] = []
        digests: list[Digest] = []
        for record in batch.records:
            if not record.value:
                records.append(record)
                continue
            digest, minute = digest_of(record), _minute(record)
            again = memory.knows(digest, minute) or inside.knows(digest, minute)
            digests.append(Digest(record.offset, record.timestamp_ms, digest, items_of(record) if again else 0))
            records.append(emptied(record) if again else record)
            if not again:
                inside.add(digest, minute)
        return replace(batch, records=tuple(records)), tuple(digests)

    def remember(self, stored: Batch, digests: tuple[Digest, ...]) -> None:
        """Notes what `stored` holds: repeats with their number of items, and of the others those that went in. A record
        that was put aside is not known by its bytes: it may be sent again. May raise Unavailable, and be repeated."""
        went_in = {record.offset for record in stored.records if record.value}
        kept = [one for one in digests if one.repeated or one.offset in went_in]
        self._store.save_digests(stored, kept)
        memory = self._memory[stored.topic, stored.partition]
        memory.next = stored.last_offset + 1
        for one in kept:
            if not one.repeated:
                memory.add(one.digest, one.timestamp_ms // 60_000)
        if kept:
            # Not by the newest: one feeder whose clock runs ahead would have the others' records forgotten.
            usual_ms = statistics.median_low(one.timestamp_ms for one in kept)
            memory.forget_before(int(min(usual_ms, self._now_s() * 1000)) // 60_000)

    def _memory_of(self, batch: Batch) -> _Memory:
        """From the store where another writer may have had the partition meanwhile."""
        key = (batch.topic, batch.partition)
        memory = self._memory.get(key)
        if memory is None or memory.next != batch.first_offset:
            oldest = min(_minute(record) for record in batch.records) - MEMORY_MINUTES - SLACK_MINUTES
            memory = _Memory(batch.first_offset)
            for one in self._store.digests(*key, batch.first_offset, oldest * 60_000):
                memory.add(one.digest, one.timestamp_ms // 60_000)
            self._memory[key] = memory
        return memory


def _minute(record: Record) -> int:
    return record.timestamp_ms // 60_000
