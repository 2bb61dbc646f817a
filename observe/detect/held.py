"""Trouble that outlives the trailing baseline is held against the time before it began.

Windows from before the onset are moved to where the baseline is looked for; the tests then are the ordinary ones. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import polars as pl

from observe.detect.grid import Span, fleet_of, span_of
from observe.detect.seasons import Past
from observe.detect.shifts import detect
from observe.detect.tokens import given_tokens, of_no_window
from observe.frames import Frames, Part, PastQuestion, empty
from observe.noticed import earlier
from observe.settings import DetectSettings
from observe.types import WINDOW_NS, Interval, Shift


@dataclass(frozen=True, slots=True)
class Trouble:
    """What goes on since when, and where."""

    onset_ns: int
    services: tuple[str, ...]


def outlasting(trouble: Trouble, now_ns: int, settings: DetectSettings) -> bool:
    """Whether more than half of the trailing baseline lies in the trouble."""
    span = span_of(now_ns, settings)
    return trouble.onset_ns < span.first_ns + span.length // 2 * WINDOW_NS


def held_shifts(
    frames: Frames,
    trouble: Trouble,
    now_ns: int,
    settings: DetectSettings,
    past: Past,
    abnormal: Sequence[Interval] = (),
) -> list[Shift] | None:
    """Shifts of the trouble's services against the time before it; None where nothing is known of that time.

    `abnormal` intervals from before the onset are no baseline.
    """
    span = span_of(now_ns, settings)
    newest = min(span.scales[-1], span.length // 3)
    onset_ns = trouble.onset_ns // WINDOW_NS * WINDOW_NS - WINDOW_NS
    from_ns = onset_ns - (span.length - newest) * WINDOW_NS
    part: Part = "metrics" if frames.selfs.is_empty() and not frames.gauges.is_empty() else "windows"
    before = past(PastQuestion(trouble.services, ((max(0, from_ns), onset_ns),), part)).between(from_ns, onset_ns)
    if before.windows.is_empty():
        return None
    newest_ns = span.end_ns - newest * WINDOW_NS
    moved = _moved(frames, before, trouble.services, newest_ns, newest_ns - onset_ns)
    intervals = [Interval(newest_ns, now_ns, service) for service in trouble.services]
    intervals += [
        replace(i, start_ns=i.start_ns + newest_ns - onset_ns, end_ns=min(i.end_ns, onset_ns) + newest_ns - onset_ns)
        for i in abnormal
        if i.start_ns < onset_ns - WINDOW_NS
    ]
    given = given_tokens(moved, now_ns, settings, intervals)
    found = of_no_window(detect(given.frames, now_ns, settings, intervals, fleet_of(frames.windows, span)), moved)
    moved_by_ns = newest_ns - onset_ns
    found = [replace(shift, query=earlier(shift.query, newest_ns, moved_by_ns)) for shift in found]
    return [_since(shift, trouble, newest_ns, span) for shift in [*found, *given.shifts]]


def _moved(frames: Frames, before: Frames, services: Sequence[str], newest_ns: int, by_ns: int) -> Frames:
    """The services' newest windows as they are, and those from before the onset right before them."""
    mine = pl.col("service").is_in(pl.Series(services, dtype=pl.String).implode())
    newest = mine & (pl.col("window_start_ns") >= newest_ns)
    later = pl.col("window_start_ns") + by_ns
    return replace(
        empty(),
        windows=pl.concat([before.windows.with_columns(later), frames.windows.filter(newest)]),
        tokens=pl.concat([before.tokens.with_columns(later), frames.tokens.filter(newest)]),
    )


def _since(shift: Shift, trouble: Trouble, newest_ns: int, span: Span) -> Shift:
    """What began where the moved windows end began before them."""
    moved = shift.onset_ns <= newest_ns + span.current * WINDOW_NS
    return replace(shift, onset_ns=trouble.onset_ns) if moved else shift
