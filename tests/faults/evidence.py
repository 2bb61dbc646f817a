"""What there is to know of exports that are lost or doubled: their records, and what the store noted of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from observe.settings import Settings
from observe.store import ClickHouseStore
from observe.stream import open_stream
from observe.stream.kafka.reading import read
from observe.stream.otlp import digest_of
from observe.types import SIGNALS, TOPICS, Record, Signal
from tests.faults.load import ITEMS, number_of

OF_DIGESTS = "SELECT * FROM digests WHERE Digest IN {digests:Array(String)} ORDER BY Topic, Partition, Offset"
OF_BATCHES = """
SELECT * FROM ledger WHERE Topic = {topic:String} AND Partition = {partition:Int32}
    AND FirstOffset <= {offset:Int64} AND LastOffset >= {offset:Int64}
"""
EXPORTS = 5  # of each signal; more of them say no more


def of_kafka(bootstrap: str, wrong: Mapping[Signal, Sequence[int]]) -> list[dict[str, Any]]:
    """Each record with one of the items: where it lies, when it was sent, by what it is known."""
    settings = Settings(stream=f"kafka://{bootstrap}")
    states = open_stream(settings).admin().partitions("observe-evidence")
    found: list[dict[str, Any]] = []
    for signal in SIGNALS:
        exports = set(sorted({item // ITEMS for item in wrong.get(signal, ())})[:EXPORTS])
        ranges = {(s.topic, s.partition): (s.begin, s.end) for s in states if s.topic == TOPICS[signal]}
        records = read(bootstrap, settings.kafka, ranges if exports else {})
        numbered = ((number_of(signal, record.value), record) for record in records)
        found += [{"export": number, **_told(record)} for number, record in numbered if number in exports]
    return sorted(found, key=lambda record: (record["topic"], record["export"], record["timestamp_ms"]))


def of_server(url: str, records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What a ClickHouse server noted of these records."""
    store = ClickHouseStore(url)
    try:
        digests = store.query(OF_DIGESTS, {"digests": sorted({record["digest"] for record in records})}).to_dicts()
        batches = [row for record in records for row in store.query(OF_BATCHES, dict(record)).to_dicts()]
    finally:
        store.close()
    return {"digests": digests, "batches": batches}


def _told(record: Record) -> dict[str, Any]:
    return {
        "topic": record.topic, "partition": record.partition, "offset": record.offset,
        "timestamp_ms": record.timestamp_ms, "digest": digest_of(record).hex(),
        "headers": [name for name, _ in record.headers],
    }  # fmt: skip
