"""Prometheus endpoints of inference servers and of DCGM, served over real HTTP."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import choose_encoder

from collectors.gpu.dcgm import DcgmExporter
from collectors.inference import run_inference
from collectors.inference.scraper import Target
from collectors.metrics import MetricsRequest
from observe.settings import InferenceCollectorSettings, ScrapeTarget
from observe.stream import otlp
from tests.fixtures.memory import MemoryProducer

NOW = 1_790_000_000 * 10**9
DCGM = """# HELP DCGM_FI_DEV_GPU_UTIL GPU utilization (in %).
# TYPE DCGM_FI_DEV_GPU_UTIL gauge
DCGM_FI_DEV_GPU_UTIL{{gpu="0",UUID="GPU-a",modelName="NVIDIA H100",Hostname="node-7"}} 97
DCGM_FI_DEV_GPU_UTIL{{gpu="1",UUID="GPU-b",modelName="NVIDIA H100",Hostname="node-8"}} 9223372036854775794
# TYPE DCGM_FI_DEV_FB_USED gauge
DCGM_FI_DEV_FB_USED{{gpu="0",UUID="GPU-a",modelName="NVIDIA H100",Hostname="node-7"}} 60000
# TYPE DCGM_FI_DEV_FB_FREE gauge
DCGM_FI_DEV_FB_FREE{{gpu="0",UUID="GPU-a",modelName="NVIDIA H100",Hostname="node-7"}} 20000
# TYPE DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION counter
DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION{{gpu="0",UUID="GPU-a",modelName="NVIDIA H100",Hostname="node-7"}} 5000000
# TYPE DCGM_FI_DEV_XID_ERRORS gauge
DCGM_FI_DEV_XID_ERRORS{{gpu="0",UUID="GPU-a",modelName="NVIDIA H100",Hostname="node-7",err_code="{xid}"}} {xid}
# TYPE DCGM_FI_PROF_GR_ENGINE_ACTIVE gauge
DCGM_FI_PROF_GR_ENGINE_ACTIVE{{gpu="0",UUID="GPU-a",GPU_I_ID="1",Hostname="node-7"}} 0.5
"""


class Server:
    """Answers GET with `body`, or with what `registry` holds, in the form that the client prefers."""

    def __init__(self) -> None:
        self.body = b""
        self.status = 200
        self.content_type = "text/plain; version=0.0.4; charset=utf-8"
        self.registry: CollectorRegistry | None = None
        self.asked = 0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked += 1
                body, content_type = outer.body, outer.content_type
                if outer.registry is not None:
                    encode, content_type = choose_encoder(self.headers["Accept"])
                    body = encode(outer.registry)
                self.send_response(outer.status)
                self.send_header("Content-Type", content_type)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *arguments: Any) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self._http.server_port}"
        self.url = f"http://{self.address}/metrics"
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,))
        self._thread.start()

    def close(self) -> None:
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


@pytest.fixture
def vllm(server: Server) -> Server:
    """What a vLLM server shows, by Prometheus's own client library, which vLLM uses."""
    registry = CollectorRegistry()
    Gauge("vllm:num_requests_running", "running", ["model_name"], registry=registry).labels("m").set(4)
    Counter("vllm:prompt_tokens", "tokens", ["model_name"], registry=registry).labels("m").inc(1500)
    latency = Histogram("vllm:time_to_first_token_seconds", "ttft", registry=registry, buckets=(0.1, 1.0))
    for seconds in (0.05, 0.5, 0.6, 7.0):
        latency.observe(seconds)
    server.registry = registry
    return server


def written(target: Target, now_ns: int = NOW) -> tuple[dict[str, str], dict[str, Any]]:
    """Resource attributes, and metrics by name."""
    request = MetricsRequest("tests")
    target.write(target.scrape(), request, now_ns)
    return by_name(request.message.resource_metrics[0])


def by_name(resource: Any) -> tuple[dict[str, str], dict[str, Any]]:
    attributes = {a.key: a.value.string_value for a in resource.resource.attributes}
    return attributes, {metric.name: metric for metric in resource.scope_metrics[0].metrics}


def test_vllm_under_its_own_names(vllm: Server) -> None:
    target = Target(ScrapeTarget(url=vllm.url), 10.0)
    resource, metrics = written(target)
    target.close()
    assert (resource["service.name"], resource["service.instance.id"]) == ("vllm", vllm.address)
    assert metrics["up"].gauge.data_points[0].as_int == 1
    assert metrics["vllm:num_requests_running"].gauge.data_points[0].as_double == 4
    tokens = metrics["vllm:prompt_tokens_total"].sum
    assert (tokens.is_monotonic, tokens.data_points[0].as_double) == (True, 1500)
    began_s = tokens.data_points[0].start_time_unix_nano / 1e9
    assert abs(began_s - time.time()) < 60
    (point,) = metrics["vllm:time_to_first_token_seconds"].histogram.data_points
    assert (list(point.explicit_bounds), list(point.bucket_counts)) == ([0.1, 1.0], [1, 2, 1])
    assert not any(name.endswith("_created") for name in metrics)


