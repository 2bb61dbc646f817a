"""The reader's answers on a real store: what the API says of a fleet whose truth is known."""

import time

import pytest

from observe.store.read import Reader
from tests.fixtures import fleet

WINDOW = 10 * 10**9


@pytest.fixture(scope="module")
def sample():
    end_ns = (time.time_ns() - 60 * 10**9) // WINDOW * WINDOW
    return fleet.Sample(end_ns - 300 * 10**9, end_ns - 100 * 10**9, end_ns)


@pytest.fixture(scope="module", params=["chdb", pytest.param("server", marks=pytest.mark.clickhouse)])
def reader(request, sample, opened_store):
    with opened_store(request.param) as store:
        fleet.fill(store, sample)
        yield Reader(store)


@pytest.fixture(scope="module")
def truth(sample):
    return list(fleet.spans(sample))


def test_every_service_has_its_requests(reader, sample, truth):
    services = {s["service"]: s for s in reader.services(sample.start_ns, sample.end_ns)}
    assert services.keys() == {"gateway", "retriever", "llm-engine"}
    ended = sum(trace[0].end_ns < sample.end_ns for trace in truth)
    assert services["gateway"]["requests"] == ended
    assert services["gateway"]["versions"] == ["2.4.0"]
    assert services["llm-engine"]["instances"] == ["llm-engine-0"]
    assert services["llm-engine"]["hosts"] == ["gpu-node-1"]
    assert [o["operation"] for o in services["llm-engine"]["operations"]] == ["chat llama-3"]


def test_windows_show_the_onset(reader, sample):
    windows = reader.windows("llm-engine", "", sample.start_ns, sample.end_ns)["windows"]
    before, after = windows[:20], windows[21:]
    assert max(w["latency_p50_ms"] for w in before) < 150 < min(w["latency_p50_ms"] for w in after)
    assert all(w["errors"] == 0 for w in before)
    assert sum(w["errors"] for w in after) > 0


def test_the_graph_has_services_databases_and_the_time_on_the_way(reader, sample):
    graph = reader.graph(sample.end_ns, 100 * 10**9)
    services = reader.graph(sample.end_ns, 100 * 10**9, "services")
    assert "completeness" not in services
    assert {n["name"]: n["kind"] for n in services["nodes"]} == {
        "gateway": "service",
        "retriever": "service",
        "llm-engine": "service",
        "qdrant": "database",
    }
    edges = {(e["caller"], e["callee"]): e for e in graph["edges"]}
    assert edges.keys() == {("gateway", "retriever"), ("gateway", "llm-engine"), ("retriever", "qdrant")}
    engine = edges["gateway", "llm-engine"]
    assert engine["client_mean_ms"] - engine["server_mean_ms"] == pytest.approx(2.0, abs=0.05)
    assert edges["retriever", "qdrant"]["server_mean_ms"] is None


def test_a_trace_comes_back_whole(reader, truth):
    wanted = next(trace for trace in truth if trace[0].error)
    trace = reader.trace(wanted[0].trace_id.hex().upper())
    spans = {span["span_id"]: span for span in trace["spans"]}
    assert spans.keys() == {span.span_id.hex() for span in wanted}
    root = spans[wanted[0].span_id.hex()]
    assert (root["parent_span_id"], root["kind"], root["status"]) == ("", "Server", "Error")
    assert root["status_message"] == "deadline exceeded"
    assert root["attributes"]["http.route"] == "/chat"
    assert root["resource"]["service.version"] == "2.4.0"
    assert root["events"][0]["attributes"]["exception.type"] == "TimeoutError"
    assert root["links"] == [
        {"trace_id": fleet.LINKED[0].hex(), "span_id": fleet.LINKED[1].hex(), "attributes": {"why": "retry"}}
    ]
    assert trace["duration_ms"] == pytest.approx((wanted[0].end_ns - wanted[0].start_ns) / 1e6)
    child = spans[wanted[4].span_id.hex()]
    assert child["parent_span_id"] == root["span_id"]
    assert child["offset_ms"] == pytest.approx((wanted[4].start_ns - wanted[0].start_ns) / 1e6)
    assert reader.trace("0" * 32) is None


