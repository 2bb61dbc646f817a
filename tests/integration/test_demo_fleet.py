"""The fleet as it runs in the demo: real processes, real HTTP, telemetry into an endpoint in memory."""

from __future__ import annotations

import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from observe.demo.faults import FAULTS, GPU
from observe.demo.fleet import Fleet
from observe.demo.topology import INSTANCES, SERVICES
from tests.fixtures.otlp_sink import Received, Sink, attributes, otlp_sink

SERVER, CLIENT = 2, 3
TRACES = 31
ENGINE_METRICS = {
    "vllm:num_requests_running",
    "vllm:num_requests_waiting",
    "vllm:kv_cache_usage_perc",
    "vllm:time_to_first_token_seconds",
    "vllm:generation_tokens_total",
    "gen_ai.server.time_to_first_token",
    "hw.gpu.utilization",
    "hw.power",
    "hw.temperature",
    "DCGM_FI_DEV_SM_CLOCK",
    "DCGM_FI_DEV_CLOCKS_EVENT_REASONS",
}


@pytest.fixture(scope="module")
def sink() -> Iterator[Sink]:
    with otlp_sink() as sink:
        yield sink


@pytest.fixture(scope="module")
def fleet(sink: Sink, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with Fleet(sink.url, tmp_path_factory.mktemp("fleet"), seed="7") as fleet:
        sink.wait(lambda: len(whole_traces(sink)) >= TRACES and has_told_all(sink))
        yield fleet
        pids = fleet.pids
    assert not [pid for pid in pids if psutil.pid_exists(pid)]


def traces(sink: Sink) -> dict[bytes, list[Received]]:
    grouped = defaultdict(list)
    for span in list(sink.spans):
        grouped[span.item.trace_id].append(span)
    return grouped


def whole_traces(sink: Sink) -> list[list[Received]]:
    return [t for t in traces(sink).values() if {s.resource["service.name"] for s in t} == set(SERVICES)]


def is_a_tree(trace: list[Received]) -> bool:
    """Whether all parents have come, and one span has none."""
    ids = {span.item.span_id for span in trace} | {b""}
    return all(s.item.parent_span_id in ids for s in trace) and any(not s.item.parent_span_id for s in trace)


def has_told_all(sink: Sink) -> bool:
    """Whether all instances sent spans, and each kind of metrics came."""
    instances = {span.resource["service.instance.id"] for span in list(sink.spans)}
    metrics = {metric.item.name for metric in list(sink.metrics)}
    return instances == {i.instance for i in INSTANCES} and metrics >= ENGINE_METRICS


def milliseconds(spans: list[Received]) -> list[float]:
    return sorted((s.item.end_time_unix_nano - s.item.start_time_unix_nano) / 1e6 for s in spans)


def served(sink: Sink, since_ns: int, **resource: str) -> list[Received]:
    wanted = {key.replace("_", "."): value for key, value in resource.items()}
    return [
        s
        for s in list(sink.spans)
        if s.item.kind == SERVER and s.item.start_time_unix_nano >= since_ns and wanted.items() <= s.resource.items()
    ]


def median(values: list[float]) -> float:
    return values[len(values) // 2]


def test_one_request_goes_through_all_services_in_one_trace(fleet: Fleet, sink: Sink):
    first = [trace[0].item.trace_id for trace in whole_traces(sink)[:20]]
    sink.wait(lambda: all(is_a_tree(traces(sink)[trace_id]) for trace_id in first))  # each service exports for itself
    for trace_id in first:
        trace = traces(sink)[trace_id]
        assert [s.item.name for s in trace if not s.item.parent_span_id] == ["POST /v1/chat"]
        assert sum(s.item.kind == SERVER for s in trace) == 6


def test_the_database_is_called_as_drivers_do_it(fleet: Fleet, sink: Sink):
    query = sink.span("query passages")
    assert query.item.kind == CLIENT
    assert query.attributes["db.system.name"] == "vectordb"
    assert query.attributes["server.address"] == "vector-db"
    (server,) = [s for s in sink.spans if s.item.parent_span_id == query.item.span_id]
    assert server.resource["service.name"] == "vector-db"


def test_every_instance_says_who_it_is(fleet: Fleet, sink: Sink):
    keys = ("service.name", "service.instance.id", "host.name", "service.version")
    seen = {tuple(s.resource[key] for key in keys) for s in sink.spans}
    assert seen == {(i.service, i.instance, i.host, i.version) for i in INSTANCES}


def test_the_engines_metrics_have_vllms_names(fleet: Fleet, sink: Sink):
    names = {m.item.name for m in sink.metrics if m.resource["service.name"] == "llm-engine"}
    assert names >= ENGINE_METRICS


def test_nobody_can_see_the_driver(fleet: Fleet, sink: Sink):
    assert not [s for s in sink.spans if "/control" in str(s.item) or "/health" in str(s.item)]


def test_a_slow_database_shows_where_it_is(fleet: Fleet, sink: Sink):
    fault = FAULTS["slow-database"]
    before = median(milliseconds(served(sink, 0, service_name="vector-db")))
    fleet.inject(fault)
    since_ns = time.time_ns()
    sink.wait(lambda: len(served(sink, since_ns, service_name="vector-db")) > 25)
    fleet.heal(fault)
    assert median(milliseconds(served(sink, since_ns, service_name="vector-db"))) > 3 * before


def test_a_throttled_gpu_shows_in_its_clock_and_in_one_engine(fleet: Fleet, sink: Sink):
    def clock() -> float:
        metric = next(
            m
            for m in reversed(sink.metrics)
            if m.item.name == "DCGM_FI_DEV_SM_CLOCK" and m.resource["host.name"] == "gpu-node-1"
        )
        return next(p.as_double for p in metric.item.gauge.data_points if attributes(p.attributes)["hw.id"] == GPU)

    fault = FAULTS["gpu-throttle"]
    assert clock() > 1900
    fleet.inject(fault)
    since_ns = time.time_ns()
    sink.wait(lambda: clock() < 800)
    sink.wait(lambda: len(served(sink, since_ns, service_instance_id="llm-engine-1")) > 15)
    fleet.heal(fault)
    slow = median(milliseconds(served(sink, since_ns, service_instance_id="llm-engine-1")))
    assert slow > 1.5 * median(milliseconds(served(sink, since_ns, service_instance_id="llm-engine-2")))


def test_a_release_replaces_the_old_one_without_a_gap(fleet: Fleet, sink: Sink):
    since_ns = time.time_ns()
    fleet.inject(FAULTS["bad-release"])
    out_ns = time.time_ns()

    def newest() -> list[tuple[str, str]]:
        """Who served the last 20 requests since then."""
        spans = sorted(served(sink, out_ns, service_name="reranker"), key=lambda s: s.item.start_time_unix_nano)
        return [(s.resource["service.version"], s.resource["service.instance.id"]) for s in spans[-20:]]

    sink.wait(lambda: len(newest()) == 20 and set(newest()) == {("1.5.0", "reranker-1.5.0")})
    failed = [s for s in served(sink, since_ns, service_name="gateway") if s.item.status.code == 2]
    assert len(failed) <= 2
    assert fleet.dead == []


def test_nothing_outlives_a_driver_that_is_killed(tmp_path: Path):
    code = (
        "import sys, time, pathlib\n"
        "from observe.demo.children import spawn\n"
        "child = spawn('engine', 'observe.demo.service', 'intent', '--port', '0', folder=pathlib.Path(sys.argv[1]))\n"
        "print(child.process.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    driver = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    with driver:
        assert driver.stdout is not None
        pid = int(driver.stdout.readline())
        time.sleep(1)
        driver.kill()
    child = psutil.Process(pid) if psutil.pid_exists(pid) else None
    if child:
        psutil.wait_procs([child], timeout=60)
    assert child is None or not child.is_running() or child.status() == psutil.STATUS_ZOMBIE
