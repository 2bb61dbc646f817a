"""One store for all that is said of OTLP in it: each module keeps to hours, services and partitions of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from observe.settings import RetentionSettings
from observe.store import ClickHouseStore
from tests.fixtures.stores import Opened

LIMIT = 20
"""Distinct operations of a service, low enough to be reached."""


@pytest.fixture(scope="package", params=["chdb", pytest.param("server", marks=pytest.mark.clickhouse)])
def opened(request: pytest.FixtureRequest, opened_store: Opened) -> Iterator[ClickHouseStore]:
    with opened_store(request.param, RetentionSettings(operations=LIMIT)) as store:
        yield store
