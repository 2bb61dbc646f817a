"""SQLite as this stream uses it: write-ahead log, explicit transactions, every commit on disk, errors of ours."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from observe.errors import Misconfigured, Unavailable

BUSY_TIMEOUT_MS = 5000
PAGE_BYTES = 65536  # records are large: fewer and longer pages cost half the CPU of SQLite's 4 KiB
CHECKPOINT_BYTES = 64 * 2**20
VERSION = 1


def connect(file: Path, schema: str) -> sqlite3.Connection:
    """A connection in autocommit mode, for one thread at a time. Creates file and tables where they are missing."""
    with translated(file):
        connection = sqlite3.connect(
            file, timeout=BUSY_TIMEOUT_MS / 1000, isolation_level=None, check_same_thread=False
        )
        try:
            _prepare(connection, file, schema)
        except BaseException:
            connection.close()
            raise
    return connection


def _prepare(connection: sqlite3.Connection, file: Path, schema: str) -> None:
    connection.execute(f"PRAGMA page_size={PAGE_BYTES}")
    connection.execute("PRAGMA journal_mode=WAL")
    # FULL: an offset that was handed to a reader must not be given again to other records after a power cut.
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA secure_delete=OFF")  # some distributions overwrite what is deleted
    connection.execute(f"PRAGMA wal_autocheckpoint={CHECKPOINT_BYTES // PAGE_BYTES}")
    connection.execute(f"PRAGMA journal_size_limit={2 * CHECKPOINT_BYTES}")
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version == VERSION:
        return
    if version > VERSION:
        raise Misconfigured(
            f"stream: {file} was written by a newer release (format {version}; this one reads {VERSION})"
        )
    with transaction(connection):
        for statement in schema.split(";"):
            connection.execute(statement)
        connection.execute(f"PRAGMA user_version={VERSION}")


@contextlib.contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """A write transaction; the lock is taken at once, so that it cannot fail half way for another writer."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        with contextlib.suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        raise


@contextlib.contextmanager
def translated(file: Path) -> Iterator[None]:
    """Turns SQLite's errors (busy, disk full, I/O, no such folder) into Unavailable; damage needs a person."""
    try:
        yield
    except sqlite3.OperationalError as error:
        raise Unavailable(f"local stream {file}: {error}") from error
    except sqlite3.DatabaseError as error:
        raise Misconfigured(f"stream: {file}: {error}; restore it, or move it away to begin anew") from error
