"""OTLP over gRPC: three unary services whose handlers see the raw bytes of a request."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import grpc
import grpc.aio

from collectors.otlp import address as addresses
from collectors.otlp import answer
from collectors.otlp.intake import Intake, refuse
from collectors.otlp.refusal import Refusal, status_details
from observe.errors import Misconfigured
from observe.types import Signal

SERVICES: Final[Mapping[str, Signal]] = {
    "opentelemetry.proto.collector.trace.v1.TraceService": "spans",
    "opentelemetry.proto.collector.metrics.v1.MetricsService": "metrics",
    "opentelemetry.proto.collector.logs.v1.LogsService": "logs",
}
CODES: Final = {code.value[0]: code for code in grpc.StatusCode}

Handler = Callable[[bytes, Any], Awaitable[bytes]]


def make_server(intake: Intake) -> grpc.aio.Server:
    """A server that is not yet bound. gRPC itself unpacks gzip, and refuses what is larger after that."""
    server = grpc.aio.server(
        options=[
            ("grpc.max_receive_message_length", intake.max_request_bytes),
            ("grpc.so_reuseport", 0),  # else a second process would silently share the port
            ("grpc.max_concurrent_streams", 128),  # requests of one connection that may be half read
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.http2.min_ping_interval_without_data_ms", 5_000),  # Collectors ping every 10 s by default
        ]
    )
    for service, signal in SERVICES.items():
        export = grpc.unary_unary_rpc_method_handler(_handler(intake, signal))
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {"Export": export}),))
    return server


def bind(server: grpc.aio.Server, setting: str, address: str) -> str:
    """The address that was bound. Raises Misconfigured where it is taken or not ours."""
    host, port = addresses.parse(setting, address)
    try:
        bound = server.add_insecure_port(addresses.join(host, port))
    except RuntimeError as error:
        raise Misconfigured(f"{setting} = {address!r}: cannot listen there: {error}") from error
    return addresses.join(host, bound)


def _handler(intake: Intake, signal: Signal) -> Handler:
    async def export(body: bytes, context: Any) -> bytes:
        lease = intake.lease()
        try:
            lease.grow(len(body))
            outcome = await intake.take(signal, body, lease)
        except Exception as error:
            refusal = refuse(signal, error)
        else:
            return answer.as_protobuf(signal, outcome)
        finally:
            lease.drop()
        return await _abort(context, refusal)

    return export


async def _abort(context: Any, refusal: Refusal) -> bytes:
    details = (("grpc-status-details-bin", status_details(refusal)),)
    await context.abort(CODES[refusal.code], refusal.message, details)
    raise AssertionError("abort raises")
