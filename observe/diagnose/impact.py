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
    here = pl.col("service").is_in(names) & (pl.col("kind") != "Metric")
    entry = pl.col("kind").is_in(list(ENTRY_KINDS))
    rows = frames.windows.lazy().filter(here).with_columns(picture.periods.mark(), entry=entry)
    rows = rows.filter(pl.col("period").is_not_null())
    sums = rows.group_by("entry", "period").agg(pl.col("requests", "errors").sum()).collect()
    if sums["entry"].any():
        rows, sums = rows.filter("entry"), sums.filter("entry")
    return Impact(services, max(_erring(sums), _slow(rows)))


def _erring(sums: pl.DataFrame) -> int:
    """Errors beyond the old ratio, from requests and errors by period."""
    requests, errors = (
        {period: int(sums.filter(pl.col("period") == period)[column].sum()) for period in (0, 1)}
        for column in ("requests", "errors")
    )
    return max(0, round(errors[1] - errors[0] / max(requests[0], 1) * requests[1]))


def _slow(rows: pl.LazyFrame) -> int:
    """Requests over their operation's old P99, less the one in a hundred that always is."""
    by = ["service", "operation", "kind"]
    counts = (
        rows.select(*by, "period", "latency_buckets")
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
