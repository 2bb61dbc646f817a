"""Budgets, versions and backtests over HTTP, by the client and by the commands."""

import httpx
import orjson
import pytest
from click.testing import CliRunner

from observe.api import create_app, serve
from observe.backtest import Label
from observe.cli import cli, judging, questions
from observe.client import Client
from observe.diagnose.asked import Moment
from observe.errors import BadRecord
from observe.judging import asked_incident
from observe.store.read import Reader
from observe.types import Cause, CauseKind, Diagnosis, Evidence, Impact, Shift
from observe.wire import incident_json, rfc3339
from tests.unit.test_api_http import NOW, FakeStore

HOUR = 3600 * 10**9


class Judge:
    def __init__(self):
        self.questions = []
        self.verdict = "promote"

    def slos(self):
        burn = {"limit": 14.4, "severity": "critical", "long_s": 3600.0, "long_rate": 2.0, "short_s": 300.0,
                "short_rate": 1.0}  # fmt: skip
        slo = {"name": "up", "service": "shop", "operation": "*", "model": "", "kind": "availability",
               "latency_ms": None, "target": 0.999, "requests": 1000, "bad_requests": 0.5, "good_ratio": 0.9995,
               "budget_remaining": 0.5, "firing": False, "burn_rates": [burn]}  # fmt: skip
        return {"at": rfc3339(NOW), "days": 30, "slos": [slo]}

    def canary(self, *question):
        self.questions.append(question)
        service, baseline, candidate, from_ns, to_ns = question
        check = {"measure": "error_ratio", "unit": "1", "before": 0.0, "after": 0.1, "p_value": 1e-9,
                 "finding": "worse", "text": "errors 0 → 10 %"}  # fmt: skip
        return {
            "service": service, "from": rfc3339(from_ns), "to": rfc3339(to_ns), "verdict": self.verdict,
            "reasons": ["because"], "baseline": {"version": baseline, "requests": 9},
            "candidate": {"version": candidate, "requests": 8}, "side_by_side": True, "given_tokens": False,
            "checks": [check],
        }  # fmt: skip

    def asked(self, *question):
        self.questions.append(question)
        at_ns, service, until_ns = question
        shift = Shift(service or "web", "", "Server", "latency_mean_ms", 5.0, 9.0, "ms", 1e-9, 70, at_ns)
        cause = Cause(1, CauseKind.SERVICE, "shop", "", 0.9, 0.5, ("web", "shop"), (Evidence("structure", "it stops"),))
        found = Diagnosis((shift,), (cause,), (), Impact(("web",), 7))
        return incident_json(asked_incident(Moment(at_ns, service), found, until_ns))

    def backtest(self, *question):
        self.questions.append(question)
        from_ns, to_ns, labels, values = question
        told = [{"name": one.name, "from": rfc3339(one.from_ns), "incident_id": None} for one in labels]
        recorded = {"incidents": 0, "in_both": [], "only_replayed": [], "only_recorded": []}
        return {"from": rfc3339(from_ns), "to": rfc3339(to_ns), "settings": values, "incidents": [],
                "recorded": recorded, "labels": told, "score": None}  # fmt: skip


@pytest.fixture
def judge():
    return Judge()


@pytest.fixture
def server(judge):
    store = FakeStore()
    app = create_app(Reader(store), store, audit=dict, replay=lambda a, b: {}, clock=lambda: NOW, judge=judge)
    server = serve(app, "127.0.0.1:0")
    yield server
    server.stop()


@pytest.fixture
def client(server):
    with Client(server.url) as client:
        yield client


@pytest.fixture
def run(client, server, monkeypatch):
    """A command that asks the server; its own client would only be closed by the end of the process."""
    monkeypatch.setattr(judging, "client", lambda url: client)
    monkeypatch.setattr(questions, "client", lambda url: Client(server.url))  # which it closes

    def invoked(*words):
        result = CliRunner().invoke(cli, list(words), standalone_mode=False)
        assert result.exception is None, result.output
        return result

    return invoked


