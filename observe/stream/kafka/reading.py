"""Reading given ranges of partitions, outside of any group."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from confluent_kafka import Consumer, KafkaError, TopicPartition

from observe.errors import Unavailable
from observe.settings import KafkaSettings
from observe.stream.kafka import config
from observe.stream.kafka.consumer import to_record
from observe.types import Record

SILENCE_S = 10.0
AT_ONCE = 100  # fewer calls a record, and, where records are large, still few in memory

Key = tuple[str, int]


def read(brokers: str, settings: KafkaSettings, ranges: Mapping[Key, tuple[int, int]]) -> Iterator[Record]:
    """The records of [start, end) of each partition. Raises Unavailable where nothing comes for long."""
    left = {key: end for key, (start, end) in ranges.items() if start < end}
    if not left:
        return
    # A consumer needs a group by name even where it never joins it.
    wanted = {**config.consumer(brokers, settings, "observe-reader"), "enable.partition.eof": True}
    consumer = config.connect(Consumer, wanted)
    try:
        consumer.assign([TopicPartition(*key, ranges[key][0]) for key in left])
        heard = time.monotonic()
        while left:
            messages = consumer.consume(AT_ONCE, 0.5)
            if messages:
                heard = time.monotonic()
            elif time.monotonic() - heard > SILENCE_S:
                raise Unavailable(f"Kafka: nothing comes from {sorted(left)}")
            yield from _wanted(messages, left)
    finally:
        consumer.close()


def _wanted(messages: Sequence[Any], left: dict[Key, int]) -> Iterator[Record]:
    """The records before the ends in `left`; a partition that has come to its end is taken out of it."""
    for message in messages:
        key = (message.topic(), message.partition())
        error = message.error()
        if error is not None and error.code() == KafkaError._PARTITION_EOF:
            left.pop(key, None)  # the rest up to the end is transaction markers, which are no records
        elif error is not None:
            raise config.unavailable("cannot read", error)
        elif key in left:
            if message.offset() + 1 >= left[key]:
                end = left.pop(key)
                if message.offset() >= end:
                    continue
            yield to_record(message)
