"""Clients to ClickHouse, in this process (chdb://) or on a server (clickhouse://), and what their errors mean to us."""

from __future__ import annotations

import logging
import os
import queue
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import clickhouse_connect
import polars as pl
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ClickHouseError, OperationalError, ProgrammingError

from observe.errors import BadRecord, Misconfigured, ObserveError, Unavailable
from observe.store import room, unwritten

log = logging.getLogger(__name__)

CLOSE_S = 3.0
MAX_CLIENTS = 8
"""Statements that run at once; further callers wait."""
RINSES = 3
"""Tries after which a connection is given up."""

CHDB_OPTIONS: Mapping[str, int] = {
    # Engine defaults assume a server that owns the machine.
    "max_server_memory_usage": 1_200 * 2**20,
    "mark_cache_size": 64 * 2**20,
    "index_mark_cache_size": 16 * 2**20,
    "primary_index_cache_size": 64 * 2**20,
    "compiled_expression_cache_size": 16 * 2**20,
    "query_condition_cache_size": 16 * 2**20,
    "background_pool_size": 2,
    "background_schedule_pool_size": 4,
    "background_common_pool_size": 2,
    "background_fetches_pool_size": 1,
    "background_move_pool_size": 1,
    "background_message_broker_schedule_pool_size": 1,
    "background_distributed_schedule_pool_size": 1,
    "background_buffer_flush_schedule_pool_size": 1,
}

SESSION: Mapping[str, str | int] = {
    "session_timezone": "UTC",
    "join_use_nulls": 0,
    "output_format_arrow_string_as_string": 1,
    "output_format_arrow_low_cardinality_as_dictionary": 0,
    "output_format_arrow_compression_method": "none",
}
"""Set once for each client; what a single statement relies on is sent with the statement."""

END_OF_STREAM = b"\xff\xff\xff\xff\0\0\0\0"  # Arrow columnar format, "IPC Streaming Format"

# Numbers of ClickHouse errors: src/Common/ErrorCodes.cpp.
WRONG_BYTES = frozenset({26, 27, 32, 33, 34, 36, 72, 117, 131, 349, 361, 436, 444, 633})
VIOLATED = 469
AMBIGUOUS = frozenset({32, 33, 361})
"""The end of something that is read: of the bytes that are inserted, or of a file on a disk that is full or broken."""

REFUSED = "plain_attributes"
"""The constraint of a landing table that has no columns for what a batch holds; another one has."""

KEPT_SCHEMAS = "__cache__"
"""The folder in which ClickHouse keeps the schemas that inserts bring. A file there that a full disk or a death cut off
is never written again: all that is read by it is refused, whatever its bytes."""

WRONG_SETTINGS = frozenset({81, 192, 193, 194, 291, 492, 497, 516})
OVERLOADED = frozenset(
    {3, 60, 159, 160, 164, 173, 202, 203, 209, 210, 236, 241, 242, 243, 252, 279, 319, 394, 425, 439}
    | {32, 33, 74, 75, 76, 77, 87, 88, 95, 96, 172, 204, 246, 274, 275, 294, 361, 586}
)
"""Passing states: too much at once, no space, files that cannot be read or written, and tables that are unknown because
nobody has migrated the store yet."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where a store URL points: a folder, or a server."""

    database: str
    path: str = ""
    server: Mapping[str, Any] = field(default_factory=dict)


def target(url: str) -> Target:
    """
    >>> target("chdb:///var/lib/observe/store").path
    '/var/lib/observe/store'
    >>> target("clickhouse://me:p%40ss@db:8123/telemetry").server["password"]
    'p@ss'
    """
    parts = urlsplit(url)
    if parts.scheme == "chdb":
        if not parts.path.startswith("/") or parts.netloc:
            raise Misconfigured(f"store = {url!r}: a folder is needed, as in chdb:///var/lib/observe/store")
        return Target("observe", path=os.path.realpath(unquote(parts.path)))
    if parts.scheme not in ("clickhouse", "clickhouses") or not parts.hostname:
        raise Misconfigured(f"store = {url!r}: chdb:///path or clickhouse[s]://user:password@host:port/database")
    tls = parts.scheme == "clickhouses"
    server = {
        "host": parts.hostname,
        "port": parts.port or (8443 if tls else 8123),
        "username": unquote(parts.username or "default"),
        "password": unquote(parts.password or ""),
        "interface": "https" if tls else "http",
    }
    return Target(unquote(parts.path.strip("/")) or "observe", server=server)


def enter(path: str) -> None:
    """Makes `path` the working directory, for as long as the process lives.

    chDB writes the protobuf schema of an insert to `__cache__` in the working directory, whatever its settings say;
    in a folder that is read-only or somebody else's, inserts would fail.
    """
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
        os.chdir(path)
    except OSError as error:
        raise Misconfigured(f"store = 'chdb://{path}': {error.strerror}: {error.filename}") from error


