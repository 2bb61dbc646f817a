"""Reading: one member of a group, the partitions it holds, and what it hands out of them."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path

from observe.errors import Lost, Misconfigured
from observe.stream.local.alive import Alive
from observe.stream.local.groups import Groups, Key
from observe.stream.local.log import Extent, Log
from observe.stream.ranges import Range, range_of
from observe.types import Batch, BatchLimits

LEASE_S = 15.0
LOOK_EVERY_S = 0.02

log = logging.getLogger(__name__)


class _Held:
    """A partition that this member holds: the next offset to hand out, or the range that must come next."""

    def __init__(self, position: int, intent: Range | None) -> None:
        self.position = position
        self.intent = intent
        self.intended: Range | None = None  # by this member, since it holds the partition


class LocalConsumer:
    """Not safe from several threads."""

    def __init__(
        self, folder: Path, group: str, topics: Sequence[str], limits: BatchLimits, *, lease_s: float = LEASE_S
    ) -> None:
        self._log = Log(folder)
        self._groups = Groups(folder)
        self._alive = Alive(folder)
        self._group, self._topics, self._limits, self._lease_s = group, tuple(topics), limits, lease_s
        self._held: dict[Key, _Held] = {}
        self._rotation: deque[Key] = deque()  # longest unread first: no partition starves another
        self._renewed = float("-inf")

    def poll(self, timeout_s: float, /) -> Batch | None:
        deadline = time.monotonic() + timeout_s
        while True:
            extents = {(e.topic, e.partition): e for e in self._log.extents() if e.topic in self._topics}
            self._join(extents)
            batch = self._next(extents)
            rest_s = deadline - time.monotonic()
            if batch is not None or rest_s <= 0:
                return batch
            time.sleep(min(LOOK_EVERY_S, rest_s))

    def intend(self, batch: Batch, /) -> None:
        held = self._held.get((batch.topic, batch.partition))
        own = held.intended if held else None
        try:
            self._groups.save(self._group, self._alive.member, batch, done=False, own=own)
        except Lost:
            self._drop((batch.topic, batch.partition))
            raise
        if held:
            held.intended = range_of(batch)

    def commit(self, batch: Batch, /) -> None:
        try:
            self._groups.save(self._group, self._alive.member, batch, done=True)
        except Lost as error:
            log.warning("not committed: %s", error)
            self._drop((batch.topic, batch.partition))

    def heartbeat(self) -> None:
        if self._due():
            self._groups.renew(self._group, self._alive, self._lease_s)
            self._renewed = time.monotonic()

    def close(self) -> None:
        """Leaves the group; what was not committed goes to the others."""
        self._groups.leave(self._group, self._alive.member)
        self._alive.close()
        self._groups.close()
        self._log.close()

    def _due(self) -> bool:
        return time.monotonic() - self._renewed >= self._lease_s / 5

    def _join(self, extents: dict[Key, Extent]) -> None:
        if not self._due():
            return
        held = self._groups.join(self._group, self._alive, self._topics, list(extents), self._lease_s)
        self._renewed = time.monotonic()
        for key in set(self._held) - held:
            self._drop(key)
        new = held - set(self._held)
        positions = self._groups.positions(self._group) if new else {}
        for key in sorted(new):
            extent, position = extents[key], positions.get(key)
            if position is not None and position.next > extent.end:
                raise Misconfigured(
                    f"stream: {self._groups.file} stands at {position.next} of {key[0]}-{key[1]}, and {self._log.file}"
                    f" ends at {extent.end}: they do not belong together; move both away to begin anew"
                )
            self._held[key] = _Held(
                max(extent.begin, position.next if position else 0), position.intent if position else None
            )
            self._rotation.append(key)

    def _drop(self, key: Key) -> None:
        if self._held.pop(key, None) is not None:
            self._rotation.remove(key)
            self._renewed = float("-inf")  # it may still be ours: then from where the group stands now

    def _next(self, extents: dict[Key, Extent]) -> Batch | None:
        for _ in range(len(self._rotation)):
            key = self._rotation[0]
            self._rotation.rotate(-1)
            batch = self._take(self._held[key], extents[key])
            if batch is not None:
                return batch
        return None

    def _take(self, held: _Held, extent: Extent) -> Batch | None:
        if held.intent is not None:
            (first, last), held.intent = held.intent, None
            held.position = last + 1
            records = self._log.read(extent, first, last)
        elif held.position < extent.end and self._complete(held, extent):
            last = min(extent.end, held.position + self._limits.max_records) - 1
            records = self._log.read(extent, held.position, last, self._limits.max_bytes)
            first, last = records[0].offset, records[-1].offset
            held.position = last + 1
        else:
            return None
        return Batch(tuple(records), first, last) if records else None

    def _complete(self, held: _Held, extent: Extent) -> bool:
        head = self._log.head(extent, held.position)
        age_s = time.time() - head.timestamp_ms / 1000
        return (
            extent.end - held.position >= self._limits.max_records
            or extent.bytes - head.bytes >= self._limits.max_bytes
            or not 0 <= age_s < self._limits.age_s(extent.topic)  # below 0 where the clock was set back
        )
