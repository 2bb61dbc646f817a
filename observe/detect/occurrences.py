"""What series did in one earlier stretch of time, held against shifts of now."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.lib.stride_tricks import sliding_window_view

from observe.detect.grid import Grid, Span, grid_of
from observe.detect.latency import quantiles_ms
from observe.detect.statistics import Bools, Floats, Ints, count_upper
from observe.frames import BUCKETS_PER_OCTAVE
from observe.settings import DetectSettings
from observe.types import WINDOW_NS, Shift

CHANCE = 0.01
"""How unlikely it must be that now is no more than it was at the same time, to be more."""
QUANTILES = {"p99": 0.99, "p95": 0.95, "p50": 0.50}


@dataclass(frozen=True, slots=True)
class Occurrences:
    """All [stretch, shift]."""

    known: Bools  # there was enough to compare
    recurs: Bools  # a range as long as now's had moved as far from where now's came from as is worth telling
    reaches: Bools  # and one had come so far that now's is no shift against it
    level: Floats  # of the range that had moved most


@dataclass(frozen=True, slots=True)
class Edges:
    """Levels that a range must pass; all [shift]."""

    recurs: Floats
    reaches: Floats
    rising: Bools


def occurrences(
    shifts: Sequence[Shift],
    windows: pl.DataFrame,
    stretches: Sequence[tuple[int, int]],
    span: Span,
    longest: int,
    settings: DetectSettings,
) -> Occurrences:
    """`windows` hold at least the shifts' series in the stretches [from_ns, to_ns), which are equally long. `span` is
    of the look that found the shifts; no range is longer than `longest` windows."""
    length = (stretches[0][1] - stretches[0][0]) // WINDOW_NS
    grid = grid_of(_side_by_side(windows, stretches), Span(0, length, (1,), 1))
    number = {key: i for i, key in enumerate(grid.keys.rows())}
    each = [(n, i) for n in range(len(stretches)) for i in range(len(shifts))]
    rows = np.array(
        [number.get((shifts[i].service, _named(shifts[i].operation, n), shifts[i].kind), -1) for n, i in each]
    )
    of = [shifts[i] for _, i in each]
    lasted = np.array([(span.end_ns - s.onset_ns) // WINDOW_NS for s in of])
    lengths = np.clip(lasted, max(2, span.current), max(2, min(longest, length)))
    edges, none = edges_of(of, settings), np.zeros(len(of))
    found: Answer = (none > 0, none > 0, none > 0, none.copy())
    family = np.array([_family(s.measure) for s in of])
    for at, judge in enumerate((_latency, _errors, _traffic)):
        mine = np.flatnonzero((family == at) & (rows >= 0))
        if len(mine):
            part = Edges(edges.recurs[mine], edges.reaches[mine], edges.rising[mine])
            least = settings.min_requests / 2.0
            answer = judge(grid, rows[mine], [of[i] for i in mine.tolist()], part, lengths[mine], least)
            found[0][mine], found[1][mine], found[2][mine], found[3][mine] = answer
    shape = len(stretches), len(shifts)
    known, recurs, reaches, level = found
    return Occurrences(known.reshape(shape), recurs.reshape(shape), reaches.reshape(shape), level.reshape(shape))


def _side_by_side(windows: pl.DataFrame, stretches: Sequence[tuple[int, int]]) -> pl.DataFrame:
    """Each series in each stretch as a series of its own, from window 0 on: read as one grid."""
    start = pl.col("window_start_ns")
    parts = [
        windows.filter(start.is_between(from_ns, to_ns - 1)).with_columns(
            start - -(-from_ns // WINDOW_NS) * WINDOW_NS, pl.col("operation") + _named("", n)
        )
        for n, (from_ns, to_ns) in enumerate(stretches)
    ]
    return pl.concat(parts)


def _named(operation: str, stretch: int) -> str:
    return f"{operation}\0{stretch}"


class Passed(NamedTuple):
    """All [shift], but `moved`."""

    known: Bools  # whether a range held enough trials
    passed: Bools
    place: Ints  # where the range with the largest share begins
    moved: Bools  # [shift, window]


Answer = tuple[Bools, Bools, Bools, Floats]


def _family(measure: str) -> int:
    return 2 if measure == "requests_per_s" else 1 if measure == "error_ratio" else 0


def edges_of(shifts: Sequence[Shift], settings: DetectSettings) -> Edges:
    """The settings of detection, solved for the level: where a shift from `before` begins, and from which level on
    `after` is none."""
    before, after = np.array([s.before for s in shifts]), np.array([s.after for s in shifts])
    more, ms = settings.p99_min_increase, settings.p99_min_increase_ms
    errors, ratio, change = settings.error_min_increase, settings.error_min_ratio, settings.traffic_min_change
    rising = after >= before
    recurs = np.choose([_family(s.measure) for s in shifts], [
        before + np.maximum(more * before, ms),
        np.maximum(before + errors, ratio * before),
        np.where(rising, (1.0 + change) * before, (1.0 - change) * before),
    ])  # fmt: skip
    lowest = max(1.0 - change, 1e-9)
    reaches = np.choose([_family(s.measure) for s in shifts], [
        np.minimum(after / (1.0 + more), after - ms),
        np.minimum(after - errors, after / ratio),
        np.where(rising, after / (1.0 + change), after / lowest),
    ])  # fmt: skip
    return Edges(recurs, reaches, rising)


def _latency(grid: Grid, rows: Ints, shifts: Sequence[Shift], edges: Edges, lengths: Ints, least: float) -> Answer:
    entries = grid.entries
    quantile = np.array([QUANTILES[s.measure.rsplit("_", 2)[1]] for s in shifts])
    requests = entries.requests(grid.shape)[rows]
    columns = np.arange(entries.width) + entries.lowest

    def beyond(level_ms: Floats) -> Floats:
        flags = np.zeros((grid.shape[0], entries.width), dtype=bool)
        flags[rows] = columns >= np.rint(BUCKETS_PER_OCTAVE * np.log2(np.maximum(level_ms, 1e-3)))[:, None]
        return entries.flagged([flags], grid.shape)[0][rows]

    known, recurs, place, moved = _passed(beyond(edges.recurs), requests, 1.0 - quantile, lengths, least)
    as_high = beyond(edges.reaches)
    reaches = _passed(as_high, requests, 1.0 - quantile, lengths, least).passed
    reaches |= _by_chance(as_high, requests, 1.0 - quantile, shifts, moved)
    index = np.arange(grid.span.length)
    best = np.zeros(grid.shape, dtype=bool)
    best[rows] = (index >= place[:, None]) & (index < (place + lengths)[:, None])
    levels = quantiles_ms(entries.histogram(grid.shape[0], best), list(QUANTILES.values()), entries.lowest)
    which = np.argmax(quantile[:, None] == np.array(list(QUANTILES.values())), axis=1)
    return known, recurs, reaches, levels[which, rows]


def _errors(grid: Grid, rows: Ints, shifts: Sequence[Shift], edges: Edges, lengths: Ints, least: float) -> Answer:
    errors, requests = grid.errors[rows], grid.requests[rows]
    known, recurs, place, moved = _passed(errors, requests, edges.recurs, lengths, least)
    reaches = _passed(errors, requests, edges.reaches, lengths, least).passed
    reaches |= _by_chance(errors, requests, np.array([s.after for s in shifts]), shifts, moved)
    index = np.arange(grid.span.length)
    best = (index >= place[:, None]) & (index < (place + lengths)[:, None])
    level: Floats = (errors * best).sum(axis=1) / np.maximum((requests * best).sum(axis=1), 1.0)
    return known, recurs, reaches, level


def _traffic(grid: Grid, rows: Ints, shifts: Sequence[Shift], edges: Edges, lengths: Ints, least: float) -> Answer:
    """Over minutes, as the test does. A minute's extreme window does not make it one that rose."""
    length = min(6, grid.span.length)
    minutes = sliding_window_view(grid.requests[rows], length, axis=1)
    seconds = WINDOW_NS / 1e9
    mean = minutes.sum(axis=2) / (length * seconds)
    steady = (minutes.sum(axis=2) - minutes.max(axis=2)) / (max(1, length - 1) * seconds)
    high, low = np.minimum(mean, steady).max(axis=1), mean.min(axis=1)
    recurs = np.where(edges.rising, high >= edges.recurs, low <= edges.recurs)
    reaches = np.where(edges.rising, high > edges.reaches, low <= edges.reaches)
    known: Bools = np.asarray(grid.requests[rows].any(axis=1))
    return known, recurs, reaches, np.where(edges.rising, mean.max(axis=1), low)


