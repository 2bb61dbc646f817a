"""A process that works on a store for the tests: `python -m tests.integration.store_child COMMAND URL …`."""

from __future__ import annotations

import sys
import time

from observe.errors import ObserveError, Unavailable
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


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.stdout.write(main(*sys.argv[1:]) + "\n")
