"""Shifts that earlier cycles explain: the nightly job, the morning's rise, the report on Mondays, the job each hour.

Asked only of series that have shifted against the trailing hour, so steady looks cost nothing: what were they like at
the same time on the last seven days and in the last four weeks? Where neither explains the shift, a period is looked
for in the spectrum of the series. docs/detection.md has the rules and why they are so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import polars as pl

from observe.detect.grid import METRIC, Span, span_of
from observe.detect.occurrences import Occurrences, occurrences
from observe.detect.periods import SPECTRUM_NS, period_ns
from observe.detect.statistics import Bools
from observe.frames import BLOCK_NS, SERVICE_WINDOWS, Frames, PastQuestion
from observe.settings import DetectSettings
from observe.types import WINDOW_NS, Season, Shift

SLACK_NS = 300 * 10**9
"""Jobs start a little earlier or later each time: by up to this much the same time is still the same."""
LONGEST = 24  # windows of a range that is compared
DAYS, WEEKS = 7, 4
VOTES = (3, 5, 7)
VOTES_OF_PERIOD = (5, 7)
"""Of so many newest cycles more than half must have shifted, too; of a period that was only found, more cycles."""
AGREEING = 2
"""So many of them must have come as high as now: one incident at this time yesterday excuses nothing."""
MAX_SERIES = 200
"""The surest shifts that are asked about; where more series move at once, it is no job."""
RIPE_NS = 600 * 10**9  # blocks that ended longer ago than this are complete

Past = Callable[[PastQuestion], Frames]
"""Answers what series did in earlier times; the same question gets the same answer."""


@dataclass(frozen=True, slots=True)
class Cycle:
    """Earlier moments that may be like now, newest first, and by how much they may be off."""

    name: str
    ends_ns: tuple[int, ...]
    slack_ns: int = SLACK_NS
    longest: int = LONGEST
    votes: tuple[int, ...] = VOTES

    def stretches(self) -> list[tuple[int, int]]:
        """The windows that a range like now's may lie in, one stretch a cycle."""
        return [(end - self.slack_ns - self.longest * WINDOW_NS, end + self.slack_ns) for end in self.ends_ns]


def seasons(
    shifts: Sequence[Shift], now_ns: int, settings: DetectSettings, past: Past, since: Mapping[str, int] | None = None
) -> dict[Shift, Season]:
    """What earlier cycles say about each shift; nothing of shifts that they say nothing about.

    `since` gives, by service, the onset of trouble that is known and goes on: cycles after it are part of it.
    Shifts of fixed rules are not asked about: somebody wanted to be told of them at any time.
    """
    asked = sorted((s for s in shifts if not s.rule and s.measure in _MEASURES), key=lambda s: s.p_value)[:MAX_SERIES]
    if not asked or not settings.seasons:
        return {}
    span = span_of(now_ns, settings)
    began = [min(s.onset_ns, (since or {}).get(s.service, s.onset_ns)) for s in asked]
    found = _judged(asked, began, known_cycles(span.end_ns, settings.time_zone), span, settings, past)
    left = [i for i, shift in enumerate(asked) if not (shift in found and found[shift].usual)]
    for period, members in _periods(left, asked, began, span, settings, past).items():
        of = [asked[i] for i in members]
        later = _judged(of, [began[i] for i in members], [_periodic(period, span, began)], span, settings, past)
        found |= {shift: season for shift, season in later.items() if season.usual}
    return found


_MEASURES = ("latency_p99_ms", "latency_p95_ms", "latency_p50_ms", "error_ratio", "requests_per_s")


