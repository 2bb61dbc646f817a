"""The records: one table, keyed by partition and offset, with running totals so that sums need no scan."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from observe.stream.local.database import connect, transaction, translated
from observe.stream.otlp import DIGEST_HEADER
from observe.types import DEAD_LETTERS, TOPICS, Record

OFFSET_BITS = 52
SCHEMA = """
CREATE TABLE IF NOT EXISTS partitions (
  id INTEGER PRIMARY KEY, topic TEXT NOT NULL, partition INTEGER NOT NULL,
  begin INTEGER NOT NULL, end INTEGER NOT NULL, items INTEGER NOT NULL, bytes INTEGER NOT NULL,
  UNIQUE (topic, partition));
CREATE TABLE IF NOT EXISTS records (
  seq INTEGER PRIMARY KEY, timestamp_ms INTEGER NOT NULL, items_before INTEGER NOT NULL, bytes_before INTEGER NOT NULL,
  key BLOB, headers TEXT, value BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS digests (
  topic TEXT NOT NULL, digest BLOB NOT NULL, timestamp_ms INTEGER NOT NULL, PRIMARY KEY (topic, digest)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS digests_by_time ON digests (timestamp_ms)
"""
REPEATS_MS = 15 * 60_000
"""A sender that got no answer tries again for minutes (a Collector for five): digests are remembered for longer."""


class Entry(NamedTuple):
    """A record on its way in."""

    topic: str
    partition: int
    key: bytes | None
    headers: tuple[tuple[str, bytes], ...]
    value: bytes
    items: int


@dataclass(frozen=True, slots=True)
class Extent:
    """One partition: offsets [begin, end); items and bytes are totals of all that was ever appended."""

    id: int
    topic: str
    partition: int
    begin: int
    end: int
    items: int
    bytes: int

    def seq(self, offset: int) -> int:
        return self.id << OFFSET_BITS | offset


class Head(NamedTuple):
    """Where a record stands: its time, and the items and bytes of all records before it."""

    timestamp_ms: int
    items: int
    bytes: int


class Log:
    """One connection to the records; for one thread at a time."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "records.db"
        self._connection = connect(self.file, SCHEMA)

    def close(self) -> None:
        self._connection.close()

    def ensure(self, partitions: int) -> list[str]:
        """Creates missing partitions of all topics; the topics that gained some. Never takes any away."""
        wanted = dict.fromkeys(TOPICS.values(), partitions) | {DEAD_LETTERS: 1}
        with translated(self.file):
            if not _missing(self.extents(), wanted):
                return []
            with transaction(self._connection):
                missing = _missing(self.extents(), wanted)
                # A new log never repeats the offsets of one that was deleted: the store would take its batches for
                # repeats. Microseconds outrun any rate of records.
                base = time.time_ns() // 1000
                self._connection.executemany(
                    "INSERT INTO partitions (topic, partition, begin, end, items, bytes) VALUES (?, ?, ?, ?, 0, 0)",
                    [(topic, partition, base, base) for topic, partition in missing],
                )
        return sorted({topic for topic, _ in missing})

    def extents(self) -> list[Extent]:
        with translated(self.file):
            rows = self._connection.execute(
                "SELECT id, topic, partition, begin, end, items, bytes FROM partitions ORDER BY topic, partition"
            ).fetchall()
        return [Extent(*row) for row in rows]

    def append(self, entries: Sequence[Entry], now_ms: int) -> None:
        """Adds the entries in their order, all or none; they are on disk when it returns.

        An entry whose digest is known is there already: its sender got no answer and tried again.
        """
        with translated(self.file), transaction(self._connection):
            entries = [entry for entry in entries if self._is_new(entry, now_ms)]
            totals = {(e.topic, e.partition): [e.id, e.end, e.items, e.bytes] for e in self.extents()}
            rows = []
            for entry in entries:
                total = totals[entry.topic, entry.partition]
                headers = _dump(entry.headers)
                rows.append((total[0] << OFFSET_BITS | total[1], now_ms, *total[2:], entry.key, headers, entry.value))
                total[1] += 1
                total[2] += entry.items
                total[3] += len(entry.value)
            self._connection.executemany("INSERT INTO records VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
            self._connection.executemany(
                "UPDATE partitions SET end = ?2, items = ?3, bytes = ?4 WHERE id = ?1", list(totals.values())
            )

    def _is_new(self, entry: Entry, now_ms: int) -> bool:
        digest = next((value for name, value in entry.headers if name == DIGEST_HEADER), None)
        if digest is None:
            return True
        added = self._connection.execute(
            "INSERT OR IGNORE INTO digests VALUES (?, ?, ?)", (entry.topic, digest, now_ms)
        )
        return added.rowcount == 1

    def forget_digests(self, now_ms: int) -> None:
        """Drops the digests that no sender will repeat any more."""
        with translated(self.file), transaction(self._connection):
            self._connection.execute("DELETE FROM digests WHERE timestamp_ms < ?", (now_ms - REPEATS_MS,))

    def head(self, extent: Extent, offset: int) -> Head:
        """Where the record at `offset` stands; at or past the end, the totals of the partition and time 0."""
        with translated(self.file):
            row = self._connection.execute(
                "SELECT timestamp_ms, items_before, bytes_before FROM records"
                " WHERE seq >= ? AND seq < ? ORDER BY seq LIMIT 1",
                (extent.seq(offset), extent.seq(extent.end)),
            ).fetchone()
        return Head(*row) if row else Head(0, extent.items, extent.bytes)

    def read(self, extent: Extent, first: int, last: int, max_bytes: int | None = None) -> list[Record]:
        """Records of [first, last], as many as fit into `max_bytes` of values, and one at least where there is one."""
        records: list[Record] = []
        size = 0
        with translated(self.file):
            cursor = self._connection.execute(
                "SELECT seq, value, timestamp_ms, key, headers FROM records WHERE seq BETWEEN ? AND ? ORDER BY seq",
                (extent.seq(first), extent.seq(last)),
            )
            for seq, value, timestamp_ms, key, headers in cursor:
                size += len(value)
                if records and max_bytes is not None and size > max_bytes:
                    break
                offset = seq & (1 << OFFSET_BITS) - 1
                records.append(Record(extent.topic, extent.partition, offset, value, timestamp_ms, key, _load(headers)))
            cursor.close()  # an open cursor would keep the write-ahead log from being emptied
        return records

    def prune(self, extent: Extent, until: int) -> None:
        """Forgets the records before `until`."""
        with translated(self.file), transaction(self._connection):
            self._connection.execute(
                "DELETE FROM records WHERE seq >= ? AND seq < ?", (extent.seq(extent.begin), extent.seq(until))
            )
            self._connection.execute("UPDATE partitions SET begin = max(begin, ?) WHERE id = ?", (until, extent.id))

    def expired(self, extent: Extent, until: int, before_ms: int) -> int:
        """The first offset of [begin, until) that is not older than `before_ms`; time runs with the offsets."""
        low, high = extent.begin, until
        while low < high:
            middle = (low + high) // 2
            if self.head(extent, middle).timestamp_ms < before_ms:
                low = middle + 1
            else:
                high = middle
        return low


def _missing(extents: Iterable[Extent], wanted: dict[str, int]) -> list[tuple[str, int]]:
    present = {(extent.topic, extent.partition) for extent in extents}
    return [(topic, p) for topic, count in wanted.items() for p in range(count) if (topic, p) not in present]


def _dump(headers: tuple[tuple[str, bytes], ...]) -> str | None:
    return json.dumps([(name, value.decode("latin-1")) for name, value in headers]) if headers else None


def _load(text: str | None) -> tuple[tuple[str, bytes], ...]:
    return tuple((name, value.encode("latin-1")) for name, value in json.loads(text)) if text else ()
