"""Which services' own time grew, from spans: what an average request waits for them longer than before.

A request's duration is the sum over its spans of calls per request × self time (as in docs/diagnosis.md); only the
change of self time counts here. What passes between a client span and the server span below it belongs to the edge.
A slow network at a service shows on all its edges, so the changes of edges are split between their two ends by
non-negative least squares (Lawson & Hanson 1995, doi:10.1137/1.9781611971217).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.optimize import nnls

from observe.diagnose.offline.trees import outgoing

Floats = NDArray[np.float64]

NOISE = 2.0
"""Standard errors that are taken off each change."""
DRIFT = 0.1
"""A change below this part of the level is put down to another minute being another minute."""
PLAIN = 0.3
"""A rise by this part of a request's duration is half certain."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """µs per request that each service (of `names`) adds, and how certain it is that anything got slower: 0..1."""

    added_us: Floats
    certainty: float

    def share(self) -> Floats:
        return self.added_us / max(float(self.added_us.sum()), 1e-300)


def waiting(before: pl.DataFrame, after: pl.DataFrame, names: NDArray[np.str_]) -> Waiting:
    """From trees of spans. Services that are not among `names` are left out."""
    own = _changes(before.filter(~outgoing()), after.filter(~outgoing()), ["service", "operation"], pl.col("self_us"))
    gap = pl.col("duration_us") - pl.col("child_us")
    keys = ["service", "child_service", "operation"]
    edges = _changes(before.filter(outgoing()), after.filter(outgoing()), keys, gap)
    added = np.zeros(len(names))
    np.add.at(added, np.searchsorted(names, own["service"].to_numpy().astype(np.str_)), own["added"].to_numpy())
    added += _ends(edges, names)
    roots = before.filter(pl.col("parent").is_null())
    usual = float(roots["duration_us"].sum()) / max(roots.height, 1)
    total = float(added.sum())
    return Waiting(added, total / (total + PLAIN * usual) if total > 0 else 0.0)


def _changes(before: pl.DataFrame, after: pl.DataFrame, keys: list[str], time: pl.Expr) -> pl.DataFrame:
    """Per key `rise` (µs per call beyond noise), `calls` (per request), `added` (their product), `weight`."""
    levels = [
        tree.group_by(keys).agg(
            n=pl.len(),
            mean=time.mean(),
            error=(time.std() / pl.len().sqrt()).fill_null(time.mean().abs()),
            calls=pl.len() / max(roots, 1),
        )
        for tree, roots in ((before, _requests(before)), (after, _requests(after)))
    ]
    doubt = NOISE * (pl.col("error") ** 2 + pl.col("error_after") ** 2).sqrt() + DRIFT * pl.col("mean").abs()
    return (
        levels[0]
        .join(levels[1], on=keys, suffix="_after")
        .with_columns(
            rise=(pl.col("mean_after") - pl.col("mean") - doubt).clip(lower_bound=0),
            calls=(pl.col("calls") + pl.col("calls_after")) / 2,
            weight=pl.min_horizontal("n", "n_after").cast(pl.Float64).sqrt(),
        )
        .with_columns(added=pl.col("rise") * pl.col("calls"))
        .sort(keys)
    )


def _requests(tree: pl.DataFrame) -> int:
    return tree.filter(pl.col("parent").is_null()).height


def _ends(edges: pl.DataFrame, names: NDArray[np.str_]) -> Floats:
    """Growth of edges put down to their ends: µs per request."""
    found = np.zeros(len(names))
    if not edges.height:
        return found
    caller = np.searchsorted(names, edges["service"].to_numpy().astype(np.str_))
    callee = np.searchsorted(names, edges["child_service"].to_numpy().astype(np.str_))
    weight = edges["weight"].to_numpy()
    ends = np.zeros((edges.height, len(names)))
    rows = np.arange(edges.height)
    ends[rows, caller] = 1.0
    ends[rows, callee] = 1.0
    per_call, _ = nnls(ends * weight[:, None], edges["rise"].to_numpy() * weight)
    return np.asarray(per_call * (ends.T @ edges["calls"].to_numpy()))
