"""What happens to a deployment under siege: faults by chance, several at once where they meet other parts."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import partial
from typing import Literal, Protocol

from observe.stream.local.consumer import LEASE_S
from tests.faults.deployments import Deployment

Lane = Literal["here", "store", "freeze"]
"""Faults of one lane come one after the other. `here` is the caller's thread, with which a broker lives and dies."""


@dataclass(frozen=True, slots=True)
class Fault:
    act: Callable[[], None]
    lane: Lane = "here"


class Hardness(Protocol):
    """How hard it gets; see siege.Plan."""

    @property
    def kills(self) -> int: ...
    @property
    def freeze_s(self) -> float: ...
    @property
    def full_s(self) -> float: ...
    @property
    def away_s(self) -> float: ...
    @property
    def pause_s(self) -> float: ...
    @property
    def faults(self) -> tuple[str, ...]: ...


def attack(
    deployment: Deployment, plan: Hardness, chance: random.Random, say: Callable[[str], None], rest: Callable[[], None]
) -> dict[str, int]:
    """The faults of the plan, or else so many kills, and each kind of fault once; how often each kind came. `rest` is
    called between faults, while none is under way, after every tenth kill."""
    faults = faults_of(deployment, plan, chance)
    happened = dict.fromkeys(plan.faults or faults, 0)
    left = list(plan.faults)
    rested = 0
    with ThreadPoolExecutor(2) as pool:
        busy: dict[Lane, Future[None]] = {}
        while left or not (plan.faults or (deployment.kills >= plan.kills and all(happened.values()))):
            if deployment.kills >= rested + 10:
                _await(busy, all_of_them=True)
                rested = deployment.kills
                rest()
            left = left or chance.sample(sorted(faults), len(faults))  # each kind before any comes again
            name = _next(left, faults, busy)
            if name is None:
                _await(busy)
                continue
            time.sleep(plan.pause_s * chance.random())
            say(f"{name} ({deployment.kills} kills)")
            fault = faults[name]
            if fault.lane == "here":
                fault.act()
            else:
                busy[fault.lane] = pool.submit(fault.act)
            happened[name] += 1
            deployment.check_alive()
        _await(busy, all_of_them=True)
    deployment.check_alive()
    return happened


def _next(left: list[str], faults: Mapping[str, Fault], busy: dict[Lane, Future[None]]) -> str | None:
    """Takes the first fault whose lane is free."""
    for lane, done in list(busy.items()):
        if done.done():
            busy.pop(lane).result()
    for n, name in enumerate(left):
        if faults[name].lane not in busy:
            return left.pop(n)
    return None


def _await(busy: dict[Lane, Future[None]], *, all_of_them: bool = False) -> None:
    wait(busy.values(), return_when="ALL_COMPLETED" if all_of_them else FIRST_COMPLETED)
    for lane, done in list(busy.items()):
        if done.done():
            busy.pop(lane).result()


def faults_of(deployment: Deployment, plan: Hardness, chance: random.Random) -> dict[str, Fault]:
    """All that can happen to this deployment, by name."""
    faults: dict[str, Fault] = {}
    away = iter([plan.away_s])

    def again(name: str) -> None:
        deployment.kill(name)
        time.sleep(chance.random())
        deployment.start(name)

    def twice() -> None:
        again("up")
        time.sleep(chance.random())
        again("up")

    def freeze(name: str) -> None:
        longer_s = 0.0 if deployment.broker else LEASE_S
        with deployment.frozen(name):
            time.sleep(plan.freeze_s + longer_s)

    def fill(name: str) -> None:
        with deployment.no_space(name):
            time.sleep(plan.full_s)

    def under_way() -> None:
        deployment.wait_until_ready("up")
        time.sleep(plan.pause_s * chance.random())
        again("up")

    if deployment.server is None:
        faults["kill up"] = Fault(under_way)
        faults["kill up twice"] = Fault(twice)
    else:
        for kind in ("receiver", "writer"):
            faults[f"kill {kind}"] = Fault(partial(_any_of, deployment, kind, chance, again))
            faults[f"replace {kind}"] = Fault(partial(_any_of, deployment, kind, chance, deployment.replace))
        faults["freeze writer"] = Fault(lambda: freeze(chance.choice(deployment.names("writer"))), "freeze")
        faults["kill store"] = Fault(lambda: deployment.kill_store(next(away, 1.0)), "store")
    for name in deployment.disks:
        if name == "store" or deployment.broker is None:
            faults[f"disk of the {name} full"] = Fault(partial(fill, name), "store")
    if deployment.broker is not None:
        faults["kill broker"] = Fault(lambda: deployment.kill_broker(chance.random()))
    return faults


def _any_of(deployment: Deployment, kind: str, chance: random.Random, act: Callable[[str], None]) -> None:
    act(chance.choice(deployment.names(kind)))
