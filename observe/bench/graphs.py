"""Random fleets with a fault in them: request trees simulated span by span, and rolled up into frames.

Every span gets a start and an end; self time, error origin and edges follow from the tree as the store computes them
from real spans. All draws come from the generator that is passed in, so a case is its seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

FAULTS = (
    "latency",
    "errors",
    "database",
    "network",
    "instance",
    "version",
    "release",
    "gpu",
    "host",
    "timeout",
    "traffic",
    "crash",
    "repeats",
    "storm",
    "none",
)
LARGE = 40
"""Fleets of more services have several entry services, and are as deep as this one: else most would get no request."""
PER_ENTRY = 12


@dataclass(frozen=True, slots=True)
class Call:
    """One call site. `callee` is an operation's index, or -1 for a virtual node named by `virtual`."""

    callee: int
    virtual: str
    probability: float
    parallel: bool  # starts together with the call before it
    edge_ms: float  # network and connection, there and back; for a virtual node its whole time
    waits: bool = True  # else a message: the caller goes on at once
    retries: bool = False  # calls once more where the first call errs


@dataclass(frozen=True, slots=True)
class Operation:
    service: str
    name: str
    self_ms: float
    sigma: float  # of the lognormal
    error_ratio: float
    calls: tuple[Call, ...]


@dataclass(frozen=True, slots=True)
class Instance:
    name: str
    service: str
    version: str
    host: str
    gpu: str = ""


@dataclass(frozen=True, slots=True)
class Fleet:
    operations: tuple[Operation, ...]
    instances: tuple[Instance, ...]
    roots: tuple[int, ...]  # operations that users call

    @property
    def services(self) -> list[str]:
        return sorted({o.service for o in self.operations})

    def instances_of(self, service: str) -> list[int]:
        return [i for i, instance in enumerate(self.instances) if instance.service == service]


@dataclass(frozen=True, slots=True)
class Fault:
    """What goes wrong from `at_s` on. `service` and `resource` are the truth that a diagnosis is judged by."""

    kind: str
    service: str = ""
    resource: str = ""
    factor: float = 1.0  # of self time, edge time, or traffic
    extra_ms: float = 0.0
    probability: float = 1.0  # that a request is hit
    at_s: float = 600.0
    instances: frozenset[int] = field(default_factory=frozenset)  # those that are hit, where not all are
    services: frozenset[str] = frozenset()  # that a release hurts, where they are several


