"""Appending: sends that arrive while the disk is busy share the next transaction."""

from __future__ import annotations

import contextlib
import itertools
import logging
import threading
import time
import zlib
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from pathlib import Path

from observe.errors import BadRecord, ObserveError, Unavailable
from observe.settings import LocalSettings
from observe.stream.local.groups import Groups
from observe.stream.local.log import Entry, Log
from observe.stream.local.retention import pending_bytes, prune
from observe.stream.otlp import items_of
from observe.telemetry import show_thread_name
from observe.types import DEAD_LETTERS, Record

BUFFER_BYTES = 64 * 2**20
GROUP_BYTES = 16 * 2**20  # one transaction
RECORD_OVERHEAD = 200  # what an empty record costs in memory
CHECK_EVERY_S = 0.25
PRUNE_EVERY_S = 1.0

log = logging.getLogger(__name__)


class LocalProducer:
    def __init__(self, folder: Path, settings: LocalSettings, *, buffer_bytes: int = BUFFER_BYTES) -> None:
        self._settings = settings
        self._buffer_bytes = buffer_bytes
        self._log = Log(folder)
        self._groups = Groups(folder)
        self._log.ensure(settings.partitions)
        self._partitions = _counts(self._log)
        self._turn = itertools.count()
        self._waiting: deque[tuple[Entry, Future[None]]] = deque()
        self._changed = threading.Condition()
        self._size = 0  # bytes that are not yet on disk
        self._unfinished = 0  # records that are not yet on disk
        self._full = False  # the consumers are too far behind
        self._closed = False
        self._check()
        self._thread = threading.Thread(target=self._run, name="stream-writer", daemon=True)
        self._thread.start()

    def send(
        self, topic: str, value: bytes, /, *, key: bytes | None = None, headers: Mapping[str, bytes] | None = None
    ) -> Future[None]:
        future: Future[None] = Future()
        future.set_running_or_notify_cancel()  # once taken, a record cannot be taken back
        try:
            entry = self._entry(topic, value, key, tuple((headers or {}).items()))
        except BadRecord as error:
            future.set_exception(error)
            return future
        with self._changed:
            self._admit(entry)
            self._waiting.append((entry, future))
            self._size += len(value) + RECORD_OVERHEAD
            self._unfinished += 1
            self._changed.notify_all()
        return future

    def flush(self, timeout_s: float, /) -> int:
        with self._changed:
            self._changed.wait_for(lambda: self._unfinished == 0, timeout_s)
            return self._unfinished

    def close(self) -> None:
        """Writes what is buffered, then ends."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()

    def _entry(self, topic: str, value: bytes, key: bytes | None, headers: tuple[tuple[str, bytes], ...]) -> Entry:
        limit = self._settings.max_message_bytes
        if len(value) > limit:
            raise BadRecord(f"a record of {len(value)} bytes is larger than local.max_message_bytes = {limit}")
        count = self._partitions.get(topic)
        if count is None:
            raise BadRecord(f"there is no topic {topic!r}; there are {', '.join(sorted(self._partitions))}")
        partition = (next(self._turn) if key is None else zlib.crc32(key)) % count
        items = 0
        with contextlib.suppress(BadRecord):  # the writer puts it aside; it holds nothing that could be pending
            items = items_of(Record(topic, partition, -1, value, headers=headers))
        return Entry(topic, partition, key, headers, value, items)

    def _admit(self, entry: Entry) -> None:
        if self._closed:
            raise Unavailable("the stream is closing")
        if self._full and entry.topic != DEAD_LETTERS:  # those free the way for others
            raise Unavailable(
                f"{self._settings.max_pending_bytes} bytes are waiting to be stored (local.max_pending_bytes)",
                retry_after_s=1.0,
            )
        if self._waiting and self._size + len(entry.value) > self._buffer_bytes:
            raise Unavailable("the stream's buffer is full: the disk is behind", retry_after_s=0.2)

    # ── the writer thread ───────────────────────────────────────────────────────────────────────────────────────────

    def _run(self) -> None:
        show_thread_name()
        pruned = checked = 0.0
        while True:
            group = self._next_group()
            if group:
                self._write(group)
            elif self._closed:
                break
            now = time.monotonic()
            if now - checked >= CHECK_EVERY_S:
                self._attempt(self._check)
                checked = now
            if now - pruned >= PRUNE_EVERY_S:
                self._attempt(self._prune)
                pruned = now
        self._log.close()
        self._groups.close()

    def _next_group(self) -> list[tuple[Entry, Future[None]]]:
        group: list[tuple[Entry, Future[None]]] = []
        size = 0
        with self._changed:
            idle_s = CHECK_EVERY_S if self._full else PRUNE_EVERY_S
            self._changed.wait_for(lambda: self._waiting or self._closed, idle_s)
            while self._waiting and size < GROUP_BYTES:
                group.append(self._waiting.popleft())
                size += len(group[-1][0].value) + RECORD_OVERHEAD
        return group

    def _write(self, group: list[tuple[Entry, Future[None]]]) -> None:
        error: Exception | None = None
        try:
            self._log.append([entry for entry, _ in group], time.time_ns() // 1_000_000)
        except ObserveError as failure:
            error = failure
        except Exception as failure:  # whatever it is, someone waits for each of these futures
            log.exception("the stream cannot be written")
            error = Unavailable(f"local stream: {failure!r}")
        for _, future in group:
            if error is None:
                future.set_result(None)
            else:
                future.set_exception(error)
        with self._changed:
            self._unfinished -= len(group)
            self._size -= sum(len(entry.value) + RECORD_OVERHEAD for entry, _ in group)
            self._changed.notify_all()

    def _check(self) -> None:
        self._full = pending_bytes(self._log, self._groups) >= self._settings.max_pending_bytes

    def _prune(self) -> None:
        prune(self._log, self._groups, self._settings)

    def _attempt(self, step: Callable[[], None]) -> None:
        try:
            step()
        except ObserveError as error:
            log.warning("%s; trying again", error)


def _counts(log: Log) -> dict[str, int]:
    counts: dict[str, int] = {}
    for extent in log.extents():
        counts[extent.topic] = counts.get(extent.topic, 0) + 1
    return counts
