"""Random fleets as plans: who calls whom, on which instances and hosts, how fast, and which fault happens when.

Independent of what detection and diagnosis know: nothing here is tuned to them. All draws come from one generator.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

MINUTE_MS = 60_000.0
FAULTS = (
    "latency_service",
    "latency_operation",
    "latency_fraction",
    "errors_service",
    "errors_operation",
    "instance",
    "version_latency",
    "version_errors",
    "database",
    "network",
    "gpu",
    "host",
    "crash",
    "traffic",
    "none",
)
NAMES = (
    *("gateway", "auth", "session", "intent", "router", "retriever", "reranker", "embedder", "prompt-builder"),
    *("guardrail", "llm-engine", "vision", "speech", "summarizer", "billing", "quota", "profile", "catalog"),
    *("search", "ranking", "feature-store", "notifier", "audit-log", "files", "scheduler", "pricing"),
)
DATABASES = (
    *(("postgresql", "orders-db"), ("redis", "cache"), ("mongodb", "documents"), ("qdrant", "vectors")),
    *(("mysql", "accounts-db"), ("redis", "sessions"), ("postgresql", "ledger")),
)
VERBS = ("GET", "POST", "PUT")
NOUNS = ("items", "chat", "users", "documents", "sessions", "answers", "scores", "tokens", "lists", "models")
MAX_SPANS_PER_REQUEST = 40.0
MAX_SPANS_PER_S = 450.0
RPC: Literal["rpc"] = "rpc"
DATABASE: Literal["database"] = "database"
EXTERNAL: Literal["external"] = "external"


@dataclass(frozen=True, slots=True)
class Instance:
    id: str
    service: int
    host: int
    version: str
    gpu: str = ""


@dataclass(frozen=True, slots=True)
class Service:
    name: str
    layer: int
    instances: tuple[int, ...]  # indexes into Plan.instances; those of a new version come after the others
    client_spans: bool  # whether its outgoing calls have spans of their own
    inference: bool
    rollout_ms: float = float("inf")  # from then on the instances of the new version take their part
    new: tuple[int, ...] = ()  # instances of the new version


@dataclass(frozen=True, slots=True)
class Call:
    kind: Literal["rpc", "database", "external"]
    target: int  # operation, or index into Plan.virtuals
    probability: float
    required: float  # probability that its failure is the caller's failure
    retries: bool
    median_ms: float = 0.0  # of virtual targets
    statement: str = ""


@dataclass(frozen=True, slots=True)
class Operation:
    service: int
    name: str
    median_ms: float  # own work
    sigma: float
    error_p: float
    shares: tuple[float, ...]  # parts of the own work before, between and after the groups of calls
    groups: tuple[tuple[Call, ...], ...]  # calls of one group run in parallel, groups one after the other
    internal: bool  # whether the first part is a span of its own


@dataclass(frozen=True, slots=True)
class Fault:
    """What goes wrong in [start_ms, end_ms). Empty sets mean: not limited in this respect."""

    kind: str
    start_ms: float = float("inf")
    end_ms: float = float("inf")
    services: frozenset[int] = frozenset()
    operations: frozenset[int] = frozenset()
    instances: frozenset[int] = frozenset()
    virtual: int = -1
    factor: float = 1.0
    add_ms: float = 0.0
    fraction: float = 1.0  # of requests
    error_p: float = 0.0
    host: int = -1


@dataclass(frozen=True, slots=True)
class Plan:
    services: tuple[Service, ...]
    instances: tuple[Instance, ...]
    operations: tuple[Operation, ...]
    virtuals: tuple[tuple[str, str, str], ...]  # kind, system, name
    entries: tuple[tuple[int, float], ...]  # operation, requests per second
    hosts: int
    network_ms: float
    dcgm: bool  # GPU metrics by an exporter on the host, rather than by the service

    def callers(self, service: int) -> set[int]:
        """Services that call `service`."""
        return {
            o.service
            for o in self.operations
            for g in o.groups
            for c in g
            if c.kind == RPC and self.operations[c.target].service == service
        }

    def users(self, virtual: int) -> set[int]:
        """Services that call a database or outside API."""
        return {
            o.service for o in self.operations for g in o.groups for c in g if c.kind != RPC and c.target == virtual
        }


@dataclass(slots=True)
class _Draft:
    services: list[Service] = field(default_factory=list)
    instances: list[Instance] = field(default_factory=list)
    operations: list[Operation] = field(default_factory=list)


def draw_plan(rng: np.random.Generator) -> Plan:
    """A fleet of 8 to 20 services."""
    count = int(rng.integers(8, 21))
    hosts = int(rng.integers(3, 9))
    layers = np.sort(np.concatenate([[0, 1, 2], rng.integers(1, 5, count - 3)]))
    virtuals = _draw_virtuals(rng, count)
    draft = _Draft()
    for number, name in enumerate(rng.permutation(NAMES)[:count]):
        _add_service(draft, rng, str(name), int(layers[number]), number, hosts, last=number == count - 1)
    targets = _draw_operations(draft, rng, len(virtuals))
    entries = _draw_entries(draft, rng, targets)
    return Plan(
        services=tuple(draft.services),
        instances=tuple(draft.instances),
        operations=tuple(draft.operations),
        virtuals=virtuals,
        entries=entries,
        hosts=hosts,
        network_ms=float(rng.uniform(0.2, 1.5)),
        dcgm=bool(rng.random() < 0.5),
    )


def _draw_virtuals(rng: np.random.Generator, services: int) -> tuple[tuple[str, str, str], ...]:
    chosen = rng.permutation(len(DATABASES))[: max(2, services // 3)]
    databases = tuple((DATABASE, *DATABASES[i]) for i in sorted(chosen))
    return (*databases, (EXTERNAL, "http", "api.models.example")) if rng.random() < 0.4 else databases


def _add_service(
    draft: _Draft, rng: np.random.Generator, name: str, layer: int, number: int, hosts: int, *, last: bool
) -> None:
    inference = layer >= 2 and (last or rng.random() < 0.15)
    replicas = int(rng.integers(2, 5)) if inference else int(rng.integers(1, 5))
    first = len(draft.instances)
    for replica in range(replicas):
        gpu = f"GPU-{int(rng.integers(1 << 32)):08x}-{number:02d}{replica:02d}" if inference else ""
        draft.instances.append(Instance(f"{name}-{replica}", number, int(rng.integers(hosts)), "1.4.2", gpu))
    ids = tuple(range(first, first + replicas))
    draft.services.append(Service(name, layer, ids, bool(rng.random() < 0.75), inference))


def _draw_operations(draft: _Draft, rng: np.random.Generator, virtuals: int) -> list[int]:
    """Operations from the bottom up, so that each calls only what exists: no cycles among operations, though services
    may call each other both ways. Returns the operations of the first layer."""
    top: list[int] = []
    back = [0] if rng.random() < 0.3 else []
    if back:
        # Called from below: what is a cycle among services is none among operations.
        upper = [i for i, s in enumerate(draft.services) if s.layer in (1, 2) and not s.inference]
        draft.operations.append(_draw_operation(draft, rng, int(rng.choice(upper or [1])), []))
    for number in reversed(range(len(draft.services))):
        service = draft.services[number]
        for _ in range(int(rng.integers(1, 4))):
            below = [i for i, o in enumerate(draft.operations) if draft.services[o.service].layer > service.layer]
            near = [i for i in below if draft.services[draft.operations[i].service].layer == service.layer + 1]
            home = number % virtuals if rng.random() < 0.85 else int(rng.integers(virtuals))
            calls = _draw_calls(rng, near or below, below, home, leaf=service.inference)
            if back and service.layer >= 2 and not service.inference and rng.random() < 0.2:
                calls.append(_rpc(rng, back[0]))
            if service.layer == 0:
                top.append(len(draft.operations))
            draft.operations.append(_draw_operation(draft, rng, number, calls))
    _reach_all(draft, rng)
    return top


def _draw_calls(rng: np.random.Generator, near: list[int], below: list[int], virtual: int, *, leaf: bool) -> list[Call]:
    calls: list[Call] = []
    if below and not leaf:
        count = int(rng.choice([0, 1, 2, 3], p=[0.1, 0.35, 0.35, 0.2]))
        calls += [_rpc(rng, int(rng.choice(near if rng.random() < 0.7 else below))) for _ in range(count)]
    if rng.random() < (0.45 if not leaf else 0.1):
        median_ms = float(np.exp(rng.uniform(np.log(1), np.log(25))))
        statement = f"SELECT {NOUNS[int(rng.integers(len(NOUNS)))]}"
        calls.append(
            Call(
                DATABASE, virtual, float(rng.choice([1.0, 0.7, 0.3])), 0.95, False, median_ms, statement
            )  # a cache hit
        )
    return calls


def _rpc(rng: np.random.Generator, target: int) -> Call:
    required = float(rng.choice([1.0, 0.9, 0.3], p=[0.6, 0.3, 0.1]))
    return Call(
        RPC, target, float(rng.choice([1.0, 0.8, 0.4], p=[0.6, 0.25, 0.15])), required, bool(rng.random() < 0.2)
    )


def _draw_operation(draft: _Draft, rng: np.random.Generator, number: int, calls: list[Call]) -> Operation:
    service = draft.services[number]
    low, high = (150, 900) if service.inference else (1, 60)
    groups: list[tuple[Call, ...]] = []
    for call in calls:
        if groups and rng.random() < 0.35:
            groups[-1] = (*groups[-1], call)
        else:
            groups.append((call,))
    shares = rng.dirichlet(np.full(len(groups) + 1, 2.0))
    return Operation(
        service=number,
        name=f"{rng.choice(VERBS)} /{rng.choice(NOUNS)}-{len(draft.operations)}",
        median_ms=float(np.exp(rng.uniform(np.log(low), np.log(high)))),
        sigma=float(rng.uniform(0.25, 0.9)),
        error_p=float(rng.choice([0.0, 0.0005, 0.002, 0.005])),
        shares=tuple(float(s) for s in shares),
        groups=tuple(groups),
        internal=bool(rng.random() < 0.3),
    )


def _reach_all(draft: _Draft, rng: np.random.Generator) -> None:
    """Every service gets traffic: an operation that nobody calls is called by one above it."""
    called = {c.target for o in draft.operations for g in o.groups for c in g if c.kind == RPC}
    for index in reversed(range(len(draft.operations))):
        layer = draft.services[draft.operations[index].service].layer
        if index in called or layer == 0:
            continue
        above = [
            i
            for i, o in enumerate(draft.operations)
            if i > index and draft.services[o.service].layer < layer and not draft.services[o.service].inference
        ]
        if above:
            caller = int(rng.choice(above))
            draft.operations[caller] = _with_call(draft.operations[caller], _rpc(rng, index))


def _with_call(operation: Operation, call: Call) -> Operation:
    shares = (*operation.shares[:-1], operation.shares[-1] / 2, operation.shares[-1] / 2)
    return replace(operation, groups=(*operation.groups, (call,)), shares=shares)


def _draw_entries(draft: _Draft, rng: np.random.Generator, top: Sequence[int]) -> tuple[tuple[int, float], ...]:
    weights = rng.dirichlet(np.full(len(top), 3.0))
    spans = spans_per_request(draft.operations, draft.services)
    mean = float(np.dot(weights, [spans[t] for t in top]))
    while mean > MAX_SPANS_PER_REQUEST:
        for index, operation in enumerate(draft.operations):
            if draft.services[operation.service].layer >= 1:
                groups = tuple(tuple(replace(c, probability=c.probability * 0.8) for c in g) for g in operation.groups)
                draft.operations[index] = replace(operation, groups=groups)
        spans = spans_per_request(draft.operations, draft.services)
        smaller = float(np.dot(weights, [spans[t] for t in top]))
        if smaller > 0.98 * mean:
            break
        mean = smaller
    rate = min(float(rng.uniform(5, 40)), MAX_SPANS_PER_S / mean)
    return tuple((t, float(w * rate)) for t, w in zip(top, weights, strict=True))


def spans_per_request(operations: Sequence[Operation], services: Sequence[Service]) -> list[float]:
    """Expected number of spans under one call of each operation."""
    totals: list[float] = []
    for operation in operations:  # what an operation calls stands before it
        total = 1.0 + operation.internal
        for call in (c for g in operation.groups for c in g):
            inner = totals[call.target] + services[operation.service].client_spans if call.kind == RPC else 1.0
            total += call.probability * inner
        totals.append(total)
    return totals
