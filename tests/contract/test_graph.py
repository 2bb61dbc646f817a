"""The graph at a past time, from spans of every way in which a call is told, on ClickHouse here and on a server."""

from __future__ import annotations

import time

import pytest

from observe.store.read import Reader
from observe.types import WINDOW_NS
from tests.fixtures.records import CLIENT, CONSUMER, INTERNAL, PRODUCER, SERVER, Span, batch, metrics
from tests.fixtures.records import request as request_of

SECOND = 10**9


def spans() -> list[Span]:
    """One trace or two for each kind of pair."""
    web = Span("web", "GET /", 0, 100, resource={"service.instance.id": "web-0", "host.name": "edge-1"})
    found = [web]

    def call(name, at, *, to="", callee="", took=20.0, kind=CLIENT, error=False, resource=None, **attributes):
        plain = {key.replace("__", "."): value for key, value in attributes.items()}
        client = Span("web", name, at, took, web, kind, error, attributes=plain, resource=web.resource)
        found.append(client)
        if to:
            found.append(Span(to, callee, at + 2, took - 5, client, SERVER, error, resource=resource or {}))
        return client

    gpu = {"service.instance.id": "llm-0", "host.name": "gpu-1"}
    call("POST", 5, to="llm", callee="chat", took=40, server__address="llm", resource=gpu)
    call("POST", 50, to="llm", callee="chat", took=30, error=True, resource=gpu)
    call("SELECT", 6, db__system__name="postgresql", server__address="pg-1")
    call("GET", 6, **{"db.system": "redis"})
    call("POST", 7, peer__service="billing")
    call("POST", 7, url__full="https://api.openai.com/v1/chat")
    # A server whose client span was lost in between: its parent is the caller's own span.
    found.append(Span("search", "find", 10, 10, web, SERVER))
    # A wrapper around a client span is no call of its own, and a child in the same process is no edge.
    outer = call("chat", 8, gen_ai__provider__name="openai")
    found.append(Span("web", "POST", 9, 5, outer, CLIENT, attributes={"url.full": "https://api.openai.com/v1/chat"}))
    found.append(Span("web", "render", 80, 5, web, INTERNAL))
    # A message by its parent, and two by links: a batch in a trace of its own.
    topic = {"messaging.destination.name": "orders", "messaging.system": "kafka"}
    sent = [Span("web", "orders send", 20 + i, 3, web, PRODUCER, attributes=topic) for i in range(3)]
    worker = Span("worker", "orders process", 30, 15, sent[0], CONSUMER, attributes=topic)
    several = Span("indexer", "orders process", 40, 15, None, CONSUMER, attributes=topic, links=sent[1:])
    polled = {"messaging.operation.type": "receive", "server.address": "kafka-1", **topic}
    poll = Span("indexer", "orders receive", 35, 5000, None, CLIENT, attributes=polled)
    return [*found, *sent, worker, several, poll]


def broken() -> list[Span]:
    """A trace without its root, of which one parent never came."""
    lost = Span("gone", "lost")
    child = Span("llm", "chat", 0, 10, lost, SERVER)
    return [child, Span("llm", "step", 1, 2, child, INTERNAL), Span("llm", "step", 1, 2, lost, INTERNAL)]


@pytest.fixture(scope="module", params=["chdb", pytest.param("server", marks=pytest.mark.clickhouse)])
def graph(request, opened_store):
    """The answer for the time of those spans, two hours ago; later ones are there, too."""
    with opened_store(request.param) as store:
        base_ns = (time.time_ns() - 7200 * SECOND) // WINDOW_NS * WINDOW_NS
        store.insert(batch("otlp_spans", 0, 0, request_of(spans() + broken(), base_ns)), 1)
        store.insert(batch("otlp_spans", 0, 1, request_of([Span("later", "GET")], base_ns + 3600 * SECOND)), 1)
        store.insert(batch("otlp_metrics", 0, 0, a_gpu(base_ns)), 1)
        yield Reader(store).graph(base_ns + 60 * SECOND)


