"""Blame: for each symptom, what part of it each suspect accounts for, after taking off what noise could have done.

A vector of blame has one place for every service, then every virtual node, then outside traffic.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from observe.diagnose import attribution
from observe.diagnose.attribution import SIGMAS, Split
from observe.diagnose.graph import Bools, Floats, Ints, Picture, summed
from observe.diagnose.symptoms import Symptom
from observe.diagnose.tails import Tails

SURGE_FROM, SURGE_SURE = 1.3, 1.6
"""Traffic from outside that grew less than the first does not count as a surge; from the second on it surely is one."""
RELEASED = 0.3
"""A bad release that accounts for this much of a symptom is not put down to traffic that rose meanwhile."""

BUSY, MANY = 50, 5
"""Requests on either side for a service's slowing down to count, and such services to tell what is usual."""
OUTLYING = 3.0
"""Robust standard deviations, of the logarithm of how much slower services got, beyond which load explains no more."""
ALONE = 0.75
"""Left to the one service in which errors begin while traffic surges: overload may have broken it."""
REMIXED = 0.15
"""Part of the caller's duration that another mix of calls must add to count."""
NEEDED = 1.5
"""Times as many calls as retries of failed ones need, from which they are made for another reason."""
SPENT = 1e-3
"""Part of a request's time below which a service's tail is not looked at."""


