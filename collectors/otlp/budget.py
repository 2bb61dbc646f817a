"""How many bytes of requests may be under way at once: what is beyond is refused while it is still cheap to refuse."""

from __future__ import annotations

import threading

from observe.errors import Unavailable


class Budget:
    """Bytes of all requests that are read, checked or waiting for the stream. Safe from any thread."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.used_bytes = 0
        self._lock = threading.Lock()

    def take(self, size: int) -> None:
        """Raises Unavailable where the limit is reached. A request that is alone always fits."""
        with self._lock:
            if self.used_bytes and self.used_bytes + size > self.limit_bytes:
                raise Unavailable(f"{self.used_bytes} bytes of requests are under way already", retry_after_s=1.0)
            self.used_bytes += size

    def give(self, size: int) -> None:
        with self._lock:
            self.used_bytes -= size


class Lease:
    """One request's part of the budget. It ends when its last holder lets go: the handler, and every record that is
    still on its way to the stream, since a client that hangs up does not make those bytes go away."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._lock = threading.Lock()
        self._bytes = 0
        self._holders = 1

    def grow(self, size: int) -> None:
        """Raises Unavailable where the budget is used up."""
        self._budget.take(size)
        self._bytes += size

    def hold(self) -> None:
        with self._lock:
            self._holders += 1

    def drop(self) -> None:
        with self._lock:
            self._holders -= 1
            last = self._holders == 0
        if last:
            self._budget.give(self._bytes)
