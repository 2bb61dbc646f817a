"""OTLP/gRPC in, Kafka records out: observe's receiver and the Collector's otlpreceiver with kafkaexporter.

python -m tests.benchmarks.rivals.receive [--spans N] [--only NAME …] [--json]

The same generator sends to each, on the same cores, and waits for acknowledgements; both write zstd records and wait
for the broker. `collector_queue` acknowledges when a request is in the exporter's queue in memory, which is its
default; `collector_waits` and observe when Kafka has it.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.cimpl import NewTopic

from observe.bench.ingest import send
from observe.bench.traces import TraceLoad
from observe.stream.otlp import count_items
from tests.benchmarks.rivals.__main__ import parts
from tests.benchmarks.rivals.bench import PARTITIONS, Bench, end
from tests.benchmarks.rivals.collector import binary
from tests.benchmarks.rivals.usage import cpu_s, peak_bytes
from tests.fixtures.ports import free_port

NAMES = ("collector_queue", "collector_waits", "observe")
IN_FLIGHT = 16


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.rivals.receive", description=__doc__)
    parser.add_argument("--spans", type=int, default=1_000_000)
    parser.add_argument("--only", nargs="+", choices=NAMES, default=NAMES)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    rows, absent = [], {}
    with parts() as bench:
        for name in options.only:
            try:
                rows.append(measured(bench, name, options.spans))
            except RuntimeError as error:
                absent[name] = str(error)
    report = {"benchmark": "receive", "cores": os.cpu_count(), "rows": rows, "absent": absent}
    print(json.dumps(report, indent=2) if options.json else table(rows))
    return 0 if all(row["lost"] == row["doubled"] == 0 for row in rows if row["name"] == "observe") else 1


def measured(bench: Bench, name: str, spans: int) -> dict[str, Any]:
    """One receiver alone, from when it listens until the topic has stopped growing."""
    topic = "otlp_spans" if name == "observe" else f"{name}_spans"
    config = {"max.message.bytes": str(16 * 2**20)}
    bench.admin.create_topics([NewTopic(topic, PARTITIONS, 1, config=config)])[topic].result(30)
    port = free_port()
    log = bench.folder / f"receive-{name}.log"
    process = started(bench, name, port, topic, log)
    try:
        wait_for_port(process, port, log)
        before, broker_before = cpu_s(process.pid), cpu_s(bench.broker.pid)
        begin = time.monotonic()
        load = multiprocessing.get_context("spawn").Process(target=send, args=(f"127.0.0.1:{port}", spans, IN_FLIGHT))
        load.start()
        load.join()
        if load.exitcode:
            raise RuntimeError(f"{name} refused the load:\n{log.read_text(errors='replace')[-3000:]}")
        acknowledged_s = time.monotonic() - begin
        wait_until_quiet(bench, topic)
        cpu, peak = cpu_s(process.pid) - before, peak_bytes(process.pid)
        broker = cpu_s(bench.broker.pid) - broker_before
    finally:
        end(process)
    records, stored = counted(bench, topic)
    sent = rounds(spans)
    return {
        "name": name,
        "spans": sent,
        "lost": max(0, sent - stored),
        "doubled": max(0, stored - sent),
        "records": records,
        "spans_per_s_acknowledged": round(sent / acknowledged_s),
        "cpu_s_per_million": {"receiver": round(cpu / sent * 1e6, 2), "broker": round(broker / sent * 1e6, 2)},
        "peak_mib": round(peak / 2**20),
    }


def started(bench: Bench, name: str, port: int, topic: str, log: Path) -> subprocess.Popen[bytes]:
    with log.open("wb") as out:
        if name == "observe":
            environ = {
                **os.environ,
                "OBSERVE_STREAM": f"kafka://{bench.broker.bootstrap}",
                "OBSERVE_COLLECT__OTLP__GRPC": f"127.0.0.1:{port}",
                "OBSERVE_COLLECT__OTLP__HTTP": f"127.0.0.1:{free_port()}",
            }
            command = [sys.executable, "-m", "observe", "collect", "otlp"]
            return subprocess.Popen(command, env=environ, stdout=out, stderr=out, cwd=bench.folder)
        config = log.with_suffix(".json")  # JSON is YAML
        config.write_text(json.dumps(collector_config(bench, port, topic, waits=name == "collector_waits")))
        return subprocess.Popen([binary(), "--config", str(config)], stdout=out, stderr=out, cwd=bench.folder)


def collector_config(bench: Bench, port: int, topic: str, *, waits: bool) -> dict[str, Any]:
    exporter = {
        "brokers": [bench.broker.bootstrap],
        "traces": {"topic": topic, "encoding": "otlp_proto"},
        "producer": {"compression": "zstd", "required_acks": -1, "max_message_bytes": 8 * 2**20},
        "sending_queue": {"enabled": not waits},
    }
    grpc = {"endpoint": f"127.0.0.1:{port}", "max_recv_msg_size_mib": 64}
    return {
        "receivers": {"otlp": {"protocols": {"grpc": grpc}}},
        "processors": {"memory_limiter": {"check_interval": "1s", "limit_mib": 2000, "spike_limit_mib": 400}},
        "exporters": {"kafka": exporter},
        "service": {
            "telemetry": {"metrics": {"level": "none"}, "logs": {"level": "warn"}},
            "pipelines": {"traces": {"receivers": ["otlp"], "processors": ["memory_limiter"], "exporters": ["kafka"]}},
        },
    }


def wait_for_port(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise RuntimeError(f"does not start:\n{log.read_text(errors='replace')[-3000:]}")


def wait_until_quiet(bench: Bench, topic: str) -> None:
    seen, since = -1, time.monotonic()
    while time.monotonic() < since + 2.0:
        if (now := sum(bench.end(topic).values())) != seen:
            seen, since = now, time.monotonic()
        time.sleep(0.2)


def counted(bench: Bench, topic: str) -> tuple[int, int]:
    """Records and spans that the topic holds, read from its records."""
    ends = bench.end(topic)
    consumer = Consumer({"bootstrap.servers": bench.broker.bootstrap, "group.id": "count", "enable.auto.commit": False})
    consumer.assign([TopicPartition(topic, p, 0) for p in ends])
    records = spans = 0
    deadline = time.monotonic() + 120
    while records < sum(ends.values()) and time.monotonic() < deadline:
        message = consumer.poll(1.0)
        if message is not None and not message.error():
            records += 1
            spans += count_items("spans", message.value() or b"")
    consumer.close()
    return records, spans


def rounds(spans: int) -> int:
    """How many spans the generator sends where it was asked for at least `spans`: whole rounds."""
    a_round = TraceLoad().spans_per_round
    return -(-spans // a_round) * a_round


def table(rows: list[dict[str, Any]]) -> str:
    lines = ["| | acknowledged spans/s | receiver CPU-s per million | broker | peak MiB | lost | doubled |",
             "|---|---|---|---|---|---|---|"]  # fmt: skip
    for row in rows:
        cpu = row["cpu_s_per_million"]
        lines.append(
            f"| {row['name']} | {row['spans_per_s_acknowledged']:,} | {cpu['receiver']} | {cpu['broker']} "
            f"| {row['peak_mib']} | {row['lost']:,} | {row['doubled']:,} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