def known_cycles(end_ns: int, time_zone: str) -> list[Cycle]:
    """The same time of day on the days before, and on this day of the weeks before, by the clocks of a time zone."""
    zone = ZoneInfo(time_zone)
    local = datetime.fromtimestamp(end_ns // 10**9, zone).replace(tzinfo=None)

    def earlier(days: int) -> int:
        return int((local - timedelta(days=days)).replace(tzinfo=zone).timestamp()) * 10**9

    return [
        Cycle("day", tuple(earlier(day) for day in range(1, DAYS + 1))),
        Cycle("week", tuple(earlier(7 * week) for week in range(1, WEEKS + 1))),
    ]


def _periodic(period_ns: int, span: Span, began: Sequence[int]) -> Cycle:
    """Whole periods ago, and further back where trouble has lasted for some of them."""
    many = max(VOTES_OF_PERIOD) + min(24, (span.end_ns - min(began)) // period_ns)
    return Cycle(
        f"{round(period_ns / 60e9)} min",
        tuple(span.end_ns - k * period_ns for k in range(1, many + 1)),
        min(SLACK_NS, period_ns // 8),
        max(span.current, min(LONGEST, period_ns // 4 // WINDOW_NS)),
        VOTES_OF_PERIOD,
    )


def _judged(
    shifts: Sequence[Shift],
    began: Sequence[int],
    cycles: Sequence[Cycle],
    span: Span,
    settings: DetectSettings,
    past: Past,
) -> dict[Shift, Season]:
    windows = _asked(shifts, cycles, past)
    found: dict[Shift, Season] = {}
    for cycle in cycles:
        seen = occurrences(shifts, windows, cycle.stretches(), span, cycle.longest, settings)
        for place, shift in enumerate(shifts):
            before = np.array([end + cycle.slack_ns <= began[place] for end in cycle.ends_ns])
            season = _season(shift, cycle, seen, place, before)
            if season and (shift not in found or (season.usual and not found[shift].usual)):
                found[shift] = season
    return found


def _asked(shifts: Sequence[Shift], cycles: Sequence[Cycle], past: Past) -> pl.DataFrame:
    """Windows of all stretches. Questions are by whole blocks, so that they stay the same for some looks."""
    ranges = _together([s for cycle in cycles for s in cycle.stretches()])
    kinds = {"metrics" if shift.kind == METRIC else "windows" for shift in shifts}
    parts = []
    for part in sorted(kinds):
        of = [shift for shift in shifts if (shift.kind == METRIC) == (part == "metrics")]
        services, operations = _names(of)
        asked = PastQuestion(services, ranges, "metrics" if part == "metrics" else "windows", operations)
        parts.append(past(asked).windows)
    return pl.concat([pl.DataFrame(schema=SERVICE_WINDOWS), *parts])


def _together(stretches: Sequence[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """Whole blocks that cover the stretches; those that touch made one.

    >>> _together([(BLOCK_NS + 1, BLOCK_NS + 2), (0, 5)])
    ((0, 600000000000),)
    """
    found: list[tuple[int, int]] = []
    for start, end in sorted((a // BLOCK_NS * BLOCK_NS, -(-b // BLOCK_NS) * BLOCK_NS) for a, b in stretches):
        if found and start <= found[-1][1]:
            found[-1] = (found[-1][0], max(end, found[-1][1]))
        else:
            found.append((start, end))
    return tuple((max(0, start), end) for start, end in found if end > 0)


def _names(shifts: Sequence[Shift]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    return tuple(sorted({s.service for s in shifts})), tuple(sorted({s.operation for s in shifts}))


def _season(shift: Shift, cycle: Cycle, seen: Occurrences, place: int, before: Bools) -> Season | None:
    recurs, reaches, level = seen.recurs[:, place], seen.reaches[:, place], seen.level[:, place]
    compared = np.flatnonzero(seen.known[:, place] & before)[: max(cycle.votes)]
    if len(compared) < AGREEING:
        return None
    out_of = voted(recurs[compared], reaches[compared], cycle.votes)
    if out_of:
        shifted = compared[:out_of][recurs[compared[:out_of]]]
        return _told(shift, cycle, len(shifted), out_of, level[shifted].tolist(), usual=True)
    return _told(shift, cycle, int(recurs[compared].sum()), len(compared), level[compared].tolist(), usual=False)


def _told(shift: Shift, cycle: Cycle, times: int, out_of: int, levels: list[float], *, usual: bool) -> Season:
    return Season(shift, cycle.name, times, out_of, min(levels), max(levels), usual)


def voted(recurs: Bools, reaches: Bools, votes: Sequence[int] = VOTES) -> int:
    """Of how many newest cycles enough agree that a shift is usual; 0: of none. Both are [cycle], newest first.

    `recurs`: there was such a shift, `reaches`: it was as large as now. With two cycles both must agree.

    >>> voted(np.array([True, True, False]), np.array([True, True, False]))
    3
    >>> voted(np.array([True, False, False]), np.array([True, False, False]))
    0
    """
    sizes = [n for n in votes if n <= len(recurs)]
    if not sizes and len(recurs) == AGREEING and AGREEING + 1 in votes:
        sizes = [AGREEING]
    for n in sizes:
        if recurs[:n].sum() > n // 2 and (recurs & reaches)[:n].sum() >= AGREEING:
            return n
    return 0


def _periods(
    left: Sequence[int],
    shifts: Sequence[Shift],
    began: Sequence[int],
    span: Span,
    settings: DetectSettings,
    past: Past,
) -> dict[int, list[int]]:
    """Numbers of the shifts by the period that their series has; those without one are left out."""
    of_spans = [i for i in left if shifts[i].kind != METRIC]  # metrics have no blocks
    if not of_spans:
        return {}
    end_ns = (span.end_ns - RIPE_NS) // BLOCK_NS * BLOCK_NS
    services, operations = _names([shifts[i] for i in of_spans])
    blocks = past(PastQuestion(services, ((end_ns - SPECTRUM_NS, end_ns),), "blocks", operations)).blocks
    found: dict[int, list[int]] = {}
    for i in of_spans:
        period = period_ns(shifts[i], blocks, min(end_ns, began[i] // BLOCK_NS * BLOCK_NS))
        if period:
            found.setdefault(period, []).append(i)
    return found
