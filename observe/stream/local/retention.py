"""What is kept of the records: all that a group still needs, and of the rest as much as the settings allow."""

from __future__ import annotations

import time

from observe.settings import LocalSettings
from observe.stream.local.groups import Groups
from observe.stream.local.log import Extent, Log
from observe.types import DEAD_LETTERS

CHUNK_RECORDS = 256  # a transaction's worth: producers wait while it runs


def pending_bytes(log: Log, groups: Groups) -> int:
    """Bytes of values that some group has still to commit."""
    settled = groups.settled(_now_ms())
    return sum(
        extent.bytes - log.head(extent, _floor(extent, settled)).bytes
        for extent in log.extents()
        if extent.topic != DEAD_LETTERS
    )


def prune(log: Log, groups: Groups, settings: LocalSettings) -> None:
    """Drops records that all groups have committed and that are too old, or, oldest first, too many."""
    now_ms = _now_ms()
    log.forget_digests(now_ms)
    settled = groups.settled(now_ms)
    floors = {extent.id: _floor(extent, settled) for extent in log.extents()}
    for extent in log.extents():
        before_ms = now_ms - int(settings.retention_hours * 3_600_000)
        _drop(log, extent, log.expired(extent, floors[extent.id], before_ms))
    while True:
        kept = [extent for extent in log.extents() if extent.begin < floors[extent.id]]
        size = sum(log.head(e, floors[e.id]).bytes - log.head(e, e.begin).bytes for e in kept)
        if size <= settings.retention_bytes:
            return
        oldest = min(kept, key=lambda e: log.head(e, e.begin).timestamp_ms)
        excess = size - settings.retention_bytes
        log.prune(oldest, _enough(log, oldest, floors[oldest.id], excess))


def _floor(extent: Extent, settled: dict[tuple[str, int], int]) -> int:
    """The first offset that some group still needs. Dead letters are for people: no group holds them."""
    if extent.topic == DEAD_LETTERS:
        return extent.end
    return min(extent.end, max(extent.begin, settled.get((extent.topic, extent.partition), extent.begin)))


def _drop(log: Log, extent: Extent, until: int) -> None:
    for start in range(extent.begin, until, CHUNK_RECORDS):
        log.prune(extent, min(start + CHUNK_RECORDS, until))


def _enough(log: Log, extent: Extent, floor: int, excess: int) -> int:
    """Where to cut so that `excess` bytes go, within one transaction's worth."""
    start, limit = log.head(extent, extent.begin).bytes, min(floor, extent.begin + CHUNK_RECORDS)
    low, high = extent.begin + 1, limit
    while low < high:
        middle = (low + high) // 2
        if log.head(extent, middle).bytes - start < excess:
            low = middle + 1
        else:
            high = middle
    return low


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
