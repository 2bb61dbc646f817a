"""Labelled root-cause cases from a folder: `cases.json`, `metrics.parquet`, maybe `spans.parquet` and `graph.csv`.

The format is described in docs/benchmarks.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import orjson
import polars as pl

from observe.diagnose.offline import Case
from observe.diagnose.offline.case import EDGE_COLUMNS, METRIC_COLUMNS, SPAN_COLUMNS
from observe.errors import BadRecord, Misconfigured
from observe.types import Json

EVERY_CASE = "*"
"""Spans under this name were recorded without a fault and are valid for all cases of the set."""


@dataclass(frozen=True, slots=True)
class Labelled:
    """A case and what is known of it; the truth is for scoring only. `truth` is empty where nobody knows."""

    name: str
    fault: str
    truth: str
    metrics: tuple[str, ...]  # acceptable names of the metric that shows the cause; may be empty
    case: Case


def cases(folder: Path) -> Iterator[Labelled]:
    """In the order of the folder's list. Raises Misconfigured where the folder is no such set, BadRecord for a case
    that lacks what every case must have."""
    if not (folder / "cases.json").is_file() or not (folder / "metrics.parquet").is_file():
        raise Misconfigured(f"--data {folder}: cases.json and metrics.parquet are expected in it")
    metrics = _by_case(folder / "metrics.parquet", METRIC_COLUMNS, [])
    spans = _by_case(folder / "spans.parquet", SPAN_COLUMNS, ["phase"])
    graph = _graph(folder / "graph.csv")
    for entry in orjson.loads((folder / "cases.json").read_bytes()):
        yield _labelled(entry, metrics, spans, graph)


def _labelled(
    entry: Json, metrics: dict[str, pl.DataFrame], spans: dict[str, pl.DataFrame], graph: pl.DataFrame
) -> Labelled:
    try:
        name, inject_at_s = str(entry["case"]), float(entry["inject_at_s"])
    except (KeyError, TypeError, ValueError) as error:
        raise BadRecord(f"a case without `case` or `inject_at_s`: {entry!r:.200}") from error
    truth, symptom = entry.get("truth") or {}, entry.get("symptom") or {}
    before = pl.concat([_phase(spans, EVERY_CASE, "normal"), _phase(spans, name, "normal")])
    case = Case(
        inject_at_s,
        metrics.get(name, pl.DataFrame(schema=METRIC_COLUMNS)),
        before,
        _phase(spans, name, "abnormal"),
        graph.filter(pl.col("system") == str(entry.get("system", ""))).drop("system"),
        str(symptom.get("service") or ""),
        str(symptom.get("metric") or ""),
    )
    return Labelled(
        name,
        str(entry.get("fault") or "unknown"),
        str(truth.get("service") or ""),
        tuple(map(str, truth.get("metrics") or ())),
        case,
    )


def _by_case(file: Path, columns: dict[str, type[pl.DataType]], more: list[str]) -> dict[str, pl.DataFrame]:
    if not file.is_file():
        return {}
    table = pl.read_parquet(file).select(
        pl.col("case", *more).cast(pl.String), *(pl.col(name).cast(kind) for name, kind in columns.items())
    )
    parts = table.partition_by("case", as_dict=True, include_key=False)
    return {str(key[0]): part for key, part in parts.items()}


def _phase(spans: dict[str, pl.DataFrame], case: str, phase: str) -> pl.DataFrame:
    found = spans.get(case)
    if found is None:
        return pl.DataFrame(schema=SPAN_COLUMNS)
    return found.filter(pl.col("phase") == phase).drop("phase")


def _graph(file: Path) -> pl.DataFrame:
    columns = {"system": pl.String, **EDGE_COLUMNS}
    if not file.is_file():
        return pl.DataFrame(schema=columns)
    return pl.read_csv(file, schema_overrides=columns).select(list(columns))
