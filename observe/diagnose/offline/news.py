"""Which services do what they never did, from spans: kinds of spans that were not seen before."""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray

from observe.diagnose.offline.felt import certainty

Floats = NDArray[np.float64]

FEWEST = 3
"""Fewer new spans than this are chance."""


def news(before: pl.DataFrame, after: pl.DataFrame, names: NDArray[np.str_]) -> Floats:
    """0..1 per service: how surely its new operations are news.

    How many would be new anyway is the share of spans whose operation was seen only once before (Good 1953,
    doi:10.1093/biomet/40.3-4.237), so that names with ids in them are no news. Of a trace only the first new span
    counts: an error that is handled in one service makes its callers do something new after it.
    """
    kinds = before.group_by("service", "operation").agg(n=pl.len())
    expected = kinds.group_by("service").agg(
        chance=((pl.col("n") == 1).sum() + 1) / (pl.col("n").sum() + 2),
    )
    new = (
        after.join(kinds, on=["service", "operation"], how="anti")
        .join(kinds.select("service").unique(), on="service", how="semi")
        .sort("start_us", "row")
        .unique("trace", keep="first", maintain_order=True)
        .group_by("service")
        .agg(new=pl.len())
    )
    found = (
        after.group_by("service")
        .agg(n=pl.len())
        .join(new, on="service")
        .join(expected, on="service")
        .filter(pl.col("new") >= FEWEST)
        .with_columns(rise=pl.col("new") / pl.col("n") - pl.col("chance"))
        .with_columns(z=pl.col("rise") / (pl.col("chance") * (1 - pl.col("chance")) / pl.col("n")).sqrt())
        .sort("service")
    )
    blame = np.zeros(len(names))
    blame[np.searchsorted(names, found["service"].to_numpy().astype(np.str_))] = certainty(found["z"].to_numpy())
    return blame
