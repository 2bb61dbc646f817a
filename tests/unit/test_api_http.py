from dataclasses import replace

import httpx
import orjson
import polars as pl
import pytest

from observe.api import create_app, serve
from observe.client import Client
from observe.errors import BadRecord, Misconfigured, Unavailable
from observe.frames import empty
from observe.store.asked import sql_of
from observe.store.read import Reader
from observe.types import Cause, CauseKind, Evidence, Impact, Incident, RuledOut, Severity, Shift, State
from observe.wire import incident_json, rfc3339

NOW = 1_800_000_000 * 10**9
EVIL = "<script>alert(1)</script>"


def incident(name, state=State.FIRING, severity=Severity.WARNING, onset_ns=NOW, title="gateway is slow"):
    shift = Shift("gateway", "POST /chat", "Server", "latency_p99_ms", 120.0, 540.0, "ms", 1e-9, 812, onset_ns)
    cause = Cause(
        1, CauseKind.GPU, "llm", "GPU-1", 0.91, 0.83, ("gateway", "llm"), (Evidence("self_time", EVIL),), ("ab" * 16,)
    )
    resolved_ns = NOW + 10**9 if state is State.RESOLVED else None
    return Incident(
        name, 3, state, severity, title, onset_ns, onset_ns, NOW, resolved_ns, (shift,), (cause,),
        (RuledOut("search", "", "[its] self time is as before"),), Impact(("gateway", "web"), 1234), NOW,
    )  # fmt: skip


class FakeStore:
    """Holds incidents, and answers every query with no rows; `away` makes it unavailable."""

    def __init__(self):
        self.known = []
        self.away = False
        self.questions = []
        self.quiet = {}
        self.kept = {}

    def silences(self, now_ns):
        return [s for s in self.quiet.values() if s.ends_ns > now_ns]

    def save_silence(self, silence, now_ns):
        self.quiet[silence.id] = silence

    def incidents(self, **question):
        self.questions.append(question)
        return self.known

    def frames(self, from_ns, to_ns, *, joins=True):
        return empty()

    def diagnosed(self, incident_id):
        return self.kept.get(incident_id)

    def inputs(self, at_ns):
        return None

    def query(self, sql, parameters=None):
        if self.away:
            raise Unavailable("the store is away", retry_after_s=2.5)
        self.questions.append(parameters)
        if "FROM incidents" in sql:
            return pl.DataFrame(
                {"body": [orjson.dumps(incident_json(i)) for i in self.known if i.id == parameters["id"]]}
            )
        return pl.DataFrame()


@pytest.fixture
def store():
    return FakeStore()


@pytest.fixture
def replayed():
    return []


@pytest.fixture
def server(store, replayed):
    def replay(from_ns, to_ns):
        replayed.append((from_ns, to_ns))
        return {"incidents": [incident_json(incident("r"))]}

    balance = {"accepted": 5, "stored": 3, "rejected": 1, "pending": 1}
    audit = {"signals": {"spans": balance}, "partitions": [{"topic": "otlp_spans"}], "dead_letters": 2, "ok": True}
    app = create_app(Reader(store), store, audit=lambda: audit, replay=replay, clock=lambda: NOW)
    server = serve(app, "127.0.0.1:0")
    yield server
    server.stop()


@pytest.fixture
def client(server):
    with Client(server.url) as client:
        yield client


@pytest.fixture
def http(server):
    with httpx.Client(base_url=server.url, trust_env=False) as http:
        yield http


def test_health_is_ok_only_while_the_store_answers(client, http, store):
    assert client.health()["status"] == "ok"
    store.away = True
    response = http.get("/api/v1/health")
    assert (response.status_code, response.headers["Retry-After"]) == (503, "3")
    with pytest.raises(Unavailable, match="the store is away") as caught:
        client.health()
    assert caught.value.retry_after_s == 3.0


