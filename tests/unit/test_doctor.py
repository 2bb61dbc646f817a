"""Each check says what it found and what to do, and the exit code says which is worst."""

import fcntl
import socket
import threading
import time
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from urllib.parse import urlsplit

import orjson
import polars as pl
import pytest
from click.testing import CliRunner

from observe import doctor
from observe.cli import cli
from observe.doctor import Check, Parts, Waiting, examine, exit_code
from observe.errors import Unavailable
from observe.settings import load
from observe.types import TOPICS
from tests.fixtures.ports import free_port


class FakeStore:
    def __init__(self, *, skew_s=0.0, migrations=("0001",), newest_s=None, aside=()):
        self.skew_s, self.done, self.newest_s, self.aside = skew_s, migrations, newest_s, list(aside)

    def query(self, sql, parameters=None):
        if "version()" in sql:
            return pl.DataFrame({"version": ["26.7"], "now_ns": [time.time_ns() + int(self.skew_s * 1e9)]})
        if "system.tables" in sql:
            return pl.DataFrame({"name": ["migrations"]})
        if "FROM migrations" in sql:
            return pl.DataFrame({"name": list(self.done)})
        if "detached_parts" in sql:
            return pl.DataFrame(self.aside, schema=["table", "parts", "example"], orient="row")
        rows = {"service": ["shop"], "newest_s": [int(time.time()) if self.newest_s is None else self.newest_s]}
        return pl.DataFrame(rows)

    def close(self):
        pass


@pytest.fixture
def settings(tmp_path):
    addresses = {key: f"127.0.0.1:{free_port()}" for key in
                 ("collect.otlp.grpc", "collect.otlp.http", "api.address", "dashboard.address")}  # fmt: skip
    return load(environ={}, options={"data": str(tmp_path), "store": "clickhouse://u@127.0.0.1:1/x", **addresses})


def examined(settings, store=None, stream=lambda: Waiting(list(TOPICS.values()), 0), migrations=("0001",)):
    def opened():
        if store is None:
            raise Unavailable("nobody answers")
        return store

    found = examine(settings, Parts(opened, lambda: list(migrations), stream))
    assert all(check.do for check in found if check.status != "ok"), "what is wrong says what to do"
    return {check.check: check for check in found}


def test_all_is_well(settings, tmp_path):
    (tmp_path / "stream").mkdir()
    found = examined(settings, FakeStore())
    assert {check.status for name, check in found.items() if name != "receivers"} == {"ok"}
    assert exit_code(list(found.values())) == 0


def test_parts_that_were_put_aside_are_told(settings):
    found = examined(settings, FakeStore(aside=[("otel_traces", 2, "broken-on-start_20261121_1_5_1")]))
    told = found["parts of tables"]
    assert told.status == "failed"
    assert "otel_traces broken-on-start" in told.found
    assert "observe audit" in told.do


def test_a_chdb_folder_without_room_and_with_parts_put_aside(settings, tmp_path):
    folder = tmp_path / "store"
    (folder / "store" / "abc" / "abc-def" / "detached" / "broken-on-start_7_1_1_0").mkdir(parents=True)
    chdb = settings.model_copy(update={"store": f"chdb://{folder}"})
    parts = Parts(
        FakeStore, lambda: ["0001"], lambda: Waiting(list(TOPICS.values()), 0), lambda path: f"no room at {path}"
    )
    failed = {check.check: check.found for check in examine(chdb, parts) if check.status == "failed"}
    assert failed["disk"].startswith("inserts wait")
    assert failed["disk"].endswith(f"no room at {folder}")
    assert failed["parts of tables"].startswith("1 could not be read")


def test_a_port_that_somebody_else_holds_is_named_with_its_setting(settings):
    host, _, port = settings.api.address.rpartition(":")
    with socket.create_server((host, int(port))) as other:
        other.settimeout(0)
        found = examined(settings, FakeStore())
    assert found["port api.address"].status == "failed"
    assert "set api.address" in found["port api.address"].do


def test_receivers_that_run_as_a_role_are_no_strangers(settings):
    class Receiver(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_error(405)

        def log_message(self, *_):
            pass

    host, _, port = settings.collect.otlp.http.rpartition(":")
    with HTTPServer((host, int(port)), Receiver) as receiver:
        answering = threading.Thread(target=receiver.serve_forever, kwargs={"poll_interval": 0.01})
        answering.start()
        found = examined(settings, FakeStore())["port collect.otlp.http"]
        receiver.shutdown()
        answering.join()
    assert (found.status, "served by a receiver" in found.found) == ("ok", True)


def test_a_store_that_is_away_and_a_schema_that_does_not_fit(settings):
    found = examined(settings)
    assert (found["store"].status, exit_code(list(found.values()))) == ("unreachable", 3)
    missing = examined(settings, FakeStore(), migrations=("0001", "0002"))["schema"]
    assert (missing.status, missing.do) == ("failed", "observe migrate")
    newer = examined(settings, FakeStore(migrations=("0001", "0099")))["schema"]
    assert "0099" in newer.found
    assert newer.status == "failed"


@pytest.mark.parametrize(("skew_s", "status"), [(0.1, "ok"), (-5.0, "warning"), (90.0, "failed")])
def test_clocks_are_compared(settings, skew_s, status):
    assert examined(settings, FakeStore(skew_s=skew_s))["clock of the store"].status == status


def test_senders_whose_clocks_run_ahead_and_silence_are_told(settings):
    ahead = examined(settings, FakeStore(newest_s=int(time.time()) + 120))
    assert ahead["clocks of senders"].status == "failed"
    assert "shop" in ahead["clocks of senders"].found
    assert examined(settings, FakeStore(newest_s=int(time.time()) - 900))["telemetry"].status == "warning"


def test_missing_topics_and_a_writer_that_is_behind(settings, tmp_path):
    (tmp_path / "stream").mkdir()
    found = examined(settings, FakeStore(), stream=lambda: Waiting(["otlp_spans"], 0))["stream"]
    assert (found.status, found.do) == ("failed", "observe migrate")
    behind = Waiting(list(TOPICS.values()), 10**7)
    assert examined(settings, FakeStore(), stream=lambda: behind)["stream"].status == "warning"
    full = replace(behind, full="4,096 of 4,096 MiB wait (local.max_pending_bytes)")
    told = examined(settings, FakeStore(), stream=lambda: full)["stream"]
    assert (told.status, "senders are told to come again: 4,096 of" in told.found) == ("failed", True)


def test_a_chdb_store_that_another_process_holds_is_not_opened(tmp_path):
    own = load(environ={}, options={"data": str(tmp_path), "api.address": f"127.0.0.1:{free_port()}"})
    (tmp_path / "store").mkdir()
    assert urlsplit(own.store).scheme == "chdb"
    with (tmp_path / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        found = {c.check: c for c in examine(own, Parts(pytest.fail, list, lambda: Waiting([], 0)))}
    assert found["store"].status == "failed"


def test_the_command_prints_json_and_its_exit_code_is_the_worst(monkeypatch, tmp_path):
    from observe import app

    checks = [Check("settings", "ok", "read"), Check("store", "failed", "broken", "mend it")]
    monkeypatch.setattr(app, "doctor", lambda settings: checks)
    result = CliRunner().invoke(cli, ["doctor", "--json", "--data", str(tmp_path)], standalone_mode=False)
    body = orjson.loads(result.stdout)
    assert (result.return_value, body["ok"]) == (1, False)
    assert body["checks"][1] == {"check": "store", "status": "failed", "found": "broken", "do": "mend it"}
    assert doctor.exit_code(checks[:1]) == 0
