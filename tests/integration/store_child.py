"""A process that works on a store for the tests: `python -m tests.integration.store_child COMMAND URL …`."""

from __future__ import annotations

import os
import random
import resource
import signal
import sys
import time

from observe.errors import Damaged, ObserveError, Unavailable
from observe.settings import RetentionSettings
from observe.store import ClickHouseStore
from observe.types import Batch
from tests.fixtures.records import Span, batch, request


def main(command: str, url: str, *rest: str) -> str:
    try:
        store = ClickHouseStore(url, RetentionSettings())
        if command == "migrate":
            return ",".join(store.migrate())
        store.migrate()
        if command == "torn":
            _tear(store, int(rest[0]))
        for offset in range(int(rest[1])):
            _insert(store, batch("otlp_spans", 0, offset, request([Span("child")], int(rest[0]))))
            _say(str(offset))
        if command == "insert":
            time.sleep(60)
        return ""
    except ObserveError as error:
        return f"{type(error).__name__}: {error}"


def _insert(store: ClickHouseStore, whole: Batch) -> None:
    """Once more where the store was not available, as a writer does."""
    try:
        store.insert(whole, 1)
    except Unavailable as error:
        _say(f"Unavailable: {error}")
        store.insert(whole, 1)


def _tear(store: ClickHouseStore, base_ns: int) -> None:
    """Two inserts; files that the second one writes are cut off, as on a full disk. Then the process dies."""
    store.insert(batch("otlp_spans", 0, 0, long_request(base_ns)), 1)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5 * 1024, resource.RLIM_INFINITY))
    try:
        store.insert(batch("otlp_spans", 0, 1, long_request(base_ns)), 1)
    except Damaged as error:
        _say(f"Damaged: {error}")
    os.kill(os.getpid(), signal.SIGKILL)


def long_request(base_ns: int) -> bytes:
    """A span of 3.5 KiB, which is more than 5 in a part's file: texts are in it twice."""
    return request([Span(random.Random(0).randbytes(1750).hex())], base_ns)


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.stdout.write(main(*sys.argv[1:]) + "\n")
