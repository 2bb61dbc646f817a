"""A chDB store with the fleet and its API, as a process: `python -m tests.browser.serve FOLDER PORT`."""

from __future__ import annotations

import signal
import sys
import threading
import time

from observe.api import create_app, serve
from observe.store import ClickHouseStore
from observe.store.read import Reader
from tests.fixtures import fleet


def main(folder: str, port: str) -> None:
    stopped = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopped.set())
    store = ClickHouseStore(f"chdb://{folder}")
    now_ns = time.time_ns() - 20 * fleet.SECOND
    sample = fleet.Sample(now_ns - 720 * fleet.SECOND, now_ns - 240 * fleet.SECOND, now_ns)
    fleet.fill(store, sample)
    past = fleet.Sample(0, now_ns - 7200 * fleet.SECOND, 0)
    store.save_incidents([fleet.incident(past, resolved_ns=past.onset_ns + 400 * fleet.SECOND)])
    balance = {"accepted": 0, "stored": 0, "rejected": 0, "pending": 0}
    app = create_app(
        Reader(store),
        store,
        audit=lambda: {"signals": {"spans": balance}, "partitions": [], "dead_letters": 0, "ok": True},
        replay=lambda from_ns, to_ns: {"incidents": []},
        clock=lambda: now_ns + 15 * fleet.SECOND,  # the fleet stands still, and so does its now
    )
    server = serve(app, f"127.0.0.1:{port}")
    stopped.wait()
    server.stop()
    store.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