@dataclass(frozen=True, slots=True)
class Blamer:
    """Everything that the blame of several symptoms shares."""

    picture: Picture
    owner: Ints
    traffic: attribution.Traffic
    splits: dict[int, Split]
    tails: Callable[[Bools], Tails]  # of the services that are asked for
    tail_splits: dict[int, Split]  # filled at the first symptom that needs them: histograms cost
    lost: Bools  # (edges,) calls fail that the callee has no span of
    released: frozenset[int]  # services of which a new version arrived with the trouble, and is worse than the old

    @property
    def size(self) -> int:
        return len(self.picture.services) + len(self.picture.virtual) + 1

    @property
    def outside(self) -> int:
        return self.size - 1

    def blame(self, symptom: Symptom) -> Floats:
        """Parts of 1; their sum falls short of 1 by what is not explained."""
        if symptom.aspect == "traffic":
            return self._traffic(symptom)
        if symptom.aspect == "errors":
            found = self._errors(symptom.service)
        else:
            found = self._latency(symptom.service, symptom.sign)
        surge = self.surge(symptom.service) if symptom.sign > 0 else 0.0
        if sum(found[node] for node in self.released) >= RELEASED:
            surge = 0.0
        if surge:
            own = found * (self._alone(found) if symptom.aspect == "errors" else self.beyond())
            found = own + (found - own) * (1 - surge)
            found[self.outside] += surge * max(0.0, 1 - float(own.sum()))
        return found

    def beyond(self) -> Floats:
        """Per suspect, the part of its slowness that more traffic does not explain: load slows many services, by
        factors that resemble each other; what stands far out of them has another cause."""
        nodes, edges = self.picture.nodes, self.picture.edges
        count = len(self.picture.services)
        before = np.concatenate([nodes.self_ms[0], summed(edges.callee, edges.edge_ms[0], self.size - 1)[count:]])
        after = np.concatenate([nodes.self_ms[1], summed(edges.callee, edges.edge_ms[1], self.size - 1)[count:]])
        busy = (nodes.requests.min(axis=0) >= BUSY) & (nodes.self_ms.min(axis=0) > 0)
        if int(busy.sum()) < MANY:
            return np.zeros(self.size)
        factor = np.log(nodes.self_ms[1, busy] / nodes.self_ms[0, busy])
        middle = float(np.median(factor))
        spread = max(1.4826 * float(np.median(np.abs(factor - middle))), 0.1)
        usual = np.exp(max(middle, 0.0) + OUTLYING * spread)
        grown = np.maximum(after - before, 1e-9)
        left = np.clip(1 - (usual - 1) * before / grown, 0.0, 0.9)
        # Less than a half is within what one service may strain more than the others.
        return np.append(np.where((before > 0) & (left > 0.5), left, 0.0), 0.0)

    def _alone(self, found: Floats) -> Floats:
        """Errors under load begin in several places; nearly all in one is that one's own trouble, mostly."""
        most = int(np.argmax(found))
        alone = np.zeros(self.size)
        alone[most] = ALONE if found[most] >= 0.8 else 0.0
        return alone

    def surge(self, service: int) -> float:
        """How sure it is that more traffic from outside strains `service`: 0..1. Requests that got no slower are not
        strained: where they fail early, users simply come back sooner."""
        nodes = self.picture.nodes
        if nodes.duration_change_ms[service] < SIGMAS * nodes.duration_error_ms[service]:
            return 0.0
        total = self.traffic.total[:, service]
        ratio = min(self.entry_ratio(), (total[1] + 1e-3) / (total[0] + 1e-3))
        return float(np.clip((ratio - SURGE_FROM) / (SURGE_SURE - SURGE_FROM), 0.0, 1.0))

    def entry_ratio(self) -> float:
        """Outside requests of all services together, after over before."""
        outside = self.traffic.outside.sum(axis=1)
        return float((outside[1] + 1e-3) / (outside[0] + 1e-3))

    def _latency(self, service: int, sign: int) -> Floats:
        split = self.splits[service]
        found, explained = self._parts(split, sign)
        weak = sign * split.total < 3 * split.total_error or explained < 0.3 * abs(split.total)
        if weak:
            tail, more = self._parts(self._tail(service), sign)
            if more > 0:
                split, found, explained = self._tail(service), tail, more
        least = 0.7 * max(0.0, sign * split.total - SIGMAS * split.total_error)
        return found / max(explained, least, 1e-9)

    def _tail(self, service: int) -> Split:
        if not self.tail_splits:
            self.tail_splits.update(_tail_splits(self.picture, self.tails, self.splits))
        return self.tail_splits[service]

    def _parts(self, split: Split, sign: int) -> tuple[Floats, float]:
        """Blame in the unit of the split, and its sum."""
        found = np.zeros(self.size)
        services = len(self.picture.services)
        found[:services] = np.maximum(sign * split.own - SIGMAS * split.own_error, 0.0)
        edges = np.maximum(sign * split.edge - SIGMAS * split.edge_error, 0.0)
        np.add.at(found, self.owner, edges)
        calls = np.where(recounted(self.picture), np.maximum(sign * split.calls, 0.0), 0.0)
        np.add.at(found, self._who_recounts(), calls)
        found[np.abs(found) < 0.01 * abs(split.total)] = 0.0
        return found, float(found.sum())

    def _who_recounts(self) -> Ints:
        """More calls are the caller's doing, unless it repeats calls that fail: where the part p of them does, that
        takes 1 / (1 − p) calls for each that succeeds. Far more than that are not made for want of an answer."""
        edges = self.picture.edges
        failing = edges.errors[1] > edges.errors[0] + 0.05 * edges.calls[1]
        succeeding = 1.0 - edges.errors[1] / np.maximum(edges.calls[1], 1e-9)
        needed = edges.calls[0] / np.maximum(succeeding, 1e-3)
        return np.where(failing & (edges.calls[1] <= NEEDED * needed), edges.callee, edges.caller)

    def _errors(self, service: int) -> Floats:
        flow = attribution.errors(self.picture, service)
        found = np.zeros(self.size)
        found[: len(self.picture.services)] = flow.own
        for i in np.flatnonzero(flow.edge > 0.01).tolist():
            edges = self.picture.edges
            found += flow.edge[i] * self._behind(int(self.owner[i] if self.lost[i] else edges.callee[i]))
        return found

    def _behind(self, callee: int) -> Floats:
        """Who is to blame for calls that only their caller saw fail: a callee that got slow is timed out, and what
        made it slow is the cause; else the callee itself."""
        alone = np.zeros(self.size)
        alone[callee] = 1.0
        if callee >= len(self.picture.services) or not slower(self.picture)[callee]:
            return alone
        found, explained = self._parts(self.splits[callee], 1)
        return found / explained if explained > 0 else alone

    def _traffic(self, symptom: Symptom) -> Floats:
        """Walks up to where the change of the request rate began: outside, or a caller that calls more or less."""
        found = np.zeros(self.size)
        edges, total = self.picture.edges, self.traffic.total
        at, seen = symptom.service, set[int]()
        while at not in seen:
            seen.add(at)
            change = symptom.sign * (total[1, at] - total[0, at])
            if change <= 0:
                break
            outside = symptom.sign * (self.traffic.outside[1, at] - self.traffic.outside[0, at])
            if outside > 0.5 * change:
                found[self.outside] = min(1.0, outside / change)
                break
            into = np.flatnonzero(edges.callee == at)
            if not len(into):
                break
            if symptom.sign < 0 and np.any(self.lost[into]):
                # What calls it still asks as much; it does not answer.
                found[at] = 1.0
                break
            caller = edges.caller[into]
            by_count = symptom.sign * (edges.calls[1] - edges.calls[0])[into] * total.mean(axis=0)[caller]
            by_caller = symptom.sign * edges.calls.mean(axis=0)[into] * (total[1] - total[0])[caller]
            if by_count.max() >= by_caller.max():
                found[int(caller[int(by_count.argmax())])] = float(np.clip(by_count.max() / change, 0.0, 1.0))
                break
            at = int(caller[int(by_caller.argmax())])
        return found


