"""A small fleet's telemetry with a known fault, as OTLP: what the pages and the reader's suite are shown.

gateway waits for retriever (which asks a vector database) and then for llm-engine. From `onset_ns` on the engine's GPU
is throttled: its own time is four times as long, and one request in twelve fails in it.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from observe.types import Batch, Cause, CauseKind, Evidence, Impact, Incident, Record, RuledOut, Severity, Shift, State

MS, SECOND = 10**6, 10**9
SERVER, CLIENT = 2, 3
EVERY_NS = 500 * MS
GPU = "GPU-5f1c2a"
VERSIONS = {"gateway": "2.4.0", "retriever": "1.9.2", "llm-engine": "0.11.0"}


@dataclass(frozen=True)
class Sample:
    """[start_ns, end_ns) of the fleet; the fault begins at `onset_ns`."""

    start_ns: int
    onset_ns: int
    end_ns: int
    seed: int = 7


@dataclass
class Made:
    """One span on its way into a request."""

    service: str
    name: str
    kind: int
    trace_id: bytes
    span_id: bytes
    parent_id: bytes
    start_ns: int
    end_ns: int
    error: str = ""
    attributes: dict[str, str | int] = field(default_factory=dict)


def spans(sample: Sample) -> Iterator[list[Made]]:
    """One list a trace."""
    rng = random.Random(sample.seed)
    for number, at_ns in enumerate(range(sample.start_ns, sample.end_ns, EVERY_NS)):
        yield _trace(rng, number, at_ns, faulty=at_ns >= sample.onset_ns)


def _trace(rng: random.Random, number: int, at_ns: int, *, faulty: bool) -> list[Made]:
    trace_id = rng.randbytes(16)

    def took(mean_ms: float) -> int:
        return int(rng.lognormvariate(0, 0.25) * mean_ms * MS)

    def span(service: str, name: str, kind: int, parent: bytes, start_ns: int, duration_ns: int) -> Made:
        return Made(service, name, kind, trace_id, rng.randbytes(8), parent, start_ns, start_ns + duration_ns)

    query, search = took(6), took(4)
    retrieved = query + search
    generated = took(90 * (4 if faulty else 1))
    root = span("gateway", "POST /chat", SERVER, b"", at_ns, retrieved + generated + took(12))
    find = span("gateway", "GET", CLIENT, root.span_id, at_ns + 2 * MS, retrieved + 2 * MS)
    found = span("retriever", "GET /search", SERVER, find.span_id, find.start_ns + MS, retrieved)
    vector = span("retriever", "search documents", CLIENT, found.span_id, found.start_ns + MS, query)
    vector.attributes = {"db.system.name": "qdrant", "server.address": "qdrant", "db.operation.name": "search"}
    ask = span("gateway", "POST", CLIENT, root.span_id, find.end_ns + MS, generated + 2 * MS)
    answer = span("llm-engine", "chat llama-3", SERVER, ask.span_id, ask.start_ns + MS, generated)
    answer.attributes = {"gen_ai.request.model": "llama-3", "gen_ai.usage.output_tokens": 40 + number % 200}
    root.end_ns = max(root.end_ns, ask.end_ns + 2 * MS)
    root.attributes = {"http.request.method": "POST", "http.route": "/chat", "app.tenant": f"tenant-{number % 3}"}
    if faulty and number % 12 == 0:
        for one in (answer, ask, root):
            one.error = "deadline exceeded"
    return [root, find, found, vector, ask, answer]


def traces_requests(sample: Sample, per_request: int = 100) -> Iterator[bytes]:
    """OTLP requests of `per_request` traces each."""
    waiting: list[Made] = []
    for number, trace in enumerate(spans(sample), 1):
        waiting += trace
        if number % per_request == 0:
            yield _traces_request(waiting)
            waiting = []
    if waiting:
        yield _traces_request(waiting)


def _traces_request(made: list[Made]) -> bytes:
    request = ExportTraceServiceRequest()
    scopes = {}
    for one in made:
        if one.service not in scopes:
            resource = request.resource_spans.add()
            _attributes(resource.resource.attributes, _resource(one.service))
            scopes[one.service] = resource.scope_spans.add()
            scopes[one.service].scope.name = "fleet"
        span = scopes[one.service].spans.add()
        span.trace_id, span.span_id, span.parent_span_id = one.trace_id, one.span_id, one.parent_id
        span.name, span.kind = one.name, one.kind
        span.start_time_unix_nano, span.end_time_unix_nano = one.start_ns, one.end_ns
        _attributes(span.attributes, one.attributes)
        if one.error:
            span.status.code, span.status.message = 2, one.error
            event = span.events.add()
            event.name, event.time_unix_nano = "exception", one.end_ns
            _attributes(event.attributes, {"exception.type": "TimeoutError", "exception.message": one.error})
    return request.SerializeToString()


def metrics_request(sample: Sample) -> bytes:
    """The GPU's gauges, every 10 s."""
    request = ExportMetricsServiceRequest()
    resource = request.resource_metrics.add()
    _attributes(resource.resource.attributes, _resource("llm-engine"))
    scope = resource.scope_metrics.add()
    levels = {
        "hw.gpu.utilization": ("1", 0.82, 0.97),
        "hw.gpu.memory.usage": ("By", 61e9, 63e9),
        "hw.gpu.memory.limit": ("By", 80e9, 80e9),
        "hw.temperature": ("Cel", 64.0, 92.0),
        "hw.power": ("W", 520.0, 310.0),
        "DCGM_FI_DEV_SM_CLOCK": ("MHz", 1980.0, 540.0),
        "DCGM_FI_DEV_CLOCKS_EVENT_REASONS": ("1", 0.0, 64.0),
    }
    for name, (unit, usual, faulty) in levels.items():
        metric = scope.metrics.add(name=name, unit=unit, description=f"{name} of the fleet's GPU")
        for at_ns in range(sample.start_ns, sample.end_ns, 10 * SECOND):
            point = metric.gauge.data_points.add(time_unix_nano=at_ns)
            point.as_double = faulty if at_ns >= sample.onset_ns else usual
            _attributes(point.attributes, {"hw.id": GPU, "hw.type": "gpu", "hw.model": "H100 SXM"})
    return request.SerializeToString()


