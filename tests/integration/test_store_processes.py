"""The store under what processes do to it: two at once, killed, restarted."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from observe.errors import Unavailable
from observe.settings import RetentionSettings
from observe.store import ClickHouseStore, migrate
from tests.fixtures.clickhouse import ROOT, ClickHouseServer, library_or_skip
from tests.fixtures.records import Span, batch, request
from tests.integration.store_child import long_request


def child(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.integration.store_child", *arguments]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


def cut_off_schemas(folder: Path) -> None:
    """As a full disk, or a death while they were written, leaves the files that ClickHouse keeps schemas in."""
    schemas = [*folder.rglob("__cache__/*.proto")]
    assert schemas
    for schema in schemas:
        schema.write_bytes(b"")


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Opening a chDB folder changes the working directory; the test's end changes it back."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.clickhouse
def test_two_processes_may_migrate_at_once(clickhouse_database: str) -> None:
    both = [child("migrate", clickhouse_database) for _ in range(2)]
    said = [process.communicate(timeout=300)[0].strip() for process in both]
    names = [name for name, _ in migrate.migrations()]
    assert all(set(answer.split(",")) <= {*names, ""} for answer in said), said
    store = ClickHouseStore(clickhouse_database)
    assert store.migrate() == []
    assert store.query("SELECT DISTINCT Name FROM migrations ORDER BY Name")["Name"].to_list() == names
    store.insert(batch("otlp_spans", 0, 0, request([Span("a")], time.time_ns())), 1)
    assert store.ledger()["stored"].to_list() == [1]
    store.close()


@pytest.mark.clickhouse
def test_retention_follows_the_settings(clickhouse_database: str) -> None:
    def ttl(table: str) -> str:
        found = store.query("SELECT create_table_query FROM system.tables WHERE database = currentDatabase() "
                            "AND name = {t:String}", {"t": table}).item()  # fmt: skip
        return str(found).split("TTL ")[1].split(" SETTINGS")[0]

    for days in (3, 5):
        store = ClickHouseStore(clickhouse_database, RetentionSettings(traces_days=days))
        store.migrate()
        assert ttl("otel_traces") == f"toDate(Timestamp) + toIntervalDay({days})"
        assert ttl("otel_logs") == "toDate(Timestamp) + toIntervalDay(14)"
        store.close()


def test_a_chdb_folder_has_one_owner(here: Path) -> None:
    owner = ClickHouseStore(f"chdb://{here / 'store'}")
    owner.migrate()
    said = child("migrate", f"chdb://{here / 'store'}").communicate(timeout=300)[0]
    assert "Misconfigured" in said
    assert "in use by another process" in said
    owner.close()


def test_a_killed_owner_loses_nothing_and_doubles_nothing(here: Path) -> None:
    """Killed after some inserts; the next owner repeats them all, as a restarted writer may."""
    url, base_ns = f"chdb://{here / 'store'}", time.time_ns()
    first = child("insert", url, str(base_ns), "4")
    assert first.stdout is not None
    assert [first.stdout.readline().strip() for _ in range(4)] == ["0", "1", "2", "3"]
    first.kill()
    first.communicate()
    cut_off_schemas(here)  # ClickHouse looks for them where its process opened its first folder: not in this one
    refused, *inserted = child("resume", url, str(base_ns), "6").communicate(timeout=300)[0].splitlines()
    assert "Unavailable" in refused, refused  # not: a bad record
    assert "__cache__" in refused
    assert inserted[:6] == ["0", "1", "2", "3", "4", "5"]
    store = ClickHouseStore(url)
    counted = store.ledger().to_dicts()[0]
    assert (counted["accepted"], counted["stored"], counted["overlaps"], counted["gaps"]) == (6, 6, 0, 0)
    windows = store.frames(base_ns - 10**11, base_ns + 10**11).windows
    assert windows["requests"].sum() == 6
    store.close()


def test_an_insert_killed_between_its_token_and_its_rows_can_be_made_again(here: Path, migrated_chdb: Path) -> None:
    """One table has the token and no rows, as after a kill at that moment; the others have both."""
    shutil.copytree(migrated_chdb, here / "store", symlinks=True)
    whole = batch("otlp_spans", 0, 0, request([Span("torn")], time.time_ns() - 10**9))
    for lost in ("otel_traces", "service_windows", "ledger"):
        store = ClickHouseStore(f"chdb://{here / 'store'}")
        store.execute("SYSTEM STOP MERGES", {})
        store.insert(whole, 1)
        assert store.ledger()["accepted"].to_list() == store.ledger()["stored"].to_list() == [1]
        assert store.query("SELECT sum(Requests) FROM service_windows").item() == 1
        store.close()
        (part,) = (here / "store" / "data" / "observe" / lost).glob("*_*_*_*")
        shutil.rmtree(part)
        (here / "store" / "status").touch()  # what an owner that dies leaves, and one that is closed does not
    store = ClickHouseStore(f"chdb://{here / 'store'}")
    store.insert(whole, 1)
    assert store.ledger()["accepted"].to_list() == [1]
    store.close()


def test_an_insert_of_which_files_were_cut_off_can_be_made_again(
    here: Path, migrated_chdb: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """chDB itself takes writes that fail for done, and answers OK."""
    shutil.copytree(migrated_chdb, here / "store", symlinks=True)
    base_ns = time.time_ns() - 10**9
    said = child("torn", f"chdb://{here / 'store'}", str(base_ns), "0").communicate(timeout=300)[0]
    assert "Damaged" in said, said
    store = ClickHouseStore(f"chdb://{here / 'store'}")
    assert "cannot be read, and was put aside" in caplog.text
    assert "it may be inserted again" in caplog.text
    for offset in (0, 1):
        store.insert(batch("otlp_spans", 0, offset, long_request(base_ns)), 1)
    counted = store.ledger().to_dicts()[0]
    assert (counted["accepted"], counted["stored"], counted["overlaps"]) == (2, 2, 0)
    assert store.query("SELECT sum(Requests) FROM service_windows").item() == 2
    store.close()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ClickHouseServer]:
    own = ClickHouseServer(tmp_path / "server", library_or_skip())
    own.start()
    yield own
    own.kill9()


@pytest.mark.clickhouse
def test_a_server_that_is_away_is_waited_for(server: ClickHouseServer) -> None:
    store = ClickHouseStore(f"{server.url}/faults")
    store.migrate()
    value = request([Span("a")], time.time_ns())
    store.insert(batch("otlp_spans", 0, 0, value), 1)
    server.kill9()
    with pytest.raises(Unavailable):
        store.insert(batch("otlp_spans", 0, 1, value), 1)
    with pytest.raises(Unavailable):
        store.ledger()
    cut_off_schemas(server.folder)
    server.start()
    with pytest.raises(Unavailable, match="__cache__"):
        store.insert(batch("otlp_spans", 0, 0, value), 1)
    for offset in range(2):
        store.insert(batch("otlp_spans", 0, offset, value), 1)
    counted = store.ledger().to_dicts()[0]
    assert (counted["accepted"], counted["stored"], counted["overlaps"]) == (2, 2, 0)
    store.close()
