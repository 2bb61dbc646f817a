"""The fleet on one page: which services there are, where they run, whom they call, and how long they take."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass

MODEL = "demo-70b"
GPUS_PER_ENGINE = 2

# Prefixes of paths that the driver uses; requests to them make no spans.
UNSEEN_PATHS = "/control,/health"


@dataclass(frozen=True, slots=True)
class Service:
    """One service as it is when nothing is wrong."""

    version: str
    calls: tuple[str, ...] = ()
    median_ms: float = 0.0  # own work of one request, calls not counted
    error_ratio: float = 0.0  # failures that are normal


SERVICES: Mapping[str, Service] = {
    "gateway": Service("2.3.1", ("intent", "retriever", "reranker", "llm-engine"), median_ms=4),
    "intent": Service("1.8.0", median_ms=14),
    "retriever": Service("3.1.2", ("vector-db",), median_ms=10),
    "vector-db": Service("0.9.4", median_ms=22, error_ratio=0.001),
    "reranker": Service("1.4.2", median_ms=24),
    "llm-engine": Service("0.11.0"),
}

SLOW_RELEASES: Mapping[tuple[str, str], float] = {("reranker", "1.5.0"): 6.0}
"""(service, version) → how many times slower than it should be."""


@dataclass(frozen=True, slots=True)
class Instance:
    """One process of a service. Hosts are names only: all processes run on this machine."""

    service: str
    instance: str  # service.instance.id
    host: str  # host.name
    version: str


INSTANCES: tuple[Instance, ...] = tuple(
    Instance(service, instance, host, SERVICES[service].version)
    for service, instance, host in (
        ("gateway", "gateway-1", "node-a"),
        ("intent", "intent-1", "node-b"),
        ("retriever", "retriever-1", "node-a"),
        ("retriever", "retriever-2", "node-b"),
        ("vector-db", "vector-db-1", "node-c"),
        ("reranker", "reranker-1", "node-b"),
        ("llm-engine", "llm-engine-1", "gpu-node-1"),
        ("llm-engine", "llm-engine-2", "gpu-node-2"),
    )
)


def gpu_uuid(host: str, index: int) -> str:
    """The same GPU has the same UUID in every run.

    >>> gpu_uuid("gpu-node-1", 0)
    'GPU-328a8fe4-af4a-5a2d-a7b4-4a0b53af8754'
    """
    return f"GPU-{uuid.uuid5(uuid.NAMESPACE_DNS, f'{index}.{host}.demo.observe')}"
