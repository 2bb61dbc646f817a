"""One store for all that is said of OTLP in it: each module keeps to hours, services and partitions of its own."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from observe.settings import RetentionSettings
from observe.store import ClickHouseStore

LIMIT = 20
"""Distinct operations of a service, low enough to be reached."""


@pytest.fixture(scope="package", params=["chdb", pytest.param("server", marks=pytest.mark.clickhouse)])
def opened(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClickHouseStore]:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.getbasetemp())
        url = f"chdb://{tmp_path_factory.mktemp('otlp')}"
        if request.param == "server":
            url = f"{request.getfixturevalue('clickhouse_url')}/otlp_{time.time_ns()}"
        store = ClickHouseStore(url, RetentionSettings(operations=LIMIT))
        store.migrate()
        yield store
        store.close()