def test_settings_name_service_and_instance(vllm: Server) -> None:
    target = Target(ScrapeTarget(url=vllm.url, service="llm-engine", instance="pod-3"), 10.0)
    resource, _ = written(target)
    target.close()
    assert (resource["service.name"], resource["service.instance.id"]) == ("llm-engine", "pod-3")


@pytest.mark.parametrize("fault", ["status", "nonsense", "gone"])
def test_a_target_that_is_down(server: Server, caplog: pytest.LogCaptureFixture, fault: str) -> None:
    server.body = b"x 1\n" if fault != "nonsense" else b"<html> { not metrics"
    server.status = 500 if fault == "status" else 200
    url = server.url if fault != "gone" else "http://127.0.0.1:1/metrics"
    target = Target(ScrapeTarget(url=url, service="llm"), 20.0)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            _, metrics = written(target)
            assert list(metrics) == ["up"]
            assert metrics["up"].gauge.data_points[0].as_int == 0
    assert len(caplog.records) == 1
    assert server.asked == (0 if fault == "gone" else 1)
    if fault != "gone":
        server.status, server.body = 200, b"x 1\n"
        wait_s = target._endpoint._not_before_s - time.monotonic()
        assert 0 < wait_s <= 10  # half an interval
        target._endpoint._not_before_s -= wait_s
        assert written(target)[1]["up"].gauge.data_points[0].as_int == 1
    target.close()


def test_several_targets_go_to_the_stream_until_stopped(vllm: Server) -> None:
    producer = MemoryProducer()
    stop = threading.Event()
    targets = (ScrapeTarget(url=vllm.url), ScrapeTarget(url="http://127.0.0.1:1/metrics", service="dead"))
    settings = InferenceCollectorSettings(targets=targets, interval_s=0.1)
    thread = threading.Thread(target=run_inference, args=(producer, settings, stop))
    thread.start()
    deadline = time.monotonic() + 60
    while len(producer.records) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    stop.set()
    thread.join()
    request: Any = otlp.decode("metrics", producer.records[-1].value)
    services = {by_name(resource)[0]["service.name"]: by_name(resource)[1] for resource in request.resource_metrics}
    assert services["vllm"]["up"].gauge.data_points[0].as_int == 1
    assert services["dead"]["up"].gauge.data_points[0].as_int == 0
    assert producer.items("metrics") > 0


def test_without_targets_there_is_nothing_to_do() -> None:
    run_inference(MemoryProducer(), InferenceCollectorSettings(), threading.Event())


def test_dcgm_under_both_names_without_sentinels(server: Server) -> None:
    exporter = DcgmExporter(server.url, 10.0)
    server.body = DCGM.format(xid=0).encode()
    hosts = dcgm(exporter, NOW)
    metrics = hosts["node-7"]
    assert "node-8" not in hosts  # its only value was a sentinel
    assert metrics["DCGM_FI_DEV_GPU_UTIL"].gauge.data_points[0].as_double == 97
    point = metrics["hw.gpu.utilization"].gauge.data_points[0]
    attributes = {a.key: a.value.string_value for a in point.attributes}
    assert point.as_double == pytest.approx(0.97)
    assert (attributes["hw.id"], attributes["hw.model"], attributes["hw.gpu.task"]) == (
        "GPU-a",
        "NVIDIA H100",
        "general",
    )
    assert metrics["hw.gpu.memory.usage"].sum.data_points[0].as_int == 60000 * 2**20
    assert metrics["hw.gpu.memory.limit"].sum.data_points[0].as_int == 80000 * 2**20
    assert metrics["hw.gpu.memory.utilization"].gauge.data_points[0].as_double == 0.75
    assert metrics["DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION"].sum.is_monotonic
    assert metrics["hw.energy"].sum.data_points[0].as_double == 5000.0
    assert metrics["DCGM_FI_PROF_GR_ENGINE_ACTIVE"].gauge.data_points[0].as_double == 0.5
    assert "hw.errors" not in metrics
    server.body = DCGM.format(xid=79).encode()
    for now_ns in (NOW + 1, NOW + 2):  # the code stays, the error was one
        (error,) = dcgm(exporter, now_ns)["node-7"]["hw.errors"].sum.data_points
        assert {a.key: a.value.string_value for a in error.attributes}["error.type"] == "xid.79"
        assert error.as_int == 1
    exporter.close()


def dcgm(exporter: DcgmExporter, now_ns: int) -> dict[str, dict[str, Any]]:
    """Metrics by host and name."""
    request = MetricsRequest("tests")
    exporter.read(request, now_ns)
    found = {}
    for resource in request.message.resource_metrics:
        attributes, metrics = by_name(resource)
        found[attributes.get("host.name", "")] = metrics
    assert found[""]["up"].gauge.data_points[0].as_int == 1
    return found


def test_openmetrics_where_a_server_speaks_nothing_else(server: Server) -> None:
    server.content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8"
    server.body = b"# TYPE busy_seconds counter\n# UNIT busy_seconds seconds\nbusy_seconds_total 5.0\n# EOF\n"
    target = Target(ScrapeTarget(url=server.url), 10.0)
    resource, metrics = written(target)
    target.close()
    assert resource["service.name"] == "unknown_service"
    assert (metrics["busy_seconds_total"].unit, metrics["busy_seconds_total"].sum.data_points[0].as_double) == ("s", 5)
