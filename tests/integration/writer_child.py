"""The writer as a process of its own, to be killed: `python -m tests.integration.writer_child write STREAM STORE`."""

from __future__ import annotations

import json
import signal
import sys
import threading

from observe import pipeline
from observe.audit import audit
from observe.settings import Settings
from observe.store import ClickHouseStore
from observe.stream import open_stream
from observe.types import TOPICS, BatchLimits

GROUP = "observe-writer"


def write(stream_url: str, store_url: str) -> None:
    """Stores small batches until SIGTERM."""
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    stream, store = open_stream(Settings(stream=stream_url)), ClickHouseStore(store_url)
    store.migrate()
    consumer = stream.consumer(GROUP, tuple(TOPICS.values()), BatchLimits(max_records=7, max_age_s=0.1))
    dead_letters = stream.producer()
    pipeline.ingest(consumer, store, dead_letters, stop=stopping.is_set)
    dead_letters.close()
    consumer.close()
    store.close()


def account(stream_url: str, store_url: str) -> None:
    store = ClickHouseStore(store_url)
    body = audit(store, open_stream(Settings(stream=stream_url)).admin(), GROUP)
    distinct = store.query("SELECT uniqExact(SpanId) AS spans FROM otel_traces")["spans"][0]
    sys.stdout.write(json.dumps({**body, "distinct": distinct}))
    store.close()


if __name__ == "__main__":
    {"write": write, "audit": account}[sys.argv[1]](*sys.argv[2:])
