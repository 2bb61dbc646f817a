"""What the tests of the store share: places that no other test writes to, and rows by their values."""

from __future__ import annotations

import polars as pl

from observe.frames import (
    Frames,
)
from observe.store import ClickHouseStore
from tests.fixtures.records import (
    Span,
    batch,
    request,
)

SECOND = 1_000_000_000


def insert(store: ClickHouseStore, place: int, spans: list[Span], base_ns: int, offset: int = 0) -> None:
    store.insert(batch("otlp_spans", place, offset, request(spans, base_ns)), len(spans))


def around(store: ClickHouseStore, base_ns: int) -> Frames:
    return store.frames(base_ns - 60 * SECOND, base_ns + 120 * SECOND)


def row(frame: pl.DataFrame, **where: object) -> dict[str, object]:
    """The only row with these values."""
    found = frame.filter(*(pl.col(k) == v for k, v in where.items()))
    assert len(found) == 1, found
    return found.to_dicts()[0]


def ledger(store: ClickHouseStore, topic: str, place: int) -> dict[str, object]:
    return row(store.ledger(), topic=topic, partition=place)
