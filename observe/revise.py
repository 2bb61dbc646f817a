"""Looks made again because something came late, and what that changes for those who were told. Pure.

What a look says depends on the windows before its end, and on nothing that comes later: so a look that is made again on
complete windows says what a replay says, byte for byte.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import polars as pl

from observe.detect.grid import span_of
from observe.frames import Frames
from observe.settings import DetectSettings
from observe.types import WINDOW_NS, Incident, State

SECOND_NS = 1_000_000_000
LAST_NS = 2**63 - 1

Known = dict[str, Incident]
Marks = dict[int, tuple[object, ...]]


def sealed(frames: Frames, end_ns: int) -> Frames:
    """The frames without what a look at the windows before `end_ns` must not depend on.

    Of the windows after it only their being there is kept, as one empty row: at the end of all telemetry nobody has
    fallen silent.
    """
    cut = frames.between(0, end_ns)
    after = frames.between(end_ns, LAST_NS).windows
    if after.is_empty():
        return cut
    names, counts, nothing = pl.lit(""), pl.lit(0, pl.UInt64), pl.lit([], frames.windows.schema["latency_buckets"])
    marker = after.head(1).select(
        pl.lit(end_ns, pl.Int64).alias("window_start_ns"),
        *(names.alias(name) for name in ("service", "operation", "kind", "version")),
        *(counts.alias(name) for name in ("requests", "errors")),
        pl.lit(0.0).alias("duration_sum_ms"),
        nothing.alias("latency_buckets"),
    )
    return replace(cut, windows=cut.windows.vstack(marker))


@dataclass(frozen=True, slots=True)
class _Kept:
    at_ns: int
    end_ns: int
    known: Known  # before the look
    busy: bool  # something was wrong then: the diagnosis was asked
    went_on: bool  # telemetry was there after the end


class Looks:
    """The looks of the last `lateness_s`, with what they had read: enough to make them again."""

    def __init__(self, settings: DetectSettings) -> None:
        self._settings = settings
        self._kept: list[_Kept] = []
        self._counts: Marks = {}  # what detection reads, per window
        self._joins: Marks = {}  # what only the diagnosis reads

    def busy(self, at_ns: int) -> bool:
        """Whether something was wrong in one of the looks that may have to be made again."""
        oldest_ns = at_ns - int(self._settings.lateness_s * SECOND_NS)
        return any(kept.busy for kept in self._kept if kept.at_ns >= oldest_ns)

    def since(self, frames: Frames, at_ns: int) -> list[tuple[int, Known]]:
        """(time of the look, incidents known before it) of the first look that read other data than `frames` hold
        now, and the times of those after it, oldest first; empty where nothing came late."""
        oldest_ns = at_ns - int(self._settings.lateness_s * SECOND_NS)
        self._kept = [kept for kept in self._kept if kept.at_ns >= oldest_ns]
        if not self._kept:
            return []
        range_ns = oldest_ns - WINDOW_NS, self._kept[-1].end_ns
        counts = _changed(self._counts, _counts(frames), *range_ns)
        joins = _changed(self._joins, _joins(frames), *range_ns)
        present = sorted(frames.windows["window_start_ns"].unique())
        for place, kept in enumerate(self._kept):
            late = any(window < kept.end_ns for window in counts)
            late |= kept.busy and any(window < kept.end_ns for window in joins)
            went_on = bisect_left(present, kept.end_ns) < bisect_left(present, kept.at_ns)
            if late or went_on != kept.went_on:
                return [(one.at_ns, one.known) for one in self._kept[place:]]
        return []

    def keep(self, frames: Frames, at_ns: int, known: Mapping[str, Incident], busy: bool) -> None:
        """Remembers a look, or the same look made again; `known` are the incidents before it."""
        end_ns = span_of(at_ns, self._settings).end_ns
        went_on = bool(frames.windows["window_start_ns"].is_between(end_ns, at_ns - 1).any())
        self._kept = [kept for kept in self._kept if kept.at_ns < at_ns]
        self._kept.append(_Kept(at_ns, end_ns, dict(known), busy, went_on))
        self._counts, self._joins = _counts(frames), _joins(frames)


def _changed(before: Marks, now: Marks, from_ns: int, end_ns: int) -> list[int]:
    """Windows of [from, end) that are not as they were."""
    return sorted(w for w in {*before, *now} if from_ns <= w < end_ns and before.get(w) != now.get(w))


def _counts(frames: Frames) -> Marks:
    """Requests are only added, so their number tells whether any came."""
    columns = ("requests", "errors")
    return _marks(frames.windows, *(pl.col(column).sum() for column in columns))


def _joins(frames: Frames) -> Marks:
    """Rounded: sums of floats may differ in their last digits with the order in which they were added."""
    parts = (
        _marks(
            frames.selfs, pl.col("requests").sum(), pl.col("origin_errors").sum(), pl.col("self_sum_ms").sum().round(3)
        ),
        _marks(frames.edges, pl.col("calls").sum(), pl.col("errors").sum(), pl.col("client_sum_ms").sum().round(3)),
        _marks(frames.gauges, pl.col("samples").sum(), pl.len()),
    )
    return {window: tuple(part.get(window) for part in parts) for window in {w for part in parts for w in part}}


def _marks(frame: pl.DataFrame, *sums: pl.Expr) -> Marks:
    named = [total.alias(f"s{i}") for i, total in enumerate(sums)]
    rows = frame.group_by("window_start_ns").agg(*named).iter_rows()
    return {row[0]: tuple(row[1:]) for row in rows}


class Published:
    """What was saved and told of every incident. Versions that people were told never go back."""

    def __init__(self, saved: Iterable[Incident] = ()) -> None:
        self._last = {incident.id: incident for incident in saved}
        self._ahead: dict[str, int] = {}

    def of(self, changed: Sequence[Incident]) -> list[Incident]:
        """The changed incidents as they are to be saved."""
        found = [replace(one, version=one.version + self._ahead.get(one.id, 0)) for one in changed]
        self._last |= {one.id: one for one in found}
        return found

    def revised(self, known: Mapping[str, Incident], from_ns: int, now_ns: int) -> list[Incident]:
        """What is to be saved after the looks from `from_ns` on were made again, and led to `known`.

        An incident that is no longer found is ended as one that never fired: it is no reason to doubt a baseline.
        """
        found = []
        for one in known.values():
            before = self._last.get(one.id)
            if before is not None:
                news = int(_told(before) != _told(one))
                self._ahead[one.id] = max(0, before.version + news - one.version)
            found += [after for after in self.of([one]) if after != before]
        gone = [i for i in self._last.values() if i.id not in known and i.opened_ns >= from_ns]
        for incident in gone:
            if incident.state is not State.RESOLVED or incident.fired_ns is not None:
                ended = replace(
                    incident,
                    state=State.RESOLVED,
                    resolved_ns=now_ns,
                    version=incident.version + 1,
                    title=f"{incident.title} (taken back: data that came late tell otherwise)",
                    fired_ns=None,
                )
                self._last[ended.id] = ended
                found.append(ended)
        return found

    def told(self) -> list[Incident]:
        """All that people were told of, or may have to be told."""
        return [i for i in self._last.values() if i.fired_ns is not None or "(taken back" in i.title]

    def forget(self, oldest_ns: int) -> None:
        self._last = {k: i for k, i in self._last.items() if i.resolved_ns is None or i.resolved_ns >= oldest_ns}


def _told(incident: Incident) -> tuple[object, ...]:
    first = incident.causes[0] if incident.causes else None
    return incident.state, incident.severity, first and (first.kind, first.service, first.resource)
