"""Window series of suspects and symptoms around the onset: when each moved, and whether they moved together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from observe.diagnose.attribution import error_edges
from observe.diagnose.blame import Blamer
from observe.diagnose.graph import ENTRY_KINDS, Bools, Floats, Ints, outside_ms
from observe.frames import Frames
from observe.types import WINDOW_NS

LOOK_BACK = 30
"""Windows before the onset that the series reach back; enough for a level, few enough to be quick."""


@dataclass(frozen=True, slots=True)
class Series:
    """Means per window, nan where nothing happened; all series of one diagnosis share their windows."""

    start_ns: int
    own_ms: Mapping[str, Floats]  # per node: its own time and that of the edges it is to blame for, per request
    own_errors: Mapping[
        str, Floats
    ]  # per node: errors that began in it, or in calls that never reached it, per request
    latency_ms: Mapping[str, Floats]  # per service: mean duration of its requests
    error_ratio: Mapping[str, Floats]
    entering: Floats  # requests that enter the fleet from outside

    def onset_ns(self, values: Floats) -> int | None:
        """Start of the window in which the level changed for good; None for a series without a clear rise."""
        at = step(values)
        return None if at is None else self.start_ns + at * WINDOW_NS


def series(frames: Frames, judge: Blamer, wanted: Bools) -> Series:
    """Of the `wanted` nodes; those of others are left incomplete. Time on an edge counts for the node that is to blame
    for it; so do errors that only callers saw.

    A service that fell silent has no series of its own: what its callers see of it is then all there is.
    """
    view = judge.picture
    when, edges = view.periods, view.edges
    start_ns = max(when.before_from_ns, when.after_from_ns - LOOK_BACK * WINDOW_NS) // WINDOW_NS * WINDOW_NS
    names = [*view.services, *view.virtual]
    shape = (len(names), (when.after_to_ns - start_ns + WINDOW_NS - 1) // WINDOW_NS)
    wanted = wanted.copy()
    if wanted[judge.outside]:
        wanted[: len(view.services)] |= _entry(judge)
    asked = [name for name, one in zip(names, wanted.tolist(), strict=False) if one]
    touched = pl.col("caller").is_in(asked) | pl.col("callee").is_in(asked)
    frames = replace(
        frames, selfs=frames.selfs.filter(pl.col("service").is_in(asked)), edges=frames.edges.filter(touched)
    )
    nodes = _per_service(frames, start_ns, names)
    calls = _per_edge(frames, start_ns, names, list(zip(edges.caller.tolist(), edges.callee.tolist(), strict=True)))
    edge = calls["edge"].to_numpy()
    local, below = error_edges(view)
    alone = np.where(local > 0, local / np.maximum(local + below, 1e-12), 0.0)[edge]
    slow, failing = judge.owner[edge], np.where(judge.lost, judge.owner, edges.callee)[edge]
    requests = _grid(nodes, "node", "n", shape)
    # Calls that never arrived are no requests of the callee: what its callers tried counts there.
    tried = _grid(calls, failing, np.where(alone > 0, calls["calls"], 0.0), shape)
    count = np.where(requests > 0, requests, _grid(calls, slow, "calls", shape))
    own = _grid(nodes, "node", "own", shape) + _grid(calls, slow, "outside", shape)
    errors = _grid(nodes, "node", "origin", shape) + _grid(calls, failing, calls["errors"].to_numpy() * alone, shape)

    def each(total: Floats, per: Floats) -> dict[str, Floats]:
        return dict(zip(names, total / np.where(per > 0, per, np.nan), strict=True))

    return Series(
        start_ns,
        own_ms=each(own, count),
        own_errors=each(errors, np.maximum(requests, tried)),
        latency_ms=each(_grid(nodes, "node", "duration", shape), requests),
        error_ratio=each(_grid(nodes, "node", "errors", shape), requests),
        entering=requests[np.flatnonzero(_entry(judge))].sum(axis=0),
    )


def _entry(judge: Blamer) -> Bools:
    """Services that get most of their requests from outside."""
    rates = judge.traffic
    return np.asarray(rates.outside.max(axis=0) > 0.5 * rates.total.max(axis=0))


def _per_service(frames: Frames, start_ns: int, names: list[str]) -> pl.DataFrame:
    entry, inner = pl.col("kind").is_in(list(ENTRY_KINDS)), pl.col("kind") != "Client"
    return (
        frames.selfs.lazy()
        .filter(pl.col("window_start_ns") >= start_ns)
        .group_by("service", _window(start_ns))
        .agg(
            n=pl.col("requests").filter(entry).sum(),
            spans=pl.col("requests").filter(inner).sum(),
            own=pl.col("self_sum_ms").filter(inner).sum(),
            origin=pl.col("origin_errors").filter(inner).sum(),
            duration=pl.col("duration_sum_ms").filter(entry).sum(),
            errors=pl.col("errors").filter(entry).sum(),
        )
        .with_columns(n=pl.when(pl.col("n") > 0).then("n").otherwise("spans"), node=_number("service", names))
        .drop_nulls("node")
        .collect()
    )


def _per_edge(frames: Frames, start_ns: int, names: list[str], ends: list[tuple[int, int]]) -> pl.DataFrame:
    numbered = pl.DataFrame(
        {"from": [a for a, _ in ends], "to": [b for _, b in ends], "edge": range(len(ends))},
        schema={"from": pl.Int64, "to": pl.Int64, "edge": pl.Int64},
    )
    sums = (
        frames.edges.lazy()
        .filter(pl.col("window_start_ns") >= start_ns)
        .group_by("caller", "callee", _window(start_ns))
        .agg(outside=outside_ms().sum(), calls=pl.col("calls").sum(), errors=pl.col("errors").sum())
        .with_columns(_number("caller", names).alias("from"), _number("callee", names).alias("to"))
    )
    return sums.join(numbered.lazy(), on=["from", "to"]).collect()


def _window(start_ns: int) -> pl.Expr:
    return ((pl.col("window_start_ns") - start_ns) // WINDOW_NS).alias("at")


def _number(column: str, names: list[str]) -> pl.Expr:
    return pl.col(column).replace_strict(names, list(range(len(names))), default=None, return_dtype=pl.Int64)


def _grid(table: pl.DataFrame, rows: str | Ints, values: str | Floats, shape: tuple[int, int]) -> Floats:
    """Σ of `values` by (row, window)."""
    row = table[rows].to_numpy() if isinstance(rows, str) else rows
    value = table[values].to_numpy() if isinstance(values, str) else values
    sums = np.bincount(row * shape[1] + table["at"].to_numpy(), value, shape[0] * shape[1])
    return sums.astype(np.float64).reshape(shape)


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
