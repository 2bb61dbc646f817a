"""Spans as trees: who waits for whom. Neither kinds nor status are needed."""

from __future__ import annotations

import polars as pl


def trees(spans: pl.DataFrame) -> pl.DataFrame:
    """One row per span, with integers for ids.

    Added: `row`, `parent` (row, null for roots and orphans), `parent_service`, `parent_operation`; of its children
    `children`, `child_service` (of the first), `child_us` (sum of durations); `self_us`: the time in which no child ran
    (children that overlap count once: the union of intervals). `trace` numbers the traces.
    """
    spans = spans.unique(["trace_id", "span_id"], keep="first", maintain_order=True).with_row_index("row")
    spans = spans.with_columns(trace=pl.col("trace_id").rank("dense"))
    above = spans.select(
        "trace_id",
        pl.col("span_id").alias("parent_span_id"),
        pl.col("row").alias("parent"),
        pl.col("service").alias("parent_service"),
        pl.col("operation").alias("parent_operation"),
        pl.col("start_us").alias("parent_start"),
        (pl.col("start_us") + pl.col("duration_us")).alias("parent_end"),
    )
    spans = spans.join(above, on=["trace_id", "parent_span_id"], how="left", maintain_order="left").with_columns(
        parent=pl.when(pl.col("parent") != pl.col("row")).then("parent")
    )
    below = _children(spans)
    return (
        spans.join(below, left_on="row", right_on="parent", how="left", maintain_order="left")
        .with_columns(
            pl.col("children").fill_null(0),
            pl.col("child_us").fill_null(0),
            self_us=(pl.col("duration_us") - pl.col("busy_us").fill_null(0)).clip(lower_bound=0),
        )
        .drop("trace_id", "span_id", "parent_span_id", "parent_start", "parent_end", "busy_us")
    )


def _children(spans: pl.DataFrame) -> pl.DataFrame:
    """Per parent row: how many children, the service of the first, their time, and the union of their intervals."""
    start = pl.max_horizontal("start_us", "parent_start")
    end = pl.min_horizontal(pl.col("start_us") + pl.col("duration_us"), "parent_end")
    reached = pl.col("end").cum_max().shift(1).over("parent").fill_null(0)
    return (
        spans.filter(pl.col("parent").is_not_null())
        .select("parent", "service", "duration_us", start.alias("start"), pl.max_horizontal(start, end).alias("end"))
        .sort("parent", "start")
        .with_columns(busy=(pl.col("end") - pl.max_horizontal("start", reached)).clip(lower_bound=0))
        .group_by("parent")
        .agg(
            children=pl.len(),
            child_service=pl.col("service").first(),
            child_us=pl.col("duration_us").sum(),
            busy_us=pl.col("busy").sum(),
        )
    )


def outgoing() -> pl.Expr:
    """A client span, told from its place: below a span of its own service, with one child, in another service."""
    return (
        (pl.col("children") == 1)
        & (pl.col("child_service") != pl.col("service"))
        & (pl.col("parent_service") == pl.col("service")).fill_null(False)
    )


def with_leads(tree: pl.DataFrame, usual: pl.DataFrame) -> pl.DataFrame:
    """Adds `leads`: the service that a client span calls, else "".

    A client span without a child (the callee is gone, or its span was lost) leads where spans of its name lead in
    `usual`, if all of them lead to one service.
    """
    known = (
        usual.filter(outgoing())
        .group_by("service", "operation")
        .agg(target=pl.col("child_service").first(), targets=pl.col("child_service").n_unique())
        .filter(pl.col("targets") == 1)
        .drop("targets")
    )
    lost = (pl.col("children") == 0) & (pl.col("parent_service") == pl.col("service"))
    return (
        tree.join(known, on=["service", "operation"], how="left", maintain_order="left")
        .with_columns(
            leads=pl.when(outgoing()).then("child_service").when(lost.fill_null(False)).then("target").fill_null("")
        )
        .drop("target")
    )


def called(tree: pl.DataFrame) -> set[tuple[str, str]]:
    """Pairs of services, caller first."""
    pairs = tree.filter(pl.col("parent_service") != pl.col("service")).select("parent_service", "service").unique()
    return set(pairs.iter_rows())
