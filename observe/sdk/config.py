"""What `instrument()` was asked for, joined with the OTEL_* variables, which win, and checked."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from observe.errors import Misconfigured

SIGNALS = ("TRACES", "METRICS", "LOGS")
EXPORTERS = ("otlp", "console", "none")
PROTOCOLS = ("http/protobuf", "grpc")
KAFKA = "kafka://"
PATHS: Mapping[str, str] = {"TRACES": "v1/traces", "METRICS": "v1/metrics", "LOGS": "v1/logs"}


@dataclass(frozen=True, slots=True)
class Config:
    """One decided set-up. `endpoints` holds only what the code asked for: where a variable names the endpoint, the
    exporter reads the variable itself, with its headers, certificates and timeouts."""

    resource: Mapping[str, str]
    exporters: Mapping[str, str]  # signal → otlp | console | none
    protocols: Mapping[str, str]  # signal → http/protobuf | grpc
    endpoints: Mapping[str, str]  # signal → URL with its path, or kafka://host:port[,host:port…]
    kafka_client: Mapping[str, str]  # librdkafka's settings, as they are
    partition_traces_by_id: bool
    schedule_delay_ms: float | None  # None: OTEL_BSP_SCHEDULE_DELAY says it
    metric_interval_ms: float | None  # None: OTEL_METRIC_EXPORT_INTERVAL says it


def resolve(
    environ: Mapping[str, str],
    *,
    service_name: str | None,
    endpoint: str | None,
    resource: Mapping[str, str],
    schedule_delay_ms: float,
    metric_interval_ms: float,
    kafka_client: Mapping[str, str],
    partition_traces_by_id: bool,
) -> Config:
    """Raises Misconfigured, which names the argument or the variable and what is allowed."""
    for name, value in (("schedule_delay_ms", schedule_delay_ms), ("metric_interval_ms", metric_interval_ms)):
        if value <= 0:
            raise Misconfigured(f"{name} = {value!r}: milliseconds above 0 are needed")
    exporters = {s: _exporter(environ, s) for s in SIGNALS}
    return Config(
        resource=_resource(environ, service_name, resource),
        exporters=exporters,
        protocols={s: _protocol(environ, s) for s in SIGNALS if exporters[s] == "otlp"},
        endpoints=_endpoints(environ, endpoint),
        kafka_client=dict(kafka_client),
        partition_traces_by_id=partition_traces_by_id,
        schedule_delay_ms=None if environ.get("OTEL_BSP_SCHEDULE_DELAY") else schedule_delay_ms,
        metric_interval_ms=None if environ.get("OTEL_METRIC_EXPORT_INTERVAL") else metric_interval_ms,
    )


def _resource(environ: Mapping[str, str], service_name: str | None, given: Mapping[str, str]) -> dict[str, str]:
    """The code's attributes that no variable sets; the variables' own are added by the SDK."""
    named = {
        pair.partition("=")[0].strip() for pair in environ.get("OTEL_RESOURCE_ATTRIBUTES", "").split(",") if "=" in pair
    }
    if environ.get("OTEL_SERVICE_NAME"):
        named.add("service.name")
    attributes = {
        "host.name": socket.gethostname(),
        "service.instance.id": f"{socket.gethostname()}:{os.getpid()}",
        **given,
    }
    if service_name:
        attributes["service.name"] = service_name
    if "service.name" not in attributes and "service.name" not in named:
        raise Misconfigured('the service has no name: instrument("checkout"), or OTEL_SERVICE_NAME=checkout')
    return {key: value for key, value in attributes.items() if key not in named}


def _exporter(environ: Mapping[str, str], signal: str) -> str:
    variable = f"OTEL_{signal}_EXPORTER"
    value = (environ.get(variable) or "otlp").strip()
    if value not in EXPORTERS:
        raise Misconfigured(f"{variable} = {value!r}: one of {', '.join(EXPORTERS)} is needed")
    return value


def _protocol(environ: Mapping[str, str], signal: str) -> str:
    for variable in (f"OTEL_EXPORTER_OTLP_{signal}_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"):
        if value := environ.get(variable):
            if value not in PROTOCOLS:
                raise Misconfigured(f"{variable} = {value!r}: one of {', '.join(PROTOCOLS)} is needed")
            return value
    return PROTOCOLS[0]


def _endpoints(environ: Mapping[str, str], endpoint: str | None) -> dict[str, str]:
    _check_url("OTEL_EXPORTER_OTLP_ENDPOINT", environ.get("OTEL_EXPORTER_OTLP_ENDPOINT"))
    endpoints = {}
    for signal in SIGNALS:
        variable = f"OTEL_EXPORTER_OTLP_{signal}_ENDPOINT"
        _check_url(variable, environ.get(variable))
        if endpoint and not environ.get(variable) and not environ.get("OTEL_EXPORTER_OTLP_ENDPOINT"):
            endpoints[signal] = _from_code(endpoint, signal)
    return endpoints


def _from_code(endpoint: str, signal: str) -> str:
    if endpoint.startswith(KAFKA):
        if not endpoint.removeprefix(KAFKA).strip("/"):
            raise Misconfigured(f"endpoint = {endpoint!r}: kafka://host:port[,host:port…] is needed")
        return endpoint.rstrip("/")
    _check_url("endpoint", endpoint)
    return f"{endpoint.removesuffix('/')}/{PATHS[signal]}"


def _check_url(name: str, value: str | None) -> None:
    if not value:
        return
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise Misconfigured(f"{name} = {value!r}: an http:// or https:// URL is needed, e.g. http://127.0.0.1:4318")
