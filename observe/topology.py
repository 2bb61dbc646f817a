"""The places of a graph: what operations, instances, hosts and GPUs its services have, and what runs on what.

Frames in, JSON out; no I/O. Every node has an `id` that says its kind, so that a host and a service of one name differ.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import polars as pl

from observe.frames import Frames
from observe.quantiles import quantiles
from observe.types import CauseKind, Incident, Json

MAX_OPERATIONS = 50
MAX_INSTANCES = 200
"""Of one service, the busiest."""
SELF_LEVELS = {"self_p50_ms": 0.50, "self_p99_ms": 0.99}
_OWN = pl.col("kind") != "Client"
_ENTRY = pl.col("kind").is_in(["Server", "Consumer"])


def node_id(kind: str, *names: str) -> str:
    """
    >>> node_id("instance", "llm", "llm-0")
    'instance:llm/llm-0'
    """
    return f"{kind}:{'/'.join(names)}"


def self_times(selfs: pl.DataFrame, requests: Mapping[str, int]) -> dict[str, Json]:
    """Per service: mean self time per request that entered it, and quantiles of its spans' self time."""
    own = selfs.filter(_OWN)
    sums = own.group_by("service").agg(pl.col("self_sum_ms").sum())
    named = own.rename({"self_buckets": "latency_buckets"})
    whole = sums.join(quantiles(named, ["service"], SELF_LEVELS), on="service", how="left")
    return {
        row["service"]: {
            "self_mean_ms": _short(row["self_sum_ms"] / requests[row["service"]])
            if requests.get(row["service"])
            else None,
            **{name: _short(row[name]) for name in SELF_LEVELS},
        }
        for row in whole.to_dicts()
    }


def operations(frames: Frames) -> tuple[list[Json], list[Json]]:
    """(nodes of operations, calls between them), the busiest of each service."""
    spans = frames.windows.filter(_ENTRY)
    sums = spans.group_by("service", "operation").agg(pl.col("requests", "errors").sum())
    levels = {"latency_p50_ms": 0.5, "latency_p95_ms": 0.95, "latency_p99_ms": 0.99}
    table = (
        sums.join(quantiles(spans, ["service", "operation"], levels), on=["service", "operation"], how="left")
        .sort(["service", "requests", "operation"], descending=[False, True, False])
        .group_by("service", maintain_order=True)
        .head(MAX_OPERATIONS)
    )
    nodes = [
        {
            "id": node_id("operation", row["service"], row["operation"]),
            "kind": "operation",
            "name": row["operation"],
            **{"service": row["service"], "health": "ok", "incident_ids": []},
            **{"requests": row["requests"], "errors": row["errors"]},
            **{name: _short(row[name]) for name in levels},
        }
        for row in table.to_dicts()
    ]
    by = ["caller", "caller_operation", "callee", "callee_operation", "connection"]
    calls = frames.edges.group_by(by).agg(pl.col("calls", "errors").sum()).sort(by)
    return nodes, calls.to_dicts()


def places(frames: Frames, incidents: Iterable[Incident]) -> tuple[list[Json], list[Json]]:
    """(nodes of instances, hosts and GPUs, what runs on what)."""
    blamed = _blamed(incidents)
    rows = (
        frames.selfs.filter(_OWN & ((pl.col("instance") != "") | (pl.col("host") != "")))
        .group_by("service", "instance", "host")
        .agg(
            requests=pl.col("requests").filter(_ENTRY).sum(),
            errors=pl.col("errors").filter(_ENTRY).sum(),
            self_ms=pl.col("self_sum_ms").sum(),
            spans=pl.col("requests").sum(),
        )
        .sort(["service", "requests", "instance", "host"], descending=[False, True, False, False])
        .group_by("service", maintain_order=True)
        .head(MAX_INSTANCES)
    )
    nodes, runs = dict[str, Json](), list[Json]()
    for row in rows.to_dicts():
        upper = node_id("service", row["service"])
        if row["instance"]:
            upper = node_id("instance", row["service"], row["instance"])
            nodes.setdefault(upper, _place("instance", upper, row["instance"], row["service"], blamed) | _figures(row))
            runs.append({"from": node_id("service", row["service"]), "to": upper, "requests": row["requests"]})
        if row["host"]:
            host = node_id("host", row["host"])
            nodes.setdefault(host, _place("host", host, row["host"], "", blamed))
            runs.append({"from": upper, "to": host, "requests": row["requests"]})
    _add_devices(frames.gauges, nodes, runs, blamed)
    return [nodes[name] for name in sorted(nodes)], runs


