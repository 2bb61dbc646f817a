"""observe's writer as a contender, and the naive loop; both run in the exporter's own tables where that is asked."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import clickhouse_connect

from observe.settings import RetentionSettings, Settings, WriterSettings
from observe.store import ClickHouseStore, kafka_engine
from tests.benchmarks.rivals import python_loop
from tests.benchmarks.rivals.bench import TOPIC, Bench
from tests.benchmarks.rivals.tables import create_exporter_tables, reduce_to_exporter_tables


class Observe:
    """`observe write`. `tables`: full, with all columns, rollups and the ledger; exporter, the exporter's tables and
    indexes; no_bloom, the same without its five bloom filters. Rejects and the ledger are kept in all of them."""

    def __init__(self, tables: str) -> None:
        self._tables = tables
        self.name = f"observe_{tables}"
        self.group = f"bench-{self.name}"
        self.what = {
            "full": "observe write, all columns, rollups, ledger",
            "exporter": "observe write into the exporter's tables and indexes",
            "no_bloom": "observe write into the exporter's tables without bloom filters",
        }[tables]

    def prepare(self, bench: Bench, database: str) -> None:
        migrate(bench, database)
        if self._tables != "full":
            reduce_to_exporter_tables(bench.client, database, bloom=self._tables == "exporter")

    def start(self, bench: Bench, database: str, log: Path) -> subprocess.Popen[bytes]:
        with log.open("wb") as out:
            return subprocess.Popen(
                [sys.executable, "-m", "observe", "write"], env=self._environ(bench, database), stdout=out, stderr=out,
                cwd=bench.folder,
            )  # fmt: skip

    def stop(self, bench: Bench, database: str) -> None:
        """Nothing is left of it."""

    def _environ(self, bench: Bench, database: str) -> dict[str, str]:
        return {
            **os.environ,
            "OBSERVE_STREAM": f"kafka://{bench.broker.bootstrap}",
            "OBSERVE_STORE": f"{bench.server.url}/{database}",
            "OBSERVE_WRITER__GROUP": self.group,
            "OBSERVE_LOG__LEVEL": "warning",
        }


class KafkaEngine:
    """ClickHouse's own Kafka engine feeding observe's landing tables: no process of ours at all."""

    name = "kafka_engine"
    group = "bench-kafka_engine"
    what = "ClickHouse's Kafka engine into observe's tables, rollups, ledger"

    def prepare(self, bench: Bench, database: str) -> None:
        migrate(bench, database)

    def start(self, bench: Bench, database: str, log: Path) -> None:
        writer = WriterSettings(group=self.group)
        settings = Settings(stream=f"kafka://{bench.broker.bootstrap}", writer=writer)
        self._execute(bench, database, kafka_engine.statements(settings))

    def stop(self, bench: Bench, database: str) -> None:
        self._execute(bench, database, kafka_engine.removal())

    def _execute(self, bench: Bench, database: str, statements: Iterable[str]) -> None:
        with clickhouse_connect.get_client(dsn=bench.http, database=database) as client:
            for statement in statements:
                client.command(statement)


class PythonLoop:
    """The script `python_loop.py`, into tables as the exporter creates them."""

    name = "python_loop"
    group = "bench-python_loop"
    what = "Python: decode, loop over spans, client.insert of 50,000 rows"

    def prepare(self, bench: Bench, database: str) -> None:
        create_exporter_tables(bench.client, database)

    def start(self, bench: Bench, database: str, log: Path) -> subprocess.Popen[bytes]:
        arguments = (bench.broker.bootstrap, TOPIC, self.group, bench.http, database)
        with log.open("wb") as out:
            return subprocess.Popen(
                [sys.executable, python_loop.__file__, *arguments], stdout=out, stderr=out, cwd=bench.folder
            )

    def stop(self, bench: Bench, database: str) -> None:
        """Nothing is left of it."""


def migrate(bench: Bench, database: str) -> None:
    store = ClickHouseStore(f"{bench.server.url}/{database}", RetentionSettings())
    store.migrate()
    store.close()
