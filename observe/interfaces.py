"""Every part that can be swapped, as a Protocol. Parameters are positional: implementations name them freely."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import Protocol

import polars as pl

from observe.frames import AttributeQuestion, Frames, LogQuestion, PastQuestion, TraceQuestion
from observe.types import Alert, Batch, BatchLimits, Digest, Incident, Json, PartitionState, Silence


class Producer(Protocol):
    """Appends records to a stream."""

    def send(
        self, topic: str, value: bytes, /, *, key: bytes | None = None, headers: Mapping[str, bytes] | None = None
    ) -> Future[None]:
        """A future that completes when the stream holds the record durably; it fails with Unavailable or BadRecord
        (too large). Raises Unavailable at once where the buffer is full: nothing is dropped silently. Safe from any
        thread."""
        ...

    def flush(self, timeout_s: float, /) -> int:
        """Waits for what is under way; how many records are still not confirmed."""
        ...

    def close(self) -> None: ...


class Consumer(Protocol):
    """Reads batches in order, per partition, as one member of a group.

    An offset always means the *next* record to read. `intend` stores the batch's first offset together with its range;
    a member that takes the partition over finds the range and is handed exactly this batch again, so that its insert
    has the same token. `commit` moves past the batch.
    """

    def poll(self, timeout_s: float, /) -> Batch | None:
        """The next batch, or None where nothing was complete in time. Keeps the member in its group: call it, or
        `heartbeat`, at least every few seconds."""
        ...

    def intend(self, batch: Batch, /) -> None:
        """Raises Lost where the partition was taken away, or its range was settled otherwise, since `poll`."""
        ...

    def commit(self, batch: Batch, /) -> None:
        """Safe to call twice. Does nothing for a partition that was taken away meanwhile."""
        ...

    def heartbeat(self) -> None:
        """Stays in the group without taking records, while the store is away."""
        ...

    def close(self) -> None: ...


class Stream(Protocol):
    """One deployment's stream: `local://` or `kafka://`."""

    def producer(self) -> Producer: ...

    def consumer(self, group: str, topics: Sequence[str], limits: BatchLimits, /) -> Consumer: ...

    def admin(self) -> StreamAdmin: ...


class StreamAdmin(Protocol):
    """What operators do with a stream."""

    def migrate(self) -> list[str]:
        """Creates the topics that are missing; what was done, one line each. Safe to run twice."""
        ...

    def partitions(self, group: str, /) -> list[PartitionState]: ...

    def pending(
        self, group: str, since: Mapping[tuple[str, int], int] | None = None, /
    ) -> Mapping[tuple[str, int], int]:
        """Spans, metric points or log records from the group's committed offset on, or from the one that `since`
        names: what is stored need not be committed yet. Per (topic, partition)."""
        ...

    def full(self) -> str:
        """Why producers are told to come again, in words; "" where the stream takes more, or where only its servers
        know."""
        ...

    def dead_letters(self, limit: int, /) -> list[Json]:
        """The newest records put aside: topic, partition, offset, reason, at (RFC 3339)."""
        ...

    def close(self) -> None: ...


