"""Whole traces from before and after a moment, few enough to be compared span by span."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import polars as pl

from observe.frames import SPAN_SAMPLE, TraceQuestion
from observe.store.rollups import sql

MAX_TRACES = 500
"""Of each period: a part of one in twenty that stops early is seen by then."""
MAX_SPANS = 200_000
"""A trace may have thousands of spans: those of the last traces are left out beyond this."""

_S = 1_000_000_000


class Database(Protocol):
    def query(self, sql: str, parameters: Mapping[str, object] | None = None, /) -> pl.DataFrame: ...


def sampled(db: Database, question: TraceQuestion) -> pl.DataFrame:
    """Rows of SPAN_SAMPLE, sorted. Traces are chosen by a hash of their id."""
    rows = db.query(
        sql("sampled_spans"),
        {
            "service": question.service,
            "before_from": question.before_from_ns // _S,
            "before_to": question.before_to_ns // _S,
            "after_from": question.after_from_ns // _S,
            "after_to": question.after_to_ns // _S,
            "every": max(1, question.requests // (8 * MAX_TRACES)),
            "traces": MAX_TRACES,
            "spans": MAX_SPANS,
        },
    )
    if not rows.width:
        return pl.DataFrame(schema=SPAN_SAMPLE)
    return rows.select(pl.col(name).cast(kind) for name, kind in SPAN_SAMPLE.items()).sort(
        "period", "trace_id", "start_us", "span_id"
    )
