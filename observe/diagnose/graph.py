"""The service graph before and after an onset, as arrays: what each node does itself, and what it waits for."""

from __future__ import annotations

from dataclasses import dataclass, replace

import networkx as nx
import numpy as np
import polars as pl
from numpy.typing import NDArray

from observe.diagnose.levels import Periods, by_window, levels, summed_up
from observe.diagnose.parallel import candidates, reaching
from observe.frames import Frames

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

ENTRY_KINDS = ("Server", "Consumer")
UNWAITED = ("messaging", "link")
"""Connections whose caller goes on without waiting."""
LOST = 0.01
"""Part of the calls that get lost, beyond what was usual, before it counts as trouble."""
ALIKE = ["service", "operation", "kind"]


@dataclass(frozen=True, slots=True)
class Nodes:
    """Per service, [before, after] stacked in rows of shape (2, n). Means and rates are per entry request."""

    requests: Floats
    duration_ms: Floats
    duration_change_ms: Floats  # (n,)
    duration_error_ms: Floats
    error_ratio: Floats
    self_ms: Floats
    speed_ms: Floats  # (n,) change of self time at the same mix of operations
    speed_error_ms: Floats
    mix_ms: Floats  # change of self time by another mix of entry operations
    origin: Floats  # (2, n) errors that began in the service's own spans
    client_origin: Floats  # (2, n) errors that began in its outgoing calls


@dataclass(frozen=True, slots=True)
class Edges:
    """Per caller and callee, all per request of the *caller*; callee numbers past the services are virtual nodes."""

    caller: Ints
    callee: Ints
    connection: tuple[str, ...]
    waits: Bools
    calls: Floats  # (2, m)
    wait_ms: Floats  # (2, m) time per request that the caller waits here
    edge_ms: Floats  # (2, m) of which outside of the callee's spans
    edge_change_ms: Floats  # (m,) at the same calls per request
    edge_error_ms: Floats
    calls_change_ms: Floats  # (m,) by more or fewer calls, or calls of slower operations
    calls_error_ms: Floats
    below_change_ms: Floats  # (m,) by longer spans of the callee
    errors: Floats  # (2, m) erring calls per request
    lost: Floats  # (2, m) of which the callee saw nothing: refused, or waited for in vain
    reaching: Floats  # (m,) part of the edge's change that reaches the caller; nan: as of all the caller's calls


@dataclass(frozen=True, slots=True)
class Picture:
    """One service graph, two periods."""

    periods: Periods
    services: tuple[str, ...]
    virtual: tuple[str, ...]
    nodes: Nodes
    edges: Edges
    graph: nx.DiGraph

    def name(self, node: int) -> str:
        count = len(self.services)
        return self.services[node] if node < count else self.virtual[node - count]

    def number(self, service: str) -> int | None:
        found = np.searchsorted(np.asarray(self.services), service) if self.services else 0
        at = int(found)
        return at if at < len(self.services) and self.services[at] == service else None


def service_graph(edges: pl.DataFrame) -> nx.DiGraph:
    """Who calls whom, from EDGE_WINDOWS rows: nodes with `virtual`, edges with `connection` and `calls`.

    Calls of a service to itself are left out: they are part of it.
    """
    graph = nx.DiGraph()
    sums = (
        edges.group_by("caller", "callee")
        .agg(
            pl.col("connection").sort_by("calls", "connection").last(),
            pl.col("calls").sum(),
            virtual=pl.col("server_sum_ms").is_null().all()
            & pl.col("connection").is_in(["database", "external"]).all(),
        )
        .sort("caller", "callee")
    )
    for caller, callee, connection, calls, virtual in sums.iter_rows():
        graph.add_node(caller, virtual=False)
        if callee not in graph or not virtual:
            graph.add_node(callee, virtual=virtual)
        if caller != callee:
            graph.add_edge(caller, callee, connection=connection, calls=int(calls))
    return graph


def picture(frames: Frames, when: Periods) -> Picture:
    """Both periods of `frames` side by side."""
    selfs = collapsed_selfs(frames.selfs, when)
    edges = collapsed_edges(frames.edges, when)
    called = edges.filter(pl.col("server_sum_ms").is_not_null())
    services = tuple(sorted({*_names(selfs["service"]), *_names(edges["caller"]), *_names(called["callee"])}))
    virtual = tuple(sorted(set(_names(edges["callee"])) - set(services)))
    numbers = pl.DataFrame({"name": [*services, *virtual]}, schema={"name": pl.String}).with_row_index("no")
    asked, edges = entries(selfs, edges), _with_lost(edges, services)
    nodes = _nodes(selfs, asked, services)
    table = _edges(edges, numbers, nodes)
    view = Picture(when, services, virtual, nodes, table, _digraph(services, virtual, table))
    return replace(view, edges=replace(table, reaching=_reaching(view, selfs, edges, asked)))


