"""Several writer processes beside one ClickHouse server: what a second and a third add.

    python -m tests.benchmarks.writer_processes [--processes 1 2 3] [--mib 32] [--batches 12]

Each process is `writer_alone` with a database of its own: equal tokens would be stored once. `spans_per_s` is the
sum of their rates, which they reach side by side but for the time in which the last one runs alone. The server's CPU is
read from /proc until every process has ended, and holds the merges that it made meanwhile.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from observe.settings import RetentionSettings
from observe.store import ClickHouseStore
from tests.benchmarks.rivals.usage import cpu_s, peak_bytes
from tests.fixtures.clickhouse import ClickHouseServer, library


def side_by_side(server: ClickHouseServer, processes: int, mib: float, batches: int) -> dict[str, object]:
    stores = [f"{server.url}/writers_{processes}_{number}" for number in range(processes)]
    for url in stores:
        store = ClickHouseStore(url, RetentionSettings())
        store.migrate()
        store.close()
    before = cpu_s(server.pid)
    command = [sys.executable, "-m", "tests.benchmarks.writer_alone", "--mib", str(mib), "--batches", str(batches)]
    running = [subprocess.Popen([*command, "--store", url], stdout=subprocess.PIPE) for url in stores]
    answers = [json.loads(process.communicate()[0]) for process in running]
    items = sum(answer["items"] for answer in answers) * (batches + 1) / batches  # the first batch of each is not timed
    return {
        "processes": processes,
        "spans": round(items),
        "spans_per_s": sum(answer["items_per_s_without_generator"] for answer in answers),
        "cpu_s_per_million": {
            "writers": round(sum(a["cpu_s_per_million"] * a["items"] for a in answers) / items, 2),
            "server": round((cpu_s(server.pid) - before) / items * 1e6, 2),
        },
        "peak_memory_mib": {
            "writer": max(answer["peak_memory_mib"] for answer in answers),
            "server": round(peak_bytes(server.pid) / 2**20),
        },
        "load_average": round(os.getloadavg()[0], 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--mib", type=float, default=32)
    parser.add_argument("--batches", type=int, default=12)
    options = parser.parse_args()
    for processes in options.processes:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            server = ClickHouseServer(Path(folder) / "clickhouse", library())
            server.start()
            try:
                print(json.dumps(side_by_side(server, processes, options.mib, options.batches)), flush=True)
            finally:
                server.stop()


if __name__ == "__main__":
    main()