def _add_devices(gauges: pl.DataFrame, nodes: dict[str, Json], runs: list[Json], blamed: frozenset[str]) -> None:
    """GPUs, under the instances that report them themselves, else under their hosts."""
    devices = gauges.filter(pl.col("hw_id") != "").group_by("hw_id").agg(
        pl.col("service", "instance", "host").unique().sort()
    )  # fmt: skip
    instances = {node["name"]: name for name, node in nodes.items() if node["kind"] == "instance"}
    for row in devices.sort("hw_id").to_dicts():
        device = node_id("gpu", row["hw_id"])
        nodes[device] = _place("gpu", device, row["hw_id"], "", blamed)
        under = [instances[name] for name in row["instance"] if name in instances]
        for host in filter(None, row["host"]):
            name = node_id("host", host)
            nodes.setdefault(name, _place("host", name, host, "", blamed))
            under.append(name)
        runs += [{"from": name, "to": device, "requests": 0} for name in dict.fromkeys(under)]


def _place(kind: str, node: str, name: str, service: str, blamed: frozenset[str]) -> Json:
    return {
        "id": node,
        "kind": kind,
        "name": name,
        "service": service,
        "health": "cause" if name in blamed else "ok",
        "incident_ids": [],
    }


def _figures(row: Json) -> Json:
    mean = row["self_ms"] / max(row["requests"] or row["spans"], 1)
    return {"requests": row["requests"], "errors": row["errors"], "self_mean_ms": _short(mean)}


def _blamed(incidents: Iterable[Incident]) -> frozenset[str]:
    first = [i.causes[0] for i in incidents if i.causes]
    return frozenset(c.resource for c in first if c.resource and c.kind is not CauseKind.UNKNOWN)


def _short(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.4g}")


# ── the whole graph ─────────────────────────────────────────────────────────────────────────────────────────────────


def with_topics(edges: pl.DataFrame, topics: pl.DataFrame, services: Iterable[str]) -> pl.DataFrame:
    """EDGE_WINDOWS rows with topics in the middle: who sends → topic → who takes, connection "topic".

    A call to something that is known as a topic by its own name is that sending.
    """
    taken = set(services)
    known = topics["topic"].unique().to_list()
    labels = {topic: f"{topic} (topic)" if topic in taken else topic for topic in known}
    topic = pl.col("topic").replace(labels)
    rows = topics.select(
        pl.lit(0, pl.Int64).alias("window_start_ns"),
        pl.when("receives").then(topic).otherwise("service").alias("caller"),
        pl.lit("").alias("caller_operation"),
        pl.when("receives").then("service").otherwise(topic).alias("callee"),
        pl.lit("").alias("callee_operation"),
        pl.lit("topic").alias("connection"),
        "calls",
        "errors",
        pl.when(~pl.col("receives")).then("duration_sum_ms").alias("client_sum_ms"),
        pl.when("receives").then("duration_sum_ms").alias("server_sum_ms"),
        "latency_buckets",
    )
    said_twice = pl.col("callee").is_in([t for t in known if t not in taken]) & pl.col("server_sum_ms").is_null()
    return pl.concat([edges.filter(~said_twice), rows.cast(pl.Schema(edges.schema))])


def extended(base: Json, frames: Frames, incidents: Iterable[Incident], detail: str) -> Json:
    """The graph of services with ids, self times and time on the way, and the places that `detail` asks for."""
    requests = {node["name"]: node["requests"] for node in base["nodes"]}
    own = self_times(frames.selfs, requests)
    nodes = [{"id": node_id(n["kind"], n["name"]), "service": "", **n, **own.get(n["name"], {})} for n in base["nodes"]]
    answer = base | {"nodes": nodes, "edges": [e | {"way_mean_ms": _on_the_way(e)} for e in base["edges"]]}
    answer |= {"operation_edges": [], "runs_on": []}
    if detail in ("operations", "all"):
        more, calls = operations(frames)
        answer |= {"nodes": [*answer["nodes"], *more], "operation_edges": calls}
    if detail in ("places", "all"):
        more, runs = places(frames, incidents)
        answer |= {"nodes": [*answer["nodes"], *more], "runs_on": runs}
    return answer


def _on_the_way(edge: Json) -> float | None:
    """What the caller waits beyond the callee's work: network, queue, connection."""
    client, server = edge["client_mean_ms"], edge["server_mean_ms"]
    waits = edge["connection"] not in ("messaging", "link", "topic")
    return _short(client - server) if waits and client is not None and server is not None else None