def _reaching(view: Picture, selfs: pl.DataFrame, edges: pl.DataFrame, asked: pl.DataFrame) -> Floats:
    """Of each edge, the part of its change that reaches the caller, where calls overlap; else nan."""
    nodes, table = view.nodes, view.edges
    apart, waits = nodes.duration_ms - nodes.self_ms, table.wait_ms * table.waits
    found = np.full(len(table.caller), np.nan)
    edges = edges.filter(~pl.col("connection").is_in(list(UNWAITED))).with_columns(
        waited=pl.coalesce("client_sum_ms", "server_sum_ms").fill_null(0.0)
    )
    counts = table.calls * nodes.requests[:, table.caller]
    for service in candidates(apart, waits, counts, nodes.duration_ms[0], table.caller).tolist():
        mine = np.flatnonzero((table.caller == service) & table.waits)
        level = float(np.clip(apart[0, service] / max(float(waits[0, mine].sum()), 1e-9), 0.0, 1.0))
        callees = [view.name(int(callee)) for callee in table.callee[mine]]
        beta = reaching(view.name(service), selfs, edges, asked, callees, level)
        if beta is not None:
            found[mine] = beta
    return found


def collapsed_selfs(selfs: pl.DataFrame, when: Periods) -> pl.DataFrame:
    """Instances, hosts and versions summed up: one row per operation and window."""
    return by_window(selfs, ALIKE, ("requests", "errors", "origin_errors", "duration_sum_ms", "self_sum_ms"), when)


def collapsed_edges(edges: pl.DataFrame, when: Periods) -> pl.DataFrame:
    """Operations of the caller summed up; calls of a service to itself are part of it."""
    by = ("caller", "callee", "callee_operation", "connection")
    apart = edges.filter(pl.col("caller") != pl.col("callee"))
    return by_window(apart, by, ("calls", "errors", "client_sum_ms", "server_sum_ms"), when)


def _with_lost(edges: pl.DataFrame, services: tuple[str, ...]) -> pl.DataFrame:
    """Adds `lost`: erring calls that their callee, a service, has no span of.

    Such a call does not know the callee's operation, so it would look like a call of a new kind. Where they became
    common, calls of one caller to one callee are one series: what is waited in vain then is time of the edge.
    """
    unseen = pl.col("server_sum_ms").is_null() & pl.col("callee").is_in(list(services))
    edges = edges.with_columns(lost=pl.when(unseen).then("errors").otherwise(0.0))
    if not edges["lost"].sum():
        return edges
    after, before = pl.col("period") == 1, pl.col("period") == 0
    share = [pl.col("lost").filter(p).sum() / pl.col("calls").filter(p).sum().clip(1.0) for p in (before, after)]
    pair = ["caller", "callee"]
    hit = edges.group_by(pair).agg(rise=share[1] - share[0]).filter(pl.col("rise") > LOST)
    if not hit.height:
        return edges
    by = [*pair, "window_start_ns", "period"]
    one = (
        edges.join(hit, on=pair, how="semi")
        .group_by(by)
        .agg(
            pl.lit("").alias("callee_operation"),
            pl.lit("direct").alias("connection"),
            pl.col("calls", "errors", "client_sum_ms", "lost").sum(),
            pl.when(pl.col("server_sum_ms").is_not_null().any()).then(pl.col("server_sum_ms").sum()),
        )
    )
    rest = edges.join(hit, on=pair, how="anti")
    return pl.concat([rest, one.select(rest.columns)]).sort(*pair, "callee_operation", "connection", "window_start_ns")


