"""What is committed, asked of a group whose coordinator is not there yet. The reader is a stand-in: a real broker is
without a coordinator for moments only."""

from __future__ import annotations

from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from observe.stream.kafka import admin


class Reader:
    def __init__(self, *codes: int) -> None:
        self.codes = list(codes)

    def committed(self, partitions: list[TopicPartition], timeout: float) -> list[TopicPartition]:
        if self.codes:
            raise KafkaException(KafkaError(self.codes.pop(0)))
        return partitions


def asked(reader: Any) -> list[TopicPartition]:
    return admin.KafkaAdmin._asked([TopicPartition("otlp_spans", 0, 7)], reader)


def test_a_coordinator_that_moves_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admin, "RETRY_S", 0.0)
    reader = Reader(KafkaError.NOT_COORDINATOR, KafkaError.COORDINATOR_LOAD_IN_PROGRESS)
    assert [p.offset for p in asked(reader)] == [7]
    assert reader.codes == []


def test_other_errors_are_told_at_once() -> None:
    reader = Reader(KafkaError.GROUP_AUTHORIZATION_FAILED, KafkaError.NOT_COORDINATOR)
    with pytest.raises(KafkaException):
        asked(reader)
    assert len(reader.codes) == 1
