"""The stream of one machine: a folder with two SQLite files, shared by as many processes as like to.

`records.db` holds what was sent, `groups.db` who has read how far. See docs/decisions.md, "Stream".
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from observe.errors import Unavailable
from observe.settings import LocalSettings
from observe.stream.local.admin import LocalAdmin
from observe.stream.local.consumer import LEASE_S, LocalConsumer
from observe.stream.local.producer import BUFFER_BYTES, LocalProducer
from observe.types import BatchLimits


class LocalStream:
    """`lease_s` is how long a member that hangs keeps its partitions; one that dies lets go at once."""

    def __init__(
        self, path: Path, settings: LocalSettings, *, lease_s: float = LEASE_S, buffer_bytes: int = BUFFER_BYTES
    ) -> None:
        self._path = Path(path)
        self._settings = settings
        self._lease_s = lease_s
        self._buffer_bytes = buffer_bytes

    def producer(self) -> LocalProducer:
        self._create()
        return LocalProducer(self._path, self._settings, buffer_bytes=self._buffer_bytes)

    def consumer(self, group: str, topics: Sequence[str], limits: BatchLimits, /) -> LocalConsumer:
        self._create()
        return LocalConsumer(self._path, group, topics, limits, lease_s=self._lease_s)

    def admin(self) -> LocalAdmin:
        self._create()
        return LocalAdmin(self._path, self._settings)

    def _create(self) -> None:
        try:
            LocalAdmin(self._path, self._settings).migrate()
        except OSError as error:
            raise Unavailable(f"local stream {self._path}: {error}") from error
