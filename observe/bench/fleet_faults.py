"""Faults drawn for a fleet: where, how bad, from when to when, and which answers name them rightly."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from observe.bench.fleet_plan import DATABASE, MINUTE_MS, RPC, Fault, Instance, Plan


@dataclass(frozen=True, slots=True)
class Truth:
    """What an answer is judged by."""

    kind: str
    services: tuple[str, ...]  # any of these is right
    resources: tuple[str, ...]  # narrower and right: instance, host, GPU, version, database; () = there is none
    start_ns: int
    end_ns: int
    detail: str


def draw_fault(plan: Plan, rng: np.random.Generator, kind: str, minutes: float) -> tuple[Plan, Fault] | None:
    """The fleet with what the fault needs (a new version, say) and the fault; None where the fleet has no place."""
    start_ms = float(rng.uniform(min(10.0, minutes * 0.4), min(25.0, minutes * 0.7))) * MINUTE_MS
    lasts_ms = float(rng.uniform(3, 15)) * MINUTE_MS
    end_ms = minutes * MINUTE_MS if rng.random() < 0.25 else min(start_ms + lasts_ms, minutes * MINUTE_MS)
    blank = Fault(kind, start_ms, end_ms)
    if kind == "none":
        return plan, Fault(kind)
    if kind == "traffic":
        return plan, replace(blank, factor=float(rng.uniform(2, 4)))
    return _PLACES[kind](plan, rng, blank)


def _slow(rng: np.random.Generator, fault: Fault) -> Fault:
    if rng.random() < 0.6:
        return replace(fault, factor=float(np.exp(rng.uniform(np.log(2), np.log(10)))))
    return replace(fault, add_ms=float(np.exp(rng.uniform(np.log(100), np.log(1000)))))


def _failing(rng: np.random.Generator, fault: Fault) -> Fault:
    return replace(fault, error_p=float(np.exp(rng.uniform(np.log(0.05), np.log(1.0)))))


def _service(plan: Plan, rng: np.random.Generator, *, replicas: int = 1) -> int | None:
    fit = [i for i, s in enumerate(plan.services) if len(s.instances) >= replicas]
    return int(rng.choice(fit)) if fit else None


def _latency_service(plan: Plan, rng: np.random.Generator, fault: Fault) -> tuple[Plan, Fault]:
    chosen = int(rng.integers(len(plan.services)))
    return plan, _slow(rng, replace(fault, services=frozenset({chosen})))


def _latency_operation(plan: Plan, rng: np.random.Generator, fault: Fault) -> tuple[Plan, Fault]:
    chosen = int(rng.integers(len(plan.operations)))
    return plan, _slow(rng, replace(fault, operations=frozenset({chosen})))


def _latency_fraction(plan: Plan, rng: np.random.Generator, fault: Fault) -> tuple[Plan, Fault]:
    placed = _latency_service(plan, rng, fault)[1]
    return plan, replace(placed, fraction=float(rng.uniform(0.05, 0.4)))


def _errors_service(plan: Plan, rng: np.random.Generator, fault: Fault) -> tuple[Plan, Fault]:
    chosen = int(rng.integers(len(plan.services)))
    return plan, _failing(rng, replace(fault, services=frozenset({chosen})))


def _errors_operation(plan: Plan, rng: np.random.Generator, fault: Fault) -> tuple[Plan, Fault]:
    chosen = int(rng.integers(len(plan.operations)))
    return plan, _failing(rng, replace(fault, operations=frozenset({chosen})))


def _instance(plan: Plan, rng: np.random.Generator, fault: Fault) -> tuple[Plan, Fault] | None:
    chosen = _service(plan, rng, replicas=2)
    if chosen is None:
        return None
    bad = frozenset({int(rng.choice(plan.services[chosen].instances))})
    return plan, (_slow if rng.random() < 0.6 else _failing)(rng, replace(fault, instances=bad))


def _version(plan: Plan, rng: np.random.Generator, fault: Fault) -> tuple[Plan, Fault]:
    """A release that takes traffic when the fault begins: all of it, or half of it beside the old version."""
    chosen = int(rng.integers(len(plan.services)))
    service = plan.services[chosen]
    first = len(plan.instances)
    fresh = tuple(
        Instance(f"{service.name}-v2-{n}", chosen, plan.instances[old].host, "1.5.0", plan.instances[old].gpu)
        for n, old in enumerate(service.instances)
    )
    new = tuple(range(first, first + len(fresh)))
    changed = replace(service, rollout_ms=fault.start_ms, new=new)
    services = (*plan.services[:chosen], changed, *plan.services[chosen + 1 :])
    placed = replace(fault, instances=frozenset(new))
    bad = _slow(rng, placed) if fault.kind == "version_latency" else _failing(rng, placed)
    return replace(plan, services=services, instances=(*plan.instances, *fresh)), bad


def _database(plan: Plan, rng: np.random.Generator, fault: Fault) -> tuple[Plan, Fault] | None:
    fit = [i for i, (kind, *_) in enumerate(plan.virtuals) if kind == DATABASE and plan.users(i)]
    if not fit:
        return None
    placed = replace(fault, virtual=int(rng.choice(fit)))
    return plan, replace(placed, factor=float(rng.uniform(4, 12)), add_ms=float(rng.choice([0.0, 100.0, 300.0])))


def _network(plan: Plan, rng: np.random.Generator, fault: Fault) -> tuple[Plan, Fault] | None:
    chosen = _behind_clients(plan, rng)
    if chosen is None:
        return None
    return plan, replace(fault, services=frozenset({chosen}), add_ms=float(rng.uniform(50, 400)))


def _crash(plan: Plan, rng: np.random.Generator, fault: Fault) -> tuple[Plan, Fault] | None:
    chosen = _behind_clients(plan, rng)
    if chosen is None:
        return None
    wait_ms = float(rng.choice([2.0, 1000.0, 3000.0]))  # refused at once, or waited for in vain
    return plan, replace(fault, services=frozenset({chosen}), error_p=float(rng.uniform(0.2, 1.0)), add_ms=wait_ms)


def _behind_clients(plan: Plan, rng: np.random.Generator) -> int | None:
    """A service whose callers all have client spans: else the data could not tell the call from the callee."""
    fit = [
        i
        for i in range(len(plan.services))
        if plan.callers(i) and all(plan.services[c].client_spans for c in plan.callers(i))
    ]
    return int(rng.choice(fit)) if fit else None


def _gpu(plan: Plan, rng: np.random.Generator, fault: Fault) -> tuple[Plan, Fault] | None:
    fit = [i for i, instance in enumerate(plan.instances) if instance.gpu]
    if not fit:
        return None
    return plan, replace(fault, instances=frozenset({int(rng.choice(fit))}), factor=float(rng.uniform(2, 5)))


def _host(plan: Plan, rng: np.random.Generator, fault: Fault) -> tuple[Plan, Fault]:
    host = int(rng.choice([i.host for i in plan.instances]))
    there = frozenset(n for n, i in enumerate(plan.instances) if i.host == host)
    return plan, replace(fault, instances=there, host=host, factor=float(rng.uniform(2, 4)))


_PLACES = {
    "latency_service": _latency_service,
    "latency_operation": _latency_operation,
    "latency_fraction": _latency_fraction,
    "errors_service": _errors_service,
    "errors_operation": _errors_operation,
    "instance": _instance,
    "version_latency": _version,
    "version_errors": _version,
    "database": _database,
    "network": _network,
    "gpu": _gpu,
    "host": _host,
    "crash": _crash,
}


def truth_of(plan: Plan, fault: Fault, start_ns: int) -> Truth:
    """Which services and resources name the fault rightly."""
    services = {plan.services[i].name for i in fault.services}
    services |= {plan.services[plan.operations[i].service].name for i in fault.operations}
    services |= {plan.services[plan.instances[i].service].name for i in fault.instances}
    resources = {plan.instances[i].id for i in fault.instances} if fault.kind in ("instance", "gpu") else set()
    if fault.kind == "gpu":
        resources |= {plan.instances[i].gpu for i in fault.instances}
        resources |= {host_name(plan.instances[i].host) for i in fault.instances}
    if fault.kind.startswith("version"):
        resources = {plan.instances[i].version for i in fault.instances}
    if fault.host >= 0:
        resources = {host_name(fault.host)}
    if fault.virtual >= 0:
        name = plan.virtuals[fault.virtual][2]
        resources = {name}
        users = sorted(plan.users(fault.virtual))
        # Where one service alone uses it, naming that service says the same.
        services = {name} | ({plan.services[users[0]].name} if len(users) == 1 else set())
    if fault.kind == "network" and not any(_calls(plan, i) for i in fault.services):
        only = [plan.callers(i) for i in fault.services if len(plan.callers(i)) == 1]
        services |= {plan.services[c].name for callers in only for c in callers}  # an edge has two ends
    never = fault.kind == "none"
    return Truth(
        kind=fault.kind,
        services=tuple(sorted(services)),
        resources=tuple(sorted(resources)),
        start_ns=0 if never else start_ns + int(fault.start_ms * 1e6),
        end_ns=0 if never else start_ns + int(fault.end_ms * 1e6),
        detail=f"x{fault.factor:.1f} +{fault.add_ms:.0f} ms on {fault.fraction:.0%}, errors {fault.error_p:.0%}",
    )


def host_name(host: int) -> str:
    return f"node-{host}"


def _calls(plan: Plan, service: int) -> bool:
    return any(c.kind == RPC for o in plan.operations if o.service == service for g in o.groups for c in g)
