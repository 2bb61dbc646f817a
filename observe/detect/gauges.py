"""Gauges that moved (GPU clocks, queue depth, cache use): context for the diagnosis, never a page by themselves."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

from observe.detect.evidence import Sample
from observe.detect.grid import METRIC, Ranges, Span, span_of
from observe.detect.onset import onsets
from observe.detect.statistics import Bools, Floats, Ints, adjusted, student_upper
from observe.frames import Frames
from observe.settings import DetectSettings
from observe.types import WINDOW_NS, Interval, Shift

KEYS = ["service", "operation", "metric", "unit"]
LEVEL = 0.001  # false discoveries among gauges: they only add to what the tests of requests have found
MIN_CHANGE = 0.1  # of the larger of the two levels
FLOOR = 0.02  # of the location: no gauge is steadier than that
FLOOR_OF_NEW = 0.05  # of the new level: a gauge that never moved has no spread to measure a move with
MAX_DEGREES = 10  # noise of gauges has heavy tails
WIDENED = 4  # a gauge sent every minute is read over four current ranges
CLIP = 10.0

SHARES = {"%": 100.0, "1": 1.0}  # what a share is a part of, by unit
NEARLY_WHOLE = 0.9  # part of the whole above which a share is judged by what is missing from it
NEARLY_WHOLE_UNNAMED = 0.995  # the same where no unit says that it is a share
MIN_MISSING = 0.01  # of the whole: by how much what is missing must have grown, and to twice what it was


def gauge_shifts(
    frames: Frames, now_ns: int, settings: DetectSettings, abnormal: Sequence[Interval] = ()
) -> list[Shift]:
    """Gauges and counter rates whose median moved against the trailing baseline; kind "Metric", measure = metric.

    `operation` names the thing that was measured: the gauge's labels with `host.name`, `hw.id` and
    `service.instance.id` among them, as "k=v,k=v" sorted by key.
    """
    span = span_of(now_ns, settings)
    keys, values = gauge_matrix(frames.gauges, span)
    if keys.is_empty():
        return []
    measured = ~np.isnan(values)
    now, n, length = _current(values, span)
    older = np.arange(span.length) < span.length - length[:, None]
    baseline = older & measured & _normal(keys, span, abnormal)
    location = _quantile(values, baseline, 0.5)
    whole = _wholes(keys, values, location)
    scale = np.maximum(_spread(values, baseline, location), FLOOR * np.abs(whole - location))
    scale = np.maximum(scale, FLOOR_OF_NEW * np.abs(whole - now))
    z = np.abs(now - location) / np.maximum(scale, 1e-12)
    degrees = np.clip(baseline.sum(axis=1) - 1.0, 1.0, MAX_DEGREES)
    tested = (baseline.sum(axis=1) >= span.min_baseline) & (n >= 2)
    p = np.ones(len(z))
    p[tested] = adjusted(2.0 * student_upper(z, degrees)[tested])
    moved = np.flatnonzero(tested & (p <= LEVEL) & _large(location, now, whole))
    onset = _onsets(values, location, scale, moved, span)
    return [
        Shift(
            service=key["service"],
            operation=key["operation"],
            kind=METRIC,
            measure=key["metric"],
            before=float(location[at]),
            after=float(now[at]),
            unit=key["unit"],
            p_value=float(p[at]),
            samples=int(n[at]),
            onset_ns=span.first_ns + int(window) * WINDOW_NS,
        )
        for key, at, window in zip(keys[moved.tolist()].to_dicts(), moved, onset, strict=True)
    ]


def gauge_matrix(gauges: pl.DataFrame, span: Span) -> tuple[pl.DataFrame, Floats]:
    """Series (KEYS), sorted, and their averages [series, window], NaN where nothing was measured."""
    index = ((pl.col("window_start_ns") - span.first_ns) // WINDOW_NS).alias("window")
    rows = (
        gauges.filter(pl.col("value_avg").is_finite())
        .select(index, _thing().alias("operation"), "service", "metric", "unit", "samples", "value_avg")
        .filter(pl.col("window").is_between(0, span.length - 1))
        .group_by("window", *KEYS)
        .agg((pl.col("value_avg") * pl.col("samples")).sum() / pl.col("samples").sum())
        .sort("window", *KEYS)
    )
    keys = rows.select(KEYS).unique().sort(KEYS).with_row_index("series")
    rows = rows.join(keys, on=KEYS, how="left", maintain_order="left")
    values = np.full((len(keys), span.length), np.nan)
    values[rows["series"].to_numpy(), rows["window"].to_numpy()] = rows["value_avg"].to_numpy()
    return keys.drop("series"), values


def _thing() -> pl.Expr:
    """What was measured: identity and labels, "k=v,k=v" sorted by key."""
    identity = {"host": "host.name", "hw_id": "hw.id", "instance": "service.instance.id"}
    parts = [pl.when(pl.col(column) != "").then(pl.format(f"{name}={{}}", column)) for column, name in identity.items()]
    known = pl.concat_list(*parts, pl.col("labels").str.split(",")).list
    return known.filter(pl.element().is_not_null() & (pl.element() != "")).list.sort().list.join(",")


def _normal(keys: pl.DataFrame, span: Span, abnormal: Sequence[Interval]) -> Bools:
    usable = np.ones((len(keys), span.length), dtype=bool)
    service = keys["service"].to_numpy()
    for interval in abnormal:
        # A gauge of a host carries no service; whatever went wrong may have gone wrong there.
        of = (service == interval.service) | (service == "") if interval.service else np.ones(len(keys), dtype=bool)
        start, end = max(0, span.index(interval.start_ns)), span.index(interval.end_ns - 1) + 1
        usable[of, start : max(start, end)] = False
    return usable


def _wholes(keys: pl.DataFrame, values: Floats, location: Floats) -> Floats:
    """What a share is a part of, where next to nothing is missing from it (availability, hit ratios); else 0; [series].

    A fall from 100 to 98 % is 2 % of the level, and yet infinitely more failures than before.
    """
    unit = keys["unit"].to_numpy()
    highest = np.nanmax(values, axis=1, initial=-np.inf)
    whole = np.zeros(len(location))
    for of in sorted(set(SHARES.values()), reverse=True):
        named = np.isin(unit, [name for name, part in SHARES.items() if part == of])
        least = np.where(named, NEARLY_WHOLE, np.where(np.isin(unit, list(SHARES)), np.inf, NEARLY_WHOLE_UNNAMED))
        whole = np.where((highest <= of) & (location >= least * of), of, whole)
    return whole


def _large(location: Floats, now: Floats, whole: Floats) -> Bools:
    """Whether the change is worth telling: a tenth of the level, or twice as much missing from the whole; [series]."""
    by_level = np.abs(now - location) > MIN_CHANGE * np.maximum(np.abs(now), np.abs(location))
    by_missing = (location - now >= MIN_MISSING * whole) & (whole - now >= 2.0 * (whole - location))
    large: Bools = by_level | (by_missing & (whole > 0))
    return large


def _spread(values: Floats, baseline: Bools, location: Floats) -> Floats:
    """The larger of the median deviation and the middle 90 %, as standard deviations; [series]."""
    deviation = 1.4826 * _quantile(np.abs(values - location[:, None]), baseline, 0.5)
    wide = (_quantile(values, baseline, 0.95) - _quantile(values, baseline, 0.05)) / 3.29
    return np.maximum(deviation, wide)


def _quantile(values: Floats, allowed: Bools, q: float) -> Floats:
    ordered = np.sort(np.where(allowed, values, np.inf), axis=1)
    at = np.round(q * np.maximum(allowed.sum(axis=1) - 1, 0)).astype(np.int64)
    return np.where(allowed.any(axis=1), np.take_along_axis(ordered, at[:, None], axis=1)[:, 0], 0.0)


def _current(values: Floats, span: Span) -> tuple[Floats, Ints, Ints]:
    """Median of the newest windows, how many were measured, and out of how many; [series]."""
    lengths = span.current, span.current * WIDENED
    short, long = (values[:, -length:] for length in lengths)
    level = [(_quantile(part, ~np.isnan(part), 0.5), (~np.isnan(part)).sum(axis=1)) for part in (short, long)]
    enough = level[0][1] >= 2
    return (
        np.where(enough, level[0][0], level[1][0]),
        np.where(enough, level[0][1], level[1][1]),
        np.where(enough, *lengths),
    )


def _onsets(values: Floats, location: Floats, scale: Floats, series: Ints, span: Span) -> Ints:
    if not len(series):
        return series
    measured = ~np.isnan(values)
    z = np.clip((np.nan_to_num(values) - location[:, None]) / np.maximum(scale, 1e-12)[:, None], -CLIP, CLIP)
    everything = np.ones(values.shape, dtype=bool)
    recent = np.full(len(values), max(0, span.length - 90))
    ranges = Ranges(everything, np.ones(len(values), dtype=np.int64), everything, recent)
    return onsets((Sample(z * measured, measured.astype(np.float64), "rank"),), series, ranges, directed=False)
