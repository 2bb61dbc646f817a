"""Blast radius: which services feel it, and how many requests."""

from __future__ import annotations

from collections.abc import Sequence

import networkx as nx
import polars as pl

from observe.diagnose.graph import ENTRY_KINDS, Picture
from observe.diagnose.symptoms import Symptom
from observe.frames import Frames
from observe.types import Impact


def impact(members: Sequence[Symptom], frames: Frames, picture: Picture) -> Impact:
    """Services at and above the symptoms; requests since the onset beyond what the old level would have had slow or
    erring, counted where users meet them: at the symptoms that no other symptom's service calls."""
    if not members:
        return Impact((), 0)
    there = {m.service for m in members}
    callers = set[int]().union(*(nx.ancestors(picture.graph, s) for s in there))
    services = tuple(sorted(picture.name(s) for s in there | callers))
    top = sorted(s for s in there if not (nx.ancestors(picture.graph, s) & there) - {s}) or sorted(there)
    names = [picture.name(s) for s in top]
    rows = frames.windows.filter(pl.col("service").is_in(names)).with_columns(picture.periods.mark())
    served = rows.filter(pl.col("kind").is_in(list(ENTRY_KINDS)))
    rows = (served if served.height else rows.filter(pl.col("kind") != "Metric")).filter(pl.col("period").is_not_null())
    return Impact(services, max(_erring(rows), _slow(rows)))


def _erring(rows: pl.DataFrame) -> int:
    if not rows.height:
        return 0
    (before, after) = (rows.filter(pl.col("period") == period) for period in (0, 1))
    old = int(before["errors"].sum()) / max(int(before["requests"].sum()), 1)
    return max(0, round(int(after["errors"].sum()) - old * int(after["requests"].sum())))


def _slow(rows: pl.DataFrame) -> int:
    """Requests over their operation's old P99, less the one in a hundred that always is."""
    by = ["service", "operation", "kind"]
    counts = (
        rows.lazy()
        .select(*by, "period", "latency_buckets")
        .explode("latency_buckets")
        .unnest("latency_buckets")
        .group_by(*by, "period", "bucket")
        .agg(pl.col("count").sum().cast(pl.Float64))
        .sort(*by, "bucket")
        .collect()
    )
    old = counts.filter(pl.col("period") == 0).with_columns(
        below=pl.col("count").cum_sum().over(by) / pl.col("count").sum().over(by)
    )
    limit = old.filter(pl.col("below") >= 0.99).group_by(by).agg(limit=pl.col("bucket").min())
    after = counts.filter(pl.col("period") == 1).join(limit, on=by)
    over = float(after.filter(pl.col("bucket") > pl.col("limit"))["count"].sum())
    return max(0, round(over - 0.01 * float(after["count"].sum())))
