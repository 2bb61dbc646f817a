"""Compares observe with what others would use: CPU, memory, disk, and rows lost or doubled, on the same records.

python -m tests.benchmarks.rivals [--spans N] [--only NAME …] [--repeat N] [--kills N] [--json]
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from clickhouse_connect.driver.exceptions import ClickHouseError

from tests.benchmarks.rivals.bench import Bench, Contender
from tests.benchmarks.rivals.collector import Collector, binary
from tests.benchmarks.rivals.ours import KafkaEngine, Observe, PythonLoop
from tests.benchmarks.rivals.result import Result, median
from tests.benchmarks.rivals.tables import check_same, create_exporter_tables
from tests.fixtures.clickhouse import ClickHouseServer, library
from tests.fixtures.kafka import KafkaBroker, resolve

NAMES = ("collector_readme", "collector_tuned", "python_loop", "observe_no_bloom", "observe_exporter", "observe_full",
         "kafka_engine")  # fmt: skip


def main(arguments: list[str]) -> int:
    options = parsed(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that nothing that was started here stays behind
    with parts() as bench:
        bench.create_topics()
        bench.fill(options.spans, headers=not options.without_headers, compression=options.compression)
        results, absent = [], {}
        for name in options.only:
            try:
                results.append(median([measured(bench, name, options.kills) for _ in range(options.repeat)]))
            except (RuntimeError, ClickHouseError) as error:
                print(f"{name}: {error}", file=sys.stderr)
                absent[name] = str(error)
                bench.revive()
    report = summary(results, options) | {"absent": absent}
    print(json.dumps(report, indent=2) if options.json else table(report))
    ours = [result for result in results if result.name.startswith("observe")]
    return 0 if all((r.rows, r.distinct) == (r.spans, r.spans) for r in ours) else 1


def parsed(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.rivals", description=__doc__)
    parser.add_argument("--spans", type=int, default=1_000_000, help="how many spans the topic holds")
    parser.add_argument("--only", nargs="+", choices=NAMES, default=NAMES, help="which contenders")
    parser.add_argument("--repeat", type=int, default=1, help="runs of each; the one with the median CPU counts")
    parser.add_argument("--compression", default="zstd", help="of the records on the topic")
    parser.add_argument("--without-headers", action="store_true", help="records as a Collector writes them")
    parser.add_argument("--kills", type=int, default=0, help="kill -9 of each pipeline so often on its way")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args(arguments)


@contextmanager
def parts() -> Iterator[Bench]:
    """A broker and a server of our own, on disk, for the time of the context."""
    resolve()
    with tempfile.TemporaryDirectory() as folder:
        server = ClickHouseServer(Path(folder) / "clickhouse", library(), tcp=True)
        broker = KafkaBroker(Path(folder) / "kafka")
        try:
            server.start()
            broker.start()
            yield Bench(broker, server, Path(folder))
        finally:
            broker.stop()
            server.stop()


def measured(bench: Bench, name: str, kills: int) -> Result:
    contender = made(name, native=not kills)
    result = bench.killed(contender, kills) if kills else bench.measure(contender)
    if isinstance(contender, Collector):
        check_layout(bench, f"bench_{name}")
    bench.forget(contender)
    print(json.dumps(result.report()), file=sys.stderr)
    return result


def check_layout(bench: Bench, database: str) -> None:
    """Raises RuntimeError where the Collector made other tables than those in which the others are compared with it."""
    layout = "bench_layout"
    create_exporter_tables(bench.client, layout)
    try:
        check_same(bench.client, layout, database)
    finally:
        bench.client.command(f"DROP DATABASE {layout} SYNC")


def made(name: str, *, native: bool = True) -> Contender:
    if name.startswith("collector_"):
        return Collector(binary(), tuned=name.endswith("tuned"), native=native)
    if name == "kafka_engine":
        return KafkaEngine()
    return PythonLoop() if name == "python_loop" else Observe(name.removeprefix("observe_"))


def summary(results: list[Result], options: argparse.Namespace) -> dict[str, Any]:
    """All rows, and each contender's CPU as a multiple of observe's in the same tables."""
    rows = {result.name: result.report() for result in results}
    report: dict[str, Any] = {
        "benchmark": "rivals",
        "cores": os.cpu_count(),
        "spans": max((result.spans for result in results), default=0),
        "kills": options.kills,
        "records": {"compression": options.compression, "headers": not options.without_headers},
        "rows": list(rows.values()),
    }
    if "observe_exporter" in rows and not options.kills:
        ours = rows["observe_exporter"]["cpu_s_per_million"]
        report["observe_same_tables_over"] = {
            name: {part: round(ours[part] / row["cpu_s_per_million"][part], 3) for part in ("pipeline", "together")}
            for name, row in rows.items()
            if not name.startswith("observe") and row["cpu_s_per_million"]["pipeline"]
        }
    return report


def table(report: dict[str, Any]) -> str:
    """The rows as Markdown."""
    if report["kills"]:
        lines = [f"| {row['what']} | {row['lost']:,} | {row['doubled']:,} |" for row in report["rows"]]
        return "\n".join(["| | lost | doubled |", "|---|---|---|", *lines])
    lines = [
        "| | spans/s | CPU-s per million: pipeline | server | together | merges of a row | peak MiB pipeline | server "
        "| bytes a span | lost | doubled |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in report["rows"]:
        cpu, peak, disk = row["cpu_s_per_million"], row["peak_mib"], row["bytes_per_span"]
        lines.append(
            f"| {row['what']} | {row['spans_per_s']:,} | {cpu['pipeline']} | {cpu['server']} | {cpu['together']} "
            f"| {row['merges_of_a_row']} | {peak['pipeline']} | {peak['server']} "
            f"| {disk['otel_traces']} ({disk['all_tables']}) | {row['lost']:,} | {row['doubled']:,} |"
        )
    lines += [f"\n{name} could not be had: {reason}" for name, reason in report["absent"].items()]
    ratios = report.get("observe_same_tables_over", {})
    lines += [f"\nobserve / {name}: pipeline {r['pipeline']}, together {r['together']}" for name, r in ratios.items()]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
