"""Realistic OTLP trace requests at a rate that does not measure the generator: built once, then patched in place.

A round holds many traces of 8 to 30 spans over a dozen services, exported as SDKs do it: each request holds up to 512
spans of one service instance, so a trace is spread over many requests. Each further round gets fresh random ids (one
XOR mask for all requests of the round, so parents still meet their children) and later times.
"""

from __future__ import annotations

import random
import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

SERVICES = ("gateway", "auth", "intent", "router", "retriever", "vector-db", "reranker", "prompt", "llm-engine")
SPANS_PER_REQUEST = 512
CHILDREN_BY_DEPTH = ((2, 4), (0, 2), (0, 2), (0, 1), (0, 0))


@dataclass(frozen=True, slots=True)
class _Call:
    trace_id: bytes
    span_id: bytes
    parent_id: bytes
    service: str
    name: str
    kind: int
    start_ns: int
    end_ns: int
    failed: bool


class _Template:
    """One serialized request and where its ids and times lie."""

    def __init__(self, calls: list[_Call], instance: str) -> None:
        self.spans = len(calls)
        data = _request(calls, instance).SerializeToString()
        self._data: NDArray[np.uint8] = np.frombuffer(data, np.uint8)
        traces, ids, times = [], [], []
        at = 0
        for call in calls:
            at = data.index(b"\x0a\x10" + call.trace_id + b"\x12\x08" + call.span_id, at)
            traces.append(at + 2)
            ids.append(at + 20)
            at += 28
            if call.parent_id:
                at = data.index(b"\x22\x08" + call.parent_id, at) + 2
                ids.append(at)
            at = data.index(b"\x39" + struct.pack("<Q", call.start_ns) + b"\x41", at) + 1
            times += [at, at + 9]
        self._traces = np.asarray(traces)[:, None] + np.arange(16)
        self._ids = np.asarray(ids)[:, None] + np.arange(8)
        self._times = np.asarray(times)[:, None] + np.arange(8)

    def stamped(self, trace_mask: NDArray[np.uint8], id_mask: NDArray[np.uint8], shift_ns: int) -> bytes:
        data = self._data.copy()
        data[self._traces] ^= trace_mask
        data[self._ids] ^= id_mask
        times = np.ascontiguousarray(data[self._times]).view("<u8") + np.uint64(shift_ns)
        data[self._times] = times.view(np.uint8).reshape(-1, 8)
        return data.tobytes()


class TraceLoad:
    """Endless rounds of requests. Deterministic for a seed but for the ids' masks, which come from the same seed."""

    def __init__(self, seed: int = 1, spans_per_round: int = 40_000) -> None:
        self._rng = np.random.default_rng(seed)
        rng = random.Random(seed)
        calls: list[_Call] = []
        while len(calls) < spans_per_round:
            calls += _trace(rng, at_ns=rng.randrange(10**9))
        self._templates = []
        for service in SERVICES:
            own = [call for call in calls if call.service == service]
            for first in range(0, len(own), SPANS_PER_REQUEST):
                instance = f"{service}-{first // SPANS_PER_REQUEST % 3}"
                self._templates.append(_Template(own[first : first + SPANS_PER_REQUEST], instance))
        self.spans_per_round = sum(template.spans for template in self._templates)

    def round(self, start_ns: int) -> list[tuple[bytes, int]]:
        """Requests with their numbers of spans; all spans begin within a second or so after `start_ns`."""
        trace_mask = self._rng.integers(0, 256, 16, np.uint8)
        id_mask = self._rng.integers(0, 256, 8, np.uint8)
        return [(t.stamped(trace_mask, id_mask, start_ns), t.spans) for t in self._templates]


def _trace(rng: random.Random, at_ns: int) -> list[_Call]:
    trace_id = rng.randbytes(16)
    calls: list[_Call] = []

    def grow(parent: bytes, depth: int, start_ns: int) -> int:
        """Adds a server span with its client calls below it; the end of it."""
        service = SERVICES[0 if depth == 0 else min(len(SERVICES) - 1, depth * 2 - 1 + rng.randrange(3))]
        span_id = rng.randbytes(8)
        now_ns = start_ns + int(rng.lognormvariate(14, 0.6))
        children = rng.randint(*CHILDREN_BY_DEPTH[depth])
        for _ in range(children):
            client_id = rng.randbytes(8)
            end_ns = grow(client_id, depth + 1, now_ns + 200_000)
            calls.append(_Call(trace_id, client_id, span_id, service, "POST", 3, now_ns, end_ns + 200_000, False))
            now_ns = end_ns + 300_000
        end_ns = now_ns + int(rng.lognormvariate(13, 0.8))
        name = f"POST /v1/{service}/{rng.randrange(4)}"
        calls.append(_Call(trace_id, span_id, parent, service, name, 2, start_ns, end_ns, rng.random() < 0.005))
        return end_ns

    grow(b"", 0, at_ns)
    return calls if 8 <= len(calls) <= 30 else _trace(rng, at_ns)


def _request(calls: list[_Call], instance: str) -> ExportTraceServiceRequest:
    request = ExportTraceServiceRequest()
    group = request.resource_spans.add()
    for key, value in {
        "service.name": calls[0].service,
        "service.version": "1.4.2",
        "service.instance.id": instance,
        "host.name": f"node-{instance[-1]}",
        "telemetry.sdk.language": "python",
    }.items():
        group.resource.attributes.add(key=key).value.string_value = value
    scope = group.scope_spans.add()
    scope.scope.name, scope.scope.version = "opentelemetry.instrumentation.fastapi", "0.66b2"
    for number, call in enumerate(calls):
        span: Span = scope.spans.add(
            trace_id=call.trace_id,
            span_id=call.span_id,
            parent_span_id=call.parent_id,
            name=call.name,
            kind=call.kind,
            start_time_unix_nano=call.start_ns,
            end_time_unix_nano=call.end_ns,
            flags=0x101,
        )
        texts: dict[str, str] = {
            "http.request.method": "POST",
            "url.path": call.name,
            "server.address": f"{call.service}.internal",
            "network.protocol.version": "1.1",
            "user.tier": ("free", "team", "enterprise")[number % 3],
            "gen_ai.request.model": "llama-3-70b",
        }
        for key, text in texts.items():
            span.attributes.add(key=key).value.string_value = text
        span.attributes.add(key="http.response.status_code").value.int_value = 500 if call.failed else 200
        span.attributes.add(key="gen_ai.usage.input_tokens").value.int_value = (number * 37) % 4000
        if call.failed:
            span.status.code = Status.STATUS_CODE_ERROR
    return request
