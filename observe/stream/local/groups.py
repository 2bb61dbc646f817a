"""Consumer groups: how far they have come, who is in them, and who reads which partition.

They live in a file of their own, so that a busy producer never keeps a consumer waiting for SQLite's one write lock.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from observe.errors import Lost
from observe.stream.local.alive import Alive, is_dead
from observe.stream.local.database import connect, transaction, translated
from observe.stream.ranges import Range, from_metadata, may_follow, range_of, to_metadata
from observe.types import Batch

SCHEMA = """
CREATE TABLE IF NOT EXISTS offsets (
  grp TEXT NOT NULL, topic TEXT NOT NULL, partition INTEGER NOT NULL,
  next INTEGER NOT NULL, metadata TEXT NOT NULL, updated_ms INTEGER NOT NULL, PRIMARY KEY (grp, topic, partition));
CREATE TABLE IF NOT EXISTS members (
  grp TEXT NOT NULL, member TEXT NOT NULL, topics TEXT NOT NULL, until_ms INTEGER NOT NULL, PRIMARY KEY (grp, member));
CREATE TABLE IF NOT EXISTS leases (
  grp TEXT NOT NULL, topic TEXT NOT NULL, partition INTEGER NOT NULL, member TEXT NOT NULL,
  PRIMARY KEY (grp, topic, partition))
"""
GROUP_LIFE_MS = 7 * 24 * 3600 * 1000  # a group that committed nothing for so long no longer holds records back

Key = tuple[str, int]
"""Topic and partition."""


class Position(NamedTuple):
    """The next offset of a group on a partition, and the range that is being inserted, if any."""

    next: int
    intent: Range | None


class Groups:
    """One connection to the groups; for one thread at a time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = folder / "groups.db"
        self._connection = connect(self.file, SCHEMA)

    def close(self) -> None:
        self._connection.close()

    def positions(self, group: str) -> dict[Key, Position]:
        with translated(self.file):
            rows = self._connection.execute(
                "SELECT topic, partition, next, metadata FROM offsets WHERE grp = ?", (group,)
            ).fetchall()
        return {(topic, partition): Position(at, from_metadata(text)) for topic, partition, at, text in rows}

    def settled(self, now_ms: int) -> dict[Key, int]:
        """Per partition the offset that every group has passed; partitions that no group reads are not in it."""
        with translated(self.file):
            rows = self._connection.execute(
                "SELECT topic, partition, min(next) FROM offsets o WHERE updated_ms > ?"
                " OR EXISTS (SELECT 1 FROM members m WHERE m.grp = o.grp AND m.until_ms > ?) GROUP BY topic, partition",
                (now_ms - GROUP_LIFE_MS, now_ms),
            ).fetchall()
        return {(topic, partition): at for topic, partition, at in rows}

    def save(self, group: str, member: str, batch: Batch, *, done: bool, own: Range | None = None) -> Position:
        """Moves to the batch's first offset with its range as the intent, or past the batch when it is `done`.

        `own` is what the member had intended last. Raises Lost where the member no longer holds the partition, or the
        group went on without this batch."""
        key = (batch.topic, batch.partition)
        with translated(self.file), transaction(self._connection):
            if self._owner(group, key) != member:
                raise Lost(f"{batch.token}: the partition was taken over")
            now = self.positions(group).get(key)
            if now is not None and done and now.next > batch.last_offset:
                return now
            if now is not None and (now.next > batch.first_offset or not may_follow(range_of(batch), now.intent, own)):
                raise Lost(f"{batch.token}: the group stands at {now.next}")
            then = Position(batch.last_offset + 1, None) if done else Position(batch.first_offset, range_of(batch))
            metadata = to_metadata(then.intent) if then.intent else ""
            self._connection.execute(
                "INSERT OR REPLACE INTO offsets VALUES (?, ?, ?, ?, ?, ?)",
                (group, *key, then.next, metadata, _now_ms()),
            )
        return then

    def _owner(self, group: str, key: Key) -> str | None:
        row = self._connection.execute(
            "SELECT member FROM leases WHERE grp = ? AND topic = ? AND partition = ?", (group, *key)
        ).fetchone()
        return row[0] if row else None

    def join(
        self, group: str, alive: Alive, topics: Sequence[str], partitions: Sequence[Key], lease_s: float
    ) -> set[Key]:
        """Renews the membership, buries the dead, gives back what is others' share and takes what is free of one's
        own: the partitions that are held now."""
        now_ms, member = _now_ms(), alive.member
        with translated(self.file), transaction(self._connection):
            self._bury(group, member, now_ms)
            self._connection.execute(
                "INSERT OR REPLACE INTO members VALUES (?, ?, ?, ?)",
                (group, member, json.dumps(sorted(topics)), now_ms + int(lease_s * 1000)),
            )
            mine = {key for key, owner in share(partitions, self._members(group)).items() if owner == member}
            held = self._leases(group)
            for key in [key for key, owner in held.items() if owner == member and key not in mine]:
                self._connection.execute(
                    "DELETE FROM leases WHERE grp = ? AND topic = ? AND partition = ?", (group, *key)
                )
            free = [key for key in mine if key not in held]
            self._connection.executemany(
                "INSERT INTO leases VALUES (?, ?, ?, ?)", [(group, *key, member) for key in free]
            )
        return {key for key in mine if held.get(key, member) == member}

    def renew(self, group: str, alive: Alive, lease_s: float) -> None:
        """Stays a member without giving or taking partitions."""
        with translated(self.file), transaction(self._connection):
            self._connection.execute(
                "UPDATE members SET until_ms = ? WHERE grp = ? AND member = ?",
                (_now_ms() + int(lease_s * 1000), group, alive.member),
            )

    def leave(self, group: str, member: str) -> None:
        with translated(self.file), transaction(self._connection):
            self._forget(group, member)

    def _bury(self, group: str, member: str, now_ms: int) -> None:
        rows = self._connection.execute("SELECT member, until_ms FROM members WHERE grp = ?", (group,)).fetchall()
        for other, until_ms in rows:
            if other != member and (until_ms < now_ms or is_dead(self.folder, other)):
                self._forget(group, other)

    def _forget(self, group: str, member: str) -> None:
        for table in ("members", "leases"):
            self._connection.execute(f"DELETE FROM {table} WHERE grp = ? AND member = ?", (group, member))

    def _members(self, group: str) -> dict[str, list[str]]:
        rows = self._connection.execute("SELECT member, topics FROM members WHERE grp = ?", (group,)).fetchall()
        return {member: json.loads(topics) for member, topics in rows}

    def _leases(self, group: str) -> dict[Key, str]:
        rows = self._connection.execute(
            "SELECT topic, partition, member FROM leases WHERE grp = ?", (group,)
        ).fetchall()
        return {(topic, partition): member for topic, partition, member in rows}


def share(partitions: Sequence[Key], members: Mapping[str, Sequence[str]]) -> dict[Key, str]:
    """Who should read what: the same answer for everyone who asks, loads that differ by one at most where all members
    read the same topics.

    >>> share([("a", 0), ("a", 1), ("b", 0)], {"m1": ["a", "b"], "m2": ["a"]})
    {('a', 0): 'm1', ('a', 1): 'm2', ('b', 0): 'm1'}
    """
    load = dict.fromkeys(sorted(members), 0)
    shares: dict[Key, str] = {}
    for topic, partition in sorted(partitions):
        readers = [member for member in load if topic in members[member]]
        if readers:
            reader = min(readers, key=load.__getitem__)
            load[reader] += 1
            shares[topic, partition] = reader
    return shares


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
