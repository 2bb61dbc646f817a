"""Time beyond the old P99: what to split where only the tail moved.

A fault that meets one request in a hundred hardly moves a mean, and P99s do not add up. Time *beyond a fixed
threshold* does: per span, (self time − t)⁺ with t the P99 of its operation's self time before. Its sum over a period is
a compound Poisson variable, so its standard error is √Σ excess² (Feller, An Introduction to Probability Theory, XII).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from observe.diagnose.graph import Bools, Floats, Picture
from observe.diagnose.levels import Periods
from observe.frames import BUCKETS_PER_OCTAVE, Frames

QUANTILE = 0.99


@dataclass(frozen=True, slots=True)
class Tails:
    """Change of the time beyond the threshold, per request, by service and by edge (per request of its caller)."""

    own: Floats
    own_error: Floats
    edge: Floats
    edge_error: Floats


def tails(frames: Frames, picture: Picture, services: Bools) -> Tails:
    """From the histograms of self time, and of client durations where the callee is a virtual node; of `services` only,
    0 for the others."""
    names = [name for name, wanted in zip(picture.services, services.tolist(), strict=True) if wanted]
    selfs = frames.selfs.filter(pl.col("service").is_in(names))
    edges = frames.edges.filter(pl.col("caller").is_in(names) & pl.col("server_sum_ms").is_null())
    safe = np.maximum(picture.nodes.requests, 1.0)
    number = {name: i for i, name in enumerate(picture.services)}
    own = _excess(selfs.filter(pl.col("kind") != "Client"), "self_buckets", ["service"], picture.periods)
    at = np.array([number[s] for s in own["service"]], np.int64)
    own_change, own_error = _per_request(own, at, len(picture.services), safe)
    edge_of = {
        (picture.name(c), picture.name(j)): i
        for i, (c, j) in enumerate(zip(picture.edges.caller.tolist(), picture.edges.callee.tolist(), strict=True))
    }
    edge = _excess(edges, "latency_buckets", ["caller", "callee"], picture.periods)
    known = [(i, edge_of[key]) for i, key in enumerate(edge.select("caller", "callee").iter_rows()) if key in edge_of]
    edge = edge[[i for i, _ in known]]
    edge_change, edge_error = _per_request(
        edge, np.array([e for _, e in known], np.int64), len(picture.edges.caller), safe[:, picture.edges.caller]
    )
    return Tails(own_change, own_error, edge_change, edge_error)


def _excess(frame: pl.DataFrame, buckets: str, keys: list[str], when: Periods) -> pl.DataFrame:
    """Per key: x0 x1 (Σ excess in ms), q0 q1 (Σ excess²)."""
    within = [c for c in ("operation", "kind", "callee_operation") if c in frame.columns]
    counts = (
        frame.lazy()
        .with_columns(when.mark())
        .filter(pl.col("period").is_not_null())
        .select(*keys, *within, "period", buckets)
        .explode(buckets, empty_as_null=False)
        .unnest(buckets)
        .group_by(*keys, *within, "period", "bucket")
        .agg(pl.col("count").sum().cast(pl.Float64))
        .sort(*keys, *within, "bucket")
        .collect()
    )
    old = counts.filter(pl.col("period") == 0).with_columns(
        below=pl.col("count").cum_sum().over(*keys, *within) / pl.col("count").sum().over(*keys, *within)
    )
    threshold = old.filter(pl.col("below") >= QUANTILE).group_by(*keys, *within).agg(limit=pl.col("bucket").min())
    middle = (2.0 ** ((pl.col("bucket") + 0.5) / BUCKETS_PER_OCTAVE)) - 2.0 ** (
        (pl.col("limit") + 1) / BUCKETS_PER_OCTAVE
    )
    beyond = (
        counts.join(threshold, on=[*keys, *within])
        .filter(pl.col("bucket") > pl.col("limit"))
        .with_columns(over=middle.clip(lower_bound=0.0))
    )
    sums = []
    for period in (0, 1):
        here = pl.col("period") == period
        weighted = pl.col("count").filter(here) * pl.col("over").filter(here)
        sums += [weighted.sum().alias(f"x{period}"), (weighted * pl.col("over").filter(here)).sum().alias(f"q{period}")]
    return beyond.group_by(keys).agg(sums).sort(keys)


def _per_request(table: pl.DataFrame, at: np.ndarray, size: int, requests: Floats) -> tuple[Floats, Floats]:
    level = [np.bincount(at, table[f"x{p}"].to_numpy(), size) / requests[p] for p in (0, 1)]
    square = [np.bincount(at, table[f"q{p}"].to_numpy(), size) / requests[p] ** 2 for p in (0, 1)]
    return level[1] - level[0], np.sqrt(square[0] + square[1])
