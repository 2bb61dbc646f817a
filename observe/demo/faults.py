"""The faults that the demo can inject, and for each the first cause that is right."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from observe.demo.topology import gpu_uuid

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Fault:
    """`instance` is told `ailment`, or `release` is rolled out in its place."""

    says: str
    instance: str = ""
    ailment: Mapping[str, float] | None = None
    release: str = ""
    service: str = ""  # expected of the first cause
    kinds: tuple[str, ...] = ()  # that go with this fault; shown, and where one is narrower than a service, checked
    resource: str = ""


GPU = gpu_uuid("gpu-node-1", 0)

FAULTS: Mapping[str, Fault] = {
    "gpu-throttle": Fault(
        "one GPU of llm-engine-1 throttles itself to a third of its clock",
        instance="llm-engine-1",
        ailment={"gpu": 0, "gpu_clock_factor": 0.33},
        service="llm-engine",
        kinds=("gpu",),
        resource=GPU,
    ),
    "slow-database": Fault(
        "queries of the vector database take eight times as long",
        instance="vector-db-1",
        ailment={"latency_factor": 8},
        service="vector-db",
        kinds=("database", "service", "operation", "instance", "host"),
    ),
    "bad-release": Fault(
        "version 1.5.0 of the reranker replaces 1.4.2, and is slow",
        instance="reranker-1",
        release="1.5.0",
        service="reranker",
        kinds=("version",),
        resource="1.5.0",
    ),
    "errors": Fault(
        "one in five requests to the intent service fails",
        instance="intent-1",
        ailment={"error_ratio": 0.2},
        service="intent",
        kinds=("service", "operation", "instance", "host"),
    ),
    "bad-instance": Fault(
        "one of the two retriever instances is slow",
        instance="retriever-2",
        ailment={"latency_factor": 12},
        service="retriever",
        kinds=("instance",),
        resource="retriever-2",
    ),
    "none": Fault("nothing at all"),
}


def expected(fault: Fault) -> Json | None:
    """The first cause that is right, for people and for --json."""
    if not fault.service:
        return None
    return {"service": fault.service, "kinds": list(fault.kinds), "resource": fault.resource}


def is_right(fault: Fault, cause: Mapping[str, Any] | None) -> bool:
    """Whether the first cause of an incident is the injected one: the service, and the resource where there is one.

    >>> is_right(FAULTS["bad-release"], {"service": "reranker", "kind": "version", "resource": "1.5.0"})
    True
    >>> is_right(FAULTS["bad-release"], {"service": "reranker", "kind": "service", "resource": ""})
    False
    >>> is_right(FAULTS["slow-database"], {"service": "vector-db", "kind": "service", "resource": ""})
    True
    """
    if cause is None or cause["service"] != fault.service:
        return False
    return not fault.resource or (cause["kind"] in fault.kinds and cause["resource"] == fault.resource)
