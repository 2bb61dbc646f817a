"""Causes that lie in several services, a host or a release: the blame of all moves to one that stands for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from observe.diagnose.graph import Floats, Picture
from observe.diagnose.narrow import Ground
from observe.diagnose.releases import Train, trains
from observe.diagnose.symptoms import Symptom


@dataclass(frozen=True, slots=True)
class Shared:
    """Numbers are those of services in the picture."""

    picture: Picture
    hosts: Mapping[str, tuple[int, ...]]  # services that suffer on the host alone
    trains: Mapping[int, Train]  # by the service that stands for it

    def moved(self, symptom: Symptom, blame: Floats) -> Floats:
        """The blame of services of one host or release on the one that stands for them. Errors that began in only one
        service of a host are that one's own."""
        moved = blame.copy()
        for numbers in self.hosts.values():
            total = moved[list(numbers)].sum()
            if symptom.aspect == "errors" and moved[list(numbers)].max() >= 0.9 * total:
                continue
            moved[list(numbers)] = 0.0
            moved[self.stands_for(numbers)] = total
        for first, train in self.trains.items():
            numbers = self._numbers(train)
            total = moved[list(numbers)].sum()
            moved[list(numbers)] = 0.0
            moved[first] = total
        return moved

    def host_of(self, node: int, errors: bool) -> str:
        """The sick host that a service stands for, else ""; of `errors` only where it is the one that stands for it."""
        for host, numbers in self.hosts.items():
            if node in numbers and not (errors and node != self.stands_for(numbers)):
                return host
        return ""

    def stands_for(self, numbers: Sequence[int]) -> int:
        """The service that lost most time on the host."""
        nodes = self.picture.nodes
        return max(numbers, key=lambda n: (float(nodes.speed_ms[n] * nodes.requests[1, n]), self.picture.name(n)))

    def beside(self, node: int) -> frozenset[int]:
        """Services for which `node` stands."""
        train = self.trains.get(node)
        of_train = self._numbers(train) if train else ()
        of_hosts = [n for numbers in self.hosts.values() if self.stands_for(numbers) == node for n in numbers]
        return frozenset({*of_train, *of_hosts} - {node})

    def _numbers(self, train: Train) -> tuple[int, ...]:
        return tuple(n for service in train.services if (n := self.picture.number(service)) is not None)


def shared(given: Ground, picture: Picture, symptoms: Sequence[Symptom], blames: Sequence[Floats]) -> Shared:
    """What hosts and releases the symptoms have in common, from the blame of each service by itself."""
    weighted = [s.weight * blame for s, blame in zip(symptoms, blames, strict=True)]
    most, total = np.max(weighted, axis=0), np.sum(weighted, axis=0)
    numbers = {s: n for s in given.releases if (n := picture.number(s)) is not None}
    of_most, of_all = ({s: float(values[n]) for s, n in numbers.items()} for values in (most, total))
    found = trains(given.releases, given.arrived, of_most, of_all)
    return Shared(picture, given.hosts, {numbers[train.services[0]]: train for train in found})
