"""Error-ratio shifts: two proportions, exact for small counts, widened by what errors vary anyway."""

from __future__ import annotations

import numpy as np

from observe.detect.evidence import Sample, count_evidence, current_of, descriptive
from observe.detect.findings import Findings, nothing
from observe.detect.grid import Grid, Ranges
from observe.detect.statistics import Bools, Floats, combined
from observe.settings import DetectSettings

NEW_OPERATION_MIN_BASELINE = 100.0
"""Requests that a service must have had before a new operation's errors are compared with the service's ratio."""


def error_shifts(grid: Grid, ranges: Ranges, settings: DetectSettings, rare: float) -> Findings:
    """A new operation is held against what its service (same kind of span) used to do: errors that a release brings
    along are no less errors because their operation has no past."""
    sample = Sample(grid.errors, grid.requests)
    span = grid.span
    errors, requests = (sample.sums * ranges.baseline).sum(axis=1), (sample.trials * ranges.baseline).sum(axis=1)
    of_group = grid.summed(errors), grid.summed(requests)
    new = ~ranges.testable & (of_group[1] >= NEW_OPERATION_MIN_BASELINE)
    before, out_of = np.where(new, of_group[0], errors), np.where(new, of_group[1], requests)
    judged = _judged(grid, ranges, new, settings)
    base = before / np.maximum(out_of, 1.0)
    ranged = [current_of(sample, ranges, length) for length in span.scales]
    after = np.stack([current.total / np.maximum(current.n, 1.0) for current in ranged])
    enough = judged & (after - base >= settings.error_min_increase) & (after >= settings.error_min_ratio * base)
    some = np.flatnonzero(enough.any(axis=0))
    if not len(some):
        return nothing(("error_ratio",), "1")
    some_sample = sample.of(some)
    p = count_evidence(some_sample, ranges.of(some), span, enough[:, some], rare, (before[some], out_of[some]),
                       settings.error_min_increase / 2.0)  # fmt: skip
    scale = descriptive(p, span, rare)
    return Findings(
        measures=("error_ratio",),
        unit="1",
        series=some,
        p=combined(p, axis=0),
        choice=np.zeros(len(some), dtype=np.int64),
        before=base[some],
        after=after[scale, some],
        samples=np.stack([current.n for current in ranged])[scale, some],
        statistics=(some_sample,),
    )


def _judged(grid: Grid, ranges: Ranges, new: Bools, settings: DetectSettings) -> Bools:
    scales = grid.span.scales
    requests: Floats = np.stack([
        current_of(Sample(grid.requests, grid.requests), ranges, length).n for length in scales
    ])  # fmt: skip
    reach = np.array(scales)[:, None] <= np.where(new, grid.span.current, ranges.guard)
    return (requests >= settings.min_requests) & reach & grid.of_spans
