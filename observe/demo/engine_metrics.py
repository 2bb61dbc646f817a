"""The engine's metrics under the names that vLLM gives them, so that what reads vLLM reads the demo.

Names and buckets: https://docs.vllm.ai/en/latest/usage/metrics.html
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from opentelemetry import metrics
from opentelemetry.metrics import CallbackOptions, Meter, Observation
from opentelemetry.sdk.metrics.view import View

from observe.demo.batching import Batcher, Sequence, Step

FIRST_TOKEN_S = (
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0,
)  # fmt: skip
PER_TOKEN_S = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
REQUEST_S = (0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0)

HISTOGRAMS = {
    "time_to_first_token_seconds": FIRST_TOKEN_S,
    "inter_token_latency_seconds": PER_TOKEN_S,
    "request_time_per_output_token_seconds": PER_TOKEN_S,
    "e2e_request_latency_seconds": REQUEST_S,
    "request_queue_time_seconds": REQUEST_S,
}
COUNTERS = ("prompt_tokens_total", "generation_tokens_total", "num_preemptions_total", "request_success_total")
GAUGES = ("num_requests_running", "num_requests_waiting", "kv_cache_usage_perc")


def views() -> list[View]:
    """OpenTelemetry allows no colon in the name of an instrument; a view gives the stream vLLM's own name."""
    return [View(instrument_name=f"vllm.{name}", name=f"vllm:{name}") for name in (*HISTOGRAMS, *COUNTERS, *GAUGES)]


class EngineMetrics:
    """Records what happened; gauges are read from the batcher once `watch` has named it."""

    def __init__(self, model: str) -> None:
        meter = metrics.get_meter("observe.demo.engine")
        self._labels = {"model_name": model, "engine": "0"}
        self._histograms = {
            name: meter.create_histogram(f"vllm.{name}", "s", explicit_bucket_boundaries_advisory=bounds)
            for name, bounds in HISTOGRAMS.items()
        }
        self._counters = {name: meter.create_counter(f"vllm.{name}") for name in COUNTERS}
        self._meter: Meter = meter
        self._preemptions = 0

    def watch(self, batcher: Batcher) -> None:
        reads: dict[str, Callable[[], float]] = {
            "num_requests_running": lambda: len(batcher.running),
            "num_requests_waiting": lambda: len(batcher.waiting),
            "kv_cache_usage_perc": lambda: batcher.kv_usage,
        }
        for name in GAUGES:
            self._meter.create_observable_gauge(f"vllm.{name}", [self._gauge(reads[name])])

    def step(self, step: Step, preemptions: int) -> None:
        """`preemptions` is how many there have been since the start."""
        self._add("prompt_tokens_total", step.prefill_tokens)
        self._add("generation_tokens_total", len(step.generating))
        self._add("num_preemptions_total", preemptions - self._preemptions)
        self._preemptions = preemptions

    def finished(self, sequence: Sequence, *, queue_s: float, first_token_s: float, total_s: float) -> None:
        """Times since the request's arrival, in seconds."""
        self._record("request_queue_time_seconds", queue_s)
        self._record("time_to_first_token_seconds", first_token_s)
        self._record("e2e_request_latency_seconds", total_s)
        if sequence.generated > 1:
            per_token_s = (total_s - first_token_s) / (sequence.generated - 1)
            self._record("request_time_per_output_token_seconds", per_token_s)
            self._record("inter_token_latency_seconds", per_token_s)
        self._counters["request_success_total"].add(1, {**self._labels, "finished_reason": "stop"})

    def _add(self, name: str, amount: int) -> None:
        if amount:
            self._counters[name].add(amount, self._labels)

    def _record(self, name: str, seconds: float) -> None:
        self._histograms[name].record(seconds, self._labels)

    def _gauge(self, read: Callable[[], float]) -> Callable[[CallbackOptions], Iterable[Observation]]:
        return lambda _options: [Observation(read(), self._labels)]