def _nodes(selfs: pl.DataFrame, asked: pl.DataFrame, services: tuple[str, ...]) -> Nodes:
    entry = _aligned(levels(asked, ["service"], "requests", "duration_sum_ms", ["errors"]), services)
    requests = _stacked(entry, "n0", "n1")
    own = selfs.filter(pl.col("kind") != "Client")
    work = levels(own, ALIKE, "requests", "self_sum_ms", ["origin_errors"])
    at = _numbers(work["service"], services)
    safe = np.maximum(requests, 1.0)
    rate = _stacked(work, "n0", "n1") / safe[:, at]
    mean = _stacked(work, "mean0", "mean1", fill=np.nan)
    speed, mix, error = _standardized(rate, mean, work["error"].fill_null(np.inf).fill_nan(np.inf).to_numpy())
    is_entry = work["kind"].is_in(list(ENTRY_KINDS)).to_numpy()
    speed = speed + np.where(is_entry, 0.0, mix)  # more inner spans per request are the service's own doing
    count = len(services)
    origin = np.stack([summed(at, work[f"origin_errors{p}"].to_numpy(), count) for p in (0, 1)])
    own_ms = np.stack([summed(at, work[f"self_sum_ms{p}"].to_numpy(), count) for p in (0, 1)])
    return Nodes(
        requests=requests,
        duration_ms=_stacked(entry, "mean0", "mean1"),
        duration_change_ms=entry["change"].fill_null(0.0).to_numpy(),
        duration_error_ms=entry["error"].fill_null(np.inf).fill_nan(np.inf).to_numpy(),
        error_ratio=_stacked(entry, "errors0", "errors1") / safe,
        self_ms=own_ms / safe,
        speed_ms=summed(at, speed, count),
        speed_error_ms=np.sqrt(summed(at, error**2, count)),
        mix_ms=summed(at, np.where(is_entry, mix, 0.0), count),
        origin=origin / safe,
        client_origin=_client_origin(selfs, services) / safe,
    )


def _standardized(rate: Floats, mean: Floats, error: Floats) -> tuple[Floats, Floats, Floats]:
    """Change of rate × mean: (by mean at the middle rate, by rate at the middle mean, error of the first part).

    Midpoints make the two parts add up (Kitagawa 1955, doi:10.1080/01621459.1955.10501299). `rate` and `mean` are
    (2, k); where a mean is missing in one period, all of the change is one of rate.
    """
    known = np.isfinite(mean)
    level = np.where(known, mean, np.where(known[::-1], mean[::-1], 0.0))
    speed = rate.mean(axis=0) * (level[1] - level[0])
    mix = (rate[1] - rate[0]) * level.mean(axis=0)
    both = known.all(axis=0)
    noise = np.where(both, rate.mean(axis=0) * np.where(np.isfinite(error), error, np.abs(level).mean(axis=0)), 0.0)
    return speed, mix, noise


def entries(selfs: pl.DataFrame, edges: pl.DataFrame) -> pl.DataFrame:
    """Requests that enter each service, per window: spans of kind Server and Consumer; for a service without them
    (old SDKs give no kinds) calls into it; for one that nobody calls either, its operation of the largest duration."""
    keep = ["service", "window_start_ns", "period", "requests", "errors", "duration_sum_ms"]
    by, sums = ["service", "period"], ["requests", "errors", "duration_sum_ms"]
    served = selfs.filter(pl.col("kind").is_in(list(ENTRY_KINDS)))
    if served["service"].n_unique() == selfs["service"].n_unique():
        called = edges.filter(
            pl.col("server_sum_ms").is_not_null() & ~pl.col("callee").is_in(_names(served["service"]))
        )
        if not called.height:
            return summed_up(served, by, sums)
    called = edges.filter(pl.col("server_sum_ms").is_not_null()).select(
        pl.col("callee").alias("service"),
        "window_start_ns",
        "period",
        pl.col("calls").alias("requests"),
        "errors",
        pl.col("server_sum_ms").alias("duration_sum_ms"),
    )
    called = called.join(served.select("service").unique(), on="service", how="anti")
    rest = selfs.filter(pl.col("kind") != "Client").join(
        pl.concat([served.select("service"), called.select("service")]).unique(), on="service", how="anti"
    )
    largest = (
        rest.group_by("service", "operation")
        .agg(weight=pl.col("duration_sum_ms").sum() / pl.col("requests").sum())
        .sort("service", "weight", "operation", descending=[False, True, False])
        .group_by("service", maintain_order=True)
        .first()
    )
    rest = rest.join(largest.select("service", "operation"), on=["service", "operation"])
    parts = [served.select(keep), called.select(keep), rest.select(keep)]
    return summed_up(pl.concat(parts), by, sums)


def _names(column: pl.Series) -> list[str]:
    return column.unique().to_list()


def outside_ms() -> pl.Expr:
    """Time of an edge outside of the callee's spans, in ms. A message's consumer works after its producer has ended:
    the difference of their spans means nothing there."""
    waited = pl.coalesce("client_sum_ms", "server_sum_ms").fill_null(0.0)
    own = waited - pl.col("server_sum_ms").fill_null(0.0)
    return pl.when(pl.col("connection").is_in(list(UNWAITED))).then(0.0).otherwise(own)