def a_gpu(base_ns: int) -> bytes:
    """The temperature of a GPU, by an exporter on the host that llm-0 runs on."""
    message, found = metrics("dcgm-exporter", {"host.name": "gpu-1"})
    point = found.add(name="DCGM_FI_DEV_GPU_TEMP").gauge.data_points.add(time_unix_nano=base_ns + SECOND, as_double=61)
    point.attributes.add(key="UUID").value.string_value = "GPU-1"
    return message.SerializeToString()


def edge(graph, caller, callee, connection):
    (found,) = [
        e for e in graph["edges"] if (e["caller"], e["callee"], e["connection"]) == (caller, callee, connection)
    ]
    return found


def test_every_way_to_tell_of_a_call_is_an_edge(graph):
    assert sorted((e["caller"], e["callee"], e["connection"], e["calls"]) for e in graph["edges"]) == [
        ("orders", "indexer", "topic", 2),
        ("orders", "worker", "topic", 1),
        ("web", "api.openai.com", "external", 2),
        ("web", "billing", "external", 1),
        ("web", "indexer", "link", 2),
        ("web", "llm", "direct", 2),
        ("web", "orders", "topic", 3),
        ("web", "pg-1", "database", 1),
        ("web", "redis", "database", 1),
        ("web", "search", "direct", 1),
        ("web", "worker", "messaging", 1),
    ]


def test_edges_carry_errors_latency_and_the_time_on_the_way(graph):
    llm = edge(graph, "web", "llm", "direct")
    assert (llm["errors"], llm["client_mean_ms"], llm["server_mean_ms"], llm["way_mean_ms"]) == (1, 35.0, 30.0, 5.0)
    assert llm["latency_p50_ms"] <= llm["latency_p95_ms"] <= llm["latency_p99_ms"] <= 42
    assert edge(graph, "web", "indexer", "link")["way_mean_ms"] is None
    assert edge(graph, "web", "search", "direct")["client_mean_ms"] is None


def test_nodes_are_of_every_kind(graph):
    nodes = {n["id"]: n for n in graph["nodes"]}
    assert {i for i, n in nodes.items() if n["kind"] not in ("operation", "instance")} == {
        "service:web", "service:llm", "service:search", "service:worker", "service:indexer", "database:pg-1",
        "database:redis", "external:billing", "external:api.openai.com", "topic:orders", "host:edge-1", "host:gpu-1",
        "gpu:GPU-1",
    }  # fmt: skip
    assert {i for i, n in nodes.items() if n["kind"] == "instance"} == {"instance:web/web-0", "instance:llm/llm-0"}
    chat = nodes["operation:llm/chat"]
    assert (chat["service"], chat["requests"], chat["errors"]) == ("llm", 3, 1)
    # 100 ms less the union of what it waits for, which reaches from 5 ms to 85 ms.
    assert nodes["service:web"]["self_p99_ms"] is not None
    assert nodes["instance:llm/llm-0"]["requests"] == 2


def test_operations_are_linked(graph):
    calls = {(e["caller_operation"], e["callee"], e["callee_operation"]): e["calls"] for e in graph["operation_edges"]}
    assert calls["POST", "llm", "chat"] == 2
    assert calls["GET /", "search", "find"] == 1


def test_services_run_on_instances_hosts_and_gpus(graph):
    assert {(r["from"], r["to"]) for r in graph["runs_on"]} == {
        ("service:web", "instance:web/web-0"),
        ("instance:web/web-0", "host:edge-1"),
        ("service:llm", "instance:llm/llm-0"),
        ("instance:llm/llm-0", "host:gpu-1"),
        ("host:gpu-1", "gpu:GPU-1"),
    }


def test_what_is_missing_is_counted(graph):
    known = graph["completeness"]
    assert known["one_of"] == 1
    assert (known["orphan_spans"], known["missing_parents"]) == (2, 1)
    assert (known["traces"], known["rootless_traces"]) == (4, 1)
    assert known["rootless_ratio"] == pytest.approx(1 / 4)
    assert [(s["service"], s["orphan_spans"], s["missing_parents"]) for s in known["services"]] == [("llm", 2, 1)]
