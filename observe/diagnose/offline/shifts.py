"""How far each metric of each service moved, in units of what it does anyway.

The level of a stretch of time is the median of its highest (lowest) half: a fault need not last as long as the
stretch that was cut out, and a single row says nothing. How such a level varies without a fault is read off stretches
of the same length before it, so that slow drift does not pass for a shift (the idea of a block bootstrap: Künsch 1989,
doi:10.1214/aos/1176347265). What had moved already in the last such stretch moved for another reason. Location
and spread are median and median absolute deviation (Rousseeuw & Croux 1993, doi:10.1080/01621459.1993.10476408).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from observe.diagnose.offline.kinds import kinds
from observe.diagnose.offline.names import Kind

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Wide = tuple[Floats, pl.DataFrame, Floats]

SMALLEST = 0.05
"""A level that moves by less than this part of itself is never a large shift, however quiet it was before."""
SMALLEST_FAILURES = 0.005
"""The same for what is known as a share of all requests."""
NEAR_BEST = 0.9
"""A share of successes is above this part of its best in every second step at least."""
MAD_TO_SIGMA = 1.4826
STRETCHES = 8
"""At least so many stretches without overlap are wanted before the fault; else stretches are cut shorter."""


@dataclass(frozen=True, slots=True)
class Shifts:
    """One entry per series. `up` and `down` are in robust standard deviations; levels in the metric's own unit, that
    of success and errors turned into a share of failures where that can be told; other errors are `counts`."""

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


def shifts(table: Wide, inject_at_s: float, calls: Collection[tuple[str, str]] = ()) -> Shifts:
    """Of every series that was seen before the fault and after it began. Shapes: series, or time × series. `calls` are
    known pairs of services, caller first."""
    times, names, values = table
    is_after = times >= inject_at_s
    known = np.isfinite(values)
    seen = known[~is_after].any(axis=0) & known[is_after].any(axis=0)
    names, values = names.filter(pl.Series(seen)), values[:, seen]
    kind = kinds(values, names, calls)
    service = names["service"].to_numpy().astype(np.str_)
    asked = _asked(values, kind, service)
    kind = np.where(_successes(values, kind) & np.isnan(asked).all(axis=0), "traffic", kind)
    kind = np.where(_counted(values, kind) & np.isnan(asked).all(axis=0), "counts", kind)
    values = _filled(_as_failures(_while_asked(values, kind, asked), kind, asked), is_after)
    before, after_high, after_low, up, down = _moved(values, is_after, kind, _least(asked[~is_after], times))
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


def wide(metrics: pl.DataFrame) -> Wide:
    """(times, `service` and `metric` of each series, values as time × series with nan where there is none). Of two
    values of a series at the same time the later row counts."""
    rows = metrics.filter(pl.col("value").is_finite())
    keys = ["service", "metric"]
    names = rows.select(keys).unique().sort(keys)
    at = rows.join(names.with_row_index("series"), on=keys, how="left", maintain_order="left")["series"]
    times = rows["time_s"].unique().sort().to_numpy()
    values = np.full((len(times), names.height), np.nan)
    values[np.searchsorted(times, rows["time_s"].to_numpy()), at.to_numpy()] = rows["value"].to_numpy()
    return times, names, values


def _asked(values: Floats, kind: NDArray[np.str_], service: NDArray[np.str_]) -> Floats:
    """Requests of each series' service, nan where unknown: time × series."""
    found = np.full(values.shape, np.nan)
    for i in np.flatnonzero(kind == "traffic").tolist():
        same = service == service[i]
        found[:, same] = np.fmax(found[:, same], values[:, [i]])
    return found


def _counted(values: Floats, kind: NDArray[np.str_]) -> NDArray[np.bool_]:
    """Errors that are told as numbers, not as a share of the requests."""
    return np.asarray((kind == "errors") & (np.max(values, axis=0, initial=0.0, where=np.isfinite(values)) > 1))


def _successes(values: Floats, kind: NDArray[np.str_]) -> NDArray[np.bool_]:
    """Successes that are told as numbers of requests: a share stays near its best."""
    known = np.isfinite(values)
    best = np.max(values, axis=0, initial=0.0, where=known)
    near = (known & (values >= NEAR_BEST * best)).sum(axis=0)
    return np.asarray((kind == "success") & (best > 1) & (near < 0.5 * known.sum(axis=0)))


