"""Traces to look at."""

from __future__ import annotations

import polars as pl

from observe.diagnose.levels import Periods
from observe.diagnose.narrow import Place
from observe.types import CauseKind

MAX_EXEMPLARS = 3
COLUMNS = {CauseKind.INSTANCE: "instance", CauseKind.VERSION: "version", CauseKind.HOST: "host"}


def exemplars(selfs: pl.DataFrame, when: Periods, service: str, place: Place, errors: bool) -> tuple[str, ...]:
    """Traces of the windows in which the guilty spans were slowest, or in which errors began."""
    name, by = ("error_trace_id", "origin_errors") if errors else ("slowest_trace_id", "self_sum_ms")
    here = (pl.col("service") == service) & (pl.col("kind") != "Client") & (pl.col(name) != "")
    if place.kind in COLUMNS and place.gone is None:
        here = here & (pl.col(COLUMNS[place.kind]) == place.resource)
    after = selfs.slice(int(selfs["window_start_ns"].search_sorted(when.after_from_ns)))
    worst = (
        after.lazy()
        .filter(here)
        .select(pl.col(name).alias("trace"), height=pl.col(by) / pl.col("requests"))
        .group_by("trace")
        .agg(pl.col("height").max())
        .sort("height", "trace", descending=[True, False])
        .head(MAX_EXEMPLARS)
        .collect()
    )
    return tuple(worst["trace"].to_list())


def lost_exemplars(selfs: pl.DataFrame, when: Periods, callers: list[str]) -> tuple[str, ...]:
    """Traces in which calls of `callers` failed: a callee that never saw them has none of its own."""
    after = selfs.slice(int(selfs["window_start_ns"].search_sorted(when.after_from_ns)))
    failed = (
        after.lazy()
        .filter(pl.col("service").is_in(callers) & (pl.col("kind") == "Client") & (pl.col("error_trace_id") != ""))
        .select("error_trace_id", height=pl.col("origin_errors") / pl.col("requests"))
        .sort("height", "error_trace_id", descending=[True, False])
        .collect()
    )
    return tuple(failed["error_trace_id"].unique(maintain_order=True).head(MAX_EXEMPLARS).to_list())
