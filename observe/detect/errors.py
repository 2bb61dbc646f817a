"""Error-ratio shifts: two proportions, exact for small counts, widened by what errors vary anyway."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from observe.detect.evidence import Sample, count_evidence, current_of, descriptive
from observe.detect.findings import Findings, nothing
from observe.detect.grid import Grid, Ranges
from observe.detect.statistics import Bools, Floats, Ints, combined
from observe.settings import DetectSettings

NEW_OPERATION_MIN_BASELINE = 100.0
"""Requests that a service must have had before a new operation's errors are compared with the service's ratio."""


MIN_ERRORS = 2.0
"""That an operation must have had to be told of by the evidence of its service."""


@dataclass(frozen=True, slots=True)
class _Levels:
    """Errors before and now; [series] and [scale, series]."""

    errors: Floats  # of the baseline
    requests: Floats
    x: Floats  # errors of the current ranges
    n: Floats
    judged: Bools

    @property
    def base(self) -> Floats:
        ratio: Floats = self.errors / np.maximum(self.requests, 1.0)
        return ratio

    @property
    def after(self) -> Floats:
        ratio: Floats = self.x / np.maximum(self.n, 1.0)
        return ratio

    def rose(self, settings: DetectSettings) -> Bools:
        """Whether by enough; [scale, series]."""
        base, after = self.base, self.after
        rose: Bools = (after - base >= settings.error_min_increase) & (after >= settings.error_min_ratio * base)
        return rose


def error_shifts(grid: Grid, ranges: Ranges, settings: DetectSettings, rare: float) -> Findings:
    """A new operation is held against what its service (same kind of span) used to do: errors that a release brings
    along are no less errors because their operation has no past.

    The evidence of an operation is its own or, where that is more certain, that of its service's operations together.
    """
    levels, whole = _levels(grid, ranges, settings)
    rose = levels.rose(settings)
    enough = levels.judged & rose
    of_service = _of_services(grid, ranges, whole, settings, rare)
    shared = of_service.p[grid.group] <= rare
    scale_of_service = of_service.scale[grid.group]
    each = np.arange(len(shared))
    shared &= rose[scale_of_service, each] & (levels.x[scale_of_service, each] >= MIN_ERRORS)
    some = np.flatnonzero(enough.any(axis=0) | shared)
    if not len(some):
        return nothing(("error_ratio",), "1")
    sample = Sample(grid.errors[some], grid.requests[some])
    baseline, increase = (levels.errors[some], levels.requests[some]), settings.error_min_increase / 2.0
    evidence = count_evidence(sample, ranges.of(some), grid.span, enough[:, some], rare, baseline, increase)
    p, scale = combined(evidence, axis=0), descriptive(evidence, grid.span, rare)
    better = shared[some] & (of_service.p[grid.group[some]] < p)
    scale = np.where(better, scale_of_service[some], scale)
    return Findings(
        measures=("error_ratio",),
        unit="1",
        series=some,
        p=np.where(better, of_service.p[grid.group[some]], p),
        choice=np.zeros(len(some), dtype=np.int64),
        before=levels.base[some],
        after=levels.after[scale, some],
        samples=levels.n[scale, some],
        lengths=np.where(ranges.testable[some], np.array(grid.span.scales)[scale], 0),
        statistics=(_instead(sample, better, of_service.sample, of_service.row[grid.group[some]]),),
    )


def _instead(sample: Sample, better: Bools, pooled: Sample, row: Ints) -> Sample:
    """The sample with the rows of services where they are better: more errors date an onset better."""
    sums, trials = sample.sums.copy(), sample.trials.copy()
    sums[better], trials[better] = pooled.sums[row[better]], pooled.trials[row[better]]
    return Sample(sums, trials)


def _levels(grid: Grid, ranges: Ranges, settings: DetectSettings) -> tuple[_Levels, _Levels]:
    """Of each series, and of each group (a service's spans of one kind) as far as it has several."""
    span, groups = grid.span, np.arange(int(grid.group.max(initial=-1)) + 1)

    def grouped(values: Floats) -> Floats:
        sums: Floats = np.bincount(grid.group, weights=values, minlength=len(groups)).astype(np.float64)
        return sums

    sample = Sample(grid.errors, grid.requests)
    errors, requests = (sample.sums * ranges.baseline).sum(axis=1), (sample.trials * ranges.baseline).sum(axis=1)
    ranged = [current_of(sample, ranges, length) for length in span.scales]
    x, n = np.stack([current.total for current in ranged]), np.stack([current.n for current in ranged])
    of_group = grouped(errors), grouped(requests)
    x_of_group, n_of_group = np.stack([grouped(row) for row in x]), np.stack([grouped(row) for row in n])
    guard = np.zeros(len(groups), dtype=np.int64)
    np.maximum.at(guard, grid.group, np.where(grid.of_spans, ranges.guard, 0))
    several = np.bincount(grid.group, minlength=len(groups)) > 1
    scales = np.array(span.scales)[:, None]
    whole = _Levels(*of_group, x_of_group, n_of_group,
                    (n_of_group >= settings.min_requests) & (scales <= guard) & several)  # fmt: skip
    new = ~ranges.testable & (of_group[1][grid.group] >= NEW_OPERATION_MIN_BASELINE)
    judged = (n >= settings.min_requests) & (scales <= np.where(new, span.current, ranges.guard)) & grid.of_spans
    before = np.where(new, of_group[0][grid.group], errors)
    out_of = np.where(new, of_group[1][grid.group], requests)
    return _Levels(before, out_of, x, n, judged), whole


@dataclass(frozen=True, slots=True)
class _OfServices:
    """What the operations of each group say together; all [group]."""

    p: Floats
    scale: Ints
    row: Ints  # of the sample
    sample: Sample


def _of_services(grid: Grid, ranges: Ranges, whole: _Levels, settings: DetectSettings, rare: float) -> _OfServices:
    enough = whole.judged & whole.rose(settings)
    groups = np.flatnonzero(enough.any(axis=0))
    row = np.full(enough.shape[1], -1, dtype=np.int64)
    row[groups] = np.arange(len(groups))
    members = np.flatnonzero(row[grid.group] >= 0)
    owner, shape = row[grid.group[members]], (len(groups), grid.span.length)
    sums, trials, baseline = np.zeros(shape), np.zeros(shape), np.zeros(shape, dtype=bool)
    np.add.at(sums, owner, grid.errors[members] * ranges.current[members])
    np.add.at(trials, owner, grid.requests[members] * ranges.current[members])
    np.logical_or.at(baseline, owner, ranges.baseline[members])
    sample, ones = Sample(sums, trials), np.ones(enough.shape[1])
    together = Ranges(
        baseline, np.zeros(len(groups), np.int64), np.ones(shape, dtype=bool), np.zeros(len(groups), np.int64)
    )
    before, increase = (whole.errors[groups], whole.requests[groups]), settings.error_min_increase / 2.0
    evidence = count_evidence(sample, together, grid.span, enough[:, groups], rare, before, increase)
    scale = np.zeros(len(ones), dtype=np.int64)
    if len(groups):
        ones[groups], scale[groups] = combined(evidence, axis=0), descriptive(evidence, grid.span, rare)
    return _OfServices(ones, scale, row, sample)
