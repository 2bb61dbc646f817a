"""All tests of one look, and which of their findings are told."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np
import polars as pl

from observe.detect.cleaning import cleaned
from observe.detect.errors import error_shifts
from observe.detect.findings import Findings
from observe.detect.grid import KEYS, Fleet, Grid, Ranges, Span, fleet_of, grid_of, ranges_of, span_of
from observe.detect.latency import latency_shifts
from observe.detect.onset import onsets
from observe.detect.statistics import adjusted
from observe.detect.traffic import traffic_shifts
from observe.frames import Frames
from observe.noticed import Noticed, marked_ranges
from observe.settings import DetectSettings
from observe.types import WINDOW_NS, Interval, Shift

LOOKS_PER_DAY = 8_640
TRIES_PER_DAY = LOOKS_PER_DAY / 8
"""A series is tested again every 10 s, and a false alarm counts by the day: what is told must stay below
`max_false_discoveries` over a day. Looks at ranges that overlap are worth fewer independent tries; what is left of
false alarms is measured on simulated quiet days (docs/benchmarks.md)."""

ERROR_TRIES_PER_DAY = 100
"""Errors have to last as much, and few ratios come near: at p = 0.001 a look, 175 simulated days of nothing but noise
had one shift. So looks are worth fewer tries still (docs/detection.md)."""

SERIES_AT_ONCE = 2_000
"""More are tested one part after the other: a look's memory does not grow with the fleet."""


def detect(
    frames: Frames,
    now_ns: int,
    settings: DetectSettings,
    abnormal: Sequence[Interval] = (),
    fleet: Fleet | None = None,
) -> list[Shift]:
    """The series that have moved, newest settled windows against the trailing baseline; sorted by series.

    `frames` hold at least [now − baseline − current − settle, now) of all series or, where `fleet` tells of the others,
    of whole services. `abnormal` intervals are no baseline.
    """
    if frames.windows.is_empty():
        return []
    span = span_of(now_ns, settings)
    fleet = fleet or fleet_of(frames.windows, span)
    found = [shift for part in _parts(frames.windows) for shift in _found(part, span, fleet, settings, abnormal)]
    corrected = adjusted(np.array([shift.p_value for shift in found]), fleet.tests)
    told = [
        dataclasses.replace(shift, p_value=float(p))
        for shift, p in zip(found, corrected, strict=True)
        if p <= settings.max_false_discoveries
    ]
    return sorted(told, key=lambda shift: (shift.service, shift.operation, shift.kind, shift.measure))


def _parts(windows: pl.DataFrame) -> Iterator[pl.DataFrame]:
    """Whole services, about SERIES_AT_ONCE series at a time."""
    if windows.height <= SERIES_AT_ONCE or windows.select(pl.struct(KEYS).n_unique()).item() <= SERIES_AT_ONCE:
        yield windows
        return
    sizes = windows.select(KEYS).unique().group_by("service").len().sort("service")
    part = (sizes["len"].cum_sum() - 1) // SERIES_AT_ONCE
    if part[-1] == 0:
        yield windows
        return
    for names in sizes.with_columns(part=part).partition_by("part", maintain_order=True):
        yield windows.filter(pl.col("service").is_in(names["service"].implode()))


def _found(
    windows: pl.DataFrame,
    span: Span,
    fleet: Fleet,
    settings: DetectSettings,
    abnormal: Sequence[Interval],
) -> Iterator[Shift]:
    """What is rare enough for a day's looks, with the p-value of its own."""
    grid = grid_of(windows, span, fleet.live_in(span))
    if not grid.shape[0]:
        return
    ranges = cleaned(grid, ranges_of(grid, abnormal), settings)
    rare = settings.max_false_discoveries / TRIES_PER_DAY
    rare_errors = settings.max_false_discoveries / ERROR_TRIES_PER_DAY
    for family, least in (
        (latency_shifts(grid, ranges, settings, rare), rare),
        (error_shifts(grid, ranges, settings, rare_errors), rare_errors),
        (traffic_shifts(grid, ranges, settings, fleet.last_ns), rare),
    ):
        yield from _shifts(family, grid, ranges, least, fleet.last_ns)


def _shifts(family: Findings, grid: Grid, ranges: Ranges, rare: float, fleet_last_ns: int) -> list[Shift]:
    found = np.flatnonzero(family.p <= rare)
    if not len(found):
        return []
    directed = family.measures != ("requests_per_s",)
    series = family.series[found]
    windows = onsets(family.statistics, found, ranges.of(family.series), directed)
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
            p_value=float(family.p[at]),
            samples=round(family.samples[at]),
            onset_ns=grid.span.first_ns + int(window) * WINDOW_NS,
            query=_query(family, int(at), grid, ranges, fleet_last_ns),
        )
        for (service, operation, kind), at, window in zip(keys, found, windows, strict=True)
    ]


def _query(family: Findings, at: int, grid: Grid, ranges: Ranges, last_ns: int) -> str:
    """The address that gives `before` and `after` again."""
    series, length, span = int(family.series[at]), int(family.lengths[at]), grid.span
    if not length:
        return ""
    measure = family.measures[family.choice[at]]
    before, after, index = ranges.baseline[series], ranges.current[series], np.arange(span.length)
    end = span.length
    if measure == "requests_per_s":
        end = min(end, span.index(last_ns))
        before, after = before & grid.live & (index < end), np.ones(span.length, dtype=bool)
    else:
        # Windows without requests divide no range: they add nothing.
        some = np.flatnonzero(before)
        before = before | ((grid.requests[series] == 0) & (index > some.min()) & (index < some.max()))
    newest = after & (index >= end - length) & (index < end)
    compared = (marked_ranges(marked.tolist(), span.first_ns) for marked in (before, newest))
    return Noticed(measure, *grid.keys.row(series), *compared).query
