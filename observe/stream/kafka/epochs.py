"""Which of several topics of one name this is: a topic that is created anew begins at offset 0 again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import confluent_kafka.admin
from confluent_kafka import KafkaError, KafkaException, TopicCollection

from observe.settings import KafkaSettings
from observe.stream.kafka import config

ASK_S = 5.0


class Epochs:
    """Asks the brokers for the ids of topics. Connects when first asked."""

    def __init__(self, brokers: str, settings: KafkaSettings) -> None:
        self._wanted = config.client(brokers, settings)
        self._admin: Any = None

    def of(self, topics: Iterable[str]) -> Mapping[str, str]:
        """An epoch for each topic, "" where the brokers are too old to know ids. Raises KafkaException."""
        if self._admin is None:
            self._admin = config.connect(confluent_kafka.admin.AdminClient, self._wanted)
        asked = self._admin.describe_topics(TopicCollection(sorted(topics)), request_timeout=ASK_S)
        try:
            return {topic: _text(future.result(ASK_S + 1).topic_id) for topic, future in asked.items()}
        except TimeoutError as error:
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT)) from error


def _text(topic_id: Any) -> str:
    if topic_id is None:
        return ""
    halves = (topic_id.get_most_significant_bits(), topic_id.get_least_significant_bits())
    return "".join(f"{half & 0xFFFF_FFFF_FFFF_FFFF:016x}" for half in halves) if any(halves) else ""
