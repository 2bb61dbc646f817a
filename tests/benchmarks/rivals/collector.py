"""The OpenTelemetry Collector, compiled here from Go modules, and the configurations in which it is run."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from tests.benchmarks.rivals.bench import TOPIC, Bench

BUILD = Path(__file__).parent / "collector" / "build.sh"


def binary() -> str:
    """Path of the compiled Collector. Raises RuntimeError, with the reason, where it cannot be had."""
    done = subprocess.run([BUILD], stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise RuntimeError("the Collector could not be compiled; see the messages above")
    return done.stdout.strip()


class Collector:
    """kafkareceiver → memory_limiter → clickhouseexporter, with its own tables.

    `readme` is what the two components' READMEs recommend, and no more. `tuned` is the most that their settings give
    on a load like this: large batches inserted directly, a queue that waits where it is full, offsets that are
    committed after the pipeline took the record.

    It speaks the native protocol, which costs it least. Where it is to be killed it speaks HTTP: the server made from
    libchdb may abort when a native client vanishes in the middle of an insert.
    """

    def __init__(self, binary: str, *, tuned: bool, native: bool = True) -> None:
        self._binary = binary
        self._native = native
        self._tuned = tuned
        self.name = "collector_tuned" if tuned else "collector_readme"
        self.group = f"bench-{self.name}"
        self.what = "Collector, large direct inserts, queue that waits" if tuned else "Collector as its READMEs say"

    def prepare(self, bench: Bench, database: str) -> None:
        """Nothing: the exporter creates its database and its tables."""

    def start(self, bench: Bench, database: str, log: Path) -> subprocess.Popen[bytes]:
        config = log.with_suffix(".json")  # JSON is YAML
        config.write_text(json.dumps(self.config(bench, database), indent=2))
        with log.open("wb") as out:
            return subprocess.Popen([self._binary, "--config", str(config)], stdout=out, stderr=out, cwd=bench.folder)

    def stop(self, bench: Bench, database: str) -> None:
        """Nothing is left of it."""

    def config(self, bench: Bench, database: str) -> dict[str, Any]:
        receiver: dict[str, Any] = {
            "brokers": [bench.broker.bootstrap],
            "group_id": self.group,
            "initial_offset": "earliest",
            "traces": {"topics": [TOPIC], "encoding": "otlp_proto"},
        }
        exporter: dict[str, Any] = {
            "endpoint": self._endpoint(bench),
            "username": "default",
            "database": database,
            "sending_queue": {"num_consumers": 10, "batch": {"min_size": 5000, "flush_timeout": "5s"}},
        }
        if self._tuned:
            receiver |= {"message_marking": {"after": True}, "max_fetch_size": 16 * 2**20,
                         "max_partition_fetch_size": 16 * 2**20}  # fmt: skip
            exporter |= {
                "async_insert": False,
                "timeout": "60s",
                "sending_queue": {
                    "num_consumers": 2,
                    "sizer": "items",
                    "queue_size": 400_000,
                    "block_on_overflow": True,
                    "batch": {"min_size": 50_000, "max_size": 100_000, "flush_timeout": "2s"},
                },
            }
        return {
            "receivers": {"kafka": receiver},
            "processors": {"memory_limiter": {"check_interval": "1s", "limit_mib": 2000, "spike_limit_mib": 400}},
            "exporters": {"clickhouse": exporter},
            "service": {
                "telemetry": {"metrics": {"level": "none"}, "logs": {"level": "warn"}},
                "pipelines": {
                    "traces": {"receivers": ["kafka"], "processors": ["memory_limiter"], "exporters": ["clickhouse"]}
                },
            },
        }

    def _endpoint(self, bench: Bench) -> str:
        server = bench.server
        return f"tcp://127.0.0.1:{server.tcp_port}" if self._native else f"http://127.0.0.1:{server.port}"
