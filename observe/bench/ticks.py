"""Seconds and memory of one look of the detector by number of series, beside a plain loop over the same frames."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TypeVar

import numpy as np
import polars as pl
import psutil

from observe.bench.series import Fleet, draw, now_ns
from observe.detect import detect
from observe.detect.statistics import Floats
from observe.frames import Frames
from observe.settings import DetectSettings
from observe.types import WINDOW_NS, Json

SIZES = (100, 1_000, 10_000)
DRAWN = 500  # series drawn; more are copies of them under other names
REPEATS = 3
ENOUGH_S = 20.0  # spent on looks of one size, after which no other is begun
ROOM = 4.0  # times the frames' own bytes that a look is expected to need on top
Z_TOLD = 6.0
MIB = 2**20

T = TypeVar("T")


def ticks(sizes: Sequence[int] = SIZES, progress: Callable[[int], None] = lambda done: None, seed: int = 1) -> Json:
    """One entry per size: medians of at most REPEATS looks over an hour of baseline at default settings.

    `peak_mib` is what a look needed beyond the frames."""
    settings = DetectSettings()
    windows = round((settings.baseline_s + settings.current_s) * 1e9 / WINDOW_NS)
    drawn, entries = _drawn(min(DRAWN, max(sizes)), windows, seed), []
    for series in sizes:
        entries.append(_tick(drawn, series, now_ns(windows, settings.settle_s), settings))
        progress(series)
    return {"windows": windows, "drawn": min(DRAWN, max(sizes)), "ticks": entries}


def _drawn(series: int, windows: int, seed: int) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    rates = np.exp(rng.uniform(np.log(0.1), np.log(20.0), series))
    return draw(Fleet(rates, windows), rng).windows


def _tick(drawn: pl.DataFrame, series: int, at_ns: int, settings: DetectSettings) -> Json:
    known = drawn["service"].n_unique()
    needed = int(drawn.estimated_size() * series / known * (1.0 + ROOM))
    entry: Json = {"series": series}
    if needed > psutil.virtual_memory().available:
        return entry | {"skipped": f"about {needed // MIB} MiB would be needed"}
    frames = _copies(drawn, series)
    looks: list[tuple[float, float]] = []
    peak_mib, found = 0.0, 0
    while len(looks) < REPEATS and sum(wall for wall, _ in looks) < ENOUGH_S:
        with Peak() as peak:
            shifts, wall_s, cpu_s = _timed(lambda: detect(frames, at_ns, settings))
        looks.append((wall_s, cpu_s))
        peak_mib, found = max(peak_mib, peak.grown_mib), len(shifts)
    wall_s, cpu_s = np.median(looks, axis=0).tolist()
    told, loop_s, loop_cpu_s = _timed(lambda: z_loop(frames))
    return entry | {
        "rows": frames.windows.height,
        "frames_mib": round(frames.windows.estimated_size() / MIB, 1),
        "looks": len(looks),
        "seconds": round(wall_s, 4),
        "cpu_seconds": round(cpu_s, 4),
        "peak_mib": round(peak_mib, 1),
        "shifts": found,
        "loop_seconds": round(loop_s, 4),
        "loop_cpu_seconds": round(loop_cpu_s, 4),
        "loop_told": told,
        "loop_over_detect": round(loop_cpu_s / cpu_s, 2),
    }


def _timed(work: Callable[[], T]) -> tuple[T, float, float]:
    """The result, seconds on the wall, and seconds of all cores: what others do on the machine adds to the first."""
    began, worked = time.perf_counter(), time.process_time()
    result = work()
    return result, time.perf_counter() - began, time.process_time() - worked


def _copies(drawn: pl.DataFrame, series: int) -> Frames:
    names = drawn["service"].unique().sort().to_list()
    parts = []
    for copy in range(-(-series // len(names))):
        wanted = names[: series - copy * len(names)]
        part = drawn.filter(pl.col("service").is_in(wanted)) if len(wanted) < len(names) else drawn
        parts.append(part.with_columns(pl.col("service") + f"-{copy}"))
    rows = pl.concat(parts, rechunk=True).sort("window_start_ns", "service")
    nothing = pl.DataFrame()
    return Frames(rows, nothing, nothing, nothing)


class Peak:
    """How far this process's memory grew at most, in MiB, looked at every few milliseconds."""

    def __init__(self) -> None:
        self._process = psutil.Process()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.grown_mib = 0.0

    def __enter__(self) -> Peak:
        self._before = self._process.memory_info().rss
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(0.005):
            grown = self._process.memory_info().rss - self._before
            self.grown_mib = max(self.grown_mib, grown / MIB)


def z_loop(frames: Frames, current: int = 3) -> int:
    """The rival: one series after the other, mean latency, error ratio and requests against median and median
    deviation. How many series it tells of. It looks at no histogram and corrects for nothing."""
    told = 0
    for part in frames.windows.partition_by("service", "operation", "kind"):
        requests = part["requests"].to_numpy().astype(np.float64)
        measures = (
            part["duration_sum_ms"].to_numpy() / np.maximum(requests, 1.0),
            part["errors"].to_numpy() / np.maximum(requests, 1.0),
            requests,
        )
        told += any(_robust_z(values, current) > Z_TOLD for values in measures)
    return told


def _robust_z(values: Floats, current: int) -> float:
    past = values[:-current]
    if not len(past):
        return 0.0
    middle = float(np.median(past))
    spread = 1.4826 * float(np.median(np.abs(past - middle)))
    return abs(float(np.median(values[-current:])) - middle) / max(spread, 1e-9 + 1e-3 * abs(middle))
