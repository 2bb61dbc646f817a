"""Labelled root-cause cases from a folder: `cases.json`, `metrics.parquet`, maybe `spans.parquet` and `graph.csv`.

The format is described in docs/benchmarks.md. One bad case does not end the others: it says what is wrong with it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import polars as pl

from observe.bench.tables import by_case, listed, table, text_of, texts_of
from observe.diagnose.offline import Case
from observe.diagnose.offline.case import EDGE_COLUMNS, METRIC_COLUMNS, SPAN_COLUMNS
from observe.errors import Misconfigured
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
    error: str = ""  # why it cannot be ranked
    notes: tuple[str, ...] = ()  # what makes it harder than it should be


@dataclass(frozen=True, slots=True)
class _Set:
    metrics: dict[str, pl.DataFrame]
    spans: dict[str, pl.DataFrame]
    graph: pl.DataFrame


def cases(folder: Path, chosen: Sequence[str] = ()) -> Iterator[Labelled]:
    """In the order of the folder's list; those whose names match one of the shell patterns, where any are given.
    Raises Misconfigured where the folder is no such set."""
    entries = [
        entry
        for entry in listed(folder)
        if not chosen or any(fnmatchcase(text_of(entry, "case"), pattern) for pattern in chosen)
    ]
    names = {text_of(entry, "case") for entry in entries}
    metrics = table(folder, "metrics", {"case": pl.String, **METRIC_COLUMNS}, names)
    spans = table(folder, "spans", {"case": pl.String, "phase": pl.String, **SPAN_COLUMNS}, {EVERY_CASE, *names})
    if metrics is None and spans is None:
        raise Misconfigured(f"--data {folder}: metrics.parquet or spans.parquet is expected in it")
    given = _Set(by_case(metrics), by_case(spans), _graph(folder))
    del metrics, spans
    for number, entry in enumerate(entries, 1):
        yield _labelled(entry, given, number)


def _labelled(entry: Json, given: _Set, number: int) -> Labelled:
    name = text_of(entry, "case")
    error = "" if name else "the case has no `case`, its name"
    try:
        inject_at_s = float(text_of(entry, "inject_at_s"))
    except ValueError:
        inject_at_s = math.nan
    if not error and not math.isfinite(inject_at_s):
        error = f"`inject_at_s` is no time: {text_of(entry, 'inject_at_s')[:80]!r}"
    every = _phase(given, EVERY_CASE, "normal")
    case = Case(
        inject_at_s,
        given.metrics.get(name, pl.DataFrame(schema=METRIC_COLUMNS)),
        pl.concat([every, _phase(given, name, "normal")]),
        _phase(given, name, "abnormal"),
        _calls(given.graph, text_of(entry, "system")),
        text_of(entry, "symptom", "service"),
        text_of(entry, "symptom", "metric"),
    )
    if not error and case.metrics.is_empty() and case.spans_after.is_empty():
        error = "no metrics, and no spans of the fault"
    return Labelled(
        name or f"(case {number})",
        text_of(entry, "fault") or "unknown",
        text_of(entry, "truth", "service"),
        texts_of(entry, "truth", "metrics"),
        case,
        error,
        () if error else _notes(case),
    )


def _notes(case: Case) -> tuple[str, ...]:
    found = []
    if case.metrics.height:
        before = int((case.metrics["time_s"] < case.inject_at_s).sum())
        for rows, when in ((before, "before"), (case.metrics.height - before, "after")):
            if not rows:
                found.append(f"all metrics lie {'after' if when == 'before' else 'before'} `inject_at_s`")
    if case.spans_after.height and case.spans_before.is_empty():
        found.append("no fault-free spans")
    if case.symptom_service and case.symptom_service not in case.services():
        found.append(f"nothing is known of the symptom's service {case.symptom_service!r}")
    return tuple(found)


def _phase(given: _Set, case: str, phase: str) -> pl.DataFrame:
    found = given.spans.get(case)
    if found is None:
        return pl.DataFrame(schema=SPAN_COLUMNS)
    return found.filter(pl.col("phase") == phase).drop("phase")


def _graph(folder: Path) -> pl.DataFrame:
    """`system`, `caller`, `callee`; without systems it is the graph of every case."""
    columns = {"system": pl.String, **EDGE_COLUMNS}
    try:
        found = table(folder, "graph", columns)
    except Misconfigured:
        found = table(folder, "graph", EDGE_COLUMNS)
        found = None if found is None else found.select(pl.lit("").alias("system"), *EDGE_COLUMNS)
    return pl.DataFrame(schema=columns) if found is None else found


def _calls(graph: pl.DataFrame, system: str) -> pl.DataFrame:
    """Of one system; where the case or the graph names none, or both know one only, there is no other to mean."""
    systems = graph["system"].unique().to_list()
    mine = graph if systems == [""] or (not system and len(systems) == 1) else graph.filter(pl.col("system") == system)
    return mine.select(list(EDGE_COLUMNS))