def test_budgets_are_listed_and_described(client, server):
    assert client.slos()["slos"][0]["budget_remaining"] == 0.5
    paths = httpx.get(f"{server.url}/api/openapi.json", trust_env=False).json()["paths"]
    assert {"/api/v1/slos", "/api/v1/canary", "/api/v1/diagnosis", "/api/v1/backtest"} <= set(paths)
    assert httpx.get(f"{server.url}/metrics", trust_env=False).status_code == 200


def test_versions_are_compared_on_whole_windows(client, judge):
    assert client.canary("shop", "1", "2", NOW - HOUR, NOW)["verdict"] == "promote"
    assert judge.questions == [("shop", "1", "2", NOW - HOUR, NOW)]
    with pytest.raises(BadRecord, match="candidate"):
        client._get("canary", {"service": "shop", "baseline": "1"})


@pytest.mark.parametrize(("verdict", "code"), [("promote", 0), ("hold", 1), ("roll back", 1)])
def test_the_command_says_the_verdict_by_its_exit_code(run, judge, verdict, code):
    judge.verdict = verdict
    words = ["canary", "--service", "shop", "--baseline", "1", "--candidate", "2"]
    assert run(*words).return_value == code
    assert orjson.loads(run(*words, "--json").stdout)["verdict"] == verdict
    assert f"shop 1 → 2: {verdict}" in run(*words).stdout


def test_a_moment_is_explained_without_an_incident(client, judge, run):
    at_ns = NOW - HOUR
    body = client.diagnosis(at_ns, "web")
    assert (body["version"], body["causes"][0]["service"]) == (0, "shop")
    assert judge.questions == [(at_ns, "web", at_ns + 600 * 10**9)]
    text = run("explain", "--at", rfc3339(at_ns), "--service", "web").stdout
    assert text.startswith("asked: web at ")
    assert f"/api/v1/diagnosis?at={rfc3339(at_ns)}&service=web&to=" in text
    until_ns = NOW - 60 * 10**9
    answer = run("explain", "--at", rfc3339(at_ns), "--to", rfc3339(until_ns), "--json").stdout
    assert orjson.loads(answer) == client.diagnosis(at_ns, "", until_ns)


def test_a_moment_of_which_nothing_has_come_yet_is_refused(client):
    with pytest.raises(BadRecord, match="at:"):
        client.diagnosis(NOW)
    with pytest.raises(BadRecord, match="to:"):
        client.diagnosis(NOW - 48 * HOUR, to_ns=NOW)


@pytest.mark.parametrize(
    "words", [[], ["an-id", "--at", "0"], ["an-id", "--service", "web"], ["--at", "0", "--replay"]]
)
def test_an_incident_or_a_moment_is_explained(words):
    assert CliRunner().invoke(cli, ["explain", *words]).exit_code == 2


def test_a_backtest_takes_settings_and_labels(run, judge, tmp_path):
    file = tmp_path / "labels.json"
    file.write_bytes(orjson.dumps([{"from": rfc3339(NOW - HOUR), "to": rfc3339(NOW), "service": "shop", "name": "x"}]))
    words = ["backtest", "--from", rfc3339(NOW - HOUR), "--to", rfc3339(NOW), "--set", "detect.current_s=60"]
    assert run(*words, "--json").return_value == 0
    result = run(*words, "--labels", str(file))
    assert result.return_value == 1
    assert "x: missed" in result.stdout
    label = Label(NOW - HOUR, NOW, "shop", "", "x")
    assert judge.questions[-1] == (NOW - HOUR, NOW, [label], {"detect.current_s": "60"})


def test_labels_of_another_form_are_refused(tmp_path):
    file = tmp_path / "labels.json"
    file.write_text('[{"start": 1}]')
    result = CliRunner().invoke(cli, ["backtest", "--labels", str(file)])
    assert result.exit_code == 2
    assert "is needed" in result.output
