"""Changes of structure in whole traces: requests that end early, after a call, or before any.

Windows count calls; only traces tell what came after what. Up to some hundred of them from either side of the onset are
sampled and read as in `offline.stops`: the sentence says where more requests go no further than before, and belongs to
the service that makes them stop. It changes no rank: what ends early without an error is often what was meant to.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import polars as pl

from observe.diagnose.attributes import MAX_ASKED, MAX_SIDE_NS, Ask
from observe.diagnose.graph import ENTRY_KINDS
from observe.diagnose.levels import Periods, periods, sides
from observe.diagnose.offline.stops import Stop, explained_stops
from observe.diagnose.offline.trees import trees, with_leads
from observe.frames import Frames, TraceQuestion
from observe.types import Cause, CauseKind, Diagnosis, Evidence

SAID_FROM = 0.2
"""Blame from which on a service is told of."""
KEPT = 4
_read: tuple[tuple[pl.DataFrame, dict[str, Stop]], ...] = ()
"""The newest samples that were read: while an incident goes on each look is given the same one, and reading it takes
0.2 s of processor. Never mutated, so threads only ever lose an entry to each other."""


def with_structure(found: Sequence[Diagnosis], frames: Frames, now_ns: int, ask: Ask) -> list[Diagnosis]:
    """The diagnoses, the first MAX_ASKED of them with where requests end early because of their causes."""
    return [_told(d, frames, now_ns, ask) if i < MAX_ASKED else d for i, d in enumerate(found)]


def _told(diagnosis: Diagnosis, frames: Frames, now_ns: int, ask: Ask) -> Diagnosis:
    first = next((c for c in diagnosis.causes if c.path and c.kind is not CauseKind.TRAFFIC), None)
    onset_ns = min((s.onset_ns for s in diagnosis.symptoms), default=now_ns)
    when = periods(onset_ns, now_ns, frames.selfs)
    if first is None or when is None:
        return diagnosis
    found = early_ends(ask(traces(frames, sides(when, MAX_SIDE_NS), first.path[0])))
    return replace(diagnosis, causes=tuple(_with(cause, found) for cause in diagnosis.causes))


def _with(cause: Cause, found: Mapping[str, Stop]) -> Cause:
    stop = found.get(cause.service)
    if stop is None or cause.kind is CauseKind.UNKNOWN:
        return cause
    return replace(cause, evidence=(*cause.evidence[:1], sentence(stop), *cause.evidence[1:]))


def traces(frames: Frames, when: Periods, service: str) -> TraceQuestion:
    """Whole traces through a service ("" for any) in these periods."""
    mine = (pl.col("service") == service) if service else pl.lit(True)
    rows = frames.selfs.lazy().filter(pl.col("kind").is_in(list(ENTRY_KINDS)) & mine).with_columns(when.mark())
    sums = rows.drop_nulls("period").group_by("period").agg(pl.col("requests").sum()).collect()
    return TraceQuestion(
        service,
        when.before_from_ns,
        when.before_to_ns,
        when.after_from_ns,
        when.after_to_ns,
        max(sums["requests"].to_list(), default=0),
    )


def early_ends(sample: pl.DataFrame) -> dict[str, Stop]:
    """Per service the clearest place at which requests stop because of it. `sample` is SPAN_SAMPLE."""
    global _read
    if sample.is_empty():
        return {}
    known = next((found for same, found in _read if same is sample), None)
    if known is None:
        known = _early_ends(sample)
        _read = (*_read[1 - KEPT :], (sample, known))
    return known


def _early_ends(sample: pl.DataFrame) -> dict[str, Stop]:
    before, after = (sample.filter(pl.col("period") == period).drop("period") for period in (0, 1))
    if before.is_empty() or after.is_empty():
        return {}
    usual = trees(before)
    found = explained_stops(with_leads(usual, usual), with_leads(trees(after), usual))
    return {service: stop for service, stop in found.items() if stop.blame >= SAID_FROM}


def sentence(stop: Stop) -> Evidence:
    numbers = (("before", stop.before), ("after", stop.after), ("requests", float(stop.requests)))
    return Evidence("structure", stop.text, numbers)