def random_fleet(rng: np.random.Generator, services: int, *, max_tree: float = 30.0) -> Fleet:
    """A call graph in which every service is reachable; names are random, so that nothing can depend on their order."""
    names = [f"svc-{x:04x}" for x in rng.choice(65536, size=services, replace=False)]
    operations: list[Operation] = []
    sizes: list[float] = []
    ops_of: list[list[int]] = [[] for _ in range(services)]
    entries = max(1, services // PER_ENTRY) if services > LARGE else 1
    reach = services // 4 if services > LARGE else 6
    parents = [-1] * entries + [int(rng.integers(max(0, i - reach), i)) for i in range(entries, services)]
    for i in range(services - 1, -1, -1):
        must = [c for c in range(i + 1, services) if parents[c] == i]
        for o in range(1 + int(rng.integers(0, 3))):
            calls = _calls(rng, i, must if o == 0 else [], ops_of, sizes, max_tree)
            if o and i < entries and must:  # other entry operations use part of the fleet
                calls = _calls(rng, i, [c for c in must if rng.random() < 0.6], ops_of, sizes, max_tree)
            ops_of[i].append(len(operations))
            sizes.append(1 + sum(c.probability * (sizes[c.callee] if c.callee >= 0 else 1) for c in calls))
            operations.append(
                Operation(
                    names[i],
                    f"/op{o}",
                    float(np.exp(rng.uniform(np.log(2), np.log(60)))),
                    float(rng.uniform(0.3, 0.9)),
                    float(rng.choice([0.0, 0.0005, 0.002])),
                    tuple(calls),
                )
            )
    bare = Fleet(tuple(operations), (), tuple(op for entry in range(entries) for op in ops_of[entry]))
    used = _traffic(bare)
    busy = [s for s in names[entries:] if used.get(s, 0.0) >= 0.3 * share(bare)] or names[entries:]
    return replace(bare, instances=_instances(rng, names, str(rng.choice(busy))))


def _calls(
    rng: np.random.Generator,
    service: int,
    must: Sequence[int],
    ops_of: Sequence[Sequence[int]],
    sizes: Sequence[float],
    max_tree: float,
) -> list[Call]:
    calls: list[Call] = []
    wanted = list(must)
    if rng.random() < 0.3 and service + 1 < len(ops_of):
        wanted.append(int(rng.integers(service + 1, len(ops_of))))
    total = 1.0
    for callee in wanted:
        op = int(rng.choice(ops_of[callee]))
        probability = float(rng.choice([1.0, 1.0, 0.7, 0.4]))
        if total + probability * sizes[op] > max_tree:
            op = min(ops_of[callee], key=lambda o: sizes[o])
            probability = min(probability, 0.4)
        total += probability * sizes[op]
        parallel, edge_ms = bool(rng.random() < 0.3), float(rng.uniform(0.3, 3.0))
        waits, retries = bool(rng.random() < 0.9), bool(rng.random() < 0.2)
        calls.append(Call(op, "", probability, parallel, edge_ms, waits, retries and waits))
    if rng.random() < 0.35 or not calls:
        name = f"db-{int(rng.integers(0, max(1, len(ops_of) // 4)))}"
        calls.append(Call(-1, name, 1.0, False, float(np.exp(rng.uniform(np.log(1), np.log(15))))))
    return calls


def _instances(rng: np.random.Generator, names: Sequence[str], gpu_service: str) -> tuple[Instance, ...]:
    hosts = [f"host-{x:03x}" for x in rng.choice(4096, size=max(3, len(names) // 2), replace=False)]
    found: list[Instance] = []
    for name in names:
        for k in range(1 + int(rng.integers(0, 3)) + (name == gpu_service)):
            gpu = f"GPU-{rng.integers(0, 2**32):08x}" if name == gpu_service else ""
            host = f"gpu-host-{k}" if gpu else str(rng.choice(hosts))
            found.append(Instance(f"{name}-{rng.integers(0, 2**32):08x}", name, "1.0.0", host, gpu))
    return tuple(found)


def share(fleet: Fleet) -> float:
    """Of the requests of all users, what each of the entry operations of a large fleet gets beside those of a small."""
    return min(1.0, 3 / len(fleet.roots))


def random_fault(rng: np.random.Generator, fleet: Fleet, kind: str, at_s: float = 600.0) -> tuple[Fleet, Fault]:
    """A fault of `kind` in a service that receives traffic, and the fleet that it needs (a release adds a version)."""
    used, enough = _traffic(fleet), 0.2 * share(fleet)
    heavy = [s for s in fleet.services if used.get(s, 0.0) >= enough]
    service = str(rng.choice(heavy))
    hit = float(rng.choice([1.0, 1.0, 0.2]))
    factor = float(rng.uniform(3, 8))
    fault = Fault(kind, service, "", factor, float(rng.uniform(30, 300)), hit, at_s)
    many = [s for s in heavy if len(fleet.instances_of(s)) > 1]
    if kind == "none":
        return fleet, Fault(kind, at_s=at_s)
    if kind == "errors":
        return fleet, replace(fault, probability=float(rng.uniform(0.1, 0.6)))
    if kind == "timeout":
        service = _called(rng, fleet, heavy)
        return fleet, replace(
            fault, service=service, factor=1.0, extra_ms=8000.0, probability=float(rng.uniform(0.1, 0.9))
        )
    if kind == "storm":
        service = _called(rng, fleet, heavy)
        return fleet, replace(fault, service=service, factor=2.0, probability=float(rng.uniform(0.3, 0.6)))
    if kind == "crash":
        service = _called(rng, fleet, heavy)
        return fleet, replace(
            fault, service=service, factor=1.0, extra_ms=0.0, probability=float(rng.choice([1.0, 0.5]))
        )
    if kind == "repeats":
        callers = {o.service for o in fleet.operations if any(c.waits for c in o.calls)}
        service = str(rng.choice([s for s in heavy if s in callers] or heavy))
        return fleet, replace(fault, service=service, factor=float(rng.integers(3, 7)), extra_ms=0.0, probability=1.0)
    if kind == "traffic":
        return fleet, replace(fault, service=fleet.operations[fleet.roots[0]].service, factor=2.5, probability=1.0)
    if kind == "database":
        used_by = sorted({(o.service, c.virtual) for o in fleet.operations for c in o.calls if c.virtual})
        hot = [(s, v) for s, v in used_by if used.get(s, 0.0) >= enough]
        if not hot:
            return random_fault(rng, fleet, "latency", at_s)
        service, name = hot[int(rng.integers(0, len(hot)))]
        return fleet, replace(fault, service=service, resource=name)
    if kind in ("instance", "version") and many:
        service = str(rng.choice(many))
        chosen = int(rng.choice(fleet.instances_of(service)))
        if kind == "instance":
            name = fleet.instances[chosen].name
            return fleet, replace(fault, service=service, resource=name, instances=frozenset({chosen}))
        return _released(fleet, replace(fault, service=service, resource="1.1.0"), chosen)
    if kind == "release":
        return _rolled_out(rng, fleet, replace(fault, resource="2.0.0", probability=1.0), heavy)
    if kind == "gpu":
        gpus = [i for i, instance in enumerate(fleet.instances) if instance.gpu]
        chosen = int(rng.choice(gpus))
        instance = fleet.instances[chosen]
        return fleet, replace(
            fault, service=instance.service, resource=instance.gpu, instances=frozenset({chosen}), probability=1.0
        )
    if kind == "host":
        on: dict[str, list[int]] = {}
        for i, instance in enumerate(fleet.instances):
            on.setdefault(instance.host, []).append(i)
        shared = sorted(
            h
            for h, members in on.items()
            if len({fleet.instances[i].service for i in members if used.get(fleet.instances[i].service, 0) >= enough})
            > 1
        )
        if shared:
            host = str(rng.choice(shared))
            return fleet, replace(fault, service="", resource=host, probability=1.0, instances=frozenset(on[host]))
    return fleet, replace(fault, kind="network" if kind == "network" else "latency")


def _called(rng: np.random.Generator, fleet: Fleet, heavy: Sequence[str]) -> str:
    """One of `heavy` that others wait for."""
    called = {
        fleet.operations[c.callee].service for o in fleet.operations for c in o.calls if c.callee >= 0 and c.waits
    }
    return str(rng.choice([s for s in heavy if s in called] or list(heavy)))


def _released(fleet: Fleet, fault: Fault, replaced: int) -> tuple[Fleet, Fault]:
    """From the fault on a new instance of a new version takes the place of an old one."""
    old = fleet.instances[replaced]
    fresh = Instance(old.name + "-new", old.service, fault.resource, old.host, old.gpu)
    grown = replace(fleet, instances=(*fleet.instances, fresh))
    return grown, replace(fault, instances=frozenset({len(fleet.instances)}), extra_ms=fault.extra_ms)


def _rolled_out(rng: np.random.Generator, fleet: Fleet, fault: Fault, heavy: Sequence[str]) -> tuple[Fleet, Fault]:
    """Some services get one new version on all of their instances; two or three of them are hurt by it."""
    chosen = rng.permutation(np.array(sorted(heavy)))[: int(rng.integers(3, 6))].tolist()
    hurt = frozenset(chosen[: int(rng.integers(2, 4))])
    old = [i for i in fleet.instances if i.service in chosen]
    fresh = [Instance(f"{i.name}-new", i.service, fault.resource, i.host, i.gpu) for i in old]
    first = len(fleet.instances)
    bad = frozenset(first + n for n, i in enumerate(fresh) if i.service in hurt)
    grown = replace(fleet, instances=(*fleet.instances, *fresh))
    return grown, replace(fault, service=chosen[0], instances=bad, services=hurt)


def _traffic(fleet: Fleet) -> dict[str, float]:
    """Requests of each service per request of a user, entry operations being equally likely."""
    found: dict[str, float] = {}
    pending = [(root, 1.0 / len(fleet.roots)) for root in fleet.roots]
    while pending:
        op, weight = pending.pop()
        operation = fleet.operations[op]
        found[operation.service] = found.get(operation.service, 0.0) + weight
        pending += [(c.callee, weight * c.probability) for c in operation.calls if c.callee >= 0]
    return found
