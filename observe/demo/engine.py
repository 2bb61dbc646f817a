"""The inference engine: steps of continuous batching in real time, on simulated GPUs."""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass, field

from observe.demo.batching import Batcher, Sequence, Step
from observe.demo.engine_metrics import EngineMetrics
from observe.demo.gpu import GpuPool

MAX_RUNNING = 5
KV_BLOCKS = 1200
FIXED_MS = 1.8  # launch overhead of one step; does not depend on the clock
STEP_MS = 5.4  # reading the weights once
SEQUENCE_MS = 0.25  # and for each running sequence
PREFILL_MS = 0.012  # and for each prompt token


@dataclass(slots=True, eq=False)
class Request:
    """A sequence, and when what happened to it (monotonic seconds; 0 = not yet)."""

    sequence: Sequence
    arrived_s: float
    started_s: float = 0.0
    first_token_s: float = 0.0
    first_token: asyncio.Event = field(default_factory=asyncio.Event)
    last_token: asyncio.Event = field(default_factory=asyncio.Event)


def step_s(step: Step, pace: float) -> float:
    """How long the GPUs compute one step, in seconds; `pace` 1 = all clocks as they should be."""
    work_ms = STEP_MS + SEQUENCE_MS * len(step.chunks) + PREFILL_MS * step.prefill_tokens
    return (FIXED_MS + work_ms / pace) / 1000


class Engine:
    """Takes requests, and steps through them for as long as `run` runs."""

    def __init__(self, pool: GpuPool, metrics: EngineMetrics, rng: random.Random) -> None:
        self.batcher = Batcher(max_running=MAX_RUNNING, kv_blocks=KV_BLOCKS)
        self.pool = pool
        self._metrics = metrics
        self._rng = rng
        self._requests: dict[Sequence, Request] = {}
        self._work = asyncio.Event()

    def submit(self, prompt_tokens: int, output_tokens: int) -> Request:
        """Queues one request; its events tell of the first and the last token. Raises ValueError where it could
        never run."""
        sequence = Sequence(prompt_tokens, output_tokens)
        self.batcher.add(sequence)
        request = self._requests[sequence] = Request(sequence, time.perf_counter())
        self._work.set()
        return request

    def cancel(self, request: Request) -> None:
        """The caller has gone: its place is free. No error after the end."""
        self.batcher.cancel(request.sequence)
        self._requests.pop(request.sequence, None)

    async def run(self) -> None:
        """Steps for ever; sleeps where there is nothing to do."""
        while True:
            step = self.batcher.plan()
            if step is None:
                self._work.clear()
                await self._work.wait()
                continue
            self._note_starts(step)
            seconds = step_s(step, self.pool.pace) * self._rng.lognormvariate(0, 0.04)
            await asyncio.sleep(seconds)
            self.pool.worked(seconds)
            self._note_tokens(step, self.batcher.apply(step))

    def _note_starts(self, step: Step) -> None:
        for sequence, _ in step.chunks:
            request = self._requests.get(sequence)
            if request and not request.started_s:
                request.started_s = time.perf_counter()

    def _note_tokens(self, step: Step, finished: list[Sequence]) -> None:
        now_s = time.perf_counter()
        self._metrics.step(step, self.batcher.preemptions)
        for sequence in step.generating:
            request = self._requests.get(sequence)
            if request and not request.first_token_s:
                request.first_token_s = now_s
                request.first_token.set()
        for sequence in finished:
            request = self._requests.pop(sequence, None)
            if request:
                self._note_end(request, now_s)

    def _note_end(self, request: Request, now_s: float) -> None:
        self._metrics.finished(
            request.sequence,
            queue_s=request.started_s - request.arrived_s,
            first_token_s=request.first_token_s - request.arrived_s,
            total_s=now_s - request.arrived_s,
        )
        request.last_token.set()
