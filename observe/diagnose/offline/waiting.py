"""Which services' own time grew, from spans: what a request that meets a service waits longer there than before.

A request's duration is the sum over its spans of calls × self time (as in docs/diagnosis.md); only the change of self
time counts here. What passes between a client span and the server span below it belongs to the edge. A slow network
at a service shows on all its edges, so the changes of edges are split between their two ends by non-negative least
squares (Lawson & Hanson 1995, doi:10.1137/1.9781611971217).
"""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.optimize import nnls

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

NOISE = 2.0
"""Standard errors that are taken off each change."""
DRIFT = 0.1
"""A change by this part of the level is put down to another minute being another minute; a request that takes longer
by this part is half certain to suffer."""


def waiting(before: pl.DataFrame, after: pl.DataFrame, names: NDArray[np.str_]) -> Floats:
    """0..1 per service, from trees of spans with `leads`; all their services are among `names`, which are sorted.

    The service's part of all that got slower, in requests that meet it, times how sure it is that something did: a
    large part of what the service took before, and of what such requests took.
    """
    inner, client = pl.col("leads") == "", pl.col("leads") != ""
    own = _changes(before.filter(inner), after.filter(inner), ["service", "operation"], pl.col("self_us"))
    gap = pl.col("duration_us") - pl.col("child_us")
    edges = _changes(before.filter(client), after.filter(client), ["service", "leads", "operation"], gap)
    added, usual = np.zeros(len(names)), np.zeros(len(names))
    at = _index(names, own["service"])
    np.add.at(added, at, (own["rise"] * own["spans"]).to_numpy())
    np.add.at(usual, at, (own["mean"] * own["spans"]).to_numpy())
    ends = np.zeros((edges.height, len(names)))  # 1 where an edge begins or ends
    ends[np.arange(edges.height), _index(names, edges["service"])] = 1.0
    ends[np.arange(edges.height), _index(names, edges["leads"])] = 1.0
    added += _split(ends, edges) * (ends.T @ edges["spans"].to_numpy())
    usual += ends.T @ (edges["mean"] * edges["spans"]).to_numpy()
    met, lasts = _requests(before, after, names)
    per_request = added / np.maximum(met, 1.0)
    share = per_request / max(float(per_request.sum()), 1e-300)
    return np.asarray(share * _part(added, usual) * _part(per_request, DRIFT * lasts))


def _part(more: Floats, usual: Floats) -> Floats:
    """0..1: one half where what was added equals what was usual."""
    return np.divide(more, more + usual, out=np.zeros_like(more), where=more > 0)


def _changes(before: pl.DataFrame, after: pl.DataFrame, keys: list[str], time: pl.Expr) -> pl.DataFrame:
    """Per key: `mean` before and `rise` beyond noise (µs per span), `spans` (mean of before and after)."""
    error = (time.std() / pl.len().sqrt()).fill_null(time.mean().abs())
    levels = [tree.group_by(keys).agg(n=pl.len(), mean=time.mean(), error=error) for tree in (before, after)]
    doubt = NOISE * (pl.col("error") ** 2 + pl.col("error_after") ** 2).sqrt() + DRIFT * pl.col("mean").abs()
    return (
        levels[0]
        .join(levels[1], on=keys, suffix="_after")
        .with_columns(
            rise=(pl.col("mean_after") - pl.col("mean") - doubt).clip(lower_bound=0),
            spans=pl.col("n_after").cast(pl.Float64),
            weight=pl.min_horizontal("n", "n_after").cast(pl.Float64).sqrt(),
        )
        .sort(keys)
    )


def _split(ends: Floats, edges: pl.DataFrame) -> Floats:
    """µs per span on an edge that each service adds: Δ(a, b) ≈ n_a + n_b with n ≥ 0, edges of many spans first."""
    if not edges.height:
        return np.zeros(ends.shape[1])
    weight = edges["weight"].to_numpy()
    found, _ = nnls(ends * weight[:, None], edges["rise"].to_numpy() * weight)
    return np.asarray(found)


def _requests(before: pl.DataFrame, after: pl.DataFrame, names: NDArray[np.str_]) -> tuple[Floats, Floats]:
    """Per service: requests after that meet it, and what such a request took before (µs; its longest span)."""
    met, lasts = np.zeros(len(names)), np.zeros(len(names))
    seen = after.group_by("service").agg(n=pl.col("trace").n_unique())
    met[_index(names, seen["service"])] = seen["n"].to_numpy()
    took = (
        before.with_columns(lasts=pl.col("duration_us").max().over("trace"))
        .unique(["trace", "service"])
        .group_by("service")
        .agg(pl.col("lasts").mean())
    )
    lasts[_index(names, took["service"])] = took["lasts"].to_numpy()
    return met, lasts


def _index(names: NDArray[np.str_], services: pl.Series) -> Ints:
    return np.asarray(np.searchsorted(names, services.to_numpy().astype(np.str_)), dtype=np.int64)