@pytest.mark.parametrize(
    ("question", "chosen"),
    [
        ({}, lambda t: True),
        ({"service": "retriever", "operation": "GET /search"}, lambda t: True),
        ({"errors_only": True}, lambda t: t[0].error),
        ({"service": "retriever", "errors_only": True}, lambda t: False),
        ({"min_duration_ms": 400.0}, lambda t: max(s.end_ns - s.start_ns for s in t) >= 400e6),
        ({"attributes": {"app.tenant": "tenant-1"}}, lambda t: t[0].attributes["app.tenant"] == "tenant-1"),
        ({"attributes": {"service.version": "0.11.0"}, "errors_only": True}, lambda t: t[0].error),
        ({"attributes": {"app.tenant": "x' OR 1=1 --"}}, lambda t: False),
    ],
)
def test_search_finds_exactly_what_meets_the_conditions(reader, sample, truth, question, chosen):
    found = reader.traces(sample.start_ns, sample.end_ns, limit=1000, **question)
    expected = {t[0].trace_id.hex() for t in truth if chosen(t)}
    assert {t["trace_id"] for t in found} == expected
    assert [t["start_at"] for t in found] == sorted((t["start_at"] for t in found), reverse=True)
    assert all((t["service"], t["operation"], t["spans"]) == ("gateway", "POST /chat", 6) for t in found)


def test_the_slowest_traces_come_first(reader, sample, truth):
    found = reader.traces(sample.start_ns, sample.end_ns, order="slowest", limit=5)
    slowest = sorted(truth, key=lambda t: t[0].start_ns - t[0].end_ns)[:5]
    assert [t["trace_id"] for t in found] == [t[0].trace_id.hex() for t in slowest]


def test_logs_are_found_by_service_text_severity_and_trace(reader, sample):
    def bodies(**question):
        return {line["body"] for line in reader.logs(sample.start_ns, sample.end_ns, **question)}

    assert bodies(severity="error") == {"GPU clocks are held down"}
    assert bodies(text="BATCH 7 ") == {"batch 7 done"}
    assert bodies(service="llm-engine", severity="info") == {
        "GPU clocks are held down",
        *(f"batch {i} done" for i in range(20)),
    }
    assert bodies(service="gateway") == set()
    assert bodies(trace_id="a" * 32) == set()
    (newest,) = reader.logs(sample.start_ns, sample.end_ns, limit=1)
    assert newest["attributes"] == {"batch": "29"}
    assert newest["resource"]["service.name"] == "llm-engine"


def test_metrics_are_listed_with_their_kind_and_services(reader, sample):
    known = {m["metric"]: m for m in reader.metrics(sample.start_ns, sample.end_ns)}
    assert known["hw.power"] == {
        "metric": "hw.power",
        "kind": "gauge",
        "unit": "W",
        "description": "hw.power of the fleet's GPU",
        "services": ["llm-engine"],
        "points": 30,
    }
    assert reader.metrics(sample.start_ns, sample.end_ns, "gateway") == []


def test_a_gauge_has_its_series(reader, sample):
    body = reader.metric("DCGM_FI_DEV_SM_CLOCK", sample.start_ns, sample.end_ns, service="llm-engine")
    (series,) = body["series"]
    assert (body["unit"], series["hw_id"], series["host"]) == ("MHz", fleet.GPU, "gpu-node-1")
    assert [p["value"] for p in series["points"]] == [1980.0] * 20 + [540.0] * 10


def test_gpus_tell_that_they_are_throttled(reader, sample):
    (gpu,) = reader.gpus(sample.end_ns)
    assert (gpu["hw_id"], gpu["throttle_reasons"], gpu["sm_clock_mhz"]) == (fleet.GPU, ["hw_thermal"], 540.0)
    assert gpu["memory_utilization_ratio"] == pytest.approx(63 / 80)
    (before,) = reader.gpus(sample.onset_ns)
    assert before["throttled"] is False


def test_incidents_are_found_by_id(reader, sample):
    incident = fleet.incident(sample)
    assert reader.incident(incident.id).title == incident.title
    assert reader.incident("none") is None
    assert {n["name"]: n["health"] for n in reader.graph(sample.end_ns)["nodes"]}["llm-engine"] == "cause"
