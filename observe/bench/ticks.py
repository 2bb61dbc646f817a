"""Seconds and memory of one look by number of series: SQL and what follows apart, with plain rivals in the same run.

A look in the steady state reads the newest window, folds it into the memory, screens all series, and tests exactly what
passes, on an hour of that alone. Its first look reads an hour of everything (`cold`).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from types import TracebackType
from typing import TypeVar

import numpy as np
import polars as pl
import psutil

from observe import frames as shapes
from observe.bench.rivals import Rival, pelt, z_loop
from observe.bench.series import START_NS, Fleet, draw, now_ns
from observe.detect import detect
from observe.detect.memory import Memory
from observe.detect.screen import screen
from observe.frames import Frames
from observe.settings import DetectSettings
from observe.types import WINDOW_NS, Json

SIZES = (100, 1_000, 10_000)
DRAWN = 500  # series drawn; more are copies of them under other names
LOOKS = 8
ROWS_AT_ONCE = 400_000
LOOP_SERIES, PELT_SERIES = 1_000, 10  # that the rivals are run on: what they take grows as their number
SQL_SERIES = 1_000  # an hour of more takes minutes to write
MIB = 2**20

T = TypeVar("T")


def ticks(
    sizes: Sequence[int] = SIZES,
    progress: Callable[[int], None] = lambda done: None,
    seed: int = 1,
    sql: bool = False,
) -> Json:
    """One entry per size: medians of LOOKS looks after an hour of baseline, at default settings.

    `sql`: also what reading costs, in a store of its own, for sizes up to SQL_SERIES.
    """
    settings = DetectSettings()
    windows = round((settings.baseline_s + settings.current_s) * 1e9 / WINDOW_NS)
    pool = Pool(min(DRAWN, max(sizes)), windows + LOOKS, seed)
    rivals = {"robust_z_loop": z_loop(pool.all, LOOP_SERIES), "pelt": pelt(pool.all, PELT_SERIES)}
    entries = []
    for series in sizes:
        entries.append(_ticks(pool, series, windows, settings, rivals))
        progress(series)
    result = {"windows": windows, "drawn": pool.series, "looks": LOOKS, "ticks": entries}
    if not sql:
        return result
    from observe.bench.tick_sql import reads

    return result | {"sql": reads(pool.all, [size for size in sizes if size <= SQL_SERIES])}


class Pool:
    """Windows of a few series, and copies of them under other names."""

    def __init__(self, series: int, windows: int, seed: int) -> None:
        rng = np.random.default_rng(seed)
        rates = np.exp(rng.uniform(np.log(0.1), np.log(20.0), series))
        self.series = series
        self.all = draw(Fleet(rates, windows), rng).windows
        starts = self.all["window_start_ns"].to_numpy()
        self._bounds = np.searchsorted(starts, START_NS + np.arange(windows + 1) * WINDOW_NS)
        self._names = self.all["service"].unique().sort()

    def windows(self, series: int, first: int, stop: int) -> pl.DataFrame:
        """Windows [first, stop) of that many series, sorted by time."""
        part = self.all[int(self._bounds[first]) : int(self._bounds[stop])]
        copies = []
        for copy in range(-(-series // self.series)):
            left = series - copy * self.series
            rows = part if left >= self.series else part.filter(pl.col("service").is_in(self._names[:left].implode()))
            copies.append(rows.with_columns(pl.col("service") + f"-{copy}"))
        return pl.concat(copies).sort("window_start_ns", maintain_order=True)

    def services(self, names: Sequence[str], stop: int) -> pl.DataFrame:
        """All windows before `stop` of the named copies: what a store gives back for them."""
        wanted = pl.DataFrame({"copy": names}, schema={"copy": pl.String}).with_columns(
            service=pl.col("copy").str.replace(r"-\d+$", "")
        )
        rows = self.all[: int(self._bounds[stop])].join(wanted, on="service", how="inner", maintain_order="left")
        return rows.with_columns(service="copy").drop("copy")


def _ticks(pool: Pool, series: int, windows: int, settings: DetectSettings, rivals: dict[str, Rival]) -> Json:
    memory, first = Memory(settings), START_NS // WINDOW_NS
    step = max(1, min(memory.stretch, ROWS_AT_ONCE // series))
    cold_cpu_s, peak_mib = 0.0, 0.0
    for start in range(0, windows, step):
        rows, stop = pool.windows(series, start, min(start + step, windows)), min(start + step, windows)
        with Peak() as peak:
            _, _, spent = timed(partial(memory.fold, rows, first + start, first + stop, first + windows))
        cold_cpu_s, peak_mib = cold_cpu_s + spent, max(peak_mib, peak.grown_mib)
    looks = list(_looks(pool, memory, series, windows, settings))
    parts = {name: np.median([look[name] for look in looks]) for name in looks[0]}
    seconds, cpu_s = parts["seconds"], parts["cpu_seconds"]
    held_mib = memory.bytes / MIB
    return {
        "series": series,
        "seconds": round(float(seconds), 4),
        "cpu_seconds": round(float(cpu_s), 4),
        "slowest_cpu_seconds": round(max(look["cpu_seconds"] for look in looks), 4),
        "fold_cpu_seconds": round(float(parts["fold"]), 4),
        "screen_cpu_seconds": round(float(parts["screen"]), 4),
        "tests_cpu_seconds": round(float(parts["tests"]), 4),
        "tested_exactly": int(parts["tested"]),
        "shifts": int(sum(look["shifts"] for look in looks)),
        "cold_cpu_seconds": round(cold_cpu_s, 3),
        "held_mib": round(held_mib, 1),
        "peak_mib": round(held_mib + max(float(parts["peak"]), peak_mib), 1),
        "rivals": {name: rival.at(series, float(cpu_s)) for name, rival in rivals.items()},
    }


def _looks(
    pool: Pool, memory: Memory, series: int, windows: int, settings: DetectSettings
) -> Iterator[dict[str, float]]:
    nothing, first = shapes.empty(), START_NS // WINDOW_NS
    for window in range(windows, windows + LOOKS):
        fresh = pool.windows(series, window, window + 1)
        with Peak() as peak:
            _, fold_s, fold_cpu = timed(partial(memory.fold, fresh, first + window, first + window + 1))
            memory.last = first + window + 1
            screened, screen_s, screen_cpu = timed(lambda: screen(memory, settings))
            rows = pool.services(sorted(screened.services), window + 1)
            frames, at_ns = Frames(rows, nothing.selfs, nothing.edges, nothing.gauges), now_ns(window + 1)
            found, tests_s, tests_cpu = timed(partial(detect, frames, at_ns, settings, (), screened.fleet))
        yield {
            "seconds": fold_s + screen_s + tests_s,
            "cpu_seconds": fold_cpu + screen_cpu + tests_cpu,
            "fold": fold_cpu,
            "screen": screen_cpu,
            "tests": tests_cpu,
            "tested": len(screened.services),
            "shifts": len(found),
            "peak": peak.grown_mib,
        }


def timed(work: Callable[[], T]) -> tuple[T, float, float]:
    """The result, seconds on the wall, and seconds of all cores: what others do on the machine adds to the first."""
    began, worked = time.perf_counter(), time.process_time()
    result = work()
    return result, time.perf_counter() - began, time.process_time() - worked


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
