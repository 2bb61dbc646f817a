"""Paths: from where users feel it, down the calls that carry most of the change, to the cause."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import networkx as nx
import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import breadth_first_order

from observe.diagnose.blame import Blamer
from observe.diagnose.graph import Picture
from observe.diagnose.symptoms import STRONG, Symptom


def path(service: str, members: Sequence[Symptom], judge: Blamer) -> tuple[str, ...]:
    """Services from the topmost symptom to `service`; it alone where no symptom leads there."""
    view = judge.picture
    target = view.number(service)
    if target is None:
        return (service,)
    start = topmost(target, members, judge)
    edges = view.edges
    carried = np.maximum(edges.below_change_ms, 0.0) + np.maximum(edges.edge_change_ms, 0.0)
    # Calls that fail carry no time; they count as much as the slowest that do.
    weights = np.where(judge.lost, 0.0, 1.0 / (0.01 + carried))
    way = nx.dijkstra_path(view.graph, start, target, weight=lambda u, v, d: float(weights[d["edge"]]))
    return tuple(view.name(n) for n in way)


def topmost(target: int, members: Sequence[Symptom], judge: Blamer) -> int:
    """The symptom's service that is nearest to users, of those whose calls lead to `target`; else `target`.

    Symptoms that merely follow (traffic) serve where there are no others. On a cycle, or where several entries show
    the symptom, the one with most requests from outside.
    """
    view = judge.picture
    above = reached(view, target, upwards=True)
    strong = {m.service for m in members if m.weight >= STRONG} & above
    there = (strong or {m.service for m in members} & above) | {target}
    tops = [s for s in sorted(there) if not _above(s, there, judge)]
    outside = judge.traffic.outside.max(axis=0)
    return max(tops or [target], key=lambda s: (not any(view.graph.predecessors(s)), outside[s], -s))


def _above(service: int, there: Collection[int], judge: Blamer) -> bool:
    """Whether another of `there` calls `service`, and is not called by it in turn."""
    view = judge.picture
    higher = (reached(view, service, upwards=True) & set(there)) - {service}
    return any(other not in reached(view, service) for other in higher)


def reached(view: Picture, node: int, *, upwards: bool = False) -> set[int]:
    """The node, and all that it calls, directly or not; or all that call it."""
    edges, size = view.edges, len(view.services) + len(view.virtual)
    ends = (edges.callee, edges.caller) if upwards else (edges.caller, edges.callee)
    matrix = csr_array((np.ones(len(edges.caller)), ends), shape=(size, size))
    return set(breadth_first_order(matrix, node, return_predecessors=False).tolist())
