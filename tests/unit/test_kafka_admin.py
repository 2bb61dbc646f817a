"""Questions to brokers that start or hand something over. What answers is a stand-in: a real broker is in such a state
for moments only."""

from __future__ import annotations

import pytest
from confluent_kafka import KafkaError, KafkaException

from observe.stream.kafka import admin


class Broker:
    """Fails with one code after another, then says how far it is."""

    def __init__(self, *codes: int) -> None:
        self.codes = list(codes)

    def asked(self) -> int:
        if self.codes:
            raise KafkaException(KafkaError(self.codes.pop(0)))
        return 7


def test_leaders_and_coordinators_that_change_are_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admin, "RETRY_S", 0.0)
    broker = Broker(KafkaError.NOT_COORDINATOR, KafkaError.COORDINATOR_LOAD_IN_PROGRESS, KafkaError.FENCED_LEADER_EPOCH)
    assert admin.patiently(broker.asked) == 7
    assert broker.codes == []


def test_other_errors_are_told_at_once() -> None:
    broker = Broker(KafkaError.GROUP_AUTHORIZATION_FAILED, KafkaError.NOT_COORDINATOR)
    with pytest.raises(KafkaException):
        admin.patiently(broker.asked)
    assert len(broker.codes) == 1


def test_patience_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admin, "ASK_S", -1.0)
    with pytest.raises(KafkaException):
        admin.patiently(Broker(KafkaError.FENCED_LEADER_EPOCH).asked)
