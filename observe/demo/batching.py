"""Continuous batching as an inference engine does it, without clock or I/O.

Each step every running sequence gets one token, and sequences join and leave between steps (Orca: Yu et al., OSDI
2022). The cache of keys and values is handed out in blocks; where none is left, the sequence admitted last gives its
blocks back and is computed again later (PagedAttention: Kwon et al., SOSP 2023, doi:10.1145/3600006.3613165).
Long prompts are computed in chunks beside the decoding (Sarathi: arXiv:2308.16369).
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field


@dataclass(slots=True, eq=False)
class Sequence:
    """One request on its way: what it asks for, and how far it has come."""

    prompt_tokens: int
    output_tokens: int
    generated: int = 0
    computed: int = 0  # tokens whose keys and values are in the cache
    blocks: int = 0

    @property
    def known(self) -> int:
        """Tokens that must be computed before the next one can be generated."""
        return self.prompt_tokens + self.generated

    @property
    def done(self) -> bool:
        return self.generated >= self.output_tokens


@dataclass(frozen=True, slots=True)
class Step:
    """What one pass of the model computes: prompt tokens, and the sequences that get a token by it."""

    prefill_tokens: int
    generating: tuple[Sequence, ...]
    chunks: tuple[tuple[Sequence, int], ...]


@dataclass(slots=True)
class Batcher:
    """Who runs and who waits. `plan` decides one step, `apply` records that it has been computed."""

    max_running: int
    kv_blocks: int
    block_tokens: int = 16
    max_step_tokens: int = 2048
    waiting: deque[Sequence] = field(default_factory=deque)
    running: list[Sequence] = field(default_factory=list)
    free_blocks: int = field(init=False)
    preemptions: int = 0

    def __post_init__(self) -> None:
        self.free_blocks = self.kv_blocks

    @property
    def kv_usage(self) -> float:
        """0..1"""
        return 1 - self.free_blocks / self.kv_blocks

    def add(self, sequence: Sequence) -> None:
        """Raises ValueError for what could never run: no tokens asked for, or more than the whole cache holds."""
        if sequence.prompt_tokens < 1 or sequence.output_tokens < 1:
            raise ValueError("a sequence needs at least one prompt token and one output token")
        if self._blocks(sequence.prompt_tokens + sequence.output_tokens) > self.kv_blocks:
            raise ValueError(f"{sequence.prompt_tokens} + {sequence.output_tokens} tokens do not fit into the cache")
        self.waiting.append(sequence)

    def plan(self) -> Step | None:
        """The next step; None where there is nothing to do."""
        self._make_room()
        self._admit()
        budget = self.max_step_tokens
        chunks = []
        for sequence in self.running:
            tokens = min(sequence.known - sequence.computed, budget)
            if tokens > 0:
                chunks.append((sequence, tokens))
                budget -= tokens
        if not chunks:
            return None
        generating = tuple(s for s, tokens in chunks if s.computed + tokens == s.known)
        prefill = sum(tokens for s, tokens in chunks if tokens > 1)
        return Step(prefill, generating, tuple(chunks))

    def apply(self, step: Step) -> list[Sequence]:
        """The sequences that are complete after this step; they have left."""
        for sequence, tokens in step.chunks:
            sequence.computed += tokens
        generating = [s for s in step.generating if s in self.running]  # a caller may have gone meanwhile
        for sequence in generating:
            sequence.generated += 1
        finished = [sequence for sequence in generating if sequence.done]
        for sequence in finished:
            self._release(sequence)
        return finished

    def cancel(self, sequence: Sequence) -> None:
        """Forgets a sequence whose caller has gone; one that is unknown is no error."""
        if sequence in self.waiting:
            self.waiting.remove(sequence)
        elif sequence in self.running:
            self._release(sequence)

    def _make_room(self) -> None:
        """Every running sequence gets the blocks of its next token; those admitted last pay for it."""
        for sequence in list(self.running):
            if sequence not in self.running:
                continue
            while not self._grow(sequence):
                self._preempt(self.running[-1])
                if sequence not in self.running:
                    break

    def _admit(self) -> None:
        while self.waiting and len(self.running) < self.max_running:
            if not self._grow(self.waiting[0]):
                return
            self.running.append(self.waiting.popleft())

    def _grow(self, sequence: Sequence) -> bool:
        needed = self._blocks(sequence.known + 1) - sequence.blocks
        if needed > self.free_blocks:
            return False
        if needed > 0:
            self.free_blocks -= needed
            sequence.blocks += needed
        return True

    def _preempt(self, sequence: Sequence) -> None:
        self._release(sequence)
        sequence.computed = 0
        self.waiting.appendleft(sequence)
        self.preemptions += 1

    def _release(self, sequence: Sequence) -> None:
        self.running.remove(sequence)
        self.free_blocks += sequence.blocks
        sequence.blocks = 0

    def _blocks(self, tokens: int) -> int:
        return -(-tokens // self.block_tokens)
