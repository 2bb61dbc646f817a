"""OTLP over HTTP, a bare ASGI application: POST /v1/traces, /v1/metrics, /v1/logs; protobuf or JSON; gzip or none."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any, Final

from collectors.otlp import answer
from collectors.otlp.budget import Lease
from collectors.otlp.intake import Intake, refuse
from collectors.otlp.refusal import (
    JSON,
    PROTOBUF,
    Malformed,
    Refusal,
    TooLarge,
    TooSlow,
    refusal_of_head,
    retry_after,
    status_body,
)
from observe.errors import Unavailable
from observe.telemetry import REFUSED
from observe.types import Signal

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

PATHS: Final[Mapping[str, Signal]] = {"/v1/traces": "spans", "/v1/metrics": "metrics", "/v1/logs": "logs"}
READ_TIMEOUT_S: Final = 60.0
INLINE_GZIP_BYTES: Final = 128 * 2**10  # larger bodies are unpacked beside the event loop


class _Gone(Exception):
    """The sender hung up before its request was complete; there is nobody to answer."""


@dataclass(frozen=True, slots=True)
class _Head:
    """What the first lines of a request say. `length` 0: not stated."""

    signal: Signal | None
    content_type: str
    encoding: str
    length: int

    @classmethod
    def of(cls, scope: Mapping[str, Any]) -> _Head:
        headers = dict(scope["headers"])
        return cls(
            PATHS.get(scope["path"]),
            _token(headers.get(b"content-type", b"").partition(b";")[0]),
            _token(headers.get(b"content-encoding", b"")),
            int(headers.get(b"content-length", 0)),
        )


class HttpApp:
    """The ASGI application. Every answer that is no success carries a google.rpc.Status."""

    def __init__(self, intake: Intake, workers: Executor) -> None:
        self._intake = intake
        self._workers = workers

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        head = _Head.of(scope)
        refusal = refusal_of_head(scope["method"], head.signal is not None, head.content_type, head.encoding)
        if refusal is not None:
            REFUSED.labels(head.signal or "unknown", refusal.reason).inc()
            await _send_refusal(send, refusal, head.content_type)
        elif head.signal is not None:
            await self._export(head.signal, head, receive, send)

    async def _export(self, signal: Signal, head: _Head, receive: Receive, send: Send) -> None:
        lease = self._intake.lease()
        try:
            body = await self._read(head, receive, lease)
            outcome = await self._intake.take(signal, body, lease, json=head.content_type == JSON)
        except _Gone:
            return
        except asyncio.CancelledError:  # stopping, and the grace is over: the sender must keep its data
            await _send_refusal(send, refuse(signal, Unavailable("the receiver stops")), head.content_type)
        except Exception as error:
            await _send_refusal(send, refuse(signal, error), head.content_type)
        else:
            form = answer.as_json if head.content_type == JSON else answer.as_protobuf
            await _send(send, 200, head.content_type, form(signal, outcome))
        finally:
            lease.drop()

    async def _read(self, head: _Head, receive: Receive, lease: Lease) -> bytes:
        limit = self._intake.max_request_bytes
        if head.length > limit:
            raise TooLarge(f"{head.length} bytes in one request; {limit} are taken")
        try:
            async with asyncio.timeout(READ_TIMEOUT_S):
                body = await _read_to_end(receive, limit, lease)
        except TimeoutError:
            raise TooSlow(f"the body did not arrive within {READ_TIMEOUT_S:.0f} s") from None
        if head.encoding != "gzip":
            return body
        if len(body) > INLINE_GZIP_BYTES:
            loop = asyncio.get_running_loop()
            unpacked = await loop.run_in_executor(self._workers, gunzip, body, limit)
        else:
            unpacked = gunzip(body, limit)
        lease.grow(len(unpacked))
        return unpacked


async def _read_to_end(receive: Receive, limit: int, lease: Lease) -> bytes:
    """The body as it was sent. Where this raises, the server reads the rest and throws it away, so that senders that
    write first and read afterwards get the answer."""
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise _Gone
        chunk = message.get("body", b"")
        size += len(chunk)
        if size > limit:
            raise TooLarge(f"more than {limit} bytes in one request")
        lease.grow(len(chunk))
        chunks.append(chunk)
        if not message.get("more_body"):
            return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def gunzip(body: bytes, max_bytes: int) -> bytes:
    """All members of a gzip file. Never makes more than `max_bytes` + 1 of output, whatever the input promises.

    >>> import gzip
    >>> gunzip(gzip.compress(b"span") + gzip.compress(b"s"), 10)
    b'spans'
    """
    parts: list[bytes] = []
    left = max_bytes + 1
    while body:
        unpacker = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
        try:
            part = unpacker.decompress(body, left)
        except zlib.error as error:
            raise Malformed(f"no gzip: {error}") from error
        parts.append(part)
        left -= len(part)
        if left <= 0:
            raise TooLarge(f"more than {max_bytes} bytes after decompression")
        if not unpacker.eof:
            raise Malformed("the gzip stream ends too early")
        body = unpacker.unused_data
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _token(value: bytes) -> str:
    return value.decode("latin-1").strip().lower()


async def _send_refusal(send: Send, refusal: Refusal, content_type: str) -> None:
    extra: list[tuple[bytes, bytes]] = []
    wait = retry_after(refusal)
    if wait is not None:
        extra.append((b"retry-after", wait))
    if refusal.http == 405:
        extra.append((b"allow", b"POST"))
    form = PROTOBUF if content_type == PROTOBUF else JSON
    await _send(send, refusal.http, form, status_body(refusal, form), extra)


async def _send(
    send: Send, status: int, content_type: str, body: bytes, extra: list[tuple[bytes, bytes]] | None = None
) -> None:
    headers = [(b"content-type", content_type.encode()), (b"content-length", str(len(body)).encode()), *(extra or [])]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
