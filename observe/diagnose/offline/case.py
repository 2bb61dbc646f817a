"""What a recorded case gives."""

from __future__ import annotations

from dataclasses import dataclass, field

import polars as pl

METRIC_COLUMNS = {"time_s": pl.Float64, "service": pl.String, "metric": pl.String, "value": pl.Float64}
SPAN_COLUMNS = {
    "trace_id": pl.Binary,
    "span_id": pl.Binary,
    "parent_span_id": pl.Binary,  # empty for a root
    "service": pl.String,
    "operation": pl.String,
    "start_us": pl.Int64,
    "duration_us": pl.Int64,
}
EDGE_COLUMNS = {"caller": pl.String, "callee": pl.String}


@dataclass(frozen=True, slots=True)
class Case:
    """One trouble: rows at or after `inject_at_s` are abnormal. Empty frames where something was not recorded.

    The frames have METRIC_COLUMNS, SPAN_COLUMNS (before and after apart) and EDGE_COLUMNS.
    """

    inject_at_s: float
    metrics: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=METRIC_COLUMNS))
    spans_before: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=SPAN_COLUMNS))
    spans_after: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=SPAN_COLUMNS))
    graph: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=EDGE_COLUMNS))
    symptom_service: str = ""  # where the trouble was noticed; empty where nobody said
    symptom_metric: str = ""

    def services(self) -> list[str]:
        """Every service that has metrics or spans: the candidates, sorted."""
        named = [self.metrics["service"], self.spans_before["service"], self.spans_after["service"]]
        return pl.concat(named).unique().drop_nulls().sort().to_list()
