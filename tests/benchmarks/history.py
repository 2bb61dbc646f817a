"""What asking earlier cycles costs on a store with weeks of windows:
`python -m tests.benchmarks.history [--days 15] [--services 100] [--server]`.

Fills a store of its own with one row a service and window, histograms of twelve buckets, then asks `seasons` about one
service's shift and about those of twenty, whose last days had nothing like it, so that every cycle and the spectrum are
read. Prints one JSON object: seconds on the wall and of this process's cores, medians of five.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from observe.bench.ticks import timed
from observe.detect.seasons import seasons
from observe.frames import Frames, PastQuestion
from observe.settings import DetectSettings
from observe.store import ClickHouseStore
from observe.types import Json, Shift
from tests.fixtures.clickhouse import ClickHouseServer, library

FILL = """
INSERT INTO service_windows SELECT
    toDateTime({from:UInt32} + intDiv(number, {services:UInt32}) * 10, 'UTC'),
    concat('service-', leftPad(toString(number % {services:UInt32}), 3, '0')), 'GET /', 'Server', '1',
    50, number % 7 = 0, 5000000000, 900000000,
    mapFromArrays(arrayMap(i -> toInt16(70 + i), range(12)), arrayMap(i -> 1 + cityHash64(number, i) % 7, range(12)))
FROM numbers(8640 * {services:UInt32})
SETTINGS max_threads = 1
"""
ASKED = (1, 20)
REPEATS = 5


def measured(store: ClickHouseStore, days: int, services: int) -> Json:
    end_s = int(time.time()) // 300 * 300
    began = time.process_time()
    for day in range(days, 0, -1):
        store.execute(FILL, {"from": end_s - day * 86_400, "services": services})
        print(f"day {day}", file=sys.stderr, flush=True)
    filled = time.process_time() - began
    rows = int(store.query("SELECT count() AS n FROM service_windows", {})["n"][0])
    return {
        "days": days,
        "services": services,
        "windows": rows,
        "fill_cpu_s": round(filled, 1),
        "asked": [_asked(store, many, end_s) for many in ASKED],
    }


def _asked(store: ClickHouseStore, services: int, end_s: int) -> Json:
    settings, now_ns = DetectSettings(), (end_s + 12) * 10**9
    shifts = [
        Shift(f"service-{i:03d}", "GET /", "Server", "latency_p99_ms", 40.0, 400.0, "ms", 1e-12, 500, now_ns - 10**11)
        for i in range(services)
    ]
    counted: list[tuple[int, int]] = []

    def past(question: PastQuestion) -> Frames:
        frames = store.past(question)
        counted.append((len(question.ranges), frames.windows.height + frames.blocks.height))
        return frames

    spent = [timed(lambda: seasons(shifts, now_ns, settings, past)) for _ in range(REPEATS)]
    questions = counted[: len(counted) // REPEATS]
    return {
        "services": services,
        "questions": len(questions),
        "ranges": sum(ranges for ranges, _ in questions),
        "rows": sum(rows for _, rows in questions),
        "seconds": round(median(wall for _, wall, _ in spent), 3),
        "cpu_seconds": round(median(cpu for _, _, cpu in spent), 3),
        "usual": sum(season.usual for season in spent[0][0].values()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--days", type=int, default=15)
    parser.add_argument("--services", type=int, default=100)
    parser.add_argument("--server", action="store_true", help="a ClickHouse server beside; its cores are not counted")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        server = ClickHouseServer(Path(folder) / "server", library()) if options.server else None
        if server:
            server.start()
        store = ClickHouseStore(f"{server.url}/observe" if server else f"chdb://{folder}/store")
        try:
            store.migrate()
            result = measured(store, options.days, options.services)
        finally:
            store.close()
            if server:
                server.stop()
    print(json.dumps({"store": "server" if options.server else "chdb"} | result, indent=1))


if __name__ == "__main__":
    main()