def _by_chance(counts: Floats, trials: Floats, after: Floats, shifts: Sequence[Shift], moved: Bools) -> Bools:
    """Whether the windows that had moved make `after` likely enough in as many requests as the shift was seen in;
    [shift]. A P99 of 150 requests is easily a third too high."""
    n = (trials * moved).sum(axis=1)
    share = (counts * moved).sum(axis=1) / np.maximum(n, 1.0)
    samples = np.array([float(s.samples) for s in shifts])
    likely: Bools = (count_upper(after * samples, share * samples, np.full(len(n), 1e9)) > CHANCE) & (n > 0)
    return likely


def _passed(counts: Floats, trials: Floats, share: Floats, lengths: Ints, least: float) -> Passed:
    """Which windows lie in a range of the asked length in which more than `share` counts, also without its worst
    window, and which begins the range with the largest share."""
    known, passed = np.zeros(len(share), dtype=bool), np.zeros(len(share), dtype=bool)
    place, moved = np.zeros(len(share), dtype=np.int64), np.zeros(counts.shape, dtype=bool)
    for length in np.unique(lengths).tolist():  # as many as there are lengths
        at = np.flatnonzero(lengths == length)
        count, n = (sliding_window_view(part[at], length, axis=1) for part in (counts, trials))
        total, out_of = count.sum(axis=2), n.sum(axis=2)
        worst = count.argmax(axis=2)[..., None]
        rest = total - np.take_along_axis(count, worst, axis=2)[..., 0]
        rest_n = out_of - np.take_along_axis(n, worst, axis=2)[..., 0]
        enough = out_of >= least
        part = share[at][:, None]
        ranges = enough & (total > part * out_of) & (rest > part * rest_n)
        known[at], passed[at] = enough.any(axis=1), ranges.any(axis=1)
        place[at] = np.where(enough, total / np.maximum(out_of, 1.0), -1.0).argmax(axis=1)
        # A window lies in such a range if one began at most length − 1 windows before it.
        began = np.pad(ranges, ((0, 0), (length - 1, length - 1)))
        moved[at] = sliding_window_view(began, length, axis=1).any(axis=2)
    return Passed(known, passed, place, moved)
