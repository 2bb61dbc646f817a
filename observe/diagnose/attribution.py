"""Who explains a symptom: its change split over everything that it waits for.

*Latency.* The mean duration of a service's requests is its own self time, plus for each callee what it waits there:
calls per request × (edge time + the callee's duration). Unrolled over the graph, with a_s the calls of service s for
one request of the symptom's service,

    Δ duration = Σ_s a_s · Δ self_s  +  Σ_edges a_caller · Δ edge  +  Σ_edges a_caller · Δ calls · wait  +  rest,

where `rest` is what the means of whole services do not resolve. Calls that run in parallel are waited for together: a
factor of the edge, the part of its change that reaches the caller, takes that into account (`parallel.py`); where one
change is all there is, it is the change of the caller's wait over the change of its calls.

*Errors.* A request that errs has one place where that began, so errors flow: at each service the rise is divided among
errors of its own, those of outgoing calls whose callee saw none, and those that the callees returned.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array

from observe.diagnose.graph import LOST, Bools, Edges, Floats, Ints, Picture, summed

MAX_LAYERS = 32
"""Calls deeper than this are not followed; it also ends the walk on cycles."""
MAX_FLOW = 4.0
"""No callee gets more than this weight for one unit of its callers: recursion must not blow up on a cycle."""
SIGMAS = 2.0
"""What a change must exceed its standard error by, before it takes part in the split."""


@dataclass(frozen=True, slots=True)
class Split:
    """One symptom's change by where it comes from. All parts in the unit of `total` (ms per request, or errors per
    request), signed like it: positive parts explain it."""

    total: float
    total_error: float
    own: Floats  # (services,)
    own_error: Floats
    edge: Floats  # (edges,)
    edge_error: Floats
    calls: Floats  # (edges,) more calls than before
    mix: Floats  # (services,) another mix of the operations that are asked for

    @property
    def rest(self) -> float:
        """What the parts leave open: they and this add up to the change."""
        return self.total - float(self.own.sum() + self.edge.sum() + self.calls.sum() + self.mix.sum())


def flow(picture: Picture) -> tuple[Floats, Floats]:
    """(factor, weight) per edge: how much of its change reaches the caller's requests, and how many requests of the
    callee one request of the caller waits for."""
    nodes, edges = picture.nodes, picture.edges
    count = len(picture.services)
    waits = np.where(edges.waits, 1.0, 0.0)
    change = summed(edges.caller, waits * (edges.wait_ms[1] - edges.wait_ms[0]), count)
    noise = np.sqrt(summed(edges.caller, waits * edges.edge_error_ms**2, count)) + nodes.speed_error_ms
    apart = nodes.duration_ms - nodes.self_ms
    level = np.clip(_ratio(apart[0], summed(edges.caller, waits * edges.wait_ms[0], count), 1.0), 0.0, 1.0)
    moved = np.abs(change) > np.maximum(3 * noise, 0.05 * nodes.duration_ms[0])
    alike = np.where(moved, np.clip(_ratio(apart[1] - apart[0], change, 1.0), 0.0, 1.0), level)[edges.caller]
    factor = waits * np.where(np.isnan(edges.reaching), alike, edges.reaching)
    return factor, edges.calls.mean(axis=0) * factor * _resemblance(picture)


def _resemblance(picture: Picture) -> Floats:
    """How far the callee's change, as this caller's calls saw it, is the callee's change over all its callers. It
    differs where callers use different operations; near 1 where nothing moved."""
    nodes, edges = picture.nodes, picture.edges
    count = len(picture.services)
    real = edges.callee < count
    at = np.where(real, edges.callee, 0)
    expected = edges.calls.mean(axis=0) * nodes.duration_change_ms[at] if count else np.zeros(len(at))
    clear = real & (np.abs(nodes.duration_change_ms[at]) > 4 * nodes.duration_error_ms[at]) if count else real
    return np.where(clear, np.clip(_ratio(edges.below_change_ms, expected, 1.0), 0.0, 1.5), 1.0)


def reach(picture: Picture, starts: Ints, weight: Floats) -> Floats:
    """Requests of every service that one request of each start waits for: (starts, services). Terminates on cycles."""
    count = len(picture.services)
    real = picture.edges.callee < count
    caller, callee, weight = picture.edges.caller[real], picture.edges.callee[real], weight[real]
    matrix = csr_array((weight, (caller, callee)), shape=(count, count))  # few pairs of services call each other
    layer = np.zeros((len(starts), count))
    layer[np.arange(len(starts)), starts] = 1.0
    total = layer.copy()
    for _ in range(MAX_LAYERS):
        layer = np.minimum(layer @ matrix, MAX_FLOW)
        if not np.any(layer > 1e-6):
            break
        total += layer
    return np.minimum(total, 64.0)


def latency(picture: Picture, services: Ints) -> list[Split]:
    """The change of the mean latency of each service's requests, split."""
    nodes, edges = picture.nodes, picture.edges
    factor, weight = flow(picture)
    reached = reach(picture, services, weight)
    found = []
    for row, service in zip(reached, services.tolist(), strict=True):
        on_edge = row[edges.caller] * factor
        found.append(
            Split(
                total=float(nodes.duration_change_ms[service]),
                total_error=float(nodes.duration_error_ms[service]),
                own=row * nodes.speed_ms,
                own_error=row * nodes.speed_error_ms,
                edge=on_edge * edges.edge_change_ms,
                edge_error=on_edge * edges.edge_error_ms,
                calls=on_edge * edges.calls_change_ms,
                mix=row * nodes.mix_ms,
            )
        )
    return found


