"""A database of an earlier release, brought up to date with its rows in it."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from observe.settings import RetentionSettings
from observe.store import ClickHouseStore, migrate
from tests.fixtures.records import Span, batch, request

MERGED_BY_COLUMN = "otel_traces", "otel_logs", "otel_metrics_gauge", "otel_metrics_sum"
BEFORE = "0013_merges"


@pytest.fixture(params=["chdb", pytest.param("server", marks=pytest.mark.clickhouse)])
def url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.getbasetemp())
        if request.param == "chdb":
            yield f"chdb://{tmp_path_factory.mktemp('chdb')}"
        else:
            yield f"{request.getfixturevalue('clickhouse_url')}/upgrade_{time.time_ns()}"


def test_merges_by_column_come_to_databases_that_exist(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    spans = [Span("web", trace_id=b"\x01" * 16), Span("web", trace_id=b"\x02" * 16)]
    stored = batch("otlp_spans", 1, 0, request(spans, time.time_ns() - 60 * 10**9))
    store = ClickHouseStore(url, RetentionSettings())
    try:
        with monkeypatch.context() as earlier:
            old = [(name, sql) for name, sql in migrate.migrations() if name < BEFORE]
            earlier.setattr(migrate, "migrations", lambda: iter(old))
            store.migrate()
            assert not _merged_by_column(store)
            store.insert(stored, len(spans))

        assert BEFORE in store.migrate()
        assert _merged_by_column(store) >= set(MERGED_BY_COLUMN)
        store.insert(stored, len(spans))  # the same batch: known, although the table was altered in between
        store.execute("OPTIMIZE TABLE otel_traces FINAL", {})
        assert store.query("SELECT count(), uniqExact(TraceId) FROM otel_traces").row(0) == (2, 2)
        assert store.migrate() == []
    finally:
        store.close()


def _merged_by_column(store: ClickHouseStore) -> set[str]:
    """Tables whose merges go column by column however few rows they have."""
    tables = store.query(
        "SELECT name FROM system.tables WHERE database = currentDatabase() "
        "AND engine_full LIKE '%vertical_merge_algorithm_min_rows_to_activate = 1%'"
    )
    return set(tables["name"].to_list()) if len(tables) else set()
