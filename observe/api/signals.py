"""Services, windows, the graph, traces, metrics, logs and GPUs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from fastapi import APIRouter, Path, Query

from observe.api import models
from observe.api.parameters import (
    MAX_WINDOWS_RANGE_S,
    SECOND_NS,
    SETTLE_NS,
    TRACE_ID,
    AtQuery,
    GraphQuery,
    LogsQuery,
    MetricsQuery,
    OperationsQuery,
    Range,
    TracesQuery,
    WindowsQuery,
)
from observe.api.problems import NotFound
from observe.store.read import Reader
from observe.types import WINDOW_NS, Json


def router(reader: Reader, clock: Callable[[], int]) -> APIRouter:
    """Everything that is read from telemetry. Plain functions, so that they run in threads: the store blocks."""
    routes = APIRouter(tags=["telemetry"])

    @routes.get("/services", response_model=models.Services)
    def services(query: Annotated[Range, Query()]) -> Json:
        """Every service of the range: traffic, errors, latency, versions, instances, operations."""
        return {"services": reader.services(*query.settled(clock()))}

    @routes.get("/operations", response_model=models.ManyNamed)
    def operations(query: Annotated[OperationsQuery, Query()]) -> Json:
        """Operations that stand for several span names: ids taken out, or more than rollups tell apart."""
        return {"operations": reader.operations(*query.bounds(clock()), query.service, query.limit)}

    @routes.get("/windows", response_model=models.Windows)
    def windows(query: Annotated[WindowsQuery, Query()]) -> Json:
        """P50, P95, P99, traffic and errors of one service, or one of its operations, over time."""
        from_ns, to_ns = query.settled(clock())
        return reader.windows(query.service, query.operation, from_ns, to_ns, int(query.step_s * SECOND_NS))

    @routes.get("/graph", response_model=models.Graph, response_model_by_alias=True)
    def graph(query: Annotated[GraphQuery, Query()]) -> Json:
        """Who calls whom, and how everyone is, at a chosen time."""
        at_ns = _settled_at(query.at, clock())
        return reader.graph(at_ns, query.span_s * SECOND_NS, query.detail)

    @routes.get("/traces", response_model=models.Traces)
    def traces(query: Annotated[TracesQuery, Query()]) -> Json:
        """Traces with a span that meets all conditions at once."""
        from_ns, to_ns = query.bounds(clock())
        found = reader.traces(
            from_ns,
            to_ns,
            service=query.service,
            operation=query.operation,
            min_duration_ms=query.min_duration_ms,
            errors_only=query.errors,
            attributes=query.attributes(),
            order=query.order,
            limit=query.limit,
        )
        return {"traces": found}

    @routes.get("/traces/{trace_id}", response_model=models.Trace)
    def trace(trace_id: Annotated[str, Path(pattern=TRACE_ID, description="32 hex digits")]) -> Json:
        """All spans of a trace, with attributes, events and links."""
        found = reader.trace(trace_id)
        if found is None:
            raise NotFound(f"trace {trace_id}: no span of it is stored")
        return found

    @routes.get("/metrics", response_model=models.MetricSeries | models.MetricNames)
    def metrics(query: Annotated[MetricsQuery, Query()]) -> Json:
        """Names of metrics; with `name`, the series of a gauge or counter (histograms are in `windows`)."""
        if not query.name:
            return {"metrics": reader.metrics(*query.bounds(clock(), MAX_WINDOWS_RANGE_S), query.service)}
        from_ns, to_ns = query.settled(clock())
        step_ns = int(query.step_s * SECOND_NS)
        return reader.metric(query.name, from_ns, to_ns, service=query.service, labels=query.labels, step_ns=step_ns)

    @routes.get("/logs", response_model=models.Logs)
    def logs(query: Annotated[LogsQuery, Query()]) -> Json:
        """Log records, newest first."""
        from_ns, to_ns = query.bounds(clock())
        found = reader.logs(
            from_ns,
            to_ns,
            service=query.service,
            trace_id=query.trace_id,
            text=query.text,
            severity=query.severity,
            limit=query.limit,
        )
        return {"logs": found}

    @routes.get("/gpus", response_model=models.Gpus)
    def gpus(query: Annotated[AtQuery, Query()]) -> Json:
        """The newest reading of every GPU, with what holds its clocks down."""
        at_ns = clock() if query.at is None else query.at
        return {"gpus": reader.gpus(at_ns)}

    return routes


def _settled_at(asked_ns: int | None, now_ns: int) -> int:
    at_ns = now_ns - SETTLE_NS if asked_ns is None else asked_ns
    return at_ns // WINDOW_NS * WINDOW_NS
