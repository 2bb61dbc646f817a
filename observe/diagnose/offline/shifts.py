"""How far each metric of each service moved, in units of what it does anyway.

The level of a stretch of time is the mean of its highest (lowest) half: a fault need not last as long as the stretch
that was cut out. How such a level varies without a fault is read off stretches of the same length before it, so that
slow drift does not pass for a shift (the idea of a block bootstrap: Künsch 1989, doi:10.1214/aos/1176347265). What had
moved already in the last such stretch moved for another reason. Location
and spread are median and median absolute deviation (Rousseeuw & Croux 1993, doi:10.1080/01621459.1993.10476408).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from observe.diagnose.offline.names import Kind, kind_of

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

SMALLEST = 0.05
"""A level that moves by less than this part of itself is never a large shift, however quiet it was before."""
SMALLEST_FAILURES = 0.005
"""The same for what is known as a share of all requests."""
MAD_TO_SIGMA = 1.4826
STRETCHES = 8
"""At least so many stretches without overlap are wanted before the fault; else stretches are cut shorter."""


@dataclass(frozen=True, slots=True)
class Shifts:
    """One entry per series. `up` and `down` are in robust standard deviations; levels in the metric's own unit, that
    of `success` turned into a share of failures."""

    service: NDArray[np.str_]
    metric: NDArray[np.str_]
    kind: NDArray[np.str_]
    before: Floats
    after_high: Floats
    after_low: Floats
    up: Floats
    down: Floats
    values: Floats  # time × series, what is missing filled with the level before
    is_after: NDArray[np.bool_]

    def of(self, *kinds: Kind) -> NDArray[np.bool_]:
        return np.isin(self.kind, kinds)


def shifts(metrics: pl.DataFrame, inject_at_s: float) -> Shifts:
    """Of every series that was seen before the fault and after it began. Shapes: series, or time × series."""
    wide = (
        metrics.filter(pl.col("value").is_finite())
        .with_columns(series=pl.struct("service", "metric").rank("dense"))
        .sort("time_s", "series")
    )
    names = wide.unique("series").sort("series").select("service", "metric")
    times, at = np.unique(wide["time_s"].to_numpy(), return_inverse=True)
    values = np.full((len(times), names.height), np.nan)
    values[at, wide["series"].to_numpy().astype(np.int64) - 1] = wide["value"].to_numpy()
    is_after = times >= inject_at_s
    known = np.isfinite(values)
    seen = known[~is_after].any(axis=0) & known[is_after].any(axis=0)
    names, values = names.filter(pl.Series(seen)), values[:, seen]
    kind = np.array([kind_of(m) for m in names["metric"].to_list()], dtype=np.str_)
    values = _filled(_as_failures(values, kind), is_after)
    before, after_high, after_low, up, down = _moved(
        values, is_after, kind, _requests(values[~is_after], kind, names["service"])
    )
    return Shifts(
        service=names["service"].to_numpy().astype(np.str_),
        metric=names["metric"].to_numpy().astype(np.str_),
        kind=kind,
        before=before,
        after_high=after_high,
        after_low=after_low,
        up=up,
        down=down,
        values=values,
        is_after=is_after,
    )


def _as_failures(values: Floats, kind: NDArray[np.str_]) -> Floats:
    """Success and availability as the share that failed; the best value ever seen counts as all."""
    good = kind == "success"
    if not good.any():
        return values
    best = np.nanmax(values[:, good], axis=0)
    values[:, good] = np.where(best > 0, 1 - values[:, good] / np.where(best > 0, best, 1), 0.0)
    return values


def _filled(values: Floats, is_after: NDArray[np.bool_]) -> Floats:
    usual = np.nanmedian(values[~is_after], axis=0) if values.shape[1] else np.zeros(0)
    return np.where(np.isfinite(values), values, usual)


def _requests(before: Floats, kind: NDArray[np.str_], service: pl.Series) -> Floats:
    """Usual requests per step of each series' service, inf where unknown: less than one failed request is no shift."""
    usual = np.median(before, axis=0) if before.shape[1] else np.zeros(0)
    table = pl.DataFrame({"service": service, "requests": np.where(kind == "traffic", usual, np.nan)}).fill_nan(None)
    return table.select(pl.col("requests").max().over("service").fill_null(np.inf)).to_series().to_numpy()


def _moved(
    values: Floats, is_after: NDArray[np.bool_], kind: NDArray[np.str_], requests: Floats
) -> tuple[Floats, Floats, Floats, Floats, Floats]:
    before, after = values[~is_after], values[is_after]
    if not values.shape[1]:
        nothing = np.zeros(0)
        return nothing, nothing, nothing, nothing, nothing
    length = max(1, min(len(after), len(before) // STRETCHES))
    high0, low0 = _levels(before, length)
    high1, low1 = (np.median(level, axis=0) for level in _levels(after, length))
    usual = np.median(before, axis=0)
    largest = np.abs(values).max(axis=0, initial=0.0)
    floor = SMALLEST * np.where(usual != 0, np.abs(usual), largest)
    floor = np.where(kind == "success", np.maximum(SMALLEST_FAILURES, 1 / np.maximum(requests, 1.0)), floor)
    last_high, last_low = (level[0] for level in _levels(before[-length:], length))
    up = (high1 - np.maximum(np.median(high0, axis=0), last_low)) / _spread(high0, floor)
    down = (np.minimum(np.median(low0, axis=0), last_high) - low1) / _spread(low0, floor)
    return usual, high1, low1, up, down


def _levels(values: Floats, length: int) -> tuple[Floats, Floats]:
    """Means of the highest and of the lowest half of each stretch: stretches × series."""
    step = max(1, length // 4)
    windows = np.lib.stride_tricks.sliding_window_view(values, length, axis=0)[::step]
    ordered = np.sort(windows, axis=-1)
    half = (length + 1) // 2
    return ordered[..., -half:].mean(axis=-1), ordered[..., :half].mean(axis=-1)


def _spread(levels: Floats, floor: Floats) -> Floats:
    middle = np.median(levels, axis=0)
    mad = MAD_TO_SIGMA * np.median(np.abs(levels - middle), axis=0)
    tails = (np.quantile(levels, 0.9, axis=0) - np.quantile(levels, 0.1, axis=0)) / 2.563
    return np.maximum(np.maximum(mad, tails), np.where(floor > 0, floor, 1e-300))