def _edges(edges: pl.DataFrame, numbers: pl.DataFrame, nodes: Nodes) -> Edges:
    """A pair of services that both call and send messages is one edge, whose time is that of the calls."""
    waited = pl.coalesce("client_sum_ms", "server_sum_ms").fill_null(0.0)
    message = pl.col("connection").is_in(list(UNWAITED))
    rows = edges.with_columns(waited=pl.when(message).then(0.0).otherwise(waited), outside=outside_ms())
    by = ["caller", "callee", "callee_operation", "connection"]
    table = levels(rows, by, "calls", "outside", ["waited", "errors", "lost"])
    number = dict(zip(numbers["name"], numbers["no"], strict=True))
    caller = np.array([number[c] for c in table["caller"]], np.int64)
    callee = np.array([number[c] for c in table["callee"]], np.int64)
    safe = np.maximum(nodes.requests, 1.0)[:, caller]
    count = _stacked(table, "n0", "n1")
    calls = count / safe
    outside_mean = _stacked(table, "mean0", "mean1", fill=np.nan)
    waited_mean = np.where(count > 0, _stacked(table, "waited0", "waited1") / np.maximum(count, 1.0), np.nan)
    edge, _, error = _standardized(calls, outside_mean, table["error"].fill_null(np.inf).fill_nan(np.inf).to_numpy())
    total, by_calls, _ = _standardized(calls, waited_mean, np.zeros(table.height))
    _, group = np.unique(caller * len(number) + callee, return_inverse=True)
    m = int(group.max()) + 1 if len(group) else 0
    goes_on = table["connection"].is_in(list(UNWAITED)).to_numpy()
    busiest = np.lexsort((-count.sum(axis=0), goes_on, group))
    firsts = busiest[np.searchsorted(group[busiest], np.arange(m))]
    connection = tuple(table["connection"].gather(firsts)) if m else ()

    return Edges(
        caller=caller[firsts],
        callee=callee[firsts],
        connection=connection,
        waits=np.array([c not in UNWAITED for c in connection], bool),
        calls=np.stack([summed(group, c, m) for c in calls]),
        wait_ms=np.stack([summed(group, np.nan_to_num(calls[p] * waited_mean[p]), m) for p in (0, 1)]),
        edge_ms=np.stack([summed(group, np.nan_to_num(calls[p] * outside_mean[p]), m) for p in (0, 1)]),
        edge_change_ms=summed(group, edge, m),
        edge_error_ms=np.sqrt(summed(group, error**2, m)),
        calls_change_ms=summed(group, by_calls, m),
        calls_error_ms=np.sqrt(
            summed(group, (calls / safe).sum(axis=0) * np.nan_to_num(waited_mean).max(axis=0) ** 2, m)
        ),
        below_change_ms=summed(group, total - edge, m),
        errors=np.stack([summed(group, table[f"errors{p}"].to_numpy() / safe[p], m) for p in (0, 1)]),
        lost=np.stack([summed(group, table[f"lost{p}"].to_numpy() / safe[p], m) for p in (0, 1)]),
        reaching=np.full(m, np.nan),
    )


def summed(at: Ints, values: Floats, size: int) -> Floats:
    """Σ of `values` by number: (size,)."""
    return np.bincount(at, values, size).astype(np.float64)


def _digraph(services: tuple[str, ...], virtual: tuple[str, ...], edges: Edges) -> nx.DiGraph:
    graph = nx.DiGraph()
    graph.add_nodes_from(range(len(services) + len(virtual)))
    for i, (caller, callee) in enumerate(zip(edges.caller.tolist(), edges.callee.tolist(), strict=True)):
        graph.add_edge(caller, callee, edge=i)
    return graph


def _aligned(table: pl.DataFrame, services: tuple[str, ...]) -> pl.DataFrame:
    wanted = pl.DataFrame({"service": list(services)}, schema={"service": pl.String})
    return wanted.join(table, on="service", how="left", maintain_order="left")


def _client_origin(selfs: pl.DataFrame, services: tuple[str, ...]) -> Floats:
    """(2, services) errors that began in outgoing calls."""
    away = selfs.filter((pl.col("kind") == "Client") & (pl.col("origin_errors") > 0))
    at, period = _numbers(away["service"], services), away["period"].to_numpy()
    errors = away["origin_errors"].to_numpy()
    return np.stack([summed(at, np.where(period == p, errors, 0.0), len(services)) for p in (0, 1)])


def _numbers(names: pl.Series, services: tuple[str, ...]) -> Ints:
    number = {name: i for i, name in enumerate(services)}
    return np.array([number[name] for name in names.to_list()], np.int64)


def _stacked(table: pl.DataFrame, before: str, after: str, fill: float = 0.0) -> Floats:
    both = np.stack([table[name].to_numpy() for name in (before, after)]).astype(np.float64)
    return np.where(np.isnan(both), fill, both)