def test_incidents_come_open_first_then_worst_then_newest(client, store):
    store.known = [
        incident("old", State.RESOLVED, Severity.CRITICAL),
        incident("mild"),
        incident("pending", State.PENDING, Severity.CRITICAL),
        incident("bad-1", severity=Severity.CRITICAL, onset_ns=NOW - 10**9),
        incident("bad-2", severity=Severity.CRITICAL),
    ]
    assert [i["id"] for i in client.incidents()] == ["bad-2", "bad-1", "mild", "pending", "old"]
    client.incidents(state="firing", from_ns=NOW, to_ns=NOW + 10**9)
    assert store.questions[-1] == {"state": "firing", "from_ns": NOW, "to_ns": NOW + 10**9}


def without_sql(answer):
    """An incident as it is kept: answers about one have the SQL of each sentence, too."""
    evidence = [said for cause in answer["causes"] for said in cause["evidence"]]
    sentences = [*answer["symptoms"], *evidence, *answer["ruled_out"]]
    assert evidence
    assert all(said.pop("sql") == sql_of(said["query"]) for said in sentences)
    return answer


def test_an_incident_keeps_every_field(client, store):
    store.known = [incident("a")]
    assert without_sql(client.incident("a")) == incident_json(store.known[0])
    with pytest.raises(BadRecord, match=r"incident 'b c/\?'|no such"):
        client.incident("b c/?")


def test_explanations_are_short_and_cannot_smuggle_markup(client, http, store):
    store.known = [incident("a", title=f"slow {EVIL}")]
    text = client.explain("a")
    assert "P99 latency rose from 120 ms to 540 ms (4.5×)" in text
    assert "Cause: llm, GPU-1 — 91% sure" in text
    assert r"\<script\>" in text
    assert r"\[its\] self time" in text
    assert len(text.splitlines()) < 40
    page = http.get("/api/v1/incidents/a/explain", params={"format": "html"})
    assert page.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert "<script>" not in page.text
    assert "&lt;script&gt;" in page.text
    answer = without_sql(http.get("/api/v1/incidents/a/explain").json())
    assert answer == incident_json(store.known[0]) | {"looked_at": None}


def test_an_unknown_cause_says_so(client, store):
    unknown = Cause(1, CauseKind.UNKNOWN, "", "", 0.2, 0.0, ())
    store.known = [replace(incident("a"), causes=(unknown,))]
    assert "Cause: unknown" in client.explain("a")


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("incidents?state=open", "state"),
        ("incidents?stat=firing", "stat: no such parameter"),
        ("incidents?from=yesterday", "from"),
        ("incidents?from=2026-01-02T00:00:00Z&to=2026-01-01T00:00:00Z", "from: must be before to"),
        ("services?from=2026-01-01T00:00:00Z&to=2026-01-03T00:00:00Z", "from: at most 24 h"),
        ("windows", "service: is needed"),
        ("windows?service=a&step_s=-1", "step_s"),
        ("windows?service=a&from=2026-01-01T00:00:00Z&to=2026-01-02T00:00:00Z&step_s=10", "step_s"),
        ("graph?span_s=1", "span_s"),
        ("traces?limit=100000", "limit"),
        ("traces?order=random", "order"),
        ("traces?attribute=k", "attribute"),
        ("traces?min_duration_ms=long", "min_duration_ms"),
        ("traces/xyz", "trace_id"),
        ("traces/" + "a" * 31 + "'", "trace_id"),
        ("logs?severity=loud", "severity"),
        ("logs?trace_id=1'; DROP TABLE otel_logs", "trace_id"),
        ("gpus?at=1e999", "at"),
        ("gpus?at=99999999999999999999", "at"),
        ("incidents/a/explain?format=pdf", "format"),
    ],
)
def test_a_bad_parameter_is_named(http, path, said):
    response = http.get("/api/v1/" + path)
    assert response.status_code == 400
    assert response.headers["content-type"] == "application/problem+json"
    assert said in response.json()["detail"]


@pytest.mark.parametrize("path", ["/api/v1/nothing", "/api/v1/incidents/none", "/api/v1/traces/" + "a" * 32])
def test_what_is_not_there_is_a_404(http, path):
    response = http.get(path)
    assert (response.status_code, response.json()["status"]) == (404, 404)


