"""Starts, injures and stops the fleet: every instance of every service, and the users."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx

from observe.demo.children import Child, free_ports, spawn, stop
from observe.demo.faults import Fault
from observe.demo.topology import INSTANCES, SERVICES, Instance
from observe.errors import Unavailable

START_S = 60.0
HOST = "127.0.0.1"


class Fleet:
    """The services as processes that send OTLP to `otlp_url`, and `rate_per_s` requests a second from users.

    `folder` takes their logs. Usable as a context manager; nothing outlives it.
    """

    def __init__(self, otlp_url: str, folder: Path, *, rate_per_s: float = 8.0, seed: str = "1") -> None:
        self._otlp_url = otlp_url
        self._folder = folder
        self._rate_per_s = rate_per_s
        self._seed = seed
        self._ports = dict(zip((i.instance for i in INSTANCES), free_ports(len(INSTANCES)), strict=True))
        self._children: dict[str, Child] = {}

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def start(self, users: bool = True) -> None:
        """Returns when every service answers. Raises Unavailable with the reason where one does not."""
        for instance in INSTANCES:
            self._children[instance.instance] = self._spawn(instance)
        for instance in INSTANCES:
            self._wait(self._children[instance.instance], instance.version)
        if users:
            self._children["users"] = spawn(
                "users", "observe.demo.load",
                "--url", self.url("gateway-1"), "--rate", str(self._rate_per_s), "--seed", self._seed,
                folder=self._folder,
            )  # fmt: skip

    def inject(self, fault: Fault) -> None:
        """Puts the fault in, by a message to the one process that it is about, or by a new release of it."""
        if fault.release:
            self._roll_out(fault.instance, fault.release)
        elif fault.ailment is not None:
            self._ail(fault.instance, fault.ailment)

    def heal(self, fault: Fault) -> None:
        """Takes an ailment away again."""
        if fault.ailment is not None:
            self._ail(fault.instance, {})

    def stop(self) -> None:
        """Users first, so that no request is cut off."""
        if users := self._children.pop("users", None):
            stop([users])
        stop(self._children.values())

    def url(self, instance: str) -> str:
        return f"http://{HOST}:{self._ports[instance]}"

    @property
    def dead(self) -> list[Child]:
        """Those that have ended though nobody asked them to."""
        return [child for child in self._children.values() if not child.alive]

    @property
    def pids(self) -> list[int]:
        return [child.process.pid for child in self._children.values()]

    def _ail(self, instance: str, ailment: Mapping[str, float]) -> None:
        url = f"{self.url(instance)}/control/ailment"
        httpx.post(url, json=dict(ailment), timeout=10, trust_env=False).raise_for_status()

    def _roll_out(self, instance: str, version: str) -> None:
        """Starts the new release on the port of the old one, and then ends the old one: no request finds nobody."""
        old = next(i for i in INSTANCES if i.instance == instance)
        new = replace(old, instance=f"{old.service}-{version}", version=version)
        self._ports[new.instance] = self._ports[old.instance]
        child = self._children[new.instance] = self._spawn(new)
        self._wait(child, version)
        stop([self._children.pop(old.instance)])

    def _spawn(self, instance: Instance) -> Child:
        return spawn(
            instance.instance, "observe.demo.service", instance.service,
            "--port", str(self._ports[instance.instance]),
            "--instance", instance.instance,
            "--host", instance.host,
            "--version", instance.version,
            "--seed", self._seed,
            "--peers", self._peers(instance.service),
            folder=self._folder,
            environ=environment(os.environ, self._otlp_url),
        )  # fmt: skip

    def _peers(self, service: str) -> str:
        return ";".join(
            f"{callee}={','.join(self.url(i.instance) for i in INSTANCES if i.service == callee)}"
            for callee in SERVICES[service].calls
        )

    def _wait(self, child: Child, version: str) -> None:
        """Until `version` answers on the child's port; a fresh connection each time, because two may share it."""
        deadline_s = time.monotonic() + START_S
        while time.monotonic() < deadline_s:
            if not child.alive:
                raise Unavailable(f"{child.name} ended at start:\n{child.last_words()}")
            try:
                if httpx.get(f"{self.url(child.name)}/health", timeout=2, trust_env=False).json()["version"] == version:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.2)
        raise Unavailable(f"{child.name} did not answer within {START_S:.0f} s:\n{child.last_words()}")


def environment(environ: Mapping[str, str], otlp_url: str) -> dict[str, str]:
    """Ours without OTEL_* and DEMO_*: what a person has set for their own service must not name every one of these."""
    kept = {k: v for k, v in environ.items() if not k.startswith(("OTEL_", "DEMO_"))}
    return {**kept, "OTEL_EXPORTER_OTLP_ENDPOINT": otlp_url}
