"""Memory of `observe up`, or of a receiver and a writer beside a ClickHouse server, over minutes of steady load.

    python -m tests.benchmarks.memory [--deployment up|server] [--minutes 12] [--spans 500] [--points 500] [--logs 300]

Prints one JSON line a sample (`--every` seconds: resident MiB of each process, and of that what is its own) and a last
one with, for each process, the peak, the mean of the last third, and the growth in MiB an hour: the median of slopes
between all pairs of samples of the last two thirds (Theil 1950; Sen 1968, doi:10.1080/01621459.1968.10480934), with the
range that holds 90 % of such slopes of whole minutes of samples drawn again (block bootstrap).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, combinations
from pathlib import Path

import numpy as np

from observe.bench.otlp_load import send
from observe.bench.traces import TraceLoad
from observe.types import Signal
from tests.benchmarks.points import exports
from tests.fixtures.clickhouse import ClickHouseServer, library
from tests.fixtures.ports import free_ports
from tests.fixtures.processes import Command, wait_for
from tests.fixtures.records import logs

START_S = 300.0
DRAWS = 200
BLOCK = 6
"""Samples that are drawn together: those of a minute, where one is taken every ten seconds."""


def load(rates: Mapping[Signal, float], stop: threading.Event) -> Iterator[tuple[Signal, bytes]]:
    """Requests of each signal as they fall due."""
    makers = {"spans": _spans(), "metrics": exports("mixed", live=True), "logs": _logs()}
    begin = time.monotonic()
    sent = dict.fromkeys(rates, 0)
    while not stop.is_set():
        late = [s for s, rate in rates.items() if sent[s] < rate * (time.monotonic() - begin)]
        for signal in late:
            body, items = next(makers[signal])
            sent[signal] += items
            yield signal, body
        if not late:
            stop.wait(0.05)


def _spans() -> Iterator[tuple[bytes, int]]:
    traces = TraceLoad()
    while True:
        yield from traces.round(time.time_ns() - 2 * 10**9)


def _logs() -> Iterator[tuple[bytes, int]]:
    number = 0
    while True:
        number += 1
        at = time.time_ns()
        yield logs(f"service-{number % 12}", [_record(at + i, number + i) for i in range(50)]), 50


def _record(at_ns: int, number: int) -> dict[str, object]:
    return {
        "time_unix_nano": at_ns,
        "severity_number": 9,
        "severity_text": "INFO",
        "body": f"request {number} took {number % 977} ms and gave {number % 13} rows to tenant {number % 40}",
        "attributes": {"thread": f"worker-{number % 8}", "tenant": f"t{number % 40}", "attempt": number % 3},
    }


@contextlib.contextmanager
def deployed(kind: str, folder: Path) -> Iterator[tuple[str, dict[str, int]]]:
    """Address of the OTLP/gRPC receiver and process ids by name."""
    grpc, http, api = (f"127.0.0.1:{port}" for port in free_ports(3))
    if kind == "up":
        options = ("--data", str(folder / "data"), "--otlp-grpc", grpc, "--otlp-http", http, "--api", api)
        command = Command(folder, "observe", "up", *options, "--no-dashboard")
        try:
            wait_for("observe up", command.is_ready, START_S)
            yield grpc, {"up": command.process.pid}
        finally:
            command.stop()
        return
    server = ClickHouseServer(folder / "clickhouse", library())
    server.start()
    environ = {
        "OBSERVE_STREAM": f"local://{folder}/stream",
        "OBSERVE_STORE": f"{server.url}/memory",
        "OBSERVE_COLLECT__OTLP__GRPC": grpc,
        "OBSERVE_COLLECT__OTLP__HTTP": http,
    }
    started: list[Command] = []
    try:
        assert Command(folder, "observe", "migrate", environ=environ).process.wait(START_S) == 0
        started.append(Command(folder, "observe", "collect", "otlp", environ=environ))
        started.append(Command(folder, "observe", "write", environ=environ))
        wait_for("receiver and writer", lambda: all(c.is_ready() for c in started), START_S)
        collector, writer = (c.process.pid for c in started)
        yield grpc, {"receiver": collector, "writer": writer, "clickhouse": server.pid}
    finally:
        for command in reversed(started):
            command.stop()
        server.stop()


def resident(pid: int) -> dict[str, float]:
    """MiB in memory, and of that what no file backs."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":" in line)
    names = {"rss_mib": "VmRSS", "own_mib": "RssAnon", "peak_mib": "VmHWM"}
    return {name: round(int(status[key].split()[0]) / 1024, 1) for name, key in names.items()}


def growth(samples: Sequence[tuple[float, float]]) -> float:
    """MiB an hour, by the median of the slopes of all pairs."""
    slopes = [(b - a) / (t - s) for (s, a), (t, b) in combinations(samples, 2) if t > s]
    return statistics.median(slopes) * 3600 if slopes else 0.0


def growth_range(samples: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """The middle 90 % of slopes of samples drawn again, a block at a time."""
    blocks = [samples[i : i + BLOCK] for i in range(0, len(samples), BLOCK)]
    chance = np.random.default_rng(1)
    drawn = [chance.integers(len(blocks), size=len(blocks)) for _ in range(DRAWS)]
    slopes = [growth(sorted(chain.from_iterable(blocks[i] for i in some))) for some in drawn]
    low, high = np.quantile(slopes, [0.05, 0.95])
    return round(float(low), 1), round(float(high), 1)


def summary(taken: Mapping[str, Sequence[tuple[float, float]]], peaks: Mapping[str, float]) -> dict[str, object]:
    return {
        name: {
            "peak_mib": peaks[name],
            "last_third_mib": round(statistics.mean(v for _, v in samples[-len(samples) // 3 :]), 1),
            "growth_mib_per_hour": round(growth(samples[len(samples) // 3 :]), 1),
            "growth_range_mib_per_hour": growth_range(samples[len(samples) // 3 :]),
        }
        for name, samples in taken.items()
    }


def run(deployment: str, rates: Mapping[Signal, float], minutes: float, every_s: float) -> Iterator[dict[str, object]]:
    stop = threading.Event()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder, deployed(deployment, Path(folder)) as found:
        address, pids = found
        sender = threading.Thread(target=lambda: send(load(rates, stop), address, concurrency=2))
        sender.start()
        begin = time.monotonic()
        taken: dict[str, list[tuple[float, float]]] = {name: [] for name in pids}
        peaks: dict[str, float] = {}
        try:
            while (at := time.monotonic() - begin) < minutes * 60:
                now = {name: resident(pid) for name, pid in pids.items()}
                for name, found_mib in now.items():
                    taken[name].append((at, found_mib["rss_mib"]))
                    peaks[name] = found_mib["peak_mib"]
                yield {"at_s": round(at), **now}
                time.sleep(every_s)
        finally:
            stop.set()
            sender.join()
        yield {
            "deployment": deployment,
            "minutes": minutes,
            "rates_per_s": dict(rates),
            "processes": summary(taken, peaks),
            "load_average": round(os.getloadavg()[0], 1),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--deployment", choices=("up", "server"), default="up")
    parser.add_argument("--minutes", type=float, default=12)
    parser.add_argument("--every", type=float, default=10)
    parser.add_argument("--spans", type=float, default=500)
    parser.add_argument("--points", type=float, default=500)
    parser.add_argument("--logs", type=float, default=300)
    options = parser.parse_args()
    rates: dict[Signal, float] = {"spans": options.spans, "metrics": options.points, "logs": options.logs}
    for line in run(options.deployment, rates, options.minutes, options.every):
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
