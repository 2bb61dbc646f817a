"""A request with spans of many traces as a request for each trace, for topics that others read trace by trace.

Looks at spans one by one and repeats the resource for every trace; nothing of ours needs it, see docs/decisions.md.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from observe.stream.split import without


def by_trace(request: ExportTraceServiceRequest) -> Iterator[tuple[bytes | None, ExportTraceServiceRequest]]:
    """Key of the record and request, for each trace in the order in which they begin in `request`.

    Every span is in exactly one of them, under its resource and scope. The key is that of a Collector's kafkaexporter
    with `partition_traces_by_id`: the trace id in lower-case hexadecimal; None for spans without one.
    """
    parts: dict[bytes, ExportTraceServiceRequest] = {}
    for resource in request.resource_spans:
        bare = without(resource, "scope_spans")
        places: dict[bytes, Any] = {}
        for scope in resource.scope_spans:
            bare_scope = without(scope, "spans")
            for trace_id, spans in _grouped(scope.spans).items():
                if trace_id not in places:
                    places[trace_id] = parts.setdefault(trace_id, ExportTraceServiceRequest()).resource_spans.add()
                    places[trace_id].CopyFrom(bare)
                place = places[trace_id].scope_spans.add()
                place.CopyFrom(bare_scope)
                place.spans.extend(spans)
    for trace_id, part in parts.items():
        yield trace_id.hex().encode() or None, part


def _grouped(spans: Sequence[Span]) -> dict[bytes, list[Span]]:
    groups: dict[bytes, list[Span]] = defaultdict(list)
    for span in spans:
        groups[span.trace_id].append(span)
    return groups
