"""Paths: from where users feel it, down the calls that carry most of the change, to the cause."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import networkx as nx
import numpy as np

from observe.diagnose.blame import Blamer
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
    above = {target, *nx.ancestors(view.graph, target)}
    strong = {m.service for m in members if m.weight >= STRONG} & above
    there = (strong or {m.service for m in members} & above) | {target}
    tops = [s for s in sorted(there) if not _above(s, there, judge)]
    outside = judge.traffic.outside.max(axis=0)
    return max(tops or [target], key=lambda s: (not any(view.graph.predecessors(s)), outside[s], -s))


def _above(service: int, there: Collection[int], judge: Blamer) -> bool:
    """Whether another of `there` calls `service`, and is not called by it in turn."""
    graph = judge.picture.graph
    higher = (nx.ancestors(graph, service) & set(there)) - {service}
    return any(other not in nx.descendants(graph, service) for other in higher)
