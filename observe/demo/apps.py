"""The six services. Each is small, but real: own process, own HTTP interface, own telemetry."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager

import fastapi  # FastAPI is looked up at call time: instrument() puts its own class there
from fastapi.responses import JSONResponse
from opentelemetry import propagate, trace
from opentelemetry.instrumentation.utils import suppress_http_instrumentation
from opentelemetry.trace import SpanKind, Status, StatusCode

from observe.demo.engine import Engine
from observe.demo.engine_metrics import EngineMetrics
from observe.demo.gpu import Gpu, GpuPool
from observe.demo.node import Ailment, Json, Node, UpstreamFailed, WorkFailed
from observe.demo.noise import OUTPUT_TOKENS, PROMPT_TOKENS
from observe.demo.topology import GPUS_PER_ENGINE, MODEL, gpu_uuid
from observe.sdk import inference_span, report_gpus

App = fastapi.FastAPI


def build(node: Node) -> App:
    """The application of one service, with what all of them have: health, control, and errors as status codes."""
    app: fastapi.FastAPI = BUILDERS[node.me.service](node)
    app.add_exception_handler(WorkFailed, _answer(500, "the work failed"))
    app.add_exception_handler(UpstreamFailed, _answer(502, "a service behind this one failed"))

    @app.get("/health")
    async def health() -> Json:
        return {"service": node.me.service, "instance": node.me.instance, "version": node.me.version}

    @app.post("/control/ailment")
    async def ail(ailment: Ailment) -> Json:
        node.ailment = ailment
        node.ailing(ailment)
        return ailment.model_dump()

    return app


def _answer(status: int, text: str) -> Callable[..., JSONResponse]:
    return lambda _request, _error: JSONResponse({"error": text}, status_code=status)


def gateway(node: Node) -> App:
    app = fastapi.FastAPI()

    @app.post("/v1/chat")
    async def chat(question: Json) -> Json:
        await node.work()
        intent = await node.call("intent", "/classify", {"question": question["question"]})
        found = await node.call(
            "retriever", "/retrieve", {"question": question["question"], "intent": intent["intent"]}
        )
        ranked = await node.call("reranker", "/rerank", {"passages": found["passages"]})
        answer = await node.call("llm-engine", "/v1/chat/completions", {"passages": ranked["passages"]})
        return {"intent": intent["intent"], **answer}

    return app


def intent(node: Node) -> App:
    app = fastapi.FastAPI()

    @app.post("/classify")
    async def classify(_question: Json) -> Json:
        await node.work()
        return {"intent": node.rng.choice(("lookup", "compare", "summarize"))}

    return app


def retriever(node: Node) -> App:
    app = fastapi.FastAPI()
    tracer = trace.get_tracer("observe.demo.retriever")
    attributes = {
        "db.system.name": "vectordb",
        "db.operation.name": "query",
        "db.collection.name": "passages",
        "server.address": "vector-db",
    }

    @app.post("/retrieve")
    async def retrieve(question: Json) -> Json:
        await node.work()
        with tracer.start_as_current_span(
            "query passages", kind=SpanKind.CLIENT, attributes=attributes, record_exception=False
        ) as span:
            # As database drivers do it: one client span that knows what is asked, and not the HTTP below it.
            headers: dict[str, str] = {}
            propagate.inject(headers)
            try:
                with suppress_http_instrumentation():
                    return await node.call("vector-db", "/query", {"intent": question["intent"]}, headers)
            except UpstreamFailed:
                span.set_attribute("error.type", "UpstreamFailed")
                span.set_status(Status(StatusCode.ERROR))
                raise

    return app


def vector_db(node: Node) -> App:
    app = fastapi.FastAPI()

    @app.post("/query")
    async def query(_query: Json) -> Json:
        await node.work()
        return {"passages": node.rng.sample(range(10_000), 8)}

    return app


def reranker(node: Node) -> App:
    app = fastapi.FastAPI()

    @app.post("/rerank")
    async def rerank(found: Json) -> Json:
        await node.work()
        return {"passages": sorted(found["passages"])[:4]}

    return app


def llm_engine(node: Node) -> App:
    pool = GpuPool([Gpu(gpu_uuid(node.me.host, i), random.Random(node.rng.random())) for i in range(GPUS_PER_ENGINE)])
    node.ailing = lambda ailment: pool.throttle(ailment.gpu, ailment.gpu_clock_factor)
    metrics = EngineMetrics(MODEL)
    engine = Engine(pool, metrics, node.rng)
    metrics.watch(engine.batcher)
    report_gpus(lambda: pool.read(time.monotonic()))

    @asynccontextmanager
    async def stepping(_app: App) -> AsyncIterator[None]:
        steps = asyncio.create_task(engine.run())
        yield
        steps.cancel()

    app = fastapi.FastAPI(lifespan=stepping)

    @app.post("/v1/chat/completions")
    async def complete(_prompt: Json) -> Json:
        prompt_tokens, output_tokens = PROMPT_TOKENS.sample(node.rng), OUTPUT_TOKENS.sample(node.rng)
        with inference_span(
            MODEL, provider="vllm", side="server", attributes={"gen_ai.request.max_tokens": OUTPUT_TOKENS.at(1)}
        ) as span:
            request = engine.submit(prompt_tokens, output_tokens)
            try:
                await request.first_token.wait()
                span.first_token()
                await request.last_token.wait()
            finally:
                engine.cancel(request)
            span.finish(prompt_tokens, output_tokens, response_model=MODEL, finish_reason="stop")
        return {"usage": {"prompt_tokens": prompt_tokens, "completion_tokens": output_tokens}}

    return app


BUILDERS: Mapping[str, Callable[[Node], App]] = {
    "gateway": gateway,
    "intent": intent,
    "retriever": retriever,
    "vector-db": vector_db,
    "reranker": reranker,
    "llm-engine": llm_engine,
}