def blamer(
    picture: Picture, tails: Callable[[Bools], Tails], services: Sequence[int], released: frozenset[int] = frozenset()
) -> Blamer:
    """Prepared for symptoms of the given services, and for calls that are given up to those that got slow."""
    wanted = np.array(sorted({*services, *np.flatnonzero(slower(picture)).tolist()}), np.int64)
    splits = dict(zip(wanted.tolist(), attribution.latency(picture, wanted), strict=True))
    lost = attribution.losing(picture)
    owner, traffic = attribution.owners(picture, lost), attribution.traffic(picture)
    return Blamer(picture, owner, traffic, splits, tails, {}, lost, released)


def _tail_splits(picture: Picture, measured: Callable[[Bools], Tails], splits: dict[int, Split]) -> dict[int, Split]:
    """The same weights on the time beyond the old P99 instead of on means. Services in which a request spends next to
    nothing, after as before, cannot have moved its tail, and histograms cost."""
    services = np.array(sorted(splits), np.int64)
    factor, weight = attribution.flow(picture)
    reached = attribution.reach(picture, services, weight)
    spent = reached * (picture.nodes.self_ms.max(axis=0) + _outside(picture))
    tails = measured((spent > SPENT * spent.sum(axis=1, keepdims=True)).any(axis=0))
    found = {}
    for row, service in zip(reached, services.tolist(), strict=True):
        on_edge = row[picture.edges.caller] * factor
        own, edge = row * tails.own, on_edge * tails.edge
        found[service] = Split(
            total=float(own.sum() + edge.sum()),
            total_error=0.0,
            own=own,
            own_error=row * tails.own_error,
            edge=edge,
            edge_error=on_edge * tails.edge_error,
            calls=np.zeros_like(edge),
            mix=np.zeros_like(own),
        )
    return found


def _outside(picture: Picture) -> Floats:
    """Time per request of each service in the calls that it makes, outside of their callees."""
    edges = picture.edges
    return summed(edges.caller, np.maximum(edges.edge_ms.max(axis=0), 0.0), len(picture.services))


def slower(picture: Picture) -> Bools:
    """Services whose requests clearly take longer than before."""
    nodes = picture.nodes
    return np.asarray(nodes.duration_change_ms > np.maximum(4 * nodes.duration_error_ms, 0.3 * nodes.duration_ms[0]))


def recounted(picture: Picture) -> Bools:
    """Edges whose calls per request changed by a quarter or more, beyond noise; or those that got longer because
    slower operations are called more often."""
    return counted(picture) | remixed(picture)


def remixed(picture: Picture) -> Bools:
    """Edges that take clearly longer for another mix of the same number of calls."""
    edges = picture.edges
    much = REMIXED * picture.nodes.duration_ms[0, edges.caller]
    return np.asarray((edges.calls_change_ms > np.maximum(much, 5 * edges.calls_error_ms)) & ~counted(picture))


def counted(picture: Picture) -> Bools:
    """Edges whose calls per request changed by a quarter or more, beyond noise."""
    edges = picture.edges
    requests = np.maximum(picture.nodes.requests[:, edges.caller], 1.0)
    change = np.abs(edges.calls[1] - edges.calls[0])
    error = np.sqrt(np.maximum(edges.calls.max(axis=0), 1e-3) * (1 / requests).sum(axis=0))
    return np.asarray((change > 0.25 * np.maximum(edges.calls[0], 0.02)) & (change > 5 * error))
