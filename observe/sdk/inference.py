"""Spans and metrics of model calls, by the GenAI semantic conventions of OpenTelemetry.

Names: https://github.com/open-telemetry/semantic-conventions-genai (attributes as in semantic conventions 1.41).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Literal

from opentelemetry import metrics, trace
from opentelemetry.metrics import Histogram
from opentelemetry.trace import Span, SpanKind, Status, StatusCode
from opentelemetry.util.types import AttributeValue

SCOPE = "observe.sdk.inference"

OPERATION_S = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
FIRST_TOKEN_S = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
PER_TOKEN_S = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5)
TOKENS = tuple(float(4**power) for power in range(14))

Side = Literal["client", "server"]


class InferenceSpan:
    """One model call under way. Tell it of the first token and of the end; times come from the monotonic clock."""

    def __init__(self, span: Span, side: Side, dimensions: Mapping[str, str], clock: Callable[[], float]) -> None:
        self.span = span
        self._side = side
        self._dimensions = dict(dimensions)
        self._clock = clock
        self._started = clock()
        self._first_token: float | None = None
        self._error_type = ""

    def first_token(self) -> None:
        """The first token (server) or chunk (client) is there. Later calls change nothing."""
        if self._first_token is not None:
            return
        self._first_token = self._clock()
        waited_s = self._first_token - self._started
        if self._side == "server":
            _histogram("gen_ai.server.time_to_first_token", "s", FIRST_TOKEN_S).record(waited_s, self._dimensions)
        else:
            _histogram("gen_ai.client.operation.time_to_first_chunk", "s", OPERATION_S).record(
                waited_s, self._dimensions
            )
            self.span.set_attribute("gen_ai.response.time_to_first_chunk", waited_s)

    def finish(
        self, input_tokens: int, output_tokens: int, *, response_model: str = "", finish_reason: str = ""
    ) -> None:
        """The call has ended well, with these many tokens."""
        self.span.set_attribute("gen_ai.usage.input_tokens", input_tokens)
        self.span.set_attribute("gen_ai.usage.output_tokens", output_tokens)
        if finish_reason:
            self.span.set_attribute("gen_ai.response.finish_reasons", [finish_reason])
        if response_model:
            self.span.set_attribute("gen_ai.response.model", response_model)
            self._dimensions["gen_ai.response.model"] = response_model
        for kind, count in (("input", input_tokens), ("output", output_tokens)):
            _histogram("gen_ai.client.token.usage", "{token}", TOKENS).record(
                count, {**self._dimensions, "gen_ai.token.type": kind}
            )
        if self._side == "server" and self._first_token is not None and output_tokens > 1:
            per_token_s = (self._clock() - self._first_token) / (output_tokens - 1)
            _histogram("gen_ai.server.time_per_output_token", "s", PER_TOKEN_S).record(per_token_s, self._dimensions)

    def fail(self, error_type: str, message: str = "") -> None:
        """The call has failed; `error_type` is of few different values: an exception's class, a status code."""
        self._error_type = error_type
        self.span.set_attribute("error.type", error_type)
        self.span.set_status(Status(StatusCode.ERROR, message or None))

    def _end(self) -> None:
        name = "gen_ai.server.request.duration" if self._side == "server" else "gen_ai.client.operation.duration"
        dimensions = {**self._dimensions, **({"error.type": self._error_type} if self._error_type else {})}
        _histogram(name, "s", OPERATION_S).record(self._clock() - self._started, dimensions)


@contextmanager
def inference_span(
    model: str,
    *,
    operation: str = "chat",
    provider: str = "vllm",
    side: Side = "client",
    server_address: str = "",
    attributes: Mapping[str, AttributeValue] | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> Iterator[InferenceSpan]:
    """A span `{operation} {model}` around one model call, with the metrics of its side.

    `side="client"`: this process asks a model elsewhere (kind Client; gen_ai.client.operation.duration and
    time_to_first_chunk). `side="server"`: the model runs in this process (kind Internal, because there is no peer;
    gen_ai.server.request.duration, time_to_first_token, time_per_output_token). Token usage is counted on both.
    Request attributes go by their full names: {"gen_ai.request.max_tokens": 256}. An exception that leaves the
    block is recorded with its class as error.type, and goes on.
    """
    dimensions = {
        "gen_ai.operation.name": operation,
        "gen_ai.provider.name": provider,
        "gen_ai.request.model": model,
        **({"server.address": server_address} if server_address else {}),
    }
    kind = SpanKind.CLIENT if side == "client" else SpanKind.INTERNAL
    with trace.get_tracer(SCOPE).start_as_current_span(
        f"{operation} {model}",
        kind=kind,
        attributes={**(attributes or {}), **dimensions},
        set_status_on_exception=False,
    ) as span:
        call = InferenceSpan(span, side, dimensions, clock)
        try:
            yield call
        except BaseException as error:
            call.fail(type(error).__qualname__, str(error))
            raise
        finally:
            call._end()


@cache
def _histogram(name: str, unit: str, bounds: Sequence[float]) -> Histogram:
    return metrics.get_meter(SCOPE).create_histogram(name, unit, explicit_bucket_boundaries_advisory=bounds)
