"""A batch before it is stored: what it holds, in the one encoding that the store reads, and what must be put aside."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from observe.errors import BadRecord
from observe.stream.otlp import SIGNAL_OF, count_items, is_json, items_of, json_to_protobuf
from observe.types import Batch, Record


@dataclass(frozen=True, slots=True)
class Inspected:
    """`batch` has the range, and so the token, of the batch that was inspected. Bad records are empty requests in it:
    the range stays whole, and a batch of bad records alone still has a place in the ledger."""

    batch: Batch
    items: int
    bad: tuple[tuple[Record, str], ...]


def inspect(batch: Batch, *, thorough: bool = False) -> Inspected:
    """Counts, turns JSON into protobuf, and finds bad records; a record that states its items was validated by a
    receiver of ours and is only read again where that is in doubt (`thorough`)."""
    records: list[Record] = []
    bad: list[tuple[Record, str]] = []
    total = 0
    for record in batch.records:
        try:
            good, items = _read(record, thorough)
        except BadRecord as error:
            bad.append((record, str(error)))
            good, items = emptied(record), 0
        records.append(good)
        total += items
    return Inspected(replace(batch, records=tuple(records)), total, tuple(bad))


def emptied(record: Record) -> Record:
    """The record as an empty request: zero bytes are one."""
    return replace(record, value=b"", headers=())


def halves(batch: Batch) -> Iterator[Batch]:
    """The batch in two, each with a range, and so a token, of its own; together they cover the range."""
    middle = len(batch.records) // 2
    left, right = batch.records[:middle], batch.records[middle:]
    yield Batch(left, batch.first_offset, right[0].offset - 1, batch.epoch)
    yield Batch(right, right[0].offset, batch.last_offset, batch.epoch)


def _read(record: Record, thorough: bool) -> tuple[Record, int]:
    signal = SIGNAL_OF[record.topic]
    if is_json(record.value):
        value = json_to_protobuf(signal, record.value)
        return replace(record, value=value, headers=()), count_items(signal, value)
    return record, count_items(signal, record.value) if thorough else items_of(record)
