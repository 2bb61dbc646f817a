"""One call that makes a service send traces, metrics and logs by OTLP."""

from __future__ import annotations

import atexit
import logging
import os
import signal
import threading
from collections.abc import Callable, Mapping, Sequence
from types import FrameType
from typing import TYPE_CHECKING, Any

from opentelemetry import metrics, trace
from opentelemetry._logs import set_logger_provider
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.metrics.view import View
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from observe.errors import Misconfigured
from observe.sdk import exporters, gpus
from observe.sdk.config import Config, resolve
from observe.sdk.instrumentors import instrument_app, instrument_libraries
from observe.sdk.logs import OtlpHandler

if TYPE_CHECKING:
    from fastapi import FastAPI

logger = logging.getLogger(__name__)

SHUTDOWN_S = 3.0
"""How long the end of the process may wait for the last export; an endpoint that is away must not hold it longer."""

_lock = threading.Lock()
_active: tuple[Config, list[Callable[[], object]]] | None = None


def instrument(
    service_name: str | None = None,
    *,
    endpoint: str | None = None,
    namespace: str | None = None,
    version: str | None = None,
    instance_id: str | None = None,
    resource: Mapping[str, str] | None = None,
    app: FastAPI | None = None,
    excluded_urls: str | None = None,
    schedule_delay_ms: float = 1000,
    metric_interval_ms: float = 5000,
    logs: bool = False,
    views: Sequence[View] = (),
    kafka_client: Mapping[str, str] | None = None,
    partition_traces_by_id: bool = False,
) -> None:
    """Sends traces and metrics of this process to `endpoint` by OTLP/HTTP, until it ends.

    An endpoint kafka://host:port[,host:port…] sends to the topics of the stream with no receiver in between;
    `kafka_client` are librdkafka's settings for it (security.protocol, sasl.mechanisms, …), and
    `partition_traces_by_id` is the setting of a Collector's kafkaexporter: all spans of a trace on one partition.

    With a `namespace` the service is known as `namespace/service_name` everywhere: two teams may each have a `gateway`.
    OTEL_* variables win over arguments. Every installed opentelemetry-instrumentation-* is switched on, FastAPI and
    httpx among them. FastAPI applications made *after* this call are seen; one made before it is given as `app`.
    `excluded_urls` is a comma-separated list of regular expressions of paths that make no spans. `logs` sends log
    records from WARNING on as well; it adds a handler to the root logger, so configure logging before.

    Calling it again with the same arguments does nothing. Raises Misconfigured for settings that cannot work, and
    where the process sends elsewhere already. It never waits for the endpoint: while that is away, the newest spans
    are kept in a bounded queue, and the service goes on.
    """
    global _active
    attributes = {"service.namespace": namespace, "service.version": version, "service.instance.id": instance_id}
    config = resolve(
        os.environ,
        service_name=service_name,
        endpoint=endpoint,
        resource={**(resource or {}), **{k: v for k, v in attributes.items() if v is not None}},
        schedule_delay_ms=schedule_delay_ms,
        metric_interval_ms=metric_interval_ms,
        kafka_client=kafka_client or {},
        partition_traces_by_id=partition_traces_by_id,
    )
    with _lock:
        if _active is None:
            _active = (config, [] if _disabled() else _start(config, views, logs=logs, excluded_urls=excluded_urls))
        elif _active[0] != config:
            raise Misconfigured(f"instrument() was called before with other settings: {_active[0]}, now {config}")
    if app is not None and not _disabled():
        instrument_app(app, excluded_urls)


def shutdown(timeout_s: float = SHUTDOWN_S) -> None:
    """Sends what is left, for at most `timeout_s`. Runs by itself at exit and on SIGTERM; safe to call twice."""
    with _lock:
        closers = _active[1] if _active else []
        pending, closers[:] = list(closers), []
    threads = [threading.Thread(target=close, daemon=True) for close in pending]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout_s / len(threads))


def _disabled() -> bool:
    return os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"


def _start(
    config: Config, views: Sequence[View], *, logs: bool, excluded_urls: str | None
) -> list[Callable[[], object]]:
    if isinstance(trace.get_tracer_provider(), TracerProvider):
        raise Misconfigured(
            "a TracerProvider is set already (opentelemetry-instrument?): use it or instrument(), not both"
        )
    resource = Resource.create(dict(config.resource))
    closers = [_start_metrics(config, resource, views), _start_traces(config, resource)]
    if logs and config.exporters["LOGS"] != "none":
        closers.append(_start_logs(config, resource))
    instrument_libraries(os.environ, excluded_urls)
    atexit.register(shutdown)
    _shutdown_on_sigterm()
    return closers


def _start_traces(config: Config, resource: Resource) -> Callable[[], object]:
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    if exporter := exporters.spans(config):
        provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=config.schedule_delay_ms))
    trace.set_tracer_provider(provider)
    return provider.shutdown


def _start_metrics(config: Config, resource: Resource, views: Sequence[View]) -> Callable[[], object]:
    exporter = exporters.metrics(config)
    readers = (
        [PeriodicExportingMetricReader(exporter, export_interval_millis=config.metric_interval_ms)] if exporter else []
    )
    provider = MeterProvider(readers, resource=resource, shutdown_on_exit=False, views=(*gpus.VIEWS, *views))
    metrics.set_meter_provider(provider)
    return provider.shutdown


def _start_logs(config: Config, resource: Resource) -> Callable[[], object]:
    provider = LoggerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_log_record_processor(
        BatchLogRecordProcessor(exporters.logs(config), schedule_delay_millis=config.schedule_delay_ms)
    )
    set_logger_provider(provider)
    logging.getLogger().addHandler(OtlpHandler(provider))
    return provider.shutdown


def _shutdown_on_sigterm() -> None:
    """SIGTERM kills a Python process without its exit handlers, and container platforms stop services by it."""
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        return

    def last_words(number: int, _frame: FrameType | None) -> Any:
        shutdown()
        signal.signal(number, signal.SIG_DFL)
        signal.raise_signal(number)

    signal.signal(signal.SIGTERM, last_words)