def test_questions_about_windows_end_where_data_has_settled(client, store):
    def asked():
        return store.questions[-1]["from_s"], store.questions[-1]["to_s"]

    now_s = NOW // 10**9
    client.services()
    assert asked()[1] == now_s // 10 * 10 - 20
    assert asked()[0] <= asked()[1] - 3600
    client.services(NOW - 100 * 10**9, NOW)
    assert asked() == (now_s - 100, now_s)


def test_a_plus_in_a_time_zone_is_read_as_meant(http, store):
    assert http.get("/api/v1/services?from=2027-01-15T08:00:00+01:00&to=2027-01-15T08:00:00Z").status_code == 200
    assert store.questions[-1]["from_s"] == NOW // 10**9 - 3600


def test_values_never_become_sql(client, store):
    hostile = "x' OR true --"
    client.traces(service=hostile, operation=hostile, attributes={hostile: hostile}, errors=True, min_duration_ms=1.5)
    values = store.questions[-1]
    assert (values["service"], values["keys0"], values["values0"]) == (hostile, [hostile], [hostile])
    assert values["min_duration_ns"] == 1_500_000


def test_audit_and_replay_pass_through(client, replayed):
    assert client.audit()["signals"]["spans"]["accepted"] == 5
    assert client.audit()["ok"] is True
    assert client.audit()["partitions"] == [{"topic": "otlp_spans"}]
    assert client.replay(NOW - 10**9, NOW)["incidents"][0]["id"] == "r"
    assert replayed == [(NOW - 10**9, NOW)]
    with pytest.raises(BadRecord, match="from: must be before to"):
        client.replay(NOW, NOW)


def test_a_replay_names_what_its_body_lacks(http):
    response = http.post("/api/v1/replay", json={"from": "2026-01-01T00:00:00Z"})
    assert (response.status_code, response.json()["detail"]) == (400, "to: is needed")
    assert http.post("/api/v1/replay", content="{").status_code == 400


def test_silences_are_kept_until_they_end(client):
    made = client.silence("llm*", NOW + 3600 * 10**9, "deploy")
    assert client.silences() == [made]
    assert (made["service"], made["ends_at"]) == ("llm*", rfc3339(NOW + 3600 * 10**9))
    client.end_silence(made["id"])
    assert client.silences() == []
    with pytest.raises(BadRecord, match="none with this id"):
        client.end_silence(made["id"])
    with pytest.raises(BadRecord, match="ends_at"):
        client.silence("llm", NOW - 1)


def test_openapi_describes_every_address_and_its_answer(http):
    document = http.get("/api/openapi.json").json()
    names = {path.removeprefix("/api/v1/") for path in document["paths"]}
    assert names == {
        "health", "incidents", "incidents/{incident_id}", "incidents/{incident_id}/explain", "services", "graph",
        "windows", "traces", "traces/{trace_id}", "metrics", "operations", "logs", "gpus", "audit", "replay",
        "silences",
        "silences/{silence_id}", "incidents/{incident_id}/inputs", "incidents/{incident_id}/replay", "compare",
        "attributes", "levels",
    }  # fmt: skip
    assert "latency_p99_ms" in document["components"]["schemas"]["Step"]["properties"]
    assert document["components"]["schemas"]["Graph"]["properties"].keys() == {
        "at", "from", "nodes", "edges", "operation_edges", "runs_on", "completeness",
    }  # fmt: skip


def test_own_metrics_are_served_for_prometheus(http):
    response = http.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain")
    assert "observe_received_items" in response.text


def test_an_api_that_is_gone_is_unavailable(server):
    server.stop()
    with Client(server.url) as client, pytest.raises(Unavailable, match="is `observe up` running"):
        client.health()


@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.1:99999", "127.0.0.1:http", "256.0.0.1:0"])
def test_an_address_that_cannot_be_had_is_a_setting_to_change(address):
    with pytest.raises(Misconfigured, match=r"api\.address"):
        serve(None, address)


def test_a_taken_address_is_named(server):
    with pytest.raises(Misconfigured, match=server.address):
        serve(None, server.address)
