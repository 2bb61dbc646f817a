"""Latency shifts: quantiles of exponential histograms for the effect, exceedances and ranks for the evidence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from observe.detect.evidence import Sample, count_evidence, descriptive, lasting, rank_evidence
from observe.detect.findings import Findings, nothing
from observe.detect.grid import Entries, Grid, Ranges, Span
from observe.detect.statistics import Bools, Floats, Ints, combined
from observe.frames import BUCKETS_PER_OCTAVE
from observe.settings import DetectSettings

MEASURES = ("latency_p99_ms", "latency_p95_ms", "latency_p50_ms")
QUANTILES = (0.99, 0.95, 0.50)


def quantiles_ms(histogram: Floats, quantiles: Sequence[float], lowest: int) -> Floats:
    """Quantiles of histograms [series, bucket] whose column 0 is bucket `lowest`, log-linear inside a bucket;
    [quantile, series].

    Off by at most half a bucket (2.2 %) if requests lie unevenly in it; 0 where the histogram is empty.
    """
    above = np.cumsum(histogram, axis=1)
    total = above[:, -1]
    series, levels = np.arange(len(total)), []
    for q in quantiles:
        column = np.minimum(np.count_nonzero(above < q * total[:, None], axis=1), histogram.shape[1] - 1)
        inside = histogram[series, column]
        part = 1.0 - np.clip((above[series, column] - q * total) / np.maximum(inside, 1e-12), 0.0, 1.0)
        levels.append(np.exp2((column + lowest + part) / BUCKETS_PER_OCTAVE))
    return np.where(total > 0, np.stack(levels), 0.0)


def beyond(histogram: Floats, q: float) -> Bools:
    """The buckets above the one that holds the quantile; [series, bucket]."""
    above = np.cumsum(histogram, axis=1)
    column = np.count_nonzero(above < q * above[:, -1:], axis=1)
    flags: Bools = np.arange(histogram.shape[1]) > column[:, None]
    return flags


def ranks(histogram: Floats) -> Floats:
    """Mid-rank of each bucket in its histogram, −½ … ½ (Bross 1958, doi:10.2307/2527727); [series, bucket]."""
    total = np.maximum(histogram.sum(axis=1, keepdims=True), 1.0)
    middle: Floats = (np.cumsum(histogram, axis=1) - histogram / 2.0) / total - 0.5
    return middle


def latency_shifts(grid: Grid, ranges: Ranges, settings: DetectSettings, rare: float) -> Findings:
    """At most one shift a series: of the highest quantile that moved by enough and with evidence.

    Effects are cheap and rare; evidence is looked for only where there is one.
    """
    entries, span = grid.entries, grid.span
    before = entries.histogram(grid.shape[0], ranges.baseline)
    requests = entries.requests(grid.shape)
    judged = _judged(requests, before, ranges, span.scales, settings)
    base = quantiles_ms(before, QUANTILES, entries.lowest)
    current = np.concatenate([_histogram_of(grid, ranges, length) for length in span.scales])
    after = quantiles_ms(current, QUANTILES, entries.lowest).reshape(len(QUANTILES), len(span.scales), -1)
    some = np.flatnonzero((_enough(base[:, None], after, settings) & judged).any(axis=(0, 1)))
    if not len(some):
        return nothing(MEASURES, "ms")
    moved = _Moved(entries.of(some, grid.shape[0]), ranges.of(some), span, before[some], base[:, some],
                   after[:, :, some], judged[:, some], requests[some])  # fmt: skip
    return _evident(moved, some, settings, rare)


def _enough(base: Floats, after: Floats, settings: DetectSettings) -> Bools:
    """[measure, scale, series]"""
    rise: Floats = after - base
    enough: Bools = (rise > settings.p99_min_increase * base) & (rise > settings.p99_min_increase_ms)
    return enough


@dataclass(frozen=True, slots=True)
class _Moved:
    """Series of which a quantile moved by enough in some range."""

    entries: Entries
    ranges: Ranges
    span: Span
    before: Floats  # [series, bucket]
    base: Floats  # [measure, series]
    after: Floats  # [measure, scale, series]
    judged: Bools  # [scale, series]
    requests: Floats  # [series, window]


def _evident(moved: _Moved, series: Ints, settings: DetectSettings, rare: float) -> Findings:
    entries, ranges, span, requests = moved.entries, moved.ranges, moved.span, moved.requests
    enough = _enough(moved.base[:, None], moved.after, settings) & moved.judged
    enough &= _lasting(moved, enough, settings)
    beyond_p95, beyond_p99 = entries.flagged([beyond(moved.before, 0.95), beyond(moved.before, 0.99)], requests.shape)
    p99, p95 = Sample(beyond_p99, requests), Sample(beyond_p95, requests)
    rank = Sample(entries.scored(ranks(moved.before), requests.shape), requests, "rank")
    # Evidence of a lower statistic speaks for a higher quantile only where its own quantile moved at least half as
    # much: at thousands of requests a median that moved by 1 % is certain, and says nothing about P99.
    half = moved.after - moved.base[:, None] > settings.p99_min_increase / 2.0 * moved.base[:, None]
    asked = np.stack([enough[0], enough[:2].any(axis=0), enough.any(axis=0)]) & half  # [statistic, scale, series]
    evidence = np.stack([count_evidence(p99, ranges, span, asked[0], rare),
                         count_evidence(p95, ranges, span, asked[1], rare),
                         rank_evidence(rank, ranges, span, asked[2], rare)])  # fmt: skip
    speaks = np.tri(3).T.astype(bool)[:, :, None, None]  # [measure, statistic]: lower ones for higher ones
    p = np.where(speaks & enough[:, None], evidence, 1.0)  # [measure, statistic, scale, series]
    sizes = np.stack([_requests(requests, ranges, length) for length in span.scales])
    return _chosen(p, moved.base, moved.after, sizes, series, rare, (p99, p95, rank), span)


def _judged(requests: Floats, before: Floats, ranges: Ranges, scales: tuple[int, ...], s: DetectSettings) -> Bools:
    """[scale, series]: enough requests in the range, and a baseline that it does not reach into."""
    enough = np.stack([_requests(requests, ranges, length) >= s.min_requests for length in scales])
    reach = np.array(scales)[:, None] <= ranges.guard
    judged: Bools = enough & reach & (before.sum(axis=1) >= s.min_requests)
    return judged


def _requests(requests: Floats, ranges: Ranges, length: int) -> Floats:
    n: Floats = (requests[:, -length:] * ranges.current[:, -length:]).sum(axis=1)
    return n


def _histogram_of(grid: Grid, ranges: Ranges, length: int) -> Floats:
    since = grid.span.length - length
    windows = None if ranges.current.all() else ranges.current
    return grid.entries.histogram(grid.shape[0], windows, since)


def _lasting(moved: _Moved, asked: Bools, settings: DetectSettings) -> Bools:
    """Whether each quantile has moved by enough without the worst windows, too; [measure, scale, series].

    Evidence asks for persistence, but of its own statistic: the worst window could else bring the effect, and a level
    that drifted by a few per cent the evidence.
    """
    base = moved.base
    enough = base + np.maximum(settings.p99_min_increase * base, settings.p99_min_increase_ms)
    edge = np.rint(BUCKETS_PER_OCTAVE * np.log2(np.maximum(enough, 1e-12))) - moved.entries.lowest
    beyond_edge = np.arange(moved.entries.width) >= edge[:, :, None]  # [measure, series, bucket]
    usual = ((moved.before * beyond_edge).sum(axis=2) + 1.0) / (moved.before.sum(axis=1) + 1.0)
    # The higher the quantile, the fewer lie beyond: the order that `flagged` asks for, and the reverse of MEASURES.
    counts = moved.entries.flagged(list(beyond_edge[::-1]), moved.requests.shape)[::-1]
    lasts = np.zeros(asked.shape, dtype=bool)
    for measure, (q, count) in enumerate(zip(QUANTILES, counts, strict=True)):
        sample = Sample(count, moved.requests)
        for scale in np.flatnonzero(asked[measure].any(axis=1)).tolist():
            length = moved.span.scales[scale]
            lasts[measure, scale] = lasting(sample, moved.ranges, length, 1.0 - q, usual[measure])
    return lasts


def _chosen(
    p: Floats,
    base: Floats,
    after: Floats,
    requests: Floats,
    series: Ints,
    rare: float,
    samples: tuple[Sample, ...],
    span: Span,
) -> Findings:
    per_measure = combined(p, axis=(1, 2))  # [measure, series]
    certain = per_measure <= rare
    choice: Ints = np.where(certain.any(axis=0), np.argmax(certain, axis=0), np.argmin(per_measure, axis=0))
    each = np.arange(len(series))
    by_scale = p[choice, :, :, each].min(axis=1)  # [series, scale]
    scale = descriptive(by_scale.T, span, rare)
    return Findings(
        measures=MEASURES,
        unit="ms",
        series=series,
        p=per_measure[choice, each],
        choice=choice,
        before=base[choice, each],
        after=after[choice, scale, each],
        samples=requests[scale, each],
        lengths=np.array(span.scales)[scale],
        statistics=samples,
    )
