"""Window series of suspects and symptoms around the onset: when each moved, and whether they moved together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from observe.diagnose.graph import ENTRY_KINDS, Picture, outside_ms
from observe.frames import Frames
from observe.types import WINDOW_NS

Floats = NDArray[np.float64]
LOOK_BACK = 30
"""Windows before the onset that the series reach back; enough for a level, few enough to be quick."""


@dataclass(frozen=True, slots=True)
class Series:
    """Means per window, nan where nothing happened; all series of one diagnosis share their windows."""

    start_ns: int
    own_ms: Mapping[str, Floats]  # per node: its own time and that of the edges it is to blame for, per request
    own_errors: Mapping[str, Floats]  # per service: errors that began in it, per request
    latency_ms: Mapping[str, Floats]  # per service: mean duration of its requests
    error_ratio: Mapping[str, Floats]

    def onset_ns(self, values: Floats) -> int | None:
        """Start of the window in which the level changed for good; None for a series without a clear rise."""
        at = step(values)
        return None if at is None else self.start_ns + at * WINDOW_NS


def series(frames: Frames, picture: Picture, owner: NDArray[np.int64]) -> Series:
    """Of every node; `owner` says which node an edge's own time counts for."""
    when = picture.periods
    start_ns = max(when.before_from_ns, when.after_from_ns - LOOK_BACK * WINDOW_NS) // WINDOW_NS * WINDOW_NS
    end_ns = when.after_to_ns
    near = (pl.col("window_start_ns") >= start_ns) & (pl.col("window_start_ns") < end_ns)
    windows = (end_ns - start_ns + WINDOW_NS - 1) // WINDOW_NS
    at = ((pl.col("window_start_ns") - start_ns) // WINDOW_NS).alias("at")
    selfs = frames.selfs.filter(near)
    entry = pl.col("kind").is_in(list(ENTRY_KINDS))
    inner = pl.col("kind") != "Client"
    per_service = (
        selfs.lazy()
        .group_by(pl.col("service").alias("name"), at)
        .agg(
            n=pl.col("requests").filter(entry).sum(),
            spans=pl.col("requests").filter(inner).sum(),
            own=pl.col("self_sum_ms").filter(inner).sum(),
            origin=pl.col("origin_errors").filter(inner).sum(),
            duration=pl.col("duration_sum_ms").filter(entry).sum(),
            errors=pl.col("errors").filter(entry).sum(),
        )
        .with_columns(n=pl.when(pl.col("n") > 0).then("n").otherwise("spans").cast(pl.Float64))
        .collect()
    )
    pairs = pl.DataFrame(
        {
            "caller": [picture.name(c) for c in picture.edges.caller.tolist()],
            "callee": [picture.name(c) for c in picture.edges.callee.tolist()],
            "name": [picture.name(c) for c in owner.tolist()],
        },
        schema={"caller": pl.String, "callee": pl.String, "name": pl.String},
    )
    per_edge = (
        frames.edges.lazy()
        .filter(near)
        .join(pairs.lazy(), on=["caller", "callee"])
        .group_by("name", at)
        .agg(edge=outside_ms().sum(), calls=pl.col("calls").sum().cast(pl.Float64))
        .collect()
    )
    both = per_service.join(per_edge, on=["name", "at"], how="full", coalesce=True).with_columns(
        n=pl.coalesce("n", "calls"),
        own=pl.col("own").fill_null(0.0) + pl.col("edge").fill_null(0.0),
    )
    return Series(
        start_ns,
        own_ms=_arrays(both, "own", windows),
        own_errors=_arrays(both, "origin", windows),
        latency_ms=_arrays(per_service, "duration", windows),
        error_ratio=_arrays(per_service, "errors", windows),
    )


def _arrays(table: pl.DataFrame, column: str, windows: int) -> dict[str, Floats]:
    found: dict[str, Floats] = {}
    values = (table[column].fill_null(0.0) / table["n"]).to_numpy()
    for name, at, value in zip(table["name"], table["at"].to_list(), values.tolist(), strict=True):
        if name not in found:
            found[name] = np.full(windows, np.nan)
        found[name][at] = value
    return found


def step(values: Floats) -> int | None:
    """Index at which the mean of `values` changes most clearly, upwards; None where nothing stands out.

    The split that leaves the least variance within its two sides (Sen & Srivastava 1975, doi:10.1214/aos/1176343001),
    kept where the rise exceeds three standard errors.

    >>> step(np.array([1.0, 1.1, 0.9, 1.0, 1.1, 5.0, 5.2, 4.9]))
    5
    >>> step(np.array([1.0, 1.1, 0.9, 1.0, 1.1, 1.0])) is None
    True
    """
    known = np.flatnonzero(np.isfinite(values))
    x = values[known]
    if len(x) < 4:
        return None
    left = np.arange(1, len(x))
    sums = np.cumsum(x)[:-1]
    right = len(x) - left
    rise = (x.sum() - sums) / right - sums / left
    gain = rise**2 * left * right / len(x)
    best = int(np.argmax(gain))
    within = max(float(((x - x.mean()) ** 2).sum() - gain[best]), 0.0) / max(len(x) - 2, 1)
    error = np.sqrt(within * (1 / left[best] + 1 / right[best]))
    return int(known[best + 1]) if rise[best] > max(3 * error, 1e-12) else None


def correlation(one: Floats, other: Floats) -> float | None:
    """Pearson's r over the windows that both know; None where fewer than five, or one does not move."""
    both = np.isfinite(one) & np.isfinite(other)
    if int(both.sum()) < 5:
        return None
    a, b = one[both] - one[both].mean(), other[both] - other[both].mean()
    size = float(np.sqrt((a**2).sum() * (b**2).sum()))
    return float((a * b).sum() / size) if size > 1e-12 else None
