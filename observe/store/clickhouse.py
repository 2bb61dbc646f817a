"""The store: one class for ClickHouse in this process and on a server. Same SQL, same client library."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Mapping, Sequence

import orjson
import polars as pl

from observe.errors import BadRecord, Unavailable
from observe.frames import AttributeQuestion, Frames, LogQuestion, PastQuestion, TraceQuestion
from observe.settings import RetentionSettings
from observe.store import (
    attributes,
    calls,
    compare,
    digests,
    incidents,
    ledger,
    logged,
    looks,
    migrate,
    otlp,
    past,
    samples,
    silences,
    windows,
)
from observe.store.connect import KEPT_SCHEMAS, REFUSED, Pool, translated, whole_frame
from observe.store.recent import Recent
from observe.store.room import ensure
from observe.types import TOPICS, Batch, Digest, Incident, Json, Signal, Silence

FUTURE_NS = 3600 * 1_000_000_000
"""A clock may run ahead by this much; later time stamps are taken for wrong."""

INSERT_SETTINGS: Mapping[str, str | int] = {
    "format_schema_source": "string",
    "format_schema_message_name": "Landing",
    "input_format_protobuf_oneof_presence": 1,
    "async_insert": 0,
    "insert_deduplicate": 1,
    "deduplicate_blocks_in_dependent_materialized_views": 1,
    # One block in, the same blocks out, so that a repeated batch has the same tokens in every view.
    "max_insert_threads": 1,
    "max_threads": 1,
    "parallel_view_processing": 0,
    "materialized_views_ignore_errors": 0,
    # Looks for comparisons to be had from others by transitivity. The views have none, and their columns' deep types
    # make looking two thirds of their analysis.
    "optimize_and_compare_chain": 0,
    "optimize_extract_common_expressions": 0,
    "max_partitions_per_insert_block": 0,
    "output_format_json_escape_forward_slashes": 0,
    "output_format_json_quote_64bit_integers": 0,
    "output_format_json_quote_denormals": 1,
}

WRITE_SETTINGS: Mapping[str, str | int] = {"async_insert": 0, "insert_deduplicate": 0}

_SIGNAL_OF: Mapping[str, Signal] = {topic: signal for signal, topic in TOPICS.items()}


class ClickHouseStore:
    """Store of `chdb:///path` and `clickhouse[s]://user:password@host:port/database`. Safe from any thread."""

    def __init__(self, url: str, retention: RetentionSettings | None = None) -> None:
        self._pool = Pool(url)
        self._retention = retention or RetentionSettings()
        self._recent = Recent()
        self._edition = ""  # of the schemas: another text is another file on the server

    def migrate(self) -> list[str]:
        self._pool.create_database()
        with self._pool.client() as client:
            return migrate.apply(client, self._retention)

    def insert(self, batch: Batch, items: int, /) -> None:
        signal = _SIGNAL_OF[batch.topic]
        sent_ns = _sent_ns(batch, time.time_ns())
        oldest_ns = sent_ns - self._retention_days(signal) * 86_400 * 1_000_000_000
        parts = [record.value for record in batch.records]
        parts.append(otlp.origin(batch, items, max(oldest_ns, 1), sent_ns + FUTURE_NS))
        landings = otlp.LANDINGS[signal]
        self._check_room()
        for landing in landings:
            try:
                self._land(landing, batch.token, parts)
                return
            except BadRecord as error:
                if landing == landings[-1] or REFUSED not in str(error):
                    raise

    def _land(self, landing: otlp.Landing, token: str, parts: Sequence[bytes]) -> None:
        # In this process the parts go to a file one by one. A server gets them in one piece: a request that the HTTP
        # client repeats must not begin in their middle.
        body = (part for part in parts) if self._pool.target.path else b"".join(parts)
        settings = {
            **INSERT_SETTINGS,
            "format_schema": otlp.proto(landing) + self._edition,
            "insert_deduplication_token": token,
        }
        try:
            with self._pool.client() as client, translated(inserting=True):
                client.raw_insert(f"otlp_{landing}_in", insert_block=body, fmt="ProtobufSingle", settings=settings)
            self._check_writes()
        except Unavailable as error:
            if KEPT_SCHEMAS in str(error):
                self._edition = f"// {uuid.uuid4().hex}\n"
            raise

    def save_digests(self, batch: Batch, found: Sequence[Digest], /) -> None:
        digests.save(self, batch, found)

    def digests(self, topic: str, partition: int, before_offset: int, since_ms: int, /) -> list[Digest]:
        return digests.find(self, topic, partition, before_offset, since_ms)

    def query(self, sql: str, parameters: Mapping[str, object] | None = None, /) -> pl.DataFrame:
        with self._pool.client() as client:
            data = client.raw_query(sql, parameters=dict(parameters or {}), fmt="ArrowStream")
        return whole_frame(data)

    def execute(self, sql: str, parameters: Mapping[str, object], /) -> None:
        """Runs an INSERT … SELECT of ours."""
        self._check_room()
        with self._pool.client() as client:
            client.command(sql, parameters=dict(parameters), settings=dict(WRITE_SETTINGS))

    def settle(self, now_ns: int, /) -> int:
        return windows.settle(self, now_ns)

    def progress(self, from_ns: int, /) -> pl.DataFrame:
        return calls.progress(self, from_ns)

    def frames(self, from_ns: int, to_ns: int, /, *, joins: bool = True) -> Frames:
        return windows.read(self, from_ns, to_ns, self._recent, joined=joins)

    def attributes(self, question: AttributeQuestion, /) -> pl.DataFrame:
        return attributes.count(self, question)

    def sampled(self, question: TraceQuestion, /) -> pl.DataFrame:
        return samples.sampled(self, question)

    def logged(self, question: LogQuestion, /) -> pl.DataFrame:
        return logged.count(self, question)

    def of_service(self, service: str, from_ns: int, to_ns: int, /) -> Frames:
        return compare.of_service(self, service, from_ns, to_ns)

    def blocks(self, services: Sequence[str], from_ns: int, to_ns: int, /) -> pl.DataFrame:
        return calls.blocks(self, services, from_ns, to_ns)

    def past(self, question: PastQuestion, /) -> Frames:
        return past.answer(self, question)

    def save_incidents(self, changed: Sequence[Incident], /) -> None:
        incidents.save(self, changed)

    def incidents(
        self, *, state: str | None = None, from_ns: int | None = None, to_ns: int | None = None
    ) -> list[Incident]:
        return incidents.find(self, state, from_ns, to_ns)

    def notified(self, incident_ids: Sequence[str], /) -> Mapping[tuple[str, str], int]:
        return incidents.notified(self, incident_ids)

    def save_notified(self, incident_id: str, receiver: str, version: int, /) -> None:
        incidents.save_notified(self, incident_id, receiver, version)

    def save_look(self, at_ns: int, inputs: bytes, kept: Sequence[Incident], /) -> None:
        looks.save(self, at_ns, inputs, kept)

    def diagnosed(self, incident_id: str, /) -> tuple[int, Json] | None:
        return looks.newest(self, incident_id)

    def inputs(self, at_ns: int, /) -> bytes | None:
        return looks.inputs(self, at_ns)

    def silences(self, now_ns: int, /) -> list[Silence]:
        return silences.active(self, now_ns)

    def save_silence(self, silence: Silence, now_ns: int, /) -> None:
        silences.save(self, silence, now_ns)

    def ledger(self) -> pl.DataFrame:
        return ledger.read(self, self._retention)

    def append(self, table: str, rows: Sequence[Mapping[str, object]], /, *, token: str = "") -> None:
        """Inserts a few rows of our own, with a token only once; columns that a row lacks take their defaults."""
        body = b"\n".join(orjson.dumps(row) for row in rows)
        once = {"insert_deduplicate": 1, "insert_deduplication_token": token} if token else {}
        self._check_room()
        with self._pool.client() as client, translated(inserting=bool(token)):
            client.raw_insert(table, insert_block=body, fmt="JSONEachRow", settings={**WRITE_SETTINGS, **once})
        if token:
            self._check_writes()

    def watch_disk(self, stop: threading.Event) -> None:
        """Until `stop`, where the store is in this process; see `room`. Raises Damaged when a write has failed."""
        if self._pool.room is not None:
            self._pool.room.watch(stop)

    def close(self) -> None:
        self._pool.close()

    def _check_room(self) -> None:
        if self._pool.room is not None:
            ensure(self._pool.target.path)

    def _check_writes(self) -> None:
        """Before anything is committed that rests on what was just written."""
        if self._pool.room is not None:
            self._pool.room.check_writes()

    def _retention_days(self, signal: Signal) -> int:
        retention = self._retention
        return {"spans": retention.traces_days, "logs": retention.logs_days, "metrics": retention.metrics_days}[signal]


def _sent_ns(batch: Batch, now_ns: int) -> int:
    """When the stream took the newest record: event times are judged by it, so that a batch that comes again after a
    crash is judged as it was the first time. A feeder whose clock runs ahead, or that has none, is judged by now."""
    sent_ns = max(record.timestamp_ms for record in batch.records) * 1_000_000
    return sent_ns if 0 < sent_ns <= now_ns + FUTURE_NS else now_ns