class Pool:
    """Clients, each used by one thread at a time; made when first needed."""

    def __init__(self, url: str, *, max_clients: int = MAX_CLIENTS) -> None:
        self.target = target(url)
        self._slots: queue.LifoQueue[Client | None] = queue.LifoQueue()
        for _ in range(max_clients):
            self._slots.put(None)
        self._max_clients = max_clients
        self.room: room.Room | None = None
        self._first: Client | None = None  # holds a chDB folder open until others do: opening it twice costs a second
        if self.target.path:
            enter(self.target.path)
            room.ensure(self.target.path)
            self._repair(Path(self.target.path))
            self.room = room.Room(self.target.path, self._value)

    def _repair(self, folder: Path) -> None:
        """Makes what an owner that died left without rows insertable again."""
        if not (folder / "status").exists():
            return
        forgotten = unwritten.forget(folder)
        before = unwritten.put_aside(folder)
        self._first = self._open(None)  # ClickHouse puts aside what it cannot read
        broken = unwritten.put_aside(folder) - before
        for part in sorted(broken):
            log.error("chDB: %s cannot be read, and was put aside; `observe audit` says what is missing", part)
        if broken:
            self._release()
            forgotten += unwritten.forget_all(folder)
        for name in forgotten:
            log.warning("chDB: %s was noted and not written when its process died; it may be inserted again", name)

    def _value(self, statement: str) -> object:
        """The first value of an answer."""
        with self.client() as client:
            answer = client.command(statement)
        return answer[0] if isinstance(answer, list | tuple) else answer

    @contextmanager
    def client(self) -> Iterator[Client]:
        """A client that is ours until the block ends. Errors leave as ours, see `translated`."""
        client = self._slots.get()
        try:
            with translated():
                if client is None:
                    client = self._connect()
                yield client
        except BaseException as error:
            usable = _rinsed(client) if self.target.path else not isinstance(error, Unavailable)
            if client is not None and not usable:
                with suppress(Exception):
                    client.close()
                client = None
            raise
        finally:
            self._slots.put(client)

    def close(self) -> None:
        """Closes the clients; those in use are waited for a while, and left to the end of the process after that."""
        self._release()
        deadline = time.monotonic() + CLOSE_S
        closed = 0
        with suppress(queue.Empty):
            while closed < self._max_clients:
                client = self._slots.get(timeout=max(0.0, deadline - time.monotonic()))
                closed += 1
                if client is not None:
                    client.close()
        if closed < self._max_clients:
            log.warning("%s statements are still under way", self._max_clients - closed)
        for _ in range(closed):
            self._slots.put(None)

    def create_database(self) -> None:
        with translated():
            client = self._open(None)
            try:
                client.command(f"CREATE DATABASE IF NOT EXISTS {quoted(self.target.database)}")
            finally:
                client.close()

    def _connect(self) -> Client:
        client = self._open(self.target.database)
        self._release()
        return client

    def _release(self) -> None:
        first, self._first = self._first, None
        if first is not None:
            first.close()

    def _open(self, database: str | None) -> Client:
        common: dict[str, Any] = {"database": database, "settings": dict(SESSION)}
        try:
            if self.target.path:
                return clickhouse_connect.get_client(
                    interface="chdb", path=self.target.path, chdb_options=dict(CHDB_OPTIONS), **common
                )
            return clickhouse_connect.get_client(
                autogenerate_session_id=False,
                connect_timeout=5,
                send_receive_timeout=120,
                query_retries=0,
                compress=False,
                **self.target.server,
                **common,
            )
        except ProgrammingError as error:
            if "Unable to open the chdb engine" in str(error):
                raise Misconfigured(
                    f"store = 'chdb://{self.target.path}': in use by another process, or another chDB folder is open "
                    f"in this one. One process owns a folder; the others ask its API ({error})"
                ) from error
            raise


def _rinsed(client: Client | None) -> bool:
    """Whether the next answer of this chDB connection will be its own.

    What a statement had answered before it failed (out of time or memory, an exception half way) stays in the
    connection's buffer and would come before the next answer: as its rows, if only the first table is read.
    """
    if client is None:
        return False
    with suppress(Exception):
        return any(client.raw_query("SELECT 1", fmt="TSV") == b"1\n" for _ in range(RINSES))
    return False


def quoted(name: str) -> str:
    """A name as an identifier."""
    return "`" + re.sub(r"([`\\])", r"\\\1", name) + "`"


@contextmanager
def translated(*, inserting: bool = False) -> Iterator[None]:
    """ClickHouse's errors as ours; its code and name stay in the message.

    An error that is neither in the bytes nor in the settings is taken for a passing one: data that cannot be stored
    now is kept, not put aside.
    """
    try:
        yield
    except ObserveError:
        raise
    except (ClickHouseError, OSError) as error:
        code = getattr(error, "code", None)
        text = _first_line(error)
        if inserting and KEPT_SCHEMAS in text:
            raise Unavailable(f"store: {text}") from error
        if inserting and code == VIOLATED and REFUSED in text:
            raise BadRecord(text) from error
        if inserting and code in WRONG_BYTES and (code not in AMBIGUOUS or "InputFormat" in str(error)):
            raise BadRecord(text) from error
        if code in WRONG_SETTINGS:
            raise Misconfigured(f"store: {text}") from error
        if inserting or code in OVERLOADED or (code is None and isinstance(error, OperationalError | OSError)):
            raise Unavailable(f"store: {text}") from error
        raise


def whole_frame(stream: bytes) -> pl.DataFrame:
    """The rows of an answer in Arrow's streaming format; Unavailable where its end is missing.

    A server whose disk is full answers with status 200 and nothing: it buffers answers on that disk. Taken for no rows,
    that would have repeats stored, and silent services told.
    """
    if not stream.endswith(END_OF_STREAM):
        raise Unavailable(f"store: an answer of {len(stream)} bytes without its end; the store's disk may be full")
    return pl.read_ipc_stream(stream)


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", 1)[0][:500]
