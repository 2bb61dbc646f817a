"""Names that titles, explanations and pages share: what is measured, and where a cause is."""

from __future__ import annotations

from collections.abc import Sequence

MEASURES = {
    "latency_p50_ms": "median latency",
    "latency_p95_ms": "P95 latency",
    "latency_p99_ms": "P99 latency",
    "latency_mean_ms": "mean latency",
    "time_to_first_token_p50_ms": "median time to the first token",
    "time_to_first_token_p95_ms": "P95 of the time to the first token",
    "time_to_first_token_p99_ms": "P99 of the time to the first token",
    "time_per_output_token_p50_ms": "median time per output token",
    "time_per_output_token_p95_ms": "P95 of the time per output token",
    "time_per_output_token_p99_ms": "P99 of the time per output token",
    "error_ratio": "error rate",
    "requests_per_s": "traffic",
}
SHORT_MEASURES = {
    "latency_p50_ms": "median latency",
    "latency_p95_ms": "P95",
    "latency_p99_ms": "P99",
    "time_to_first_token_p50_ms": "median to the first token",
    "time_to_first_token_p95_ms": "P95 to the first token",
    "time_to_first_token_p99_ms": "P99 to the first token",
    "time_per_output_token_p50_ms": "median per output token",
    "time_per_output_token_p95_ms": "P95 per output token",
    "time_per_output_token_p99_ms": "P99 per output token",
    "error_ratio": "errors",
    "requests_per_s": "traffic",
}
"""For titles, which are read on a lock screen."""
MOST_SURE = 0.99
"""Nothing that was measured is certain: no confidence is told as more."""
_NARROWER = {"gpu": "GPU "}
_BARE = ("service", "traffic", "external", "unknown")
"""Kinds that stand before no resource."""
MAX_NAMES = 3
GOES_ON = "goes on as incident"
"""In the title of an incident that another one took over."""


def several(names: Sequence[str], most: int = MAX_NAMES) -> str:
    """
    >>> several(["a", "b"]), several(["a", "b", "c", "d"]), several(["a", "b", "c", "d", "e"])
    ('a, b', 'a, b, c, d', 'a, b, c and 2 more')
    """
    shown = len(names) if len(names) <= most + 1 else most
    more = len(names) - shown
    return ", ".join(names[:shown]) + (f" and {more} more" if more else "")


def place(kind: str, service: str, resource: str, services: Sequence[str] = (), between: str = ", ") -> str:
    """Where to look. `services` are those of a cause that lies in several.

    >>> place("gpu", "llm", "2"), place("gpu", "llm", "GPU-7d1c"), place("service", "api", "tenant=acme")
    ('llm, GPU 2', 'llm, GPU-7d1c', 'api, tenant=acme')
    >>> place("release", "api", "2.0.0", ["api", "cart"]), place("host", "api", "node-7", ["api", "cart"])
    ('release 2.0.0 of api, cart', 'host node-7 under api, cart')
    >>> place("database", "db", "db"), place("service", "api", "")
    ('db', 'api')
    """
    if not resource or resource == service:
        return service
    narrower = "" if kind in _BARE else _NARROWER.get(kind, f"{kind} ")
    known = narrower and resource.startswith(narrower.rstrip() + "-")  # NVML's ids begin with "GPU-"
    named = f"{'' if known else narrower}{resource}"
    if len(services) > 1:
        return f"{named} {'of' if kind == 'release' else 'under'} {several(services)}"
    return f"{service}{between}{named}"
