"""From the bytes of a request to the stream: what gRPC and HTTP have in common."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from typing import Final

from google.protobuf.message import Message
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from collectors.metrics import record_bytes
from collectors.otlp.answer import Outcome
from collectors.otlp.budget import Budget, Lease
from collectors.otlp.refusal import Malformed, Refusal, TooLarge, refusal_of
from observe.errors import BadRecord, Unavailable
from observe.interfaces import Producer
from observe.settings import OtlpSettings
from observe.stream import otlp
from observe.stream.by_trace import by_trace
from observe.stream.split import split
from observe.telemetry import RECEIVED, REFUSED
from observe.types import SIGNALS, TOPICS, Signal

log = logging.getLogger(__name__)

ACK_TIMEOUT_S: Final = 30.0
# Checking holds the interpreter for about 0.3 ms a megabyte: smaller requests are not worth a change of threads.
INLINE_BYTES: Final = 1 * 2**20

Keyed = tuple[bytes, int, bytes | None]
"""A record, its number of items, and its key."""


@dataclass(frozen=True, slots=True)
class Checked:
    """Records ready to send."""

    records: tuple[Keyed, ...]
    rejected: int = 0


class Intake:
    """Checks requests and puts them on the stream; returns when the stream holds them durably."""

    def __init__(self, producer: Producer, settings: OtlpSettings, workers: Executor) -> None:
        self.max_request_bytes = settings.max_request_bytes
        self.budget = Budget(settings.max_bytes_under_way)
        self._producer = producer
        self._workers = workers
        self._record_bytes = record_bytes(producer)
        self._by_trace = settings.partition_traces_by_id
        self._received = {signal: RECEIVED.labels(signal) for signal in SIGNALS}

    def lease(self) -> Lease:
        return Lease(self.budget)

    async def take(self, signal: Signal, body: bytes, lease: Lease, *, json: bool = False) -> Outcome:
        """Raises BadRecord (also TooLarge) or Unavailable. Parts of a request that had to be split go a record's worth
        after the other, so that a large request does not fill the stream's buffer. Where a later part fails, the
        earlier ones are on the stream already; when the sender tries again they are known by their digests, and stored
        once."""
        if json or len(body) > INLINE_BYTES or (self._by_trace and signal == "spans"):
            loop = asyncio.get_running_loop()
            checked = await loop.run_in_executor(self._workers, self._check, signal, body, json)
        else:
            checked = self._check(signal, body, json)
        for together in _loads(checked.records, self._record_bytes):
            under_way = [(self._send(signal, value, items, key, lease), items) for value, items, key in together]
            for future, items in under_way:
                await _durable(future)
                self._received[signal].inc(items)
        if checked.rejected:
            return Outcome(checked.rejected, f"larger than {self._record_bytes} bytes, the largest record taken")
        return Outcome()

    def _check(self, signal: Signal, body: bytes, json: bool) -> Checked:
        if json:
            body = otlp.json_to_protobuf(signal, body)
        elif otlp.is_json(body):
            raise Malformed("JSON where protobuf was declared")
        request = otlp.decode(signal, body)
        if self._by_trace and isinstance(request, ExportTraceServiceRequest):
            return self._divided(signal, by_trace(request))
        if len(body) > self._record_bytes:
            return self._divided(signal, [(None, request)])
        items = otlp.count(signal, request)
        return Checked(((body, items, None),) if items else ())

    def _divided(self, signal: Signal, requests: Iterable[tuple[bytes | None, Message]]) -> Checked:
        """Records no larger than the stream takes."""
        parts = [(key, part) for key, request in requests for part in split(signal, request, self._record_bytes)]
        records = tuple((part.value, part.items, key) for key, part in parts if part.value is not None and part.items)
        return Checked(records, sum(part.items for _, part in parts if part.value is None))

    def _send(self, signal: Signal, value: bytes, items: int, key: bytes | None, lease: Lease) -> Future[None]:
        headers = otlp.items_header(items) | otlp.digest_header(value)
        future = self._producer.send(TOPICS[signal], value, key=key, headers=headers)
        lease.hold()
        future.add_done_callback(lambda _: lease.drop())
        return future


def refuse(signal: Signal | None, error: Exception) -> Refusal:
    """The answer to an error, counted; one that nobody foresaw goes to the log, too."""
    refusal = refusal_of(error)
    REFUSED.labels(signal or "unknown", refusal.reason).inc()
    if refusal.reason == "internal":
        log.error("a request of %s could not be stored", signal, exc_info=error)
    return refusal


def _loads(records: Sequence[Keyed], size: int) -> Iterator[Sequence[Keyed]]:
    """Neighbours that are together about as large as one record may be."""
    first = held = 0
    for end, (value, _, _) in enumerate(records, start=1):
        held += len(value)
        if held >= size or end == len(records):
            yield records[first:end]
            first, held = end, 0


async def _durable(future: Future[None]) -> None:
    """Waits until the stream holds the record. The future stays the producer's: a sender that hangs up does not cancel
    it, which asyncio.wrap_future would do."""
    if not future.done():
        try:
            async with asyncio.timeout(ACK_TIMEOUT_S):
                await _done(future)
        except TimeoutError:
            raise Unavailable(f"the stream did not confirm within {ACK_TIMEOUT_S:.0f} s") from None
    error = future.exception()
    if isinstance(error, BadRecord):
        raise TooLarge(str(error)) from error
    if error is not None:
        raise error


async def _done(future: Future[None]) -> None:
    loop = asyncio.get_running_loop()
    waiter: asyncio.Future[None] = loop.create_future()

    def tell() -> None:
        if not waiter.done():
            waiter.set_result(None)

    def from_any_thread(_: Future[None]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile: nobody waits any more
            loop.call_soon_threadsafe(tell)

    future.add_done_callback(from_any_thread)
    await waiter
