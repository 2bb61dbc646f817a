"""Room on the disk of a chDB folder, and writes that failed on it.

chDB goes on where a write fails: WriteBufferFromFileDescriptor.cpp of its sources has the exception, which a ClickHouse
server throws there, commented out. So a full disk leaves parts of tables cut off, inserts that were acknowledged among
them. Hence nothing is written where little room is left, and where a write has failed all the same, the process begins
again from what is sound before anything else is committed.
"""

from __future__ import annotations

import logging
import shutil
import threading
from collections.abc import Callable

from observe.errors import Damaged, Unavailable

KEPT_BYTES = 512 * 2**20
KEPT_SHARE = 20
"""So much of a disk stays free: half a gibibyte, of small ones a twentieth."""

LOOK_S = 0.25
FAILURES_EVERY = 20
FAILURES = "SELECT sum(value) FROM system.events WHERE event = 'WriteBufferFromFileDescriptorWriteFailed'"

log = logging.getLogger(__name__)


def short_of(path: str) -> str:
    """Why nothing may be written to the folder's disk; "" where there is room."""
    total, _, free = shutil.disk_usage(path)
    kept = min(KEPT_BYTES, total // KEPT_SHARE)
    if free >= kept:
        return ""
    return f"the disk of {path} has {free / 2**20:,.0f} MiB left, and writes need {kept / 2**20:,.0f}: make room"


def ensure(path: str) -> None:
    """Raises Unavailable where there is too little room."""
    if why := short_of(path):
        raise Unavailable(f"store: {why}")


class Room:
    """Looks after one open folder. `ask` runs a statement and returns its first value."""

    def __init__(self, path: str, ask: Callable[[str], object]) -> None:
        self._path, self._ask = path, ask
        self._merges = True

    def check_writes(self) -> None:
        """Raises Damaged where a write of this process has failed: what was to be stored may be cut off."""
        failed = self._ask(FAILURES)
        if failed:
            raise Damaged(
                f"store: {failed} writes to {self._path} failed, because its disk is full or broken; parts of"
                " tables may be cut off, so this process starts again from what is sound"
            )

    def watch(self, stop: threading.Event) -> None:
        """Until `stop`: merges rest while room is short, and a write that failed raises Damaged."""
        looks = 0
        while not stop.wait(LOOK_S):
            why = short_of(self._path)
            if bool(why) == self._merges:
                self._merges = not why
                self._ask("SYSTEM STOP MERGES" if why else "SYSTEM START MERGES")
                log.warning("store: %s", f"{why}; merges rest" if why else "there is room again; merges go on")
            looks += 1
            if why or looks % FAILURES_EVERY == 0:
                self.check_writes()
