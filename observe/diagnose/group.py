"""Symptoms that share a cause belong together: one fault, one diagnosis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import networkx as nx
import numpy as np

from observe.diagnose.blame import Blamer
from observe.diagnose.graph import Floats
from observe.diagnose.symptoms import STRONG, Symptom

CLAIM = 0.3
"""A suspect claims the symptoms of which it explains at least this much."""


@dataclass(frozen=True, slots=True)
class Group:
    """Indices of symptoms, and the suspect that claims them; None where nothing explains them."""

    members: tuple[int, ...]
    suspect: int | None


def groups(symptoms: Sequence[Symptom], blames: Sequence[Floats], blamer: Blamer) -> list[Group]:
    """The suspect that explains most takes what it explains, then the next; what is left joins what it touches."""
    left = list(range(len(symptoms)))
    found: list[Group] = []
    while left:
        total = np.sum([symptoms[i].weight * blames[i] for i in left], axis=0)
        best = int(np.argmax(total))
        mine = [i for i in left if blames[i][best] >= CLAIM]
        if not mine:
            break
        found.append(Group(tuple(mine), best))
        left = [i for i in left if i not in mine]
    strong = [g for g in found if any(symptoms[i].weight >= STRONG for i in g.members)]
    if strong:
        left += [i for g in found if g not in strong for i in g.members]
        found = strong
    return _joined(found, sorted(left), symptoms, blamer)


def _joined(found: list[Group], left: list[int], symptoms: Sequence[Symptom], blamer: Blamer) -> list[Group]:
    """Symptoms that nobody claims go with the group whose services they call or are called by."""
    undirected = blamer.picture.graph.to_undirected(as_view=True)
    extra: dict[int, list[int]] = {}
    alone: dict[int, list[int]] = {}
    for i in left:
        near = [
            (distance, k)
            for k, group in enumerate(found)
            if (distance := _distance(undirected, symptoms[i].service, group, symptoms)) is not None
        ]
        if near:
            extra.setdefault(min(near)[1], []).append(i)
        else:
            component = min(nx.node_connected_component(undirected, symptoms[i].service))
            alone.setdefault(component, []).append(i)
    merged = [Group((*g.members, *extra.get(k, [])), g.suspect) for k, g in enumerate(found)]
    return merged + [Group(tuple(members), None) for _, members in sorted(alone.items())]


def _distance(graph: nx.Graph, service: int, group: Group, symptoms: Sequence[Symptom]) -> int | None:
    """Hops from a service to the nearest of a group; None where nothing connects them."""
    there = {symptoms[i].service for i in group.members}
    if group.suspect is not None and group.suspect in graph:
        there.add(group.suspect)
    hops = nx.single_source_shortest_path_length(graph, service)
    reached = [hops[node] for node in there if node in hops]
    return min(reached) if reached else None
