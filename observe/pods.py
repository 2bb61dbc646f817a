"""Metrics of pods and containers that nobody instruments: by kubelet, cAdvisor, kube-state-metrics and Docker.

They carry no service. What links them is the pod or container: a span's `service.instance.id` or `host.name` is, or
holds, the pod's name, as SDKs in containers and the OpenTelemetry operator set them; without an instance id a span's
instance is its `k8s.pod.name` or `container.id`.
"""

from __future__ import annotations

from collections.abc import Collection

THROTTLED = {
    "container_cpu_cfs_throttled_periods_total": "container_cpu_cfs_periods_total",
    "container_cpu_cfs_throttled_periods": "container_cpu_cfs_periods",
    "container.cpu.throttling_data.throttled_periods": "container.cpu.throttling_data.periods",
}
"""Periods in which a container was held back, of so many."""
CPU_LIMITS = ("k8s.container.cpu_limit_utilization", "k8s.pod.cpu_limit_utilization")
MEMORY_LIMITS = ("k8s.container.memory_limit_utilization", "k8s.pod.memory_limit_utilization")
"""Use as a part of the limit."""
MEMORY_PERCENT = ("container.memory.percent",)
RESTARTS = (
    "k8s.container.restarts",
    "container.restarts",
    "kube_pod_container_status_restarts_total",
    "kube_pod_container_status_restarts",
)
OUT_OF_MEMORY = ("container_oom_events_total", "container_oom_events")
METRICS = (
    *THROTTLED, *THROTTLED.values(), *CPU_LIMITS, *MEMORY_LIMITS, *MEMORY_PERCENT, *RESTARTS, *OUT_OF_MEMORY,
)  # fmt: skip

PLACE = (
    "Attributes['pod']", "ResourceAttributes['k8s.pod.name']", "ResourceAttributes['container.id']",
    "ResourceAttributes['container.name']", "ResourceAttributes['service.instance.id']",
)  # fmt: skip
"""Where a point says which pod or container it is of; the first that is there counts."""
NODE = (
    "Attributes['node']", "ResourceAttributes['k8s.node.name']", "ResourceAttributes['container.hostname']",
    "ResourceAttributes['host.name']", "Attributes['host.name']",
)  # fmt: skip


def of_pod(pod: str, names: Collection[str]) -> bool:
    """Whether one of the names of instances and hosts is that of the pod, or is made of it.

    >>> of_pod("cart-7d9f", ["cart-7d9f"]), of_pod("cart-7d9f", ["shop.cart-7d9f.app"]), of_pod("cart", ["cart-7d9f"])
    (True, True, False)
    >>> of_pod("4f1be2c3d4e5aaaa", ["4f1be2c3d4e5"])
    True
    """
    return any(name == pod or pod in name.split(".") or _short(name, pod) for name in names if name)


def _short(name: str, container: str) -> bool:
    """A container's host name is the beginning of its id."""
    return len(name) == 12 and all(c in "0123456789abcdef" for c in name) and container.startswith(name)
