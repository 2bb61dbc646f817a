"""What settling costs beside inserting, per million spans: self times and edges of each window, joined once.

    python -m tests.benchmarks.settling [--spans 300000] [--every 60] [--store URL]

Spans of five minutes are inserted, 10,000 every tenth part of a window and more for more spans; then `settle` is called
as the watcher does while nothing is wrong, every so many seconds of the spans' own time. CPU is this process's, so
with chdb:// the database's; merges are stopped.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time

from observe.bench.traces import TraceLoad
from observe.settings import RetentionSettings
from observe.store import ClickHouseStore
from observe.store.rollups import QUIET_S, SLACK_S, WINDOW_S
from observe.types import TOPICS, Batch, Record

SPANS_S = 300
BATCH_BYTES = 16 * 2**20


def fill(store: ClickHouseStore, spans: int, begin_ns: int) -> tuple[int, float]:
    """Inserts traces of SPANS_S; how many spans, and the CPU seconds of the inserts."""
    windows = SPANS_S // WINDOW_S
    load = TraceLoad(spans_per_round=spans // windows)
    waiting: list[Record] = []
    stored, cpu_s, first = 0, 0.0, 0
    for window in range(windows):
        for body, count in load.round(begin_ns + window * WINDOW_S * 10**9):
            waiting.append(Record(TOPICS["spans"], 0, first + len(waiting), body, time.time_ns() // 10**6))
            stored += count
        if sum(len(record.value) for record in waiting) > BATCH_BYTES or window == windows - 1:
            before = time.process_time()
            store.insert(Batch(tuple(waiting), first, first + len(waiting) - 1), len(waiting))
            cpu_s += time.process_time() - before
            first, waiting = first + len(waiting), []
    return stored, cpu_s


def settled(store: ClickHouseStore, begin_ns: int, every_s: int) -> tuple[int, float]:
    """Windows settled, and the CPU seconds that took."""
    end_s = SPANS_S + WINDOW_S + SLACK_S + QUIET_S + every_s
    before = time.process_time()
    windows = sum(store.settle(begin_ns + s * 10**9) for s in range(every_s, end_s + every_s, every_s))
    return windows, time.process_time() - before


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", default="")
    parser.add_argument("--spans", type=int, default=300_000)
    parser.add_argument("--every", type=int, default=60)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        store = ClickHouseStore(options.store or f"chdb://{folder}", RetentionSettings())
        store.migrate()
        store.execute("SYSTEM STOP MERGES", {})
        begin_ns = time.time_ns() - 2 * SPANS_S * 10**9
        spans, insert_s = fill(store, options.spans, begin_ns)
        windows, settle_s = settled(store, begin_ns, options.every)
        store.close()
        os.chdir("/")
    print(
        json.dumps(
            {
                "spans": spans,
                "windows": windows,
                "every_s": options.every,
                "insert_cpu_s_per_million": round(insert_s / spans * 1e6, 2),
                "settle_cpu_s_per_million": round(settle_s / spans * 1e6, 2),
                "load_average": round(os.getloadavg()[0], 1),
            }
        )
    )


if __name__ == "__main__":
    main()
