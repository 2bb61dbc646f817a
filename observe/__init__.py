"""Observability and anomaly detection for AI services: from OpenTelemetry spans to the root cause."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from observe.sdk import inference_span as inference_span
    from observe.sdk import instrument as instrument

__version__ = "0.1.0"

FROM_SDK = ("inference_span", "instrument")


def __getattr__(name: str) -> Any:
    """What services use, brought in when first asked for: the other parts need no OpenTelemetry SDK."""
    if name in FROM_SDK:
        import observe.sdk

        return getattr(observe.sdk, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
