"""Signs of life between processes: each member holds a lock on a file, which the kernel lets go when it dies.

A lease alone would make a restart after a crash wait until it runs out.
"""

from __future__ import annotations

import os
import secrets
import time
from contextlib import suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows: the lease alone tells
    fcntl = None  # type: ignore[assignment]


class Alive:
    """One member's name, older members first in order, and its locked file."""

    def __init__(self, folder: Path) -> None:
        self.member = f"{time.time_ns():020d}-{os.getpid()}-{secrets.token_hex(4)}"
        self._file = _file(folder, self.member)
        self._file.parent.mkdir(parents=True, exist_ok=True)
        self._handle: int | None = os.open(self._file, os.O_CREAT | os.O_RDWR, 0o644)
        if fcntl is not None:
            fcntl.flock(self._handle, fcntl.LOCK_EX)

    def close(self) -> None:
        if self._handle is not None:
            with suppress(OSError):
                self._file.unlink()
            os.close(self._handle)
            self._handle = None


def is_dead(folder: Path, member: str) -> bool:
    """Whether the member's process has surely ended; False where nothing can be said."""
    if fcntl is None:
        return False
    try:
        handle = os.open(_file(folder, member), os.O_RDWR)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    else:
        with suppress(OSError):
            _file(folder, member).unlink()
        return True
    finally:
        os.close(handle)


def _file(folder: Path, member: str) -> Path:
    return folder / "members" / f"{member}.lock"
