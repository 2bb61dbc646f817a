"""The frames of a fleet computed from its spans by polars, without a store: a second opinion on the store's SQL, and a
way to score detection and diagnosis alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from observe.bench.fleet import Fleet
from observe.bench.fleet_faults import host_name
from observe.bench.fleet_gauges import Gauges
from observe.bench.fleet_plan import Plan
from observe.bench.fleet_traffic import Spans, Traffic
from observe.frames import BUCKETS_PER_OCTAVE, EDGE_WINDOWS, GAUGE_WINDOWS, SELF_WINDOWS, SERVICE_WINDOWS, Frames
from observe.types import WINDOW_NS

OUTSIDE = ("database", "external")
SPAN_KINDS = {"server": "Server", "internal": "Internal"}


def frames_of(fleet: Fleet) -> Frames:
    """All windows of the fleet, as the store gives them once everything has settled."""
    traffic = Traffic(fleet.plan, fleet.fault, fleet.minutes, np.random.default_rng([fleet.seed, 3]))
    parts = [_chunk(fleet, spans) for _, spans in traffic.chunks()]
    windows, selfs, edges = (pl.concat(frames) for frames in zip(*parts, strict=True))
    return Frames(_windows(windows), _selfs(selfs), _edges(edges), _gauges(fleet))


def frames_of_spans(table: pl.DataFrame) -> Frames:
    """The windows of a table of spans with the columns of `_table`, no gauges."""
    windows, selfs, edges = _parts(table)
    return Frames(_windows(windows), _selfs(selfs), _edges(edges), pl.DataFrame(schema=GAUGE_WINDOWS))


def _chunk(fleet: Fleet, spans: Sequence[Spans]) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    return _parts(_table(fleet, spans))


def _parts(table: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    covered = _covered(table)
    with_self = table.join(covered, on="span", how="left").with_columns(
        own_ms=(pl.col("duration_ms") - pl.col("covered_ms").fill_null(0.0)).clip(lower_bound=0.0),
        origin=pl.col("failed") & ~pl.col("child_failed").fill_null(False),
    )
    keep = ["window_start_ns", "service", "operation", "kind", "version", "instance", "host", "failed", "duration_ms"]
    return (
        table.select(keep),
        with_self.select(*keep, "own_ms", "origin", "trace"),
        _calls(table),
    )


def _table(fleet: Fleet, groups: Sequence[Spans]) -> pl.DataFrame:
    plan, sizes = fleet.plan, [group.span.size for group in groups]
    keys = pl.DataFrame(
        [_key(plan, group) for group in groups], schema=["site", "operation", "kind", "peer"], orient="row"
    )
    instances = pl.DataFrame(
        [(plan.services[i.service].name, i.version, i.id, host_name(i.host)) for i in plan.instances],
        schema=["service", "version", "instance", "host"],
        orient="row",
    )
    at = np.concatenate([g.instance for g in groups])
    table = pl.DataFrame(
        {
            "span": np.concatenate([g.span for g in groups]),
            "parent": np.concatenate([g.parent for g in groups]),
            "trace": np.concatenate([g.request for g in groups]),
            "start_ms": np.concatenate([g.start_ms for g in groups]),
            "end_ms": np.concatenate([g.end_ms for g in groups]),
            "failed": np.concatenate([g.failed for g in groups]),
        }
    )
    end_ns = fleet.start_ns + (pl.col("end_ms") * 1e6).cast(pl.Int64)
    return pl.concat(
        [table, keys[np.repeat(np.arange(len(groups)), sizes)], instances[at]], how="horizontal"
    ).with_columns(
        window_start_ns=end_ns // WINDOW_NS * WINDOW_NS,
        duration_ms=pl.col("end_ms") - pl.col("start_ms"),
        trace=pl.col("trace").cast(pl.String).str.zfill(32),
    )


def _key(plan: Plan, group: Spans) -> tuple[str, str, str, str]:
    site = group.site
    peer = ""
    if site.kind in OUTSIDE:
        peer = plan.virtuals[site.target][2]
    elif site.kind == "client":
        peer = plan.services[plan.operations[site.target].service].name
    return site.kind, site.name, SPAN_KINDS.get(site.kind, "Client"), peer


def _covered(table: pl.DataFrame) -> pl.DataFrame:
    """Per parent: ms that its children cover together (union, within the parent), and whether one failed."""
    parents = table.select(span="span", from_ms="start_ms", to_ms="end_ms")
    children = (
        table.filter(pl.col("parent") != 0)
        .select(span="parent", failed="failed", start_ms="start_ms", end_ms="end_ms")
        .join(parents, on="span")
        .with_columns(start_ms=pl.max_horizontal("start_ms", "from_ms"), end_ms=pl.min_horizontal("end_ms", "to_ms"))
        .sort("span", "start_ms")
        .with_columns(before_ms=pl.col("end_ms").cum_max().shift(1).over("span"))
    )
    fresh = pl.col("end_ms") - pl.max_horizontal("start_ms", pl.col("before_ms"))
    return children.group_by("span").agg(
        covered_ms=fresh.clip(lower_bound=0.0).sum(), child_failed=pl.col("failed").any()
    )


def _calls(table: pl.DataFrame) -> pl.DataFrame:
    parents = table.select(
        parent="span",
        caller="service",
        caller_operation="operation",
        caller_kind="kind",
        caller_ms="duration_ms",
        caller_failed="failed",
        caller_window="window_start_ns",
    )
    inner = table.filter((pl.col("kind") == "Server") & (pl.col("parent") != 0)).join(parents, on="parent")
    has_client = pl.col("caller_kind") == "Client"
    direct = inner.select(
        window_start_ns=pl.max_horizontal("caller_window", "window_start_ns"),
        caller="caller",
        caller_operation="caller_operation",
        callee="service",
        callee_operation="operation",
        connection=pl.lit("direct"),
        failed=pl.col("failed") | (has_client & pl.col("caller_failed")),
        client_ms=pl.when(has_client).then("caller_ms"),
        server_ms=pl.col("duration_ms"),
    )
    alone = table.filter(pl.col("kind") == "Client").join(inner.select(span="parent"), on="span", how="anti")
    outside = alone.select(
        window_start_ns="window_start_ns",
        caller="service",
        caller_operation="operation",
        callee="peer",
        callee_operation="operation",
        connection=pl.when(pl.col("site") == "database").then(pl.lit("database")).otherwise(pl.lit("external")),
        failed="failed",
        client_ms="duration_ms",
        server_ms=pl.lit(None, pl.Float64),
    )
    return pl.concat([direct, outside])


def _bucket(value_ms: pl.Expr) -> pl.Expr:
    return ((value_ms.clip(lower_bound=1e-3).log(2) * BUCKETS_PER_OCTAVE).ceil() - 1).cast(pl.Int16)


def _histograms(table: pl.DataFrame, by: list[str], value_ms: pl.Expr, name: str) -> pl.DataFrame:
    counts = table.group_by(*by, bucket=_bucket(value_ms)).agg(count=pl.len().cast(pl.UInt64)).sort("bucket")
    return counts.group_by(by).agg(pl.struct("bucket", "count").alias(name))


def _finished(sums: pl.DataFrame, schema: dict[str, pl.DataType]) -> pl.DataFrame:
    keys = [n for n, kind in schema.items() if kind == pl.String and not n.endswith("trace_id")]
    return sums.select(list(schema)).cast(schema).sort("window_start_ns", *keys)  # type: ignore[arg-type]


def _windows(spans: pl.DataFrame) -> pl.DataFrame:
    by = ["window_start_ns", "service", "operation", "kind", "version"]
    sums = spans.group_by(by).agg(
        requests=pl.len(), errors=pl.col("failed").sum(), duration_sum_ms=pl.col("duration_ms").sum()
    )
    histograms = _histograms(spans, by, pl.col("duration_ms"), "latency_buckets")
    return _finished(sums.join(histograms, on=by), SERVICE_WINDOWS)


def _selfs(spans: pl.DataFrame) -> pl.DataFrame:
    by = ["window_start_ns", "service", "operation", "kind", "version", "instance", "host"]
    sums = spans.group_by(by).agg(
        requests=pl.len(),
        errors=pl.col("failed").sum(),
        origin_errors=pl.col("origin").sum(),
        duration_sum_ms=pl.col("duration_ms").sum(),
        self_sum_ms=pl.col("own_ms").sum(),
        slowest_trace_id=pl.col("trace").sort_by("own_ms").last(),
        error_trace_id=pl.col("trace").filter("origin").max().fill_null(""),
    )
    return _finished(sums.join(_histograms(spans, by, pl.col("own_ms"), "self_buckets"), on=by), SELF_WINDOWS)


def _edges(calls: pl.DataFrame) -> pl.DataFrame:
    by = ["window_start_ns", "caller", "caller_operation", "callee", "callee_operation", "connection"]
    sums = calls.group_by(by).agg(
        calls=pl.len(),
        errors=pl.col("failed").sum(),
        client_sum_ms=pl.when(pl.col("client_ms").is_not_null().any()).then(pl.col("client_ms").sum()),
        server_sum_ms=pl.when(pl.col("server_ms").is_not_null().any()).then(pl.col("server_ms").sum()),
    )
    latency = _histograms(calls, by, pl.coalesce("client_ms", "server_ms"), "latency_buckets")
    return _finished(sums.join(latency, on=by), EDGE_WINDOWS)


def _gauges(fleet: Fleet) -> pl.DataFrame:
    rng = np.random.default_rng([fleet.seed, 4])
    rows: list[tuple[object, ...]] = []
    for _, body in Gauges(fleet.plan, fleet.fault, fleet.minutes, fleet.start_ns, rng).requests():
        rows += _points(body)
    names = ["window_start_ns", "service", "instance", "host", "hw_id", "metric", "unit", "labels", "value"]
    points = pl.DataFrame(rows, schema=names, orient="row")
    sums = points.group_by(names[:-1]).agg(
        kind=pl.lit("gauge"),
        samples=pl.len(),
        value_avg=pl.col("value").mean(),
        value_min=pl.col("value").min(),
        value_max=pl.col("value").max(),
    )
    return _finished(sums, GAUGE_WINDOWS)


def _points(body: bytes) -> list[tuple[object, ...]]:
    under = ExportMetricsServiceRequest.FromString(body).resource_metrics[0]
    resource = {a.key: a.value.string_value for a in under.resource.attributes}
    rows: list[tuple[object, ...]] = []
    for metric in under.scope_metrics[0].metrics:
        for point in metric.gauge.data_points:
            labels = {a.key: a.value.string_value for a in point.attributes}
            hw_id = labels.pop("hw.id", "") or labels.pop("UUID", "")
            host = labels.pop("Hostname", "") or resource.get("host.name", "")
            rows.append(
                (
                    point.time_unix_nano // WINDOW_NS * WINDOW_NS,
                    resource.get("service.name", ""),
                    resource.get("service.instance.id", ""),
                    host,
                    hw_id,
                    metric.name,
                    metric.unit,
                    ",".join(f"{k}={v}" for k, v in sorted(labels.items())),
                    point.as_double,
                )
            )
    return rows
