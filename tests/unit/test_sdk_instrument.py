"""instrument() and inference_span(), from a process of their own into an OTLP endpoint in memory."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fixtures.otlp_sink import Received, Sink, attributes, otlp_sink

SERVICE = """
import asyncio, logging, socket, sys, threading, time
import observe
from fastapi import FastAPI
import httpx
import uvicorn

early = FastAPI()
for _ in range(2):
    observe.instrument("shop", endpoint=sys.argv[1], namespace="retail", version="1.2.3", instance_id="shop-1",
                       resource={"host.name": "node-x"}, app=early, excluded_urls="/health", logs=True)
try:
    observe.instrument("another")
except observe.errors.Misconfigured as error:
    assert "called before" in str(error)
else:
    raise AssertionError("a second name was taken")

import fastapi
late = fastapi.FastAPI()

for app in (early, late):
    @app.get("/health")
    async def health(): return {}

@early.post("/buy/{thing}")
async def buy(thing: str):
    async with httpx.AsyncClient(trust_env=False) as http:
        return (await http.get(f"http://127.0.0.1:{port}/stock")).json()

@late.get("/stock")
async def stock():
    logging.getLogger("stock").warning("nearly empty")
    return {"left": 3}

listener = socket.create_server(("127.0.0.1", 0))
port = listener.getsockname()[1]
server = uvicorn.Server(uvicorn.Config(late, log_level="error"))
threading.Thread(target=server.run, args=([listener],), daemon=True).start()

async def requests():
    async with httpx.AsyncClient(transport=httpx.ASGITransport(early), base_url="http://early") as http:
        assert (await http.post("/buy/tea")).json() == {"left": 3}
        assert (await http.get("/health")).status_code == 200

asyncio.run(requests())
server.should_exit = True

with observe.inference_span("tiny-1b", provider="vllm", side="server",
                            attributes={"gen_ai.request.max_tokens": 64}) as call:
    call.first_token()
    call.finish(120, 11, response_model="tiny-1b-chat", finish_reason="stop")
with observe.inference_span("tiny-1b", provider="openai", server_address="api.example.com") as call:
    call.first_token()
    call.finish(5, 7)
try:
    with observe.inference_span("tiny-1b", side="server"):
        raise TimeoutError("no answer")
except TimeoutError:
    pass

from observe.sdk import GpuReading, report_gpus
report_gpus(lambda: [GpuReading("GPU-1", "H100", 0.5, 40 * 2**30, 80 * 2**30, 300.0, 61.0, 1980.0, 64)])
if "--wait-for-sigterm" in sys.argv:
    print("ready", flush=True)
    time.sleep(60)
