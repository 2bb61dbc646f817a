"""The writer's inserts without stream and receivers: spans/s, CPU, memory and bytes on disk, merges included.

    python -m tests.benchmarks.writer_alone [--store URL] [--mib 32] [--threads 1] [--batches 20]
    python -m tests.benchmarks.writer_alone --signal metrics [--kind mixed|gauge|sum|histogram|…]
    python -m tests.benchmarks.writer_alone --parts

CPU is that of this process, so with chdb:// of the database as well; making the batches is taken off. `cores_wanted`
counts the time in which threads were ready to run, too, whether a core was free or not: as long as it grows with the
threads, no lock holds them up. `--parts` stops the merges and drops one view after the other: what is saved with each
is what it costs.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from observe.bench.traces import TraceLoad
from observe.settings import RetentionSettings
from observe.store import ClickHouseStore
from observe.types import TOPICS, Batch, Record, Signal
from tests.benchmarks.points import KINDS, exports

SPAN_VIEWS = (
    "token_windows_mv",
    "service_blocks_mv",
    "operations_mv",
    "stored_days_otel_traces_mv",
    "otel_traces_trace_id_ts_mv",
    "service_windows_mv",
    "otel_traces_mv",
    "rejected_spans_mv",
    "ledger_spans_mv",
    "otlp_spans_flat_mv",
)
START_BEFORE_NS = 600 * 10**9


class Batches:
    """Batches of about `size` bytes; how long it took to make them is in `cpu_s`."""

    def __init__(self, signal: Signal, size: int, kind: str = "mixed") -> None:
        self._signal, self._size = signal, size
        self._requests = _spans() if signal == "spans" else exports(kind)
        self._offset = 0
        self._lock = threading.Lock()
        self.cpu_s = 0.0
        self.items = 0

    def next(self) -> tuple[Batch, int]:
        with self._lock:
            begin = time.thread_time()
            records: list[Record] = []
            size = items = 0
            while size < self._size:
                body, count = next(self._requests)
                records.append(Record(TOPICS[self._signal], 0, self._offset, body, time.time_ns() // 10**6))
                self._offset += 1
                size += len(body)
                items += count
            self.cpu_s += time.thread_time() - begin
            self.items += items
        return Batch(tuple(records), records[0].offset, records[-1].offset), items


def _spans() -> Iterator[tuple[bytes, int]]:
    load = TraceLoad()
    for second in range(10**9):
        yield from load.round(time.time_ns() - START_BEFORE_NS + second * 10**9)


def sustained(
    store: ClickHouseStore, signal: Signal, mib: float, threads: int, batches: int, kind: str
) -> dict[str, object]:
    made = Batches(signal, int(mib * 2**20), kind)
    store.insert(*made.next())
    made.items, made.cpu_s = 0, 0.0
    turns = iter(range(batches))
    lock = threading.Lock()

    def work() -> None:
        while True:
            with lock:
                if next(turns, None) is None:
                    return
            store.insert(*made.next())

    ready = Readiness()
    cpu_s, begin = time.process_time(), time.perf_counter()
    workers = [threading.Thread(target=work) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    seconds, cpu_s = time.perf_counter() - begin, time.process_time() - cpu_s - made.cpu_s
    return {
        "signal": signal,
        **({"kind": kind} if signal == "metrics" else {}),
        "items": made.items,
        "items_per_s": round(made.items / seconds),
        "items_per_s_without_generator": round(made.items / max(seconds - made.cpu_s, 1e-9)),
        "cpu_s_per_million": round(cpu_s / made.items * 1e6, 2),
        "cores_wanted": round(ready.seconds() / seconds, 2),
        "peak_memory_mib": _peak_mib(),
        "rows_merged_per_row": round(_event(store, "MergedRows") / made.items, 2),
        "bytes_on_disk_per_item": round(_bytes(store) / made.items, 1),
        "load_average": round(os.getloadavg()[0], 1),
    }


def by_part(store: ClickHouseStore, mib: float) -> Iterator[dict[str, object]]:
    store.execute("SYSTEM STOP MERGES", {})
    made = Batches("spans", int(mib * 2**20))
    for view in ("", *SPAN_VIEWS):
        if view:
            store.execute(f"DROP VIEW {view}", {})
        costs = []
        for _ in range(4):
            batch, items = made.next()
            begin = time.process_time()
            store.insert(batch, items)
            costs.append((time.process_time() - begin) / items * 1e6)
        yield {"without": view, "cpu_s_per_million": round(min(costs), 2)}


class Readiness:
    """Seconds in which the threads of this process ran or waited for a core (/proc/…/schedstat), from here on."""

    def __init__(self) -> None:
        self._before = self._now()

    def seconds(self) -> float:
        return sum(ns - self._before.get(thread, 0) for thread, ns in self._now().items()) / 1e9

    @staticmethod
    def _now() -> dict[str, int]:
        found = {}
        for stat in Path("/proc/self/task").glob("*/schedstat"):
            with suppress(OSError):  # it has ended
                ran, waited, _ = stat.read_text().split()
                found[stat.parent.name] = int(ran) + int(waited)
        return found


def _event(store: ClickHouseStore, name: str) -> int:
    return int(store.query("SELECT sum(value) FROM system.events WHERE event = {name:String}", {"name": name}).item())


def _bytes(store: ClickHouseStore) -> int:
    sql = "SELECT sum(bytes_on_disk) FROM system.parts WHERE active AND database = currentDatabase()"
    return int(store.query(sql).item())


def _peak_mib() -> int:
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) // 1024 for line in status if line.startswith("VmHWM"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", default="")
    parser.add_argument("--signal", choices=("spans", "metrics"), default="spans")
    parser.add_argument("--kind", choices=KINDS, default="mixed", help="of metric points")
    parser.add_argument("--mib", type=float, default=32)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batches", type=int, default=20)
    parser.add_argument("--parts", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        store = ClickHouseStore(options.store or f"chdb://{folder}", RetentionSettings())
        store.migrate()
        if options.parts:
            for row in by_part(store, options.mib):
                print(json.dumps(row), flush=True)
        else:
            print(
                json.dumps(
                    sustained(store, options.signal, options.mib, options.threads, options.batches, options.kind)
                )
            )
        store.close()
        os.chdir("/")


if __name__ == "__main__":
    main()
