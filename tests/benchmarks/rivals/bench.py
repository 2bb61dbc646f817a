"""One broker with the records, one server, and each contender measured alone on them."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import clickhouse_connect
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ClickHouseError
from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from observe.bench.traces import TraceLoad
from observe.stream.otlp import digest_header, items_header
from observe.types import DEAD_LETTERS, TOPICS
from tests.benchmarks.rivals.result import Result
from tests.benchmarks.rivals.usage import cpu_s, forget_peak, peak_bytes
from tests.fixtures.clickhouse import ClickHouseServer
from tests.fixtures.kafka import KafkaBroker

TOPIC = TOPICS["spans"]
PARTITIONS = 3
STALL_S = 15.0
SESSION_S = 150.0
"""Longer than any group waits for a member that was killed, and for the first rows after that."""

SETTLE_S = 90.0
GONE_S = 2.0
POLL_S = 0.5
"""Each look costs the server milliseconds, which the slower contender pays more often: seldom, so that they are few."""


class Contender(Protocol):
    """Something that moves spans from the topic into a database of its own."""

    name: str
    what: str
    group: str

    def prepare(self, bench: Bench, database: str) -> None:
        """Creates what must exist before the start; not measured."""

    def start(self, bench: Bench, database: str, log: Path) -> subprocess.Popen[bytes] | None:
        """The pipeline as a process of its own, or None where the server does it all."""

    def stop(self, bench: Bench, database: str) -> None:
        """Undoes what would go on working after the process has ended."""


class Bench:
    """The parts that all contenders share. `records` and `spans` are what the topic holds."""

    def __init__(self, broker: KafkaBroker, server: ClickHouseServer, folder: Path) -> None:
        self.broker, self.server, self.folder = broker, server, folder
        self.http = server.url.replace("clickhouse://", "http://")
        self.client: Client = clickhouse_connect.get_client(dsn=self.http)
        self.admin = AdminClient({"bootstrap.servers": broker.bootstrap, "log_level": 0})
        self.spans = 0

    # ── records ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def create_topics(self) -> None:
        config = {"max.message.bytes": str(16 * 2**20)}
        topics = [NewTopic(t, PARTITIONS, 1, config=config) for t in (*TOPICS.values(), DEAD_LETTERS)]
        for made in self.admin.create_topics(topics).values():
            made.result(30)

    def fill(self, spans: int, *, headers: bool, compression: str, seed: int = 1) -> None:
        """Puts whole rounds of traces on the topic until at least `spans` are there.

        With `headers` a record is what observe's receivers write, without what a Collector's kafkaexporter writes.
        """
        producer = Producer(
            {
                "bootstrap.servers": self.broker.bootstrap, "compression.type": compression, "linger.ms": 20,
                "message.max.bytes": 8 * 2**20, "sticky.partitioning.linger.ms": 5, "log_level": 0,
            }
        )  # fmt: skip
        load, start_ns = TraceLoad(seed), time.time_ns() - 600 * 10**9
        while self.spans < spans:
            for body, count in load.round(start_ns):
                stated = {**items_header(count), **digest_header(body)} if headers else {}
                producer.produce(TOPIC, body, headers=list(stated.items()))
                self.spans += count
            producer.flush(60)
            start_ns += 10**9

    def end(self, topic: str = TOPIC) -> dict[int, int]:
        """The offset past the last record, by partition."""
        consumer = Consumer({"bootstrap.servers": self.broker.bootstrap, "group.id": "bench"})
        ends = {p: consumer.get_watermark_offsets(TopicPartition(topic, p), timeout=30)[1] for p in range(PARTITIONS)}
        consumer.close()
        return ends

    def lag(self, group: str) -> int:
        """How many records the group has not committed."""
        asked = ConsumerGroupTopicPartitions(group, [TopicPartition(TOPIC, p) for p in range(PARTITIONS)])
        found = self.admin.list_consumer_group_offsets([asked])[group].result(30).topic_partitions
        committed = sum(max(0, int(partition.offset)) for partition in found)
        return sum(self.end().values()) - committed

    def has_partitions(self, group: str) -> bool:
        """Whether somebody in the group was given partitions, so that reading begins now."""
        try:
            members = self.admin.describe_consumer_groups([group])[group].result(10).members
        except KafkaException:
            return False
        return any(member.assignment.topic_partitions for member in members)

    # ── rows ────────────────────────────────────────────────────────────────────────────────────────────────────────

    def rows(self, database: str) -> int:
        exists = self.client.command(f"EXISTS TABLE {database}.otel_traces")
        return int(str(self.client.command(f"SELECT count() FROM {database}.otel_traces"))) if exists else 0

    def distinct(self, database: str) -> int:
        return int(str(self.client.command(f"SELECT uniqExact(TraceId, SpanId) FROM {database}.otel_traces")))

    def merged_rows(self) -> int:
        """Rows of all merges since the server's start; events are absent until the first."""
        return int(str(self.client.command("SELECT sum(value) FROM system.events WHERE event = 'MergedRows'")))

    def parts(self, database: str) -> int:
        return int(str(self.client.command(f"SELECT count() FROM system.parts WHERE active AND database='{database}'")))

    def wait_for_rows(self, database: str, group: str, *, distinct: bool = False) -> float:
        """Waits until there are as many rows, or as many `distinct` ones, as spans; when the last was added.

        None added for a while is the end, too: soon where all records are committed, since then no more will come.
        After a kill rows that are there twice must not pass for others.
        """
        count = self.distinct if distinct else self.rows
        seen, grown = -1, time.monotonic()
        while seen < self.spans:
            time.sleep(POLL_S)
            if (now := count(database)) != seen:
                seen, grown = now, time.monotonic()
            stalled_s = time.monotonic() - grown
            if stalled_s > SESSION_S or (stalled_s > STALL_S and self.lag(group) == 0):
                break
        return grown

    def settle(self, database: str) -> None:
        """Waits until no merge has been running for two seconds."""
        quiet, deadline = time.monotonic(), time.monotonic() + SETTLE_S
        running = f"SELECT count() FROM system.merges WHERE database = '{database}'"
        while time.monotonic() < min(quiet + 2.0, deadline):
            if int(str(self.client.command(running))):
                quiet = time.monotonic()
            time.sleep(0.2)

    def sizes(self, database: str) -> dict[str, int]:
        """Bytes on disk by table, each merged into one part a partition first."""
        tables = self.client.query(f"SELECT DISTINCT table FROM system.parts WHERE active AND database = '{database}'")
        for (table,) in tables.result_rows:
            self.client.command(f"OPTIMIZE TABLE {database}.{table} FINAL", settings={"receive_timeout": 300})
        sizes = self.client.query(
            "SELECT table, sum(bytes_on_disk) FROM system.parts "
            f"WHERE active AND database = '{database}' GROUP BY table"
        )
        return {str(table): int(size) for table, size in sizes.result_rows}

    # ── contenders ──────────────────────────────────────────────────────────────────────────────────────────────────

    def measure(self, contender: Contender) -> Result:
        """Raises RuntimeError with the end of its log where the pipeline does not start."""
        database = f"bench_{contender.name}"
        result = Result(contender.name, contender.what, self.spans)
        self.client.command(f"DROP DATABASE IF EXISTS {database} SYNC")
        contender.prepare(self, database)
        forget_peak(self.server.pid)
        begin, server_before = time.monotonic(), cpu_s(self.server.pid)
        merged_before = self.merged_rows()
        with self._running(contender, database) as process:
            if process:  # the server itself reads as soon as it is told to, and has no start of its own
                begin, server_before = time.monotonic(), cpu_s(self.server.pid)
                result.startup_cpu_s = cpu_s(process.pid)
            result.seconds = self.wait_for_rows(database, contender.group) - begin
            self.settle(database)
            result.server_cpu_s = cpu_s(self.server.pid) - server_before
            result.merged_rows = self.merged_rows() - merged_before
            if process:
                result.pipeline_cpu_s = cpu_s(process.pid) - result.startup_cpu_s
                result.pipeline_peak = peak_bytes(process.pid)
            result.server_peak = peak_bytes(self.server.pid)
        self.revive()
        result.rows, result.distinct, result.parts = self.rows(database), self.distinct(database), self.parts(database)
        result.bytes_by_table = self.sizes(database)
        return result

    def killed(self, contender: Contender, kills: int) -> Result:
        """Rows lost and doubled where the pipeline is ended by SIGKILL on its way, `kills` times, and started again."""
        database = f"bench_{contender.name}"
        self.client.command(f"DROP DATABASE IF EXISTS {database} SYNC")
        contender.prepare(self, database)
        for number in range(kills):
            with self._running(contender, database) as process:
                if process is None:
                    raise RuntimeError(f"{contender.name} is no process that could be killed")
                before = self.rows(database)
                goal = max(before + 1, self.spans * (number + 1) // (kills + 2))
                deadline = time.monotonic() + SESSION_S
                while self.rows(database) < goal and time.monotonic() < deadline:
                    time.sleep(0.05)
                process.kill()
        with self._running(contender, database):
            self.wait_for_rows(database, contender.group, distinct=True)
        return Result(
            contender.name, contender.what, self.spans, rows=self.rows(database), distinct=self.distinct(database)
        )

    def revive(self) -> None:
        """Starts the server again where it went with the last contender: made from libchdb, it may abort when a client
        of the native protocol goes."""
        time.sleep(GONE_S)
        try:
            self.client.command("SELECT 1")
        except ClickHouseError:
            self.server.restart()

    def forget(self, contender: Contender) -> None:
        """Drops its rows and its place in the topic, so that it can run again."""
        self.client.command(f"DROP DATABASE IF EXISTS bench_{contender.name} SYNC")
        deadline = time.monotonic() + SESSION_S
        while True:
            try:
                self.admin.delete_consumer_groups([contender.group])[contender.group].result(30)
                return
            except KafkaException:  # a member is still there, for as long as its session lasts
                if time.monotonic() > deadline:
                    raise
            time.sleep(0.5)

    @contextmanager
    def _running(self, contender: Contender, database: str) -> Iterator[subprocess.Popen[bytes] | None]:
        """The contender from the moment at which it has its partitions: its start is not what is compared."""
        log = self.folder / f"{contender.name}-{time.monotonic_ns()}.log"
        process = contender.start(self, database, log)
        try:
            deadline = time.monotonic() + 60
            while not self.has_partitions(contender.group):
                if (process and process.poll() is not None) or time.monotonic() > deadline:
                    raise RuntimeError(f"{contender.name} does not start:\n{log.read_text(errors='replace')[-3000:]}")
                time.sleep(0.02)
            yield process
        finally:
            if process:
                end(process)
            contender.stop(self, database)


def end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
