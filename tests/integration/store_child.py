"""A process that works on a store for the tests: `python -m tests.integration.store_child COMMAND URL …`."""

from __future__ import annotations

import sys
import time

from observe.errors import ObserveError
from observe.settings import RetentionSettings
from observe.store import ClickHouseStore
from tests.fixtures.records import Span, batch, request


def main(command: str, url: str, *rest: str) -> str:
    try:
        store = ClickHouseStore(url, RetentionSettings())
        if command == "migrate":
            return ",".join(store.migrate())
        if command == "insert":
            store.migrate()
            base_ns = int(rest[0])
            for offset in range(int(rest[1])):
                store.insert(batch("otlp_spans", 0, offset, request([Span("child")], base_ns)), 1)
                sys.stdout.write(f"{offset}\n")
                sys.stdout.flush()
            time.sleep(60)
        return ""
    except ObserveError as error:
        return f"{type(error).__name__}: {error}"


if __name__ == "__main__":
    sys.stdout.write(main(*sys.argv[1:]) + "\n")
