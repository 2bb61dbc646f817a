import json
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dashboards import charts, drawing, waterfall
from dashboards.run import API_URL_VARIABLE, DEFAULT_API_URL, api_url, command
from dashboards.words import safe
from tests.fixtures import fleet
from tests.unit.test_api_summaries import T0

SPAN = ("2026-01-01T00:00:00Z", "2026-01-01T00:10:00Z")


def span(name, parent, offset_ms, duration_ms, status="Unset"):
    return {
        "span_id": name,
        "parent_span_id": parent,
        "service": f"s-{name}",
        "operation": "op",
        "kind": "Server",
        "status": status,
        "status_message": "",
        "offset_ms": offset_ms,
        "duration_ms": duration_ms,
    }


def test_a_waterfall_follows_the_calls_and_counts_overlapping_children_once():
    trace = {
        "spans": [
            span("late", "root", 50.0, 40.0),
            span("root", "", 0.0, 100.0),
            span("early", "root", 10.0, 30.0),
            span("overlap", "root", 30.0, 40.0),
            span("grandchild", "early", 12.0, 5.0),
            span("runs-on", "late", 60.0, 500.0),
        ]
    }
    rows = waterfall.rows(trace)
    assert [(r["span_id"], r["depth"]) for r in rows] == [
        ("root", 0),
        ("early", 1),
        ("grandchild", 2),
        ("overlap", 1),
        ("late", 1),
        ("runs-on", 2),
    ]
    assert {r["span_id"]: r["self_ms"] for r in rows} == {
        "root": 20.0, "early": 25.0, "grandchild": 5.0, "overlap": 40.0, "late": 10.0, "runs-on": 500.0,
    }  # fmt: skip


def test_orphans_circles_and_repeated_ids_end():
    trace = {
        "spans": [
            span("orphan", "missing", 5.0, 1.0),
            span("a", "b", 1.0, 1.0),
            span("b", "a", 2.0, 1.0),
            span("self", "self", 3.0, 1.0),
            span("orphan", "missing", 5.0, 1.0),
        ]
    }
    assert [r["span_id"] for r in waterfall.rows(trace)] == ["orphan", "a", "b", "self"]


def test_a_waterfall_tells_equal_names_apart_and_marks_errors():
    trace = {"spans": [span("a", "", 0.0, 9.0), span("a2", "a", 1.0, 2.0, "Error") | {"service": "s-a"}]}
    values = waterfall.chart(trace).to_dict()["layer"][0]
    assert values["encoding"]["y"]["sort"] == ["0\u0000s-a · op", "1\u0000\u2800\u2800s-a · op"]
    assert '"note": "\\u2717 2 ms"' in json.dumps(waterfall.chart(trace).to_dict())


def test_charts_share_one_utc_axis_with_units_and_the_onset():
    windows = [{"at": SPAN[0], "latency_p50_ms": 1.0, "latency_p95_ms": 2.0, "latency_p99_ms": 3.0, "error_ratio": 0.5}]
    for chart in (
        charts.latency(windows, SPAN, onset="2026-01-01T00:05:00Z"),
        charts.single(windows, "error_ratio", "share of requests that fail", SPAN, onset="2026-01-01T00:05:00Z"),
    ):
        layers = chart.to_dict()["layer"]
        assert {layer["encoding"]["x"]["scale"]["type"] for layer in layers} == {"utc"}
        assert {tuple(layer["encoding"]["x"]["scale"]["domain"]) for layer in layers} == {SPAN}
        assert layers[0]["mark"]["type"] == "rule"
    assert charts.latency(windows, SPAN).to_dict()["layer"][0]["encoding"]["y"]["title"] == "latency (ms)"


@given(st.text(max_size=40))
def test_a_dot_string_cannot_be_left(text):
    quoted = drawing.quoted(text)
    assert quoted[0] == quoted[-1] == '"'
    inner = quoted[1:-1].replace("\\\\", "").replace('\\"', "")
    assert '"' not in inner
    assert "\\" not in inner
    assert "\n" not in inner


@given(st.text(alphabet="ab*_`[]()<>$:#\\|~\n ", max_size=30))
def test_text_from_telemetry_is_no_markup(text):
    shown = safe(text)
    assert "\n" not in shown
    for position, sign in enumerate(shown):
        if sign in "*_`[]<>$#:|~":
            backslashes = len(shown[:position]) - len(shown[:position].rstrip("\\"))
            assert backslashes % 2 == 1


def test_the_map_shows_health_and_who_fails():
    node = {"requests": 10, "requests_per_s": 2.0, "latency_p99_ms": 700.0, "error_ratio": 0.1, "incident_ids": []}
    edge = {"calls_per_s": 2.0, "latency_p99_ms": 650.0, "error_ratio": 0.1, "connection": "direct"}
    dot = drawing.service_map(
        {
            "nodes": [
                node | {"name": 'gate"way', "kind": "service", "health": "degraded"},
                node | {"name": "pg", "kind": "database", "health": "cause"},
            ],
            "edges": [edge | {"caller": 'gate"way', "callee": "pg"}],
        }
    )
    assert '"gate\\"way" -> "pg"' in dot
    assert "shape=cylinder" in dot
    assert "⚠ cause" in dot
    assert "10 % errors" in dot


def test_a_path_ends_at_the_resource():
    cause = {"resource": fleet.GPU, "kind": "gpu"}
    dot = drawing.path(["gateway", "router", "llm-engine"], cause)
    assert dot.count("->") == 3
    assert fleet.GPU in dot
    assert drawing.path(["gateway"], {"resource": "", "kind": "service"}).count("->") == 0


def test_the_pages_are_started_quietly_and_bound_where_told(monkeypatch):
    started = command("127.0.0.1:8501", "http://127.0.0.1:8080")
    assert started[0] == sys.executable
    assert "--server.address=127.0.0.1" in started
    assert "--server.port=8501" in started
    assert "--browser.gatherUsageStats=false" in started
    assert "--server.headless=true" in started
    assert started[-1] == "http://127.0.0.1:8080"
    monkeypatch.setattr(sys, "argv", ["app.py"])
    monkeypatch.delenv(API_URL_VARIABLE, raising=False)
    assert api_url() == DEFAULT_API_URL
    monkeypatch.setenv(API_URL_VARIABLE, "http://api:8080")
    assert api_url() == "http://api:8080"
    monkeypatch.setattr(sys, "argv", ["app.py", "http://other:1"])
    assert api_url() == "http://other:1"


def test_the_fleet_of_the_tests_is_the_same_every_time():
    sample = fleet.Sample(T0, T0 + 60 * fleet.SECOND, T0 + 90 * fleet.SECOND)
    assert list(fleet.traces_requests(sample)) == list(fleet.traces_requests(sample))
    assert len(list(fleet.spans(sample))) == pytest.approx(180)
