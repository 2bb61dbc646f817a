"""What operators ask of a local stream."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from observe.settings import LocalSettings
from observe.stream.dead_letters import to_json
from observe.stream.local.groups import Groups
from observe.stream.local.log import Log
from observe.stream.local.retention import pending_bytes
from observe.types import DEAD_LETTERS, Json, PartitionState


class LocalAdmin:
    """Opens the files for each question: it is asked from many threads, and seldom."""

    def __init__(self, folder: Path, settings: LocalSettings) -> None:
        self._folder = folder
        self._settings = settings

    def migrate(self) -> list[str]:
        self._folder.mkdir(parents=True, exist_ok=True)
        log = Log(self._folder)
        try:
            return [f"topic {topic}: partitions created" for topic in log.ensure(self._settings.partitions)]
        finally:
            log.close()

    def partitions(self, group: str, /) -> list[PartitionState]:
        groups = Groups(self._folder)
        log = Log(self._folder)
        try:
            positions = groups.positions(group)  # first: it never passes an end that is read later
            extents = log.extents()
        finally:
            groups.close()
            log.close()
        states = []
        for extent in extents:
            position = positions.get((extent.topic, extent.partition))
            committed = max(extent.begin, position.next) if position else extent.begin
            states.append(PartitionState(extent.topic, extent.partition, extent.begin, committed, extent.end))
        return states

    def pending(
        self, group: str, since: Mapping[tuple[str, int], int] | None = None, /
    ) -> Mapping[tuple[str, int], int]:
        groups = Groups(self._folder)
        log = Log(self._folder)
        try:
            positions = groups.positions(group)
            pending = {}
            for extent in log.extents():
                key = (extent.topic, extent.partition)
                start = (since or {}).get(key, positions[key].next if key in positions else extent.begin)
                pending[key] = extent.items - log.head(extent, max(extent.begin, start)).items
        finally:
            groups.close()
            log.close()
        return pending

    def full(self) -> str:
        groups, log = Groups(self._folder), Log(self._folder)
        try:
            held = pending_bytes(log, groups)
        finally:
            groups.close()
            log.close()
        most = self._settings.max_pending_bytes
        return f"{held / 2**20:,.0f} of {most / 2**20:,.0f} MiB wait (local.max_pending_bytes)" if held >= most else ""

    def dead_letters(self, limit: int, /) -> list[Json]:
        log = Log(self._folder)
        try:
            extents = [extent for extent in log.extents() if extent.topic == DEAD_LETTERS]
            letters = [letter for e in extents for letter in log.read(e, max(e.begin, e.end - limit), e.end - 1)]
        finally:
            log.close()
        return [to_json(letter) for letter in reversed(letters)]

    def close(self) -> None:
        """Nothing is held open."""
