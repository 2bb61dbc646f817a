"""From the bytes of a request to the stream: what gRPC and HTTP have in common."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from typing import Any, Final

from collectors.metrics import record_bytes
from collectors.otlp.answer import Outcome
from collectors.otlp.budget import Budget, Lease
from collectors.otlp.refusal import Malformed, Refusal, TooLarge, refusal_of
from collectors.split import split
from observe.errors import BadRecord, Unavailable
from observe.interfaces import Producer
from observe.stream import otlp
from observe.telemetry import RECEIVED, REFUSED
from observe.types import SIGNALS, TOPICS, Signal

log = logging.getLogger(__name__)

BUDGET_BYTES: Final = 256 * 2**20
ACK_TIMEOUT_S: Final = 30.0
# Checking holds the interpreter for about 0.3 ms a megabyte: smaller requests are not worth a change of threads.
INLINE_BYTES: Final = 1 * 2**20


@dataclass(frozen=True, slots=True)
class Checked:
    """Records ready to send, each with its number of items."""

    records: tuple[tuple[bytes, int], ...]
    rejected: int = 0


class Intake:
    """Checks requests and puts them on the stream; returns when the stream holds them durably."""

    def __init__(self, producer: Producer, max_request_bytes: int, workers: Executor) -> None:
        self.max_request_bytes = max_request_bytes
        self.budget = Budget(max(BUDGET_BYTES, 2 * max_request_bytes))
        self._producer = producer
        self._workers = workers
        self._record_bytes = record_bytes(producer)
        self._received = {signal: RECEIVED.labels(signal) for signal in SIGNALS}

    def lease(self) -> Lease:
        return Lease(self.budget)

    async def take(self, signal: Signal, body: bytes, lease: Lease, *, json: bool = False) -> Outcome:
        """Raises BadRecord (also TooLarge) or Unavailable. Where it raises, some parts of a request that had to be
        split may be on the stream already: senders that try again then store those twice (at least once)."""
        if json or len(body) > INLINE_BYTES:
            loop = asyncio.get_running_loop()
            checked = await loop.run_in_executor(self._workers, self._check, signal, body, json)
        else:
            checked = self._check(signal, body, json)
        futures = [self._send(signal, value, items, lease) for value, items in checked.records]
        await _durable(futures)
        items = sum(items for _, items in checked.records)
        self._received[signal].inc(items)
        if checked.rejected:
            return Outcome(items, checked.rejected, f"larger than {self._record_bytes} bytes, the largest record taken")
        return Outcome(items)

    def _check(self, signal: Signal, body: bytes, json: bool) -> Checked:
        if json:
            body = otlp.json_to_protobuf(signal, body)
        elif otlp.is_json(body):
            raise Malformed("JSON where protobuf was declared")
        request = otlp.decode(signal, body)
        if len(body) > self._record_bytes:
            parts = list(split(signal, request, self._record_bytes))
            records = tuple((part.value, part.items) for part in parts if part.value is not None and part.items)
            return Checked(records, sum(part.items for part in parts if part.value is None))
        items = otlp.count(signal, request)
        return Checked(((body, items),) if items else ())

    def _send(self, signal: Signal, value: bytes, items: int, lease: Lease) -> Future[None]:
        future = self._producer.send(TOPICS[signal], value, headers=otlp.items_header(items))
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


async def _durable(futures: Sequence[Future[None]]) -> None:
    """Waits until all are done. The futures stay the producer's: a sender that hangs up does not cancel them."""
    open_futures = [future for future in futures if not future.done()]
    if open_futures:
        try:
            async with asyncio.timeout(ACK_TIMEOUT_S):
                await _all_done(open_futures)
        except TimeoutError:
            raise Unavailable(f"the stream did not confirm within {ACK_TIMEOUT_S:.0f} s") from None
    for future in futures:
        error = future.exception()
        if isinstance(error, BadRecord):
            raise TooLarge(str(error)) from error
        if error is not None:
            raise error


async def _all_done(futures: Sequence[Future[None]]) -> None:
    loop = asyncio.get_running_loop()
    waiter: asyncio.Future[None] = loop.create_future()
    left = len(futures)

    def one_done() -> None:
        nonlocal left
        left -= 1
        if left == 0 and not waiter.done():
            waiter.set_result(None)

    def from_any_thread(_: Any) -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(one_done)

    for future in futures:
        future.add_done_callback(from_any_thread)
    await waiter
