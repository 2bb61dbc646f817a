"""What the API says of windows: services, the graph between them, series over time. Frames in, JSON out; no I/O.

Requests of a service are the spans through which work enters it (Server, Consumer); a service that has none is judged
by its Internal spans, and one without those by what it sends. Otherwise one request would count several times.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

import polars as pl

from observe.errors import BadRecord
from observe.frames import Frames
from observe.quantiles import quantiles
from observe.types import WINDOW_NS, Cause, CauseKind, Incident, Json, State
from observe.wire import rfc3339

LEVELS = {"latency_p50_ms": 0.50, "latency_p95_ms": 0.95, "latency_p99_ms": 0.99}
MAX_OPERATIONS = 50
MAX_POINTS = 720
MAX_SERIES = 100
DEGRADED_ERROR_RATIO = 0.05
METRIC_KIND = "Metric"

_ENTRY_RANK = {"Server": 0, "Consumer": 0, "Internal": 1, "Unspecified": 1, "Client": 2, "Producer": 2, METRIC_KIND: 3}


def services(windows: pl.DataFrame, places: pl.DataFrame, from_ns: int, to_ns: int) -> list[Json]:
    """Each service of [from_ns, to_ns): traffic, errors, latency, and the same for its busiest operations.

    `windows` are SERVICE_WINDOWS, added up over time or not; `places` has service, instance, host.
    """
    windows = windows.filter(pl.col("kind") != METRIC_KIND)
    if windows.is_empty():
        return []
    seconds = _covered_s(windows, from_ns, to_ns)
    totals = _measured(_entries(windows), ["service"], seconds).sort("service")
    operations = _measured(windows, ["service", "operation", "kind"], seconds)
    top = _rows_by(operations.sort(["service", "requests"], descending=[False, True]), "service")
    named = windows.group_by("service").agg(_names("kind"), _names("version"))
    whole = totals.join(named, on="service", how="left")
    if places.width:
        placed = places.group_by("service").agg(_names("instance"), _names("host"))
        whole = whole.join(placed, on="service", how="left")
    return [
        {
            "service": row["service"],
            **{f"{name}s": row.get(name) or [] for name in ("kind", "version", "instance", "host")},
            **_figures(row),
            "operations": [
                {"operation": o["operation"], "kind": o["kind"], **_figures(o)}
                for o in top.get(row["service"], [])[:MAX_OPERATIONS]
            ],
        }
        for row in whole.to_dicts()
    ]


def series(windows: pl.DataFrame, service: str, operation: str, from_ns: int, to_ns: int, step_ns: int = 0) -> Json:
    """Latency quantiles, traffic and errors of one service ("" operation: all of it) over time.

    A step is as long as `step_ns`, or as needed for at most MAX_POINTS steps. Steps without requests have no latency.
    """
    chosen = windows.filter(pl.col("service") == service)
    if operation:
        chosen = chosen.filter(pl.col("operation") == operation)
    step_ns = step_length_ns(from_ns, to_ns, step_ns)
    body: Json = {"service": service, "operation": operation, "step_s": step_ns / 1e9, "windows": []}
    if chosen.is_empty():
        return body
    stepped = _stepped(_entries(chosen), step_ns)
    measured = _measured(stepped, ["at_ns"], 1.0)
    body["windows"] = [
        {"at": rfc3339(row["at_ns"])} | _figures(row | {"requests_per_s": (row["requests"] or 0) / row["seconds"]})
        for row in _steps(stepped, from_ns, to_ns, step_ns).join(measured, on="at_ns", how="left").to_dicts()
    ]
    return body


def metric(
    gauges: pl.DataFrame, name: str, service: str, labels: str, from_ns: int, to_ns: int, step_ns: int = 0
) -> Json:
    """The series of one gauge or counter (counters as increase per second); mean, smallest and largest of each step."""
    step_ns = step_length_ns(from_ns, to_ns, step_ns)
    keys = ["service", "instance", "host", "hw_id", "labels"]
    chosen = gauges.filter(pl.col("metric") == name)
    if service:
        chosen = chosen.filter(pl.col("service") == service)
    if labels:
        chosen = chosen.filter(pl.col("labels").str.contains(labels, literal=True))
    weight = pl.col("samples").cast(pl.Float64)
    points = (
        _stepped(chosen, step_ns)
        .group_by([*keys, "at_ns"])
        .agg(
            ((pl.col("value_avg") * weight).sum() / weight.sum()).alias("value"),
            pl.col("value_min").min().alias("min"),
            pl.col("value_max").max().alias("max"),
        )
        .sort([*keys, "at_ns"])
    )
    grouped = points.group_by(keys, maintain_order=True).agg("at_ns", "value", "min", "max")
    first = chosen.head(1).to_dicts()
    return {
        "metric": name,
        "unit": first[0]["unit"] if first else "",
        "kind": first[0]["kind"] if first else "",
        "step_s": step_ns / 1e9,
        "truncated": grouped.height > MAX_SERIES,
        "series": [_one_series(row, keys) for row in grouped.head(MAX_SERIES).to_dicts()],
    }


def graph(frames: Frames, incidents: Iterable[Incident], at_ns: int, from_ns: int) -> Json:
    """Who called whom in [from_ns, at_ns), and how everyone was: nodes with health, edges with calls and latency."""
    seconds = _covered_s(frames.windows, from_ns, at_ns)
    open_then = [i for i in incidents if open_at(i, at_ns)]
    edges = _edges(frames.edges, seconds)
    own = _service_figures(frames.windows, seconds)
    figures = _virtual_figures(frames.edges, own, seconds) | own
    kinds = {str(edge["callee"]): str(edge["connection"]) for edge in edges}
    kinds |= {e["caller"]: "topic" for e in edges if e["connection"] == "topic" and e["caller"] not in own}
    names = sorted({*figures, *(e["caller"] for e in edges)})
    return {
        "at": rfc3339(at_ns),
        "from": rfc3339(from_ns),
        "nodes": [
            {
                "name": name,
                "kind": "service" if name in own else _virtual_kind(kinds.get(name, "")),
                **_figures(figures.get(name, {})),
                **_health(name, figures.get(name, {}), open_then),
            }
            for name in names
        ],
        "edges": edges,
    }


def step_length_ns(from_ns: int, to_ns: int, asked_ns: int = 0) -> int:
    """A whole number of windows: as asked, or as short as MAX_POINTS steps allow."""
    shortest = -(-(to_ns - from_ns) // MAX_POINTS)
    if 0 < asked_ns < shortest:
        raise BadRecord(
            f"step_s = {asked_ns / 1e9:g} gives more than {MAX_POINTS} steps; "
            f"at least {-(-shortest // 10**9)} is allowed for this range"
        )
    return max(1, -(-max(asked_ns, shortest) // WINDOW_NS)) * WINDOW_NS


# ── parts ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def _entries(windows: pl.DataFrame) -> pl.DataFrame:
    """The rows of each service that count as its requests."""
    ranked = windows.with_columns(
        pl.col("kind").replace_strict(_ENTRY_RANK, default=1, return_dtype=pl.Int8).alias("entry_rank")
    )
    return ranked.filter(pl.col("entry_rank") == pl.col("entry_rank").min().over("service")).drop("entry_rank")


def _measured(windows: pl.DataFrame, by: list[str], seconds: float) -> pl.DataFrame:
    """Requests, errors, their rates and the latency quantiles of each group."""
    sums = (
        windows.group_by(by)
        .agg(pl.col("requests").sum(), pl.col("errors").sum())
        .with_columns(
            (pl.col("requests") / seconds).alias("requests_per_s"),
            (pl.col("errors") / pl.col("requests")).fill_nan(None).alias("error_ratio"),
        )
    )
    return sums.join(quantiles(windows, by, LEVELS), on=by, how="left")


def _stepped(rows: pl.DataFrame, step_ns: int) -> pl.DataFrame:
    return rows.with_columns((pl.col("window_start_ns") // step_ns * step_ns).alias("at_ns"))


def _steps(stepped: pl.DataFrame, from_ns: int, to_ns: int, step_ns: int) -> pl.DataFrame:
    """Every step from the first to the last with data, and how many seconds of it lie in the range."""
    first, last = cast("int", stepped["at_ns"].min()), cast("int", stepped["at_ns"].max())
    steps = pl.DataFrame({"at_ns": pl.int_range(first, last + step_ns, step_ns, eager=True)})
    begin = pl.max_horizontal("at_ns", pl.lit(from_ns // WINDOW_NS * WINDOW_NS))
    end = pl.min_horizontal(pl.col("at_ns") + step_ns, pl.lit(-(-to_ns // WINDOW_NS) * WINDOW_NS))
    return steps.with_columns(((end - begin) / 1e9).clip(1.0, None).alias("seconds"))


def _covered_s(windows: pl.DataFrame, from_ns: int, to_ns: int) -> float:
    """Seconds of the range since data began to come: a rate over an hour that only began 5 minutes ago is no rate."""
    first = cast("int | None", windows["window_start_ns"].min())
    begin = from_ns if first is None else max(from_ns, first)
    return float(max(to_ns - begin, WINDOW_NS) / 1e9)


def _names(column: str) -> pl.Expr:
    return pl.col(column).filter(pl.col(column) != "").unique().sort()


def _rows_by(frame: pl.DataFrame, key: str) -> dict[str, list[Json]]:
    return {str(name[0]): part.to_dicts() for name, part in frame.partition_by(key, as_dict=True).items()}


def _figures(row: Json) -> Json:
    return {
        "requests": row.get("requests") or 0,
        "errors": row.get("errors") or 0,
        "requests_per_s": _short(row.get("requests_per_s") or 0.0),
        "error_ratio": _short(row.get("error_ratio")),
        **{name: _short(row.get(name)) for name in LEVELS},
    }


def _short(value: float | None) -> float | None:
    """Four significant digits say more than a quantile within 2 % knows."""
    return None if value is None else float(f"{value:.4g}")


def _one_series(row: Json, keys: list[str]) -> Json:
    columns = zip(row["at_ns"], row["value"], row["min"], row["max"], strict=True)
    points = [{"at": rfc3339(at), "value": value, "min": low, "max": high} for at, value, low, high in columns]
    return {key: row[key] for key in keys} | {"points": points}


def _service_figures(windows: pl.DataFrame, seconds: float) -> dict[str, Json]:
    spans = windows.filter(pl.col("kind") != METRIC_KIND)
    return {row["service"]: row for row in _measured(_entries(spans), ["service"], seconds).to_dicts()}


def _virtual_figures(edges: pl.DataFrame, known: Iterable[str], seconds: float) -> dict[str, Json]:
    """Nodes that send no spans of their own (databases, outside addresses), as their callers see them."""
    seen = edges.filter(~pl.col("callee").is_in(list(known)))
    as_windows = seen.rename({"callee": "service", "calls": "requests"})
    return {row["service"]: row for row in _measured(as_windows, ["service"], seconds).to_dicts()}


def _edges(edges: pl.DataFrame, seconds: float) -> list[Json]:
    by = ["caller", "callee", "connection"]
    sums = edges.group_by(by).agg(
        pl.col("calls").sum(), pl.col("errors").sum(), *(_mean(f"{side}_sum_ms") for side in ("client", "server"))
    )
    whole = sums.join(quantiles(edges, by, LEVELS), on=by, how="left").sort(by)
    return [
        {
            **{key: row[key] for key in by},
            "calls": row["calls"],
            "calls_per_s": _short(row["calls"] / seconds),
            "errors": row["errors"],
            "error_ratio": _short(row["errors"] / row["calls"]) if row["calls"] else None,
            "client_mean_ms": _short(row["client_sum_ms"]),
            "server_mean_ms": _short(row["server_sum_ms"]),
            **{name: _short(row[name]) for name in LEVELS},
        }
        for row in whole.to_dicts()
    ]


def _mean(total: str) -> pl.Expr:
    """Mean over the calls whose duration is known on this side; null where none is."""
    known = pl.col(total).is_not_null()
    calls = pl.col("calls").filter(known).sum()
    return pl.when(calls > 0).then(pl.col(total).sum() / calls).alias(total)


def _virtual_kind(connection: str) -> str:
    return connection if connection in ("database", "external", "topic") else "service"


def open_at(incident: Incident, at_ns: int) -> bool:
    ended = incident.resolved_ns is not None and incident.resolved_ns <= at_ns
    return incident.state is not State.PENDING and incident.onset_ns <= at_ns and not ended


def _blamed(cause: Cause) -> tuple[str, ...]:
    """Of a narrower cause both: the service to look at, and the database or address behind it."""
    return () if cause.kind is CauseKind.UNKNOWN else (cause.service, cause.resource)


def _health(name: str, figures: Json, incidents: list[Incident]) -> Json:
    """cause: an open incident is explained by it; degraded: it suffers, or errs; unknown: nothing entered it."""
    blamed = [i.id for i in incidents if i.causes and name in _blamed(i.causes[0])]
    suffers = [i.id for i in incidents if name in i.impact.services or any(s.service == name for s in i.symptoms)]
    errs = (figures.get("error_ratio") or 0.0) > DEGRADED_ERROR_RATIO
    health = "cause" if blamed else "degraded" if suffers or errs else "ok" if figures.get("requests") else "unknown"
    return {"health": health, "incident_ids": sorted({*blamed, *suffers})}
