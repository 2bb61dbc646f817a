"""Fixed thresholds beside the statistical tests: a rule holds if it held in every window for as long as it asks.

How long an incident goes on after its rule no longer holds (`keep_firing_for_s`) is the incident's business.
"""

from __future__ import annotations

import fnmatch
import math
import re
from dataclasses import dataclass

import numpy as np
import polars as pl

from observe.detect.gauges import gauge_matrix
from observe.detect.grid import METRIC, Grid, Span, grid_of, span_of
from observe.detect.latency import quantiles_ms
from observe.detect.statistics import Bools, Floats, Ints
from observe.frames import BUCKETS_PER_OCTAVE, Frames
from observe.noticed import QUANTILES, Noticed
from observe.settings import DetectSettings, Rule
from observe.types import WINDOW_NS, Shift

WINDOW_S = WINDOW_NS / 1e9


@dataclass(frozen=True, slots=True)
class _Series:
    """A measure of all series that a rule may speak of. `values` may be shares that stand for it: see `_shares`."""

    keys: pl.DataFrame  # service, operation, kind, unit
    values: Floats  # [series, window], NaN where nothing was seen
    requests: Floats  # [series, window]


def evaluate(frames: Frames, now_ns: int, settings: DetectSettings) -> list[Shift]:
    """Shifts of all rules that hold, in the order of the rules and then by series.

    `before` is the level of the windows before the rule held, or its bound where there are none; `p_value` is 0:
    a rule is no test.
    """
    if not settings.rules:
        return []
    span = span_of(now_ns, settings)
    grid = grid_of(frames.windows, span)
    return [shift for rule in settings.rules for shift in _evaluate(rule, frames, grid, span)]


def _evaluate(rule: Rule, frames: Frames, grid: Grid, span: Span) -> list[Shift]:
    quantile = QUANTILES.get(rule.measure)
    bound = rule.above if rule.above is not None else rule.below
    assert bound is not None, "a rule has one bound: settings checked it"
    series = _measured(rule.measure, bound, frames, grid, span)
    if series.keys.is_empty():
        return []
    limit = bound if quantile is None else 1.0 - quantile
    with np.errstate(invalid="ignore"):
        holds = series.values > limit if rule.above is not None else series.values < limit
    run = _trailing(holds)
    asked = max(1, math.ceil(rule.for_s / WINDOW_S))
    found = np.flatnonzero((run >= asked) & _matches(series.keys, rule))
    return [_shift(rule, bound, series, grid, int(at), int(run[at]), span) for at in found]


def _trailing(holds: Bools) -> Ints:
    """Length of the unbroken run of windows up to the newest; [series]."""
    broken = ~holds[:, ::-1]
    run: Ints = np.where(broken.any(axis=1), np.argmax(broken, axis=1), holds.shape[1])
    return run


def _matches(keys: pl.DataFrame, rule: Rule) -> Bools:
    pattern = [re.compile(fnmatch.translate(text)) for text in (rule.service, rule.operation)]
    names = zip(keys["service"], keys["operation"], strict=True)
    return np.array([all(p.match(name) for p, name in zip(pattern, pair, strict=True)) for pair in names], dtype=bool)


def _measured(measure: str, bound: float, frames: Frames, grid: Grid, span: Span) -> _Series:
    if measure in QUANTILES:
        return _shares(grid, bound)
    if measure == "error_ratio":
        with np.errstate(invalid="ignore", divide="ignore"):
            return _spans(grid, "1", grid.errors / grid.requests)
    if measure == "requests_per_s":
        seen = np.maximum.accumulate(grid.requests > 0, axis=1) & grid.live
        return _spans(grid, "{request}/s", np.where(seen, grid.requests / WINDOW_S, np.nan))
    keys, values = gauge_matrix(frames.gauges.filter(pl.col("metric") == measure), span)
    named = keys.select("service", "operation", pl.lit(METRIC).alias("kind"), "unit")
    return _Series(named, values, (~np.isnan(values)).astype(np.float64))


def _spans(grid: Grid, unit: str, values: Floats) -> _Series:
    keys = grid.keys.with_columns(pl.lit(unit).alias("unit"))
    return _Series(keys, np.where(grid.of_spans[:, None], values, np.nan), grid.requests)


def _shares(grid: Grid, bound_ms: float) -> _Series:
    """A quantile lies above a bound where more than 1 − q of the requests do: the share can be added up by window."""
    entries = grid.entries
    column = math.log2(max(bound_ms, 1e-9)) * BUCKETS_PER_OCTAVE - entries.lowest
    above = np.clip(np.arange(entries.width) + 1.0 - column, 0.0, 1.0)
    score = np.broadcast_to(above, (grid.shape[0], entries.width))
    requests = entries.requests(grid.shape)
    with np.errstate(invalid="ignore", divide="ignore"):
        shares = entries.scored(score, grid.shape) / requests
    return _Series(grid.keys.with_columns(pl.lit("ms").alias("unit")), shares, requests)


def _shift(rule: Rule, bound: float, series: _Series, grid: Grid, at: int, run: int, span: Span) -> Shift:
    before, after = _levels(rule.measure, series, grid, at, run)
    key = series.keys.row(at, named=True)
    return Shift(
        service=key["service"],
        operation=key["operation"],
        kind=key["kind"],
        measure=rule.measure,
        before=bound if before is None else before,
        after=bound if after is None else after,
        unit=key["unit"],
        p_value=0.0,
        samples=round(float(series.requests[at, -run:].sum())),
        onset_ns=span.end_ns - run * WINDOW_NS,
        rule=rule.name,
        query=_query(rule.measure, (key["service"], key["operation"], key["kind"]), run, span),
    )


def _query(measure: str, series: tuple[str, str, str], run: int, span: Span) -> str:
    """The address that gives the levels again; of what is not a median over windows."""
    held_ns = span.end_ns - run * WINDOW_NS
    if measure not in QUANTILES or held_ns <= span.first_ns:
        return ""
    return Noticed(measure, *series, ((span.first_ns, held_ns),), ((held_ns, span.end_ns),)).query


def _levels(measure: str, series: _Series, grid: Grid, at: int, run: int) -> tuple[float | None, float | None]:
    parts = slice(None, -run), slice(-run, None)
    if measure in QUANTILES:
        windows = np.zeros(grid.shape, dtype=bool)
        levels: list[float | None] = []
        for part in parts:
            windows[:] = False
            windows[at, part] = True
            histogram = grid.entries.histogram(grid.shape[0], windows)[at : at + 1]
            level = float(quantiles_ms(histogram, [QUANTILES[measure]], grid.entries.lowest)[0, 0])
            levels.append(level or None)
        return levels[0], levels[1]
    values = [series.values[at, part] for part in parts]
    seen = [part[~np.isnan(part)] for part in values]
    before, after = (float(np.median(part)) if len(part) else None for part in seen)
    return before, after