"""


@pytest.fixture(scope="module")
def sink() -> Iterator[Sink]:
    with otlp_sink() as sink:
        subprocess.run([sys.executable, "-W", "error", "-c", SERVICE, sink.url], check=True, timeout=180)
        yield sink


def points(metric: Received) -> list[dict[str, object]]:
    return [attributes(p.attributes) for p in metric.item.histogram.data_points]


def test_the_resource_says_who_and_where(sink: Sink):
    assert {
        "service.name": "shop",
        "service.namespace": "retail",
        "service.version": "1.2.3",
        "service.instance.id": "shop-1",
        "host.name": "node-x",
    }.items() <= sink.spans[0].resource.items()


def test_one_trace_goes_through_client_and_server_without_noise(sink: Sink):
    outer, inner = sink.span("POST /buy/{thing}"), sink.span("GET /stock")
    trace = [s for s in sink.spans if s.item.trace_id == outer.item.trace_id]
    assert sorted(s.item.kind for s in trace) == [2, 2, 3]  # two servers, a client between, no send and receive spans
    by_id = {s.item.span_id: s for s in trace}
    assert by_id[by_id[inner.item.parent_span_id].item.parent_span_id] is outer
    assert outer.attributes["http.request.method"] == "POST"


def test_excluded_paths_make_no_spans(sink: Sink):
    assert not [s for s in sink.spans if "/health" in s.item.name and s.item.kind == 2]


def test_a_warning_is_sent_with_its_span(sink: Sink):
    (record,) = sink.logs
    assert record.item.body.string_value == "nearly empty"
    assert record.item.span_id == sink.span("GET /stock").item.span_id


def test_a_served_model_call(sink: Sink):
    call = next(s for s in sink.spans if s.attributes.get("gen_ai.response.model") == "tiny-1b-chat")
    assert call.item.name == "chat tiny-1b"
    assert call.item.kind == 1
    assert call.attributes == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "vllm",
        "gen_ai.request.model": "tiny-1b",
        "gen_ai.request.max_tokens": 64,
        "gen_ai.response.model": "tiny-1b-chat",
        "gen_ai.response.finish_reasons": ["stop"],
        "gen_ai.usage.input_tokens": 120,
        "gen_ai.usage.output_tokens": 11,
    }
    assert call.item.status.code == 0


def test_a_model_call_to_elsewhere_is_a_client_span(sink: Sink):
    call = next(s for s in sink.spans if s.attributes.get("server.address") == "api.example.com")
    assert call.item.kind == 3
    assert call.attributes["gen_ai.response.time_to_first_chunk"] >= 0
    assert points(sink.metric("gen_ai.client.operation.duration"))[0]["server.address"] == "api.example.com"


def test_a_failed_model_call_tells_its_error(sink: Sink):
    call = next(s for s in sink.spans if s.attributes.get("error.type") == "TimeoutError")
    assert call.item.status.code == 2
    durations = points(sink.metric("gen_ai.server.request.duration"))
    assert [p.get("error.type") for p in durations].count("TimeoutError") == 1


def test_first_token_and_tokens_are_measured_in_the_conventions_buckets(sink: Sink):
    (first,) = sink.metric("gen_ai.server.time_to_first_token").item.histogram.data_points
    assert first.count == 1
    assert list(first.explicit_bounds)[:3] == [0.001, 0.005, 0.01]
    usage = sink.metric("gen_ai.client.token.usage").item.histogram.data_points
    sums = {
        (attributes(p.attributes)["gen_ai.provider.name"], attributes(p.attributes)["gen_ai.token.type"]): p.sum
        for p in usage
    }
    assert sums == {("vllm", "input"): 120, ("vllm", "output"): 11, ("openai", "input"): 5, ("openai", "output"): 7}
    assert points(sink.metric("gen_ai.server.time_per_output_token"))


@pytest.mark.parametrize(
    ("metric", "value"),
    [
        ("hw.gpu.utilization", 0.5),
        ("hw.gpu.memory.utilization", 0.5),
        ("hw.power", 300.0),
        ("hw.temperature", 61.0),
        ("DCGM_FI_DEV_SM_CLOCK", 1980.0),
        ("DCGM_FI_DEV_CLOCKS_EVENT_REASONS", 64),
    ],
)
def test_gpus_keep_the_names_that_observe_reads(sink: Sink, metric: str, value: float):
    (point,) = sink.metric(metric).item.gauge.data_points
    assert (point.as_double or point.as_int) == value
    assert attributes(point.attributes)["hw.id"] == "GPU-1"


def test_sigterm_loses_nothing():
    with otlp_sink() as sink:
        service = subprocess.Popen(
            [sys.executable, "-c", SERVICE, sink.url, "--wait-for-sigterm"], stdout=subprocess.PIPE, text=True
        )
        with service:
            assert service.stdout is not None
            assert service.stdout.readline() == "ready\n"
            service.terminate()
            assert service.wait(60) == -15
        assert sink.span("POST /buy/{thing}")
        assert sink.metric("hw.power")


def test_an_endpoint_that_is_away_does_not_hold_the_service():
    code = (
        "import observe; observe.instrument('x', endpoint='http://127.0.0.1:9')\n"
        "with observe.inference_span('m') as call: call.finish(1, 1)\n"
        "print('done', flush=True)"
    )
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as service:
        assert service.stdout is not None
        assert service.stdout.readline() == "done\n"
        assert service.wait(20) == 0  # an exporter goes on trying for 64 s where nobody stops it


def test_a_bare_import_needs_no_sdk():
    code = "import observe, sys; assert not any(m.startswith('opentelemetry') for m in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_the_readme_does_what_it_says():
    text = (Path(__file__).parents[2] / "README.md").read_text()
    snippet = next(block for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "inference_span" in block)
    with otlp_sink() as sink:
        environ = os.environ | {"OTEL_EXPORTER_OTLP_ENDPOINT": sink.url}
        subprocess.run([sys.executable, "-W", "error", "-c", snippet], check=True, timeout=180, env=environ)
        (span,) = sink.spans
    assert span.resource["service.name"] == "llm-engine"
    assert {"service.instance.id", "host.name"} <= span.resource.keys()
    assert (span.item.name, span.item.kind) == ("chat llama-3-70b", 3)
    assert (span.attributes["gen_ai.usage.input_tokens"], span.attributes["gen_ai.usage.output_tokens"]) == (812, 143)
