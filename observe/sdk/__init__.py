"""What a service imports to be seen: `instrument()` once at start, `inference_span()` around each model call.

    import observe
    observe.instrument("checkout", endpoint="http://127.0.0.1:4318")

It configures the OpenTelemetry SDK and nothing else; a service that already sends OTLP needs no part of this.
"""

from observe.sdk.gpus import GpuReading, report_gpus
from observe.sdk.inference import InferenceSpan, inference_span
from observe.sdk.setup import instrument, shutdown

__all__ = ["GpuReading", "InferenceSpan", "inference_span", "instrument", "report_gpus", "shutdown"]