@dataclass(frozen=True, slots=True)
class ErrorFlow:
    """Where the errors of one service began, as parts of 1: in services, or on edges."""

    own: Floats  # (services,)
    edge: Floats  # (edges,)


def errors(picture: Picture, service: int) -> ErrorFlow:
    """Follows the errors of `service` down to where they began."""
    nodes, edges = picture.nodes, picture.edges
    count = len(picture.services)
    own_rise = _clear_rise(nodes.origin, nodes.requests)
    local, below = error_edges(picture)
    own, edge = np.zeros(count), np.zeros(len(edges.caller))
    mass = np.zeros(count)
    mass[service] = 1.0
    for _ in range(MAX_LAYERS):
        rise = own_rise + summed(edges.caller, local + below, count)
        share = np.where(rise > 0, mass / np.where(rise > 0, rise, 1.0), 0.0)
        own += np.where(rise > 0, share * own_rise, 0.0)
        edge += share[edges.caller] * local
        passed = share[edges.caller] * below
        real = edges.callee < count
        mass = summed(edges.callee[real], passed[real], count)
        if mass.sum() < 1e-6:
            break
    return ErrorFlow(own, edge)


def error_edges(picture: Picture) -> tuple[Floats, Floats]:
    """Rise of erring calls per request of the caller: (seen by the caller alone, returned by the callee)."""
    nodes, edges = picture.nodes, picture.edges
    count = len(picture.services)
    rise = _clear_rise(edges.errors, nodes.requests[:, edges.caller])
    real = edges.callee < count
    at = np.where(real, edges.callee, 0)
    returned = edges.calls[1] * (nodes.error_ratio[1] - nodes.error_ratio[0])[at] if count else np.zeros(len(at))
    client = np.maximum(nodes.client_origin[1] - nodes.client_origin[0], 0.0)[edges.caller] if count else rise
    # The errors that a caller's own client spans began bound what it saw alone; the rest came from the callee.
    alone = np.where(real, np.minimum(np.maximum(rise - np.maximum(returned, 0.0), 0.0), client), rise)
    alone = np.where(alone > 0.05 * rise, alone, 0.0)
    return alone, rise - alone


def _clear_rise(rate: Floats, requests: Floats) -> Floats:
    """Rise of a rate per request where it exceeds its noise, else 0. `rate` and `requests` are (2, k)."""
    safe = np.maximum(requests, 1.0)
    pooled = (rate * safe).sum(axis=0) / safe.sum(axis=0)
    error = np.sqrt(np.maximum(pooled, 1.0 / safe.sum(axis=0)) * (1 / safe[0] + 1 / safe[1]))
    rise = rate[1] - rate[0]
    return np.where(rise > 3 * error, rise, 0.0)


