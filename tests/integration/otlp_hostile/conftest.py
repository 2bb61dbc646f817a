"""One receiver for all that only look at its answers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from collectors.otlp import OtlpReceiver
from tests.fixtures.memory import MemoryProducer
from tests.integration.otlp_parts import (
    running,
)


@pytest.fixture(scope="package")
def producer() -> MemoryProducer:
    return MemoryProducer()


@pytest.fixture(scope="package")
def shared(producer: MemoryProducer) -> Iterator[OtlpReceiver]:
    with running(producer) as receiver:
        yield receiver


@pytest.fixture
def receiver(shared: OtlpReceiver, producer: MemoryProducer) -> OtlpReceiver:
    producer.records.clear()
    return shared