def logs_request(sample: Sample) -> bytes:
    """One line of the engine every 10 s, an error while it is throttled."""
    request = ExportLogsServiceRequest()
    resource = request.resource_logs.add()
    _attributes(resource.resource.attributes, _resource("llm-engine"))
    scope = resource.scope_logs.add()
    for number, at_ns in enumerate(range(sample.start_ns, sample.end_ns, 10 * SECOND)):
        faulty = at_ns >= sample.onset_ns
        line = scope.log_records.add(time_unix_nano=at_ns, observed_time_unix_nano=at_ns)
        line.severity_number, line.severity_text = (17, "ERROR") if faulty else (9, "INFO")
        line.body.string_value = "GPU clocks are held down" if faulty else f"batch {number} done"
        _attributes(line.attributes, {"batch": number})
    return request.SerializeToString()


def batch(topic: str, value: bytes, offset: int) -> Batch:
    return Batch((Record(topic, 0, offset, value),), offset, offset)


def incident(sample: Sample, trace_ids: tuple[str, ...] = (), *, resolved_ns: int | None = None) -> Incident:
    """What a good diagnosis says of this fleet's fault."""
    onset = sample.onset_ns
    symptoms = (
        Shift("gateway", "POST /chat", "Server", "latency_p99_ms", 215.0, 702.0, "ms", 3.2e-14, 60, onset),
        Shift("gateway", "POST /chat", "Server", "error_ratio", 0.0, 0.083, "1", 4.1e-6, 60, onset + 10 * SECOND),
    )
    cause = Cause(
        1, CauseKind.GPU, "llm-engine", GPU, 0.93, 0.91, ("gateway", "llm-engine"),
        (
            Evidence("self_time", "self time of llm-engine rose from 93 to 371 ms: 91 % of gateway's +306 ms"),
            Evidence("order", "llm-engine shifted first, 10 s before gateway"),
            Evidence("resource", f"SM clock of {GPU} fell from 1,980 to 540 MHz at the onset (hw_thermal)"),
        ),
        trace_ids,
    )  # fmt: skip
    other = Cause(2, CauseKind.SERVICE, "gateway", "", 0.05, 0.04, ("gateway",), (Evidence("self_time", "+12 ms"),))
    return Incident(
        id="inc-4f2a" if resolved_ns is None else "inc-0c11",
        version=2,
        state=State.FIRING if resolved_ns is None else State.RESOLVED,
        severity=Severity.CRITICAL if resolved_ns is None else Severity.WARNING,
        title=f"P99 of gateway rose from 215 ms to 702 ms: GPU {GPU} under llm-engine is throttled",
        onset_ns=onset,
        opened_ns=onset + 30 * SECOND,
        last_seen_ns=sample.end_ns if resolved_ns is None else resolved_ns,
        resolved_ns=resolved_ns,
        symptoms=symptoms,
        causes=(cause, other),
        ruled_out=(
            RuledOut("retriever", "", "its self time is as before (10.2 against 10.1 ms)"),
            RuledOut("retriever", "qdrant", "calls take 6.1 ms, as before"),
        ),
        impact=Impact(("gateway", "llm-engine"), 214),
        fired_ns=onset + 40 * SECOND,
    )


def _resource(service: str) -> dict[str, str | int]:
    host = "gpu-node-1" if service == "llm-engine" else "node-1"
    return {
        "service.name": service,
        "service.version": VERSIONS[service],
        "service.instance.id": f"{service}-0",
        "host.name": host,
    }


def _attributes(target, values: dict[str, str | int]) -> None:
    for key, value in values.items():
        attribute = target.add(key=key)
        if isinstance(value, int):
            attribute.value.int_value = value
        else:
            attribute.value.string_value = value