@dataclass(frozen=True, slots=True)
class Traffic:
    """Requests per second from outside, per service: what arrives less what other services send."""

    outside: Floats  # (2, services)
    total: Floats  # (2, services)

    def ratio(self) -> Floats:
        """After over before of what arrives from outside; 1 where that is little."""
        small = (self.outside.max(axis=0) < 0.05) | (self.outside.max(axis=0) < 0.2 * self.total.max(axis=0))
        return np.where(small, 1.0, _ratio(self.outside[1] + 1e-3, self.outside[0] + 1e-3, 1.0))


def traffic(picture: Picture) -> Traffic:
    """Rates in both periods; a service that is not called from inside gets its requests from outside."""
    nodes, edges = picture.nodes, picture.edges
    count = len(picture.services)
    lengths = np.array([[picture.periods.before_s], [picture.periods.after_s]])
    real = edges.callee < count
    sent = edges.calls * nodes.requests[:, edges.caller]
    inside = np.stack([summed(edges.callee[real], sent[p][real], count) for p in (0, 1)])
    total = nodes.requests / np.maximum(lengths, 10.0)
    return Traffic(np.maximum(total - inside / np.maximum(lengths, 10.0), 0.0), total)


def owners(picture: Picture, lost: Bools) -> Ints:
    """For each edge that grew, the end that is to blame for it, by number; the callee where nothing tells them apart.

    A node whose network, connections or processor suffer shows it on all edges that touch it; an edge of a healthy
    node grew only because of its other end. So each end's claim is the time on its grown edges × the part of its
    edges' calls that grew, and its own self time's rise counts for it too. Where calls get `lost`, the silent end is
    to blame, unless a caller loses what it sends to anybody.
    """
    nodes, edges = picture.nodes, picture.edges
    count, total = len(picture.services), len(picture.services) + len(picture.virtual)
    requests = nodes.requests.mean(axis=0)[edges.caller]
    grown = edge_grew(edges)
    busy = edges.calls[1] * nodes.requests[1][edges.caller]
    rise = np.where(grown, edges.edge_change_ms * requests, 0.0)
    ends = np.concatenate([edges.caller, edges.callee])
    touched = summed(ends, np.concatenate([busy, busy]), total)
    moved = summed(ends, np.concatenate([busy * grown, busy * grown]), total)
    claim = summed(ends, np.concatenate([rise, rise]), total) * _ratio(moved, touched, 0.0)
    clear = nodes.speed_ms > 4 * nodes.speed_error_ms
    claim[:count] += np.where(clear, nodes.speed_ms * nodes.requests.mean(axis=0), 0.0)
    by_claim = np.where(claim[edges.caller] > 1.05 * claim[edges.callee], edges.caller, edges.callee)
    return np.where(lost, np.where(cut_off(picture, lost)[edges.caller], edges.caller, edges.callee), by_claim)


def losing(picture: Picture) -> Bools:
    """Edges on which calls fail since the onset that the callee has no span of."""
    edges = picture.edges
    rise = _clear_rise(edges.lost, picture.nodes.requests[:, edges.caller])
    return np.asarray(rise > LOST * edges.calls[1])


def cut_off(picture: Picture, lost: Bools) -> Bools:
    """(services and virtual nodes,) callers that lose calls to nearly all services that they call, to two at least,
    while others reach those: the trouble is at their end."""
    edges = picture.edges
    count, total = len(picture.services), len(picture.services) + len(picture.virtual)
    real = (edges.callee < count) & edges.waits
    calls = summed(edges.caller, (real & (edges.calls[1] > 0)).astype(np.float64), total)
    losses = summed(edges.caller, (real & lost).astype(np.float64), total)
    reached = summed(edges.callee, (real & ~lost & (edges.calls[1] > 0)).astype(np.float64), total) > 0
    elsewhere = summed(edges.caller, (real & lost & reached[edges.callee]).astype(np.float64), total)
    return np.asarray((losses >= 2) & (losses >= 0.8 * calls) & (elsewhere > 0))


def edge_grew(edges: Edges) -> Bools:
    """Edges whose own time rose beyond noise."""
    floor = np.maximum(0.3 * edges.calls.mean(axis=0), 0.1 * edges.edge_ms[0])
    return np.asarray(edges.edge_change_ms > np.maximum(4 * edges.edge_error_ms, floor))


def _ratio(top: Floats, bottom: Floats, otherwise: float) -> Floats:
    small = np.abs(bottom) < 1e-9
    return np.where(small, otherwise, top / np.where(small, 1.0, bottom))