def _while_asked(values: Floats, kind: NDArray[np.str_], asked: Floats) -> Floats:
    """Without what is told of latency and failures in steps in which nobody asked the service."""
    return np.where((asked == 0) & np.isin(kind, ("latency", "success", "errors")), np.nan, values)


def _as_failures(values: Floats, kind: NDArray[np.str_], asked: Floats) -> Floats:
    """Success, availability and errors as the share that failed; the best success ever seen counts as all."""
    known = np.isfinite(values)
    best = np.max(values, axis=0, initial=0.0, where=known)
    all_of = np.where(_successes(values, kind), np.where(asked > 0, asked, np.nan), np.where(best > 0, best, 1.0))
    failed = np.clip(1 - values / all_of, 0.0, None)
    share = values / np.where(asked > 0, asked, np.nan)
    return np.select(
        [kind == "success", _counted(values, kind) & np.isfinite(asked).any(axis=0)], [failed, share], values
    )


def _filled(values: Floats, is_after: NDArray[np.bool_]) -> Floats:
    """What is missing is as usual: the median before, else after, else nothing."""
    usual = np.zeros(values.shape[1])
    for part in (values, values[~is_after]):
        known = np.isfinite(part).any(axis=0)
        usual[known] = np.nanmedian(part[:, known], axis=0)
    return np.where(np.isfinite(values), values, usual)


def _least(before: Floats, times: Floats) -> Floats:
    """The smallest share of failures that can be seen, per series: one request of those in a step. 0 where unknown.
    What is no whole number is taken for a rate per second."""
    known = np.isfinite(before)
    usual = np.zeros(before.shape[1])
    told = known.any(axis=0)
    usual[told] = np.nanmedian(before[:, told], axis=0)
    whole = (np.where(known, before, 0.0) % 1 == 0).all(axis=0)
    step = float(np.median(np.diff(times))) if len(times) > 1 else 1.0
    return np.where(told, 1 / np.maximum(usual * np.where(whole, 1.0, step), 1.0), 0.0)


def _moved(
    values: Floats, is_after: NDArray[np.bool_], kind: NDArray[np.str_], least: Floats
) -> tuple[Floats, Floats, Floats, Floats, Floats]:
    before, after = values[~is_after], values[is_after]
    if not values.shape[1]:
        nothing = np.zeros(0)
        return nothing, nothing, nothing, nothing, nothing
    length = stretch(len(before), len(after))
    high0, low0 = levels(before, length)
    high1, low1 = (np.median(level, axis=0) for level in levels(after, length))
    usual = np.median(before, axis=0)
    largest = np.abs(values).max(axis=0, initial=0.0)
    floor = SMALLEST * np.where(usual != 0, np.abs(usual), largest)
    floor = np.where(np.isin(kind, ("success", "errors")), np.maximum(SMALLEST_FAILURES, least), floor)
    floor = np.where(kind == "counts", np.maximum(floor, 1.0), floor)
    last_high, last_low = (level[0] for level in levels(before[-length:], length))
    up = (high1 - np.maximum(np.median(high0, axis=0), last_low)) / _spread(high0, floor)
    down = (np.minimum(np.median(low0, axis=0), last_high) - low1) / _spread(low0, floor)
    return usual, high1, low1, up, down


def stretch(before: int, after: int) -> int:
    """How many steps are compared at a time."""
    return max(1, min(after, before // STRETCHES))


def levels(values: Floats, length: int) -> tuple[Floats, Floats]:
    """Medians of the highest and of the lowest half of each stretch: stretches × series."""
    step = max(1, length // 4)
    windows = np.lib.stride_tricks.sliding_window_view(values, length, axis=0)[::step]
    ordered = np.sort(windows, axis=-1)
    half = (length + 1) // 2
    return np.median(ordered[..., -half:], axis=-1), np.median(ordered[..., :half], axis=-1)


def _spread(levels: Floats, floor: Floats) -> Floats:
    middle = np.median(levels, axis=0)
    mad = MAD_TO_SIGMA * np.median(np.abs(levels - middle), axis=0)
    tails = (np.quantile(levels, 0.9, axis=0) - np.quantile(levels, 0.1, axis=0)) / 2.563
    return np.maximum(np.maximum(mad, tails), np.where(floor > 0, floor, 1e-300))
