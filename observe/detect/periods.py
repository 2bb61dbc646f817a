"""Periods of a series that nobody told of: a job every hour, a cache that is refilled every twenty minutes.

The spectrum only proposes; whether earlier cycles had the shift, too, is then asked of each (`observe.detect.seasons`).
"""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.lib.stride_tricks import sliding_window_view
from scipy import special

from observe.detect.latency import quantiles_ms
from observe.detect.occurrences import QUANTILES
from observe.detect.statistics import Floats, Ints
from observe.frames import BLOCK_NS
from observe.types import WINDOW_NS, Shift

SPECTRUM_NS = 48 * 3600 * 10**9
"""How far back a period is looked for."""
SHORTEST_NS, LONGEST_NS = 3 * BLOCK_NS, 6 * 3600 * 10**9
"""Shorter ones come several times an hour, and are part of the trailing baseline; longer ones that jobs have divide a
day."""
MIN_CYCLES = 6
HARMONICS = 8
PADDING = 8
LEVEL = 1e-4
ALIKE = 0.8
OWN = 0.05
"""Pulses have the same power at all multiples of their frequency, so a half of the period explains as much, and so does
its double: of periods that explain about as much the longest is meant that has this part of the power at its own."""
AROUND = 25  # blocks, two hours: what lasts for longer than half of that is no job but a level
CLIP = 4.0
CIVIL_NS = tuple(m * 60 * 10**9 for m in (15, 20, 30, 45, 60, 90, 120, 180, 240, 360, 480, 720))
"""Clocks start jobs at such intervals; one that the spectrum cannot tell from the found one is meant."""


def period_ns(shift: Shift, blocks: pl.DataFrame, end_ns: int) -> int:
    """Period of the shift's series in its BLOCKS before `end_ns`; 0 where there is none."""
    values = levels(shift, blocks, end_ns)
    return period(values) if np.isfinite(values).sum() >= MIN_CYCLES * 3 else 0


def levels(shift: Shift, blocks: pl.DataFrame, end_ns: int) -> Floats:
    """The shift's measure in each block of SPECTRUM_NS before `end_ns`, NaN without requests; [block]."""
    count = SPECTRUM_NS // BLOCK_NS
    place = (pl.col("block_start_ns") - end_ns) // BLOCK_NS + count
    series = (pl.col("service") == shift.service) & (pl.col("operation") == shift.operation)
    series &= (pl.col("kind") == shift.kind) & (pl.col("model") == "")
    rows = blocks.filter(series).with_columns(place.alias("place")).filter(pl.col("place").is_between(0, count - 1))
    values = np.full(count, np.nan)
    at, requests = rows["place"].to_numpy(), rows["requests"].to_numpy().astype(np.float64)
    if shift.measure == "requests_per_s":
        values[:] = 0.0 if len(at) else np.nan
        values[at] = requests
    elif shift.measure == "error_ratio":
        values[at] = rows["errors"].to_numpy() / np.maximum(requests, 1.0)
    elif len(at):
        values[at] = _quantile(rows, QUANTILES[shift.measure.rsplit("_", 2)[1]])
    return values


def _quantile(rows: pl.DataFrame, q: float) -> Floats:
    flat = rows.select(pl.int_range(pl.len()).alias("row"), "latency_buckets").explode("latency_buckets")
    flat = flat.drop_nulls().unnest("latency_buckets")
    lowest = int(flat["bucket"].min() or 0)  # type: ignore[arg-type]
    histogram = np.zeros((len(rows), int(flat["bucket"].max() or 0) - lowest + 1))  # type: ignore[arg-type]
    np.add.at(histogram, (flat["row"].to_numpy(), flat["bucket"].to_numpy() - lowest), flat["count"].to_numpy())
    level: Floats = quantiles_ms(histogram, (q,), lowest)[0]
    return level


def period(values: Floats) -> int:
    """Period in ns of the values of consecutive blocks, NaN where unknown; 0 where there is none.

    What stands out of its two hours is clipped, so that one wild block is no more than any other. The power of a
    frequency and its harmonics is summed, as pulses have both; for white noise twice the sum is χ² with two degrees
    of freedom each (Fisher 1929, doi:10.1098/rspa.1929.0151, tests the largest ordinate).
    """
    pulses = _pulses(values)
    blocks = len(pulses)
    power = np.abs(np.fft.rfft(pulses, PADDING * blocks)) ** 2
    noise = float(np.median(power[PADDING:])) / np.log(2.0)  # an exponential law's mean, whatever stands out of it
    if noise <= 0.0:
        return 0
    power /= noise
    longest = min(LONGEST_NS, blocks * BLOCK_NS // MIN_CYCLES)
    first, last = (int(np.ceil(PADDING * blocks * BLOCK_NS / p)) for p in (longest, SHORTEST_NS))
    candidates = np.arange(first, min(last + 1, len(power)))
    if not len(candidates):
        return 0
    harmonics = np.minimum(HARMONICS, (len(power) - 1) // candidates)
    total = sum(np.where(h <= harmonics, power[np.minimum(h * candidates, len(power) - 1)], 0.0)
                for h in range(1, HARMONICS + 1))  # fmt: skip
    p = special.chdtrc(2.0 * harmonics, 2.0 * np.asarray(total))
    if p.min() * len(candidates) / PADDING > LEVEL:
        return 0
    sums = np.asarray(total)
    alike = (sums >= ALIKE * sums.max()) & (power[candidates] >= OWN * sums)
    best = candidates[int(np.argmax(alike))] if alike.any() else candidates[int(np.argmax(sums))]
    top = _peak(candidates, sums, int(best))
    return _civil(PADDING * blocks * BLOCK_NS / top)


def _peak(candidates: Ints, total: Floats, start: int) -> int:
    """The highest frequency bin of the hill that begins at `start`."""
    near = (candidates >= start) & (candidates < start + 2 * PADDING)
    return int(candidates[near][int(np.argmax(total[near]))])


def _pulses(values: Floats) -> Floats:
    """By how many robust standard deviations each block lies above the median around it, clipped; 0 where unknown."""
    known = np.isfinite(values)
    if not known.any():
        return np.zeros(len(values))
    filled = np.where(known, values, np.nanmedian(values))
    least = 0.01 * max(float(np.max(filled)), 1e-12)
    logs = np.log(filled + least)
    padded = np.pad(logs, AROUND // 2, mode="reflect")
    away = logs - np.median(sliding_window_view(padded, AROUND), axis=1)
    scale = max(1.4826 * float(np.median(np.abs(away[known]))), 0.02)
    clipped: Floats = np.where(known, np.clip(away / scale, -CLIP, CLIP), 0.0)
    pulses: Floats = clipped - clipped.mean()
    return pulses


def _civil(period: float) -> int:
    resolution = period**2 / (2.0 * SPECTRUM_NS)
    nearest = min(CIVIL_NS, key=lambda civil: abs(civil - period))
    return nearest if abs(nearest - period) <= resolution else round(period / WINDOW_NS) * WINDOW_NS
