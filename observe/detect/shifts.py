"""All tests of one look, and which of their findings are told."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from observe.detect.errors import error_shifts
from observe.detect.findings import Findings
from observe.detect.grid import Grid, Ranges, grid_of, ranges_of, span_of
from observe.detect.latency import latency_shifts
from observe.detect.onset import onsets
from observe.detect.statistics import Bools, Floats, adjusted
from observe.detect.traffic import traffic_shifts
from observe.frames import Frames
from observe.settings import DetectSettings
from observe.types import WINDOW_NS, Interval, Shift

LOOKS_PER_DAY = 8_640
"""A series is tested again every 10 s, and a false alarm counts by the day: what is told must stay below
`max_false_discoveries` even if each of a day's looks were a try of its own. docs/detection.md has the count."""


def detect(frames: Frames, now_ns: int, settings: DetectSettings, abnormal: Sequence[Interval] = ()) -> list[Shift]:
    """The series that have moved, newest settled windows against the trailing baseline; sorted by series.

    `frames` hold at least [now − baseline − current − settle, now). `abnormal` intervals are no baseline.
    """
    if frames.windows.is_empty():
        return []
    grid = grid_of(frames.windows, span_of(now_ns, settings))
    if not grid.shape[0]:
        return []
    ranges = ranges_of(grid, abnormal)
    rare = settings.max_false_discoveries / LOOKS_PER_DAY
    families = (
        latency_shifts(grid, ranges, settings, rare),
        error_shifts(grid, ranges, settings, rare),
        traffic_shifts(grid, ranges, settings, int(frames.windows["window_start_ns"].max())),  # type: ignore[arg-type]
    )
    told = _told(families, rare, settings.max_false_discoveries)
    shifts = [
        shift
        for family, (found, p) in zip(families, told, strict=True)
        for shift in _shifts(family, grid, ranges, found, p)
    ]
    return sorted(shifts, key=lambda shift: (shift.service, shift.operation, shift.kind, shift.measure))


def _told(families: Sequence[Findings], rare: float, level: float) -> list[tuple[Bools, Floats]]:
    """Per family what is told, and all adjusted p-values: one correction over everything that was tested."""
    tested = np.concatenate([family.tested for family in families])
    p = np.concatenate([family.p for family in families])
    corrected = np.ones(len(p))
    corrected[tested] = adjusted(p[tested])
    found = tested & (p <= rare) & (corrected <= level)
    series = len(families[0].p)
    return [(found[i : i + series], corrected[i : i + series]) for i in range(0, len(p), series)]


def _shifts(family: Findings, grid: Grid, ranges: Ranges, found: Bools, p: Floats) -> list[Shift]:
    series = np.flatnonzero(found)
    if not len(series):
        return []
    directed = family.measures != ("requests_per_s",)
    windows = onsets(family.statistics, series, ranges, directed)
    keys = grid.keys[series.tolist()].rows()
    return [
        Shift(
            service=service,
            operation=operation,
            kind=kind,
            measure=family.measures[family.choice[at]],
            before=float(family.before[at]),
            after=float(family.after[at]),
            unit=family.unit,
            p_value=float(p[at]),
            samples=round(family.samples[at]),
            onset_ns=grid.span.first_ns + int(window) * WINDOW_NS,
        )
        for (service, operation, kind), at, window in zip(keys, series, windows, strict=True)
    ]
