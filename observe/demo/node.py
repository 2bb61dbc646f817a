"""What every service of the fleet shares: who it is, whom it calls, how long it works, and what ails it."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx
from pydantic import BaseModel, ConfigDict, Field

from observe.demo.noise import Latency
from observe.demo.topology import SERVICES, SLOW_RELEASES, Instance

Json = dict[str, Any]
CALL_TIMEOUT_S = 30.0


class Ailment(BaseModel):
    """The body of POST /control/ailment: how this process is to behave from now on."""

    model_config = ConfigDict(extra="forbid")

    latency_factor: float = Field(1.0, gt=0)
    error_ratio: float = Field(0.0, ge=0, le=1)
    gpu: int = Field(0, ge=0, description="which GPU of this host `gpu_clock_factor` is about")
    gpu_clock_factor: float = Field(1.0, gt=0, le=1)


class UpstreamFailed(Exception):
    """A service that this one needs has failed; the caller gets 502."""


class WorkFailed(Exception):
    """This service's own work has failed; the caller gets 500."""


@dataclass(slots=True)
class Node:
    """One running process of the fleet."""

    me: Instance
    peers: Mapping[str, tuple[str, ...]]  # service → base URLs of its instances
    rng: random.Random
    http: httpx.AsyncClient
    ailment: Ailment = field(default_factory=Ailment)
    ailing: Callable[[Ailment], None] = lambda _ailment: None  # told of each new ailment
    latency: Latency = field(init=False)

    def __post_init__(self) -> None:
        self.latency = Latency(SERVICES[self.me.service].median_ms, self.rng)

    async def work(self) -> None:
        """The service's own work for one request. Raises WorkFailed now and then."""
        release = SLOW_RELEASES.get((self.me.service, self.me.version), 1.0)
        await asyncio.sleep(self.latency.sample_s(time.monotonic(), self.ailment.latency_factor * release))
        if self.rng.random() < SERVICES[self.me.service].error_ratio + self.ailment.error_ratio:
            raise WorkFailed

    async def call(self, service: str, path: str, body: Json, headers: Mapping[str, str] | None = None) -> Json:
        """Asks one instance of `service`, chosen by chance; a connection that breaks is tried once more."""
        for attempt in (1, 2):
            url = self.rng.choice(self.peers[service]) + path
            try:
                response = await self.http.post(url, json=body, headers=headers)
            except httpx.TransportError as error:
                if attempt == 2:
                    raise UpstreamFailed(service) from error
            else:
                if response.status_code >= 400:
                    raise UpstreamFailed(service)
                answer: Json = response.json()
                return answer
        raise AssertionError("unreachable")
