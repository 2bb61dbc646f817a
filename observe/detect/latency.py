"""Latency shifts: quantiles of exponential histograms for the effect, exceedances and ranks for the evidence."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from observe.detect.evidence import Sample, count_evidence, descriptive, lasting, rank_evidence
from observe.detect.findings import Findings
from observe.detect.grid import Grid, Ranges, Span
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
    """At most one shift a series: of the highest quantile that moved by enough and with evidence."""
    entries, span = grid.entries, grid.span
    series = grid.shape[0]
    before = entries.histogram(series, ranges.baseline)
    requests = entries.requests(grid.shape)
    beyond_p95, beyond_p99 = entries.flagged([beyond(before, 0.95), beyond(before, 0.99)], grid.shape)
    p99, p95 = Sample(beyond_p99, requests), Sample(beyond_p95, requests)
    rank = Sample(entries.scored(ranks(before), grid.shape), requests, "rank")
    evidence = np.stack([count_evidence(p99, ranges, span), count_evidence(p95, ranges, span),
                         rank_evidence(rank, ranges, span)])  # fmt: skip
    judged = _judged(requests, before, ranges, span.scales, settings)
    evidence = np.where(judged, evidence, 1.0)  # [statistic, scale, series]
    after = np.stack(
        [quantiles_ms(_histogram_of(grid, ranges, length), QUANTILES, entries.lowest) for length in span.scales], 1
    )
    base = quantiles_ms(before, QUANTILES, entries.lowest)
    lasts = _lasting(grid, ranges, base, requests, settings)
    p = _by_measure(evidence, base[:, None], after, lasts, settings)
    sizes = np.stack([_requests(requests, ranges, length) for length in span.scales])
    return _chosen(p, base, after, sizes, judged, rare, (p99, p95, rank), span)


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


def _lasting(grid: Grid, ranges: Ranges, base: Floats, requests: Floats, settings: DetectSettings) -> Bools:
    """Whether each quantile has moved by enough without the worst windows, too; [measure, scale, series].

    Evidence asks for persistence, but of its own statistic: the worst window could else bring the effect, and a level
    that drifted by a few per cent the evidence.
    """
    enough = base + np.maximum(settings.p99_min_increase * base, settings.p99_min_increase_ms)
    edge = np.rint(BUCKETS_PER_OCTAVE * np.log2(np.maximum(enough, 1e-12))) - grid.entries.lowest
    columns = np.arange(grid.entries.width)
    # The higher the quantile, the fewer lie beyond: the order that `flagged` asks for, and the reverse of MEASURES.
    counts = grid.entries.flagged([columns >= level[:, None] for level in edge[::-1]], grid.shape)[::-1]
    return np.stack([
        np.stack([lasting(Sample(count, requests), ranges, length, 1.0 - q) for length in grid.span.scales])
        for q, count in zip(QUANTILES, counts, strict=True)
    ])  # fmt: skip


def _by_measure(evidence: Floats, base: Floats, after: Floats, lasts: Bools, settings: DetectSettings) -> Floats:
    """p-values [measure, scale, series], 1 where the measure's effect is too small.

    Evidence of a lower statistic speaks for a higher quantile only where its own quantile moved at least half as
    much: at thousands of requests a median that moved by 1 % is certain, and says nothing about P99.
    """
    relative = (after - base) / np.maximum(base, 1e-12)
    enough = (relative > settings.p99_min_increase) & (after - base > settings.p99_min_increase_ms)
    enough &= lasts
    half = relative > settings.p99_min_increase / 2.0
    p99, p95, rank = (np.where(half[i], evidence[i], 1.0) for i in range(3))
    none = np.ones_like(p99)
    p = np.stack([np.stack([p99, p95, rank]), np.stack([none, p95, rank]), np.stack([none, none, rank])])
    return np.where(enough[:, None], p, 1.0)  # [measure, statistic, scale, series]


def _chosen(
    p: Floats,
    base: Floats,
    after: Floats,
    requests: Floats,
    judged: Bools,
    rare: float,
    samples: tuple[Sample, ...],
    span: Span,
) -> Findings:
    per_measure = combined(p, axis=(1, 2))  # [measure, series]
    certain = per_measure <= rare
    choice: Ints = np.where(certain.any(axis=0), np.argmax(certain, axis=0), np.argmin(per_measure, axis=0))
    series = np.arange(per_measure.shape[1])
    by_scale = p[choice, :, :, series].min(axis=1)  # [series, scale]
    scale = descriptive(by_scale.T, span, rare)
    return Findings(
        measures=MEASURES,
        unit="ms",
        tested=np.asarray(judged.any(axis=0)),
        p=per_measure[choice, series],
        choice=choice,
        before=base[choice, series],
        after=after[choice, scale, series],
        samples=requests[scale, series],
        statistics=samples,
    )
