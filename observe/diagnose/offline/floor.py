"""What a ranking must beat: the largest robust shift of any metric, and chance."""

from __future__ import annotations

import polars as pl

from observe.diagnose.offline.case import Case


def largest_shift(case: Case) -> list[str]:
    """Services by their most risen metric: median of (value − median before) / interquartile range before.

    After the scorer of BARO (Pham, Ha & Zhang, FSE 2024, doi:10.1145/3660805), written from its description, with the
    median after the fault instead of the maximum, which did better. Metrics that did not vary before are left out; no
    graph, no spans, no kinds of metrics. Services without any come last.
    """
    keys = ["service", "metric"]
    value = pl.col("value")
    usual = (
        case.metrics.filter(pl.col("time_s") < case.inject_at_s)
        .group_by(keys)
        .agg(middle=value.median(), width=value.quantile(0.75, "linear") - value.quantile(0.25, "linear"))
        .filter(pl.col("width") > 0)
    )
    found = (
        case.metrics.filter(pl.col("time_s") >= case.inject_at_s)
        .join(usual, on=keys)
        .group_by(keys)
        .agg(score=((value - pl.col("middle")) / pl.col("width")).median())
        .group_by("service")
        .agg(pl.col("score").max())
        .sort("score", "service", descending=[True, False])["service"]
        .to_list()
    )
    return found + [service for service in case.services() if service not in set(found)]
