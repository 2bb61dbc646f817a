"""Detection as watching does it: a memory of all series, a screen, and the exact tests on what passes.

It tells what `detect` tells of the same frames; the screen only saves work. docs/detection.md says how that is checked.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import replace

import numpy as np
import polars as pl

from observe.detect.grid import span_of
from observe.detect.memory import Memory
from observe.detect.screen import screen
from observe.detect.shifts import detect
from observe.detect.statistics import Ints
from observe.frames import Frames
from observe.settings import DetectSettings
from observe.types import WINDOW_NS, Interval, Shift


def detect_live(
    memory: Memory,
    frames: Frames,
    now_ns: int,
    settings: DetectSettings,
    abnormal: Sequence[Interval] = (),
    always: Set[str] = frozenset(),
) -> list[Shift]:
    """The shifts of `frames`, which hold every series as for `detect`; brings the memory up to date.

    A look that is made again, at windows older than the memory's, is made without it.

    `always` are services that no screen may pass over: those whose windows were changed after they were read.
    """
    end = span_of(now_ns, settings).end_ns // WINDOW_NS
    if end < memory.end or any(not interval.service for interval in abnormal):
        return detect(frames, now_ns, settings, abnormal)
    renew(memory, frames.windows, end)
    screened = screen(memory, settings, {interval.service for interval in abnormal} | always)
    if not screened.services:
        return []
    wanted = pl.Series(sorted(screened.services), dtype=pl.String)
    windows = frames.windows.filter(pl.col("service").is_in(wanted.implode()))
    return detect(replace(frames, windows=windows), now_ns, settings, abnormal, screened.fleet)


def renew(memory: Memory, windows: pl.DataFrame, end: int) -> None:
    """Folds in what is new before window `end`, and once more the windows that stragglers have changed since."""
    if not windows["window_start_ns"].is_sorted():
        windows = windows.sort("window_start_ns", maintain_order=True)
    first = end - memory.length
    if memory.end:
        known = np.arange(max(first, memory.end - memory.length), min(end, memory.end))
        held = memory.requests[known % memory.length].sum(axis=1, dtype=np.int64)
        for window in known[_sums(windows, known) != held].tolist():  # few of them
            memory.fold(_of(windows, window, window + 1), window, window + 1)
        first = max(first, memory.end)
    memory.fold(_of(windows, first), first, end)


def _of(windows: pl.DataFrame, first: int, end: int | None = None) -> pl.DataFrame:
    """Rows of the windows [first, end), or of all from `first` on; of frames sorted by time. Nothing is copied."""
    start = windows["window_start_ns"]
    place = int(start.search_sorted(first * WINDOW_NS, "left"))
    return windows[place : windows.height if end is None else int(start.search_sorted(end * WINDOW_NS, "left"))]


def _sums(windows: pl.DataFrame, numbers: Ints) -> Ints:
    """Requests of consecutive windows."""
    if not len(numbers):
        return numbers
    edges = np.append(numbers, numbers[-1] + 1) * WINDOW_NS
    bounds = np.searchsorted(windows["window_start_ns"].to_numpy(), edges)
    total = np.append(0, np.cumsum(windows["requests"].to_numpy()[bounds[0] : bounds[-1]], dtype=np.int64))
    sums: Ints = np.diff(total[bounds - bounds[0]])
    return sums
