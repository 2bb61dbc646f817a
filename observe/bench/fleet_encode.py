"""Spans and gauges as the requests that SDKs would have sent, fast enough not to limit what is measured with them.

All spans of one site that look alike (same name, attributes, status; with or without a parent) differ only in ids and
times, which have fixed lengths. So each such kind is serialized once, and its rows are that template with ids and
times written over it by numpy.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import Gauge, Metric, NumberDataPoint
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from observe.bench.fleet_faults import host_name
from observe.bench.fleet_plan import Plan
from observe.bench.fleet_traffic import Site, Spans

BATCH_SPANS = 512
FLUSH_MS = 5_000.0
KINDS = {
    "server": Span.SPAN_KIND_SERVER,
    "client": Span.SPAN_KIND_CLIENT,
    "database": Span.SPAN_KIND_CLIENT,
    "external": Span.SPAN_KIND_CLIENT,
    "internal": Span.SPAN_KIND_INTERNAL,
}
MARKS = {"trace": b"\xa1" * 16, "span": b"\xa2" * 8, "parent": b"\xa3" * 8, "start": b"\xa4" * 8, "end": b"\xa5" * 8}
Bytes2d = NDArray[np.uint8]


class Encoder:
    """Turns the spans of a plan into export requests: one resource each, up to 512 spans in the order of their ends."""

    def __init__(self, plan: Plan, start_ns: int, rng: np.random.Generator) -> None:
        self.plan, self.start_ns, self.rng = plan, start_ns, rng
        self._templates: dict[tuple[Site, bool, bool], tuple[bytes, dict[str, int]]] = {}
        self._heads = [field(1, self._resource(n).SerializeToString()) for n in range(len(plan.instances))]
        self._scope = field(1, InstrumentationScope(name="observe.bench.fleet", version="1").SerializeToString())
        self.spans = 0

    def _resource(self, instance: int) -> Resource:
        it = self.plan.instances[instance]
        return Resource(
            attributes=attributes(
                {
                    "service.name": self.plan.services[it.service].name,
                    "service.version": it.version,
                    "service.instance.id": it.id,
                    "host.name": host_name(it.host),
                    "deployment.environment.name": "production",
                    "telemetry.sdk.language": "python",
                    "telemetry.sdk.name": "opentelemetry",
                }
            )
        )

    def requests(self, count: int, spans: Sequence[Spans]) -> Iterator[tuple[float, bytes]]:
        """(time of export in ms, ExportTraceServiceRequest), in the order of export. `count` traces."""
        traces = self.rng.integers(0, 256, (count, 16), dtype=np.uint8)
        rows: list[bytes] = []
        for group in spans:
            rows += self._rows(group, traces)
        if not rows:
            return
        ends = np.concatenate([_arranged(group, group.end_ms) for group in spans])
        instances = np.concatenate([_arranged(group, group.instance) for group in spans])
        self.spans += len(rows)
        batches: list[tuple[float, int, NDArray[np.int64]]] = []
        order = np.lexsort((ends, instances))
        borders = np.flatnonzero(np.diff(instances[order])) + 1
        for part in np.split(order, borders):
            instance = int(instances[part[0]])
            batches += [(self._leaves(ends[batch[-1]]), instance, batch) for batch in self._batches(part, ends)]
        for at_ms, instance, batch in sorted(batches, key=lambda b: (b[0], b[1])):
            scope_spans = self._scope + b"".join([rows[i] for i in batch.tolist()])
            yield at_ms, field(1, self._heads[instance] + field(2, scope_spans))

    def _leaves(self, end_ms: float) -> float:
        """When a batch whose newest span ended at `end_ms` is on the wire."""
        return float(end_ms + self.rng.uniform(0, FLUSH_MS))

    def _batches(self, part: NDArray[np.int64], ends: NDArray[np.float64]) -> Iterator[NDArray[np.int64]]:
        """As a batch processor cuts them: every 5 s, or when 512 have come together."""
        tick = np.floor((ends[part] + self.rng.uniform(0, FLUSH_MS)) / FLUSH_MS)
        for of_tick in np.split(part, np.flatnonzero(np.diff(tick)) + 1):
            for first in range(0, of_tick.size, BATCH_SPANS):
                yield of_tick[first : first + BATCH_SPANS]

    def _rows(self, group: Spans, traces: Bytes2d) -> list[bytes]:
        """The spans as fields of ScopeSpans, in the order of `_arranged`."""
        rows: list[bytes] = []
        for failed, root, at in _looks_alike(group):
            template, where = self._template(group.site, failed, root)
            table = np.tile(np.frombuffer(template, np.uint8), (at.size, 1))
            columns = {
                "trace": traces[group.request[at]],
                "span": _as_bytes(group.span[at]),
                "start": _as_bytes(self._ns(group.start_ms[at])),
                "end": _as_bytes(self._ns(group.end_ms[at])),
            }
            if not root:
                columns["parent"] = _as_bytes(group.parent[at])
            for name, values in columns.items():
                table[:, where[name] : where[name] + values.shape[1]] = values
            rows += table.view(f"V{len(template)}").ravel().tolist()
        return rows

    def _ns(self, ms: NDArray[np.float64]) -> NDArray[np.uint64]:
        return (self.start_ns + (ms * 1e6).astype(np.int64)).astype(np.uint64)

    def _template(self, site: Site, failed: bool, root: bool) -> tuple[bytes, dict[str, int]]:
        key = (site, failed, root)
        if key not in self._templates:
            span = Span(
                trace_id=MARKS["trace"],
                span_id=MARKS["span"],
                parent_span_id=b"" if root else MARKS["parent"],
                name=site.name,
                kind=KINDS[site.kind],
                start_time_unix_nano=int.from_bytes(MARKS["start"], "little"),
                end_time_unix_nano=int.from_bytes(MARKS["end"], "little"),
                attributes=attributes(self._attributes(site, failed)),
                status=Status(code=Status.STATUS_CODE_ERROR, message="failed") if failed else None,
            )
            raw = field(2, span.SerializeToString())
            self._templates[key] = raw, {name: raw.index(mark) for name, mark in MARKS.items() if mark in raw}
        return self._templates[key]

    def _attributes(self, site: Site, failed: bool) -> dict[str, str | int]:
        kind, name = site.kind, site.name
        if kind == "database":
            _, system, database = self.plan.virtuals[site.target]
            query: dict[str, str | int] = {
                "db.system.name": system,
                "db.namespace": database,
                "server.address": database,
                "db.query.text": f"{name} WHERE id = $1",
            }
            if failed:
                query["error.type"] = "OperationalError"
            return query
        if kind == "internal":
            return {"code.function.name": name}
        status: dict[str, str | int] = {"http.response.status_code": 500 if failed else 200}
        if failed:
            status["error.type"] = "500"
        if kind == "external":
            return {"http.request.method": "POST", "server.address": self.plan.virtuals[site.target][2], **status}
        operation = self.plan.operations[site.target if kind == "client" else site.operation]
        method, route = operation.name.split()
        if kind == "client":
            address = self.plan.services[operation.service].name
            return {"http.request.method": method, "server.address": address, "server.port": 8080, **status}
        return {"http.request.method": method, "http.route": route, "url.scheme": "http", **status}


def _looks_alike(group: Spans) -> list[tuple[bool, bool, NDArray[np.int64]]]:
    """(failed, root, indexes) for each kind of row that occurs."""
    code = group.failed.astype(np.int64) * 2 + (group.parent == 0)
    return [(bool(c >> 1), bool(c & 1), np.flatnonzero(code == c)) for c in range(4) if (code == c).any()]


def _arranged(group: Spans, values: NDArray[Any]) -> NDArray[Any]:
    return np.concatenate([values[at] for _, _, at in _looks_alike(group)] or [values])


def _as_bytes(values: NDArray[np.uint64]) -> Bytes2d:
    return values.astype("<u8").view(np.uint8).reshape(-1, 8)


def gauge_request(
    resource: Mapping[str, str], points: Sequence[tuple[str, str, float, Mapping[str, str]]], at_ns: int
) -> bytes:
    """One ExportMetricsServiceRequest of gauges (name, unit, value, attributes) measured at `at_ns`."""
    request = ExportMetricsServiceRequest()
    under = request.resource_metrics.add()
    under.resource.attributes.extend(attributes(resource))
    scope = under.scope_metrics.add()
    scope.scope.name = "observe.bench.fleet"
    for name, unit, value, labels in points:
        point = NumberDataPoint(time_unix_nano=at_ns, as_double=value, attributes=attributes(labels))
        scope.metrics.append(Metric(name=name, unit=unit, gauge=Gauge(data_points=[point])))
    return bytes(request.SerializeToString())


def attributes(values: Mapping[str, str | int]) -> list[KeyValue]:
    return [
        KeyValue(key=k, value=AnyValue(int_value=v) if isinstance(v, int) else AnyValue(string_value=v))
        for k, v in values.items()
    ]


def field(number: int, body: bytes) -> bytes:
    """A length-delimited protobuf field."""
    return bytes([number << 3 | 2]) + _varint(len(body)) + body


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)
