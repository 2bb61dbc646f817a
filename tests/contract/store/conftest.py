"""One store of each kind for all tests: each works on a partition and in an hour of its own."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator

import pytest

from observe.store import ClickHouseStore
from observe.types import WINDOW_NS
from tests.contract.store.parts import SECOND
from tests.fixtures.stores import Opened

places = itertools.count(1)


@pytest.fixture(scope="package", params=["chdb", pytest.param("server", marks=pytest.mark.clickhouse)])
def store(request: pytest.FixtureRequest, opened_store: Opened) -> Iterator[ClickHouseStore]:
    """One store for all tests: each works on a partition and in an hour of its own."""
    with opened_store(request.param) as store:
        yield store


@pytest.fixture
def place(store: ClickHouseStore) -> int:
    """A partition that no other test writes to."""
    return next(places)


@pytest.fixture
def base_ns(place: int) -> int:
    """Start of a window, in an hour that no other test writes to."""
    now = time.time_ns() // WINDOW_NS * WINDOW_NS
    return now - (place + 1) * 3600 * SECOND
