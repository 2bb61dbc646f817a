"""Continuous batching: what is asked for is what comes out, whatever the order and however little memory there is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from observe.demo.batching import Batcher, Sequence
from observe.demo.engine import step_s

requests = st.lists(st.tuples(st.integers(1, 90), st.integers(1, 40)), min_size=1, max_size=25)


def drain(batcher: Batcher, limit: int = 20_000) -> tuple[int, list[Sequence]]:
    """(tokens generated, sequences in the order in which they finished)."""
    tokens, finished = 0, []
    while step := batcher.plan():
        assert len(batcher.running) <= batcher.max_running
        assert 0 <= batcher.free_blocks <= batcher.kv_blocks
        assert batcher.free_blocks + sum(s.blocks for s in batcher.running) == batcher.kv_blocks
        assert sum(t for _, t in step.chunks) <= batcher.max_step_tokens
        tokens += len(step.generating)
        finished += batcher.apply(step)
        limit -= 1
        assert limit, "it does not end"
    return tokens, finished


@given(requests, st.integers(1, 6), st.integers(9, 60), st.integers(4, 200))
def test_tokens_are_conserved(asked: list[tuple[int, int]], max_running: int, kv_blocks: int, step_tokens: int):
    batcher = Batcher(max_running, kv_blocks, block_tokens=16, max_step_tokens=step_tokens)
    sequences = [Sequence(*pair) for pair in asked]
    for sequence in sequences:
        batcher.add(sequence)
    tokens, finished = drain(batcher)
    assert tokens == sum(output for _, output in asked)
    assert set(finished) == set(sequences)
    assert all(s.generated == s.output_tokens for s in sequences)
    assert (batcher.kv_usage, len(batcher.running), len(batcher.waiting)) == (0.0, 0, 0)


def test_little_memory_preempts_and_still_finishes():
    batcher = Batcher(max_running=4, kv_blocks=8, block_tokens=16)
    for _ in range(4):
        batcher.add(Sequence(prompt_tokens=20, output_tokens=60))
    _, finished = drain(batcher)
    assert batcher.preemptions > 0
    assert len(finished) == 4


def test_a_long_prompt_does_not_stop_the_others():
    batcher = Batcher(max_running=2, kv_blocks=100, max_step_tokens=32)
    short, long = Sequence(8, 20), Sequence(400, 2)
    batcher.add(short)
    batcher.add(long)
    generated = 0
    while not long.generated:
        step = batcher.plan()
        assert step is not None
        batcher.apply(step)
        generated += short in step.generating
    assert generated >= 10


def test_more_than_fits_waits_its_turn():
    batcher = Batcher(max_running=2, kv_blocks=100)
    for _ in range(5):
        batcher.add(Sequence(10, 4))
    batcher.plan()
    assert (len(batcher.running), len(batcher.waiting)) == (2, 3)


@pytest.mark.parametrize(("prompt", "output"), [(0, 1), (1, 0), (1000, 700)])
def test_what_can_never_run_is_refused(prompt: int, output: int):
    with pytest.raises(ValueError, match="token"):
        Batcher(max_running=2, kv_blocks=100).add(Sequence(prompt, output))


def test_a_caller_that_goes_away_frees_its_place_even_in_the_middle_of_a_step():
    batcher = Batcher(max_running=1, kv_blocks=100)
    gone, next_one = Sequence(10, 1), Sequence(10, 1)
    batcher.add(gone)
    batcher.add(next_one)
    step = batcher.plan()
    assert step is not None
    batcher.cancel(gone)
    batcher.cancel(gone)
    assert batcher.apply(step) == []
    assert drain(batcher) == (1, [next_one])


@given(st.floats(0.1, 1.0), st.floats(0.1, 1.0))
def test_a_slower_clock_makes_slower_steps(one: float, other: float):
    batcher = Batcher(max_running=4, kv_blocks=100)
    batcher.add(Sequence(100, 4))
    step = batcher.plan()
    assert step is not None
    assert (step_s(step, one) > step_s(step, other)) == (one < other)


def simulate(pace: float, requests_per_s: float, seconds: float) -> int:
    """Requests that wait at the end of `seconds`, in simulated time."""
    batcher = Batcher(max_running=5, kv_blocks=1200)
    now_s, sent = 0.0, 0
    while now_s < seconds:
        while sent / requests_per_s <= now_s:
            batcher.add(Sequence(900, 30))
            sent += 1
        step = batcher.plan()
        if step is None:
            now_s = sent / requests_per_s
            continue
        batcher.apply(step)
        now_s += step_s(step, pace)
    return len(batcher.waiting)


def test_the_queue_grows_when_the_pool_is_too_slow_and_only_then():
    assert simulate(pace=1.0, requests_per_s=4, seconds=60) == 0
    assert simulate(pace=0.2, requests_per_s=4, seconds=60) > 8
    assert simulate(pace=0.2, requests_per_s=4, seconds=120) > 1.5 * simulate(pace=0.2, requests_per_s=4, seconds=60)
