"""Every stream, one after the other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from observe.interfaces import Stream
from observe.settings import KafkaSettings, LocalSettings
from observe.stream.kafka import KafkaStream
from observe.stream.local import LocalStream
from tests.contract.stream.parts import SMALL, Case


@pytest.fixture(params=["local", pytest.param("kafka", marks=pytest.mark.kafka)])
def case(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Case]:
    if request.param == "local":
        url = f"local://{tmp_path / 'stream'}"
        stream: Stream = LocalStream(
            tmp_path / "stream", LocalSettings(partitions=2, max_message_bytes=SMALL), lease_s=1.0
        )
    else:
        url = f"kafka://{request.getfixturevalue('kafka_bootstrap')}"
        # The broker is shared: its topics keep the size that the tests after these expect.
        KafkaStream(url.removeprefix("kafka://"), KafkaSettings(partitions=2)).admin().migrate()
        stream = KafkaStream(
            url.removeprefix("kafka://"),
            KafkaSettings(
                partitions=2,
                max_message_bytes=SMALL,
                client={"session.timeout.ms": "3000", "heartbeat.interval.ms": "300"},
            ),
        )
    made = Case(request.param, url, stream)
    yield made
    made.close_all()