class Store(Protocol):
    """ClickHouse, in this process or on a server. All methods may raise Unavailable; safe from any thread."""

    def migrate(self) -> list[str]:
        """Applies the migrations that are missing, in order; the names of those applied. Safe from two processes."""
        ...

    def insert(self, batch: Batch, items: int, /) -> None:
        """Stores one batch exactly once by its token; `items` is how many spans, points or log records it holds.
        Raises BadRecord where the bytes cannot be parsed: the caller finds the bad one and tries the others."""
        ...

    def save_digests(self, batch: Batch, digests: Sequence[Digest], /) -> None:
        """Remembers the records of a stored batch; what is saved again, or added by a later attempt, is there once."""
        ...

    def digests(self, topic: str, partition: int, before_offset: int, since_ms: int, /) -> list[Digest]:
        """Those of one partition that lie before an offset and were sent since a time; repeats are not among them."""
        ...

    def settle(self, now_ns: int, /) -> int:
        """Computes the rollups that need joins (edges, self time) for windows whose data has settled, and again for
        windows that stragglers touched; how many windows."""
        ...

    def progress(self, from_ns: int, /) -> pl.DataFrame:
        """How many spans each source has sent for each window from `from_ns` on: `frames.PROGRESS`."""
        ...

    def frames(self, from_ns: int, to_ns: int, /, *, joins: bool = True) -> Frames:
        """The picture of [from_ns, to_ns). Same data, same answer, whether or not `settle` has run.

        Without `joins` self times and edges are those of settled windows only, as the others cost a join of all spans.
        """
        ...

    def attributes(self, question: AttributeQuestion, /) -> pl.DataFrame:
        """ATTRIBUTE_COUNTS of a bounded sample of traces."""
        ...

    def sampled(self, question: TraceQuestion, /) -> pl.DataFrame:
        """SPAN_SAMPLE of a bounded number of whole traces; the same ones for the same question and data."""
        ...

    def logged(self, question: LogQuestion, /) -> pl.DataFrame:
        """LOG_COUNTS: errors in logs and exceptions in spans, the most frequent ones."""
        ...

    def of_service(self, service: str, from_ns: int, to_ns: int, /) -> Frames:
        """Windows and model calls of one service that start in [from_ns, to_ns), versions apart."""
        ...

    def blocks(self, services: Sequence[str], from_ns: int, to_ns: int, /) -> pl.DataFrame:
        """Five minutes of a series in one row, for the services named, of [from_ns, to_ns): `frames.BLOCKS`."""
        ...

    def past(self, question: PastQuestion, /) -> Frames:
        """What some series did in earlier ranges. Later questions about the same range are answered the same, but for
        what came late."""
        ...

    def save_incidents(self, incidents: Sequence[Incident], /) -> None: ...

    def incidents(
        self, *, state: str | None = None, from_ns: int | None = None, to_ns: int | None = None
    ) -> list[Incident]:
        """Newest version of each incident that overlaps the range, newest onset first."""
        ...

    def notified(self, incident_ids: Sequence[str], /) -> Mapping[tuple[str, str], int]:
        """Highest version delivered, per (incident id, receiver)."""
        ...

    def save_notified(self, incident_id: str, receiver: str, version: int, /) -> None: ...

    def save_look(self, at_ns: int, inputs: bytes, kept: Sequence[Incident], /) -> None:
        """Keeps what a look was given, and the incidents that it left, for audits."""
        ...

    def diagnosed(self, incident_id: str, /) -> tuple[int, Json] | None:
        """Time of the newest look that was kept of an incident, and the incident's JSON as that look left it."""
        ...

    def inputs(self, at_ns: int, /) -> bytes | None:
        """What the look of that time was given; None where it is not kept."""
        ...

    def silences(self, now_ns: int, /) -> list[Silence]:
        """Those that have not ended at `now_ns`."""
        ...

    def save_silence(self, silence: Silence, now_ns: int, /) -> None:
        """Adds one, or replaces the one with its id."""
        ...

    def ledger(self) -> pl.DataFrame:
        """One row per topic and partition: accepted, stored (counted from the rows themselves), rejected, and gaps or
        overlaps of the offset ranges. Columns: topic, partition, accepted, stored, rejected, first_offset,
        next_offset, gaps, overlaps."""
        ...

    def query(self, sql: str, parameters: Mapping[str, object] | None = None, /) -> pl.DataFrame:
        """Rows of a SELECT with server-side {name:Type} parameters."""
        ...

    def close(self) -> None: ...


class Notifier(Protocol):
    """One receiver of alerts."""

    @property
    def name(self) -> str:
        """Stable across restarts; what was sent is remembered by it. Holds no secret."""
        ...

    def notify(self, alert: Alert, /) -> None:
        """Delivers one alert, or raises Unavailable (trying again can help) or BadRecord (it cannot)."""
        ...
