"""Two versions of a service that ran side by side: is the new one worse? Pure: frames in, verdict out.

Requests are compared only within strata: the same operation in the same minute, and model calls given their tokens. So
neither another mix of operations, nor longer prompts, nor an hour in which everything was slow speaks for or against a
version. docs/detection.md has the method.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import polars as pl

from observe.detect.latency import MEASURES, QUANTILES, beyond, quantiles_ms, ranks
from observe.detect.statistics import Floats, Ints
from observe.detect.strata import Strata, compared, share_upper
from observe.detect.tokens import given_version
from observe.frames import BUCKETS_PER_OCTAVE, Frames
from observe.settings import CanarySettings, DetectSettings
from observe.types import WINDOW_NS

Verdict = Literal["promote", "hold", "roll back"]
Finding = Literal["worse", "unclear", "same", "better"]

BLOCK_NS = 60_000_000_000
MAX_BLOCKS = 120
PER_BLOCK = 10
"""Requests of either version that a block holds on the average: short blocks know more of what varies with time, and
leave out more requests that have nobody beside them."""
ENTRIES = ("Server", "Consumer")
TAIL_REQUESTS = 1000.0
"""Fewer requests of the candidate than this say nothing of its P99; its P95 is then what it is promoted by."""


@dataclass(frozen=True, slots=True)
class Check:
    """One measure of both versions, at the same mix of operations, minutes and tokens."""

    measure: str
    unit: str
    before: float
    after: float
    p_value: float  # that an equal version looks this bad
    finding: Finding
    text: str


@dataclass(frozen=True, slots=True)
class Comparison:
    service: str
    baseline: str
    candidate: str
    from_ns: int
    to_ns: int
    requests: tuple[int, int]  # baseline, candidate; those that could be compared
    side_by_side: bool  # False: they ran one after the other, and time itself may be the difference
    given_tokens: bool  # latency was compared given the tokens
    checks: tuple[Check, ...]
    verdict: Verdict
    reasons: tuple[str, ...]


def compare(
    frames: Frames,
    service: str,
    baseline: str,
    candidate: str,
    detect: DetectSettings,
    canary: CanarySettings,
    level: float | None = None,
) -> Comparison:
    """The candidate against the baseline in all windows of `frames`. `level` is the largest p that rolls back; by
    default `canary.max_false_rollbacks`."""
    windows, given = _windows(frames, service, (baseline, candidate))
    span = _span(windows)
    entries, calls = windows.filter(~pl.col("call")), windows.filter(pl.col("call"))
    latency = calls if given and calls["requests"].sum() * 2 >= entries["requests"].sum() else entries
    blocks = _overlap(entries, (baseline, candidate))
    tests = (level if level is not None else canary.max_false_rollbacks) / (1 + len(MEASURES))
    strata = _strata(entries, (baseline, candidate), blocks)
    slow = _strata(latency, (baseline, candidate), blocks)
    counted = strata.requests
    checks: tuple[Check, ...] = ()
    if min(counted) > 0 and min(slow.requests) > 0:
        checks = (_errors(strata, detect, tests), *_latencies(slow, detect, tests))
    verdict, reasons = _verdict(checks, counted, blocks, (baseline, candidate), detect, canary)
    return Comparison(
        service, baseline, candidate, *span, (round(counted[0]), round(counted[1])), blocks, latency is calls,
        checks, verdict, reasons,
    )  # fmt: skip


def released(frames: Frames, end_ns: int) -> list[tuple[str, str, str, int]]:
    """(service, old version, new version, first window of the new) where a new version takes traffic beside an old."""
    newest = frames.between(end_ns - 2 * BLOCK_NS, end_ns).windows.filter(pl.col("version") != "")
    several = newest.group_by("service").agg(pl.col("version").n_unique()).filter(pl.col("version") > 1)["service"]
    if several.is_empty():
        return []
    seen = (
        frames.between(0, end_ns)
        .windows.filter(pl.col("service").is_in(several.implode()) & (pl.col("version") != ""))
        .group_by("service", "version")
        .agg(
            first=pl.col("window_start_ns").min(),
            last=pl.col("window_start_ns").max(),
            requests=pl.col("requests").sum(),
        )
        .filter(pl.len().over("service") > 1)
        .sort("service", "first", "requests")
    )
    found = []
    for _, versions in seen.group_by("service", maintain_order=True):
        alive = versions.filter(pl.col("last") >= end_ns - 2 * BLOCK_NS)
        new = alive.tail(1)
        old = alive.filter(pl.col("first") + BLOCK_NS <= (new["first"].item() if len(new) else 0))
        if len(new) and len(old):
            old = old.sort("requests", "version").tail(1)
            found.append((str(new["service"][0]), str(old["version"][0]), str(new["version"][0]), int(new["first"][0])))
    return found


# ── what is compared ────────────────────────────────────────────────────────────────────────────────────────────────


def _windows(frames: Frames, service: str, versions: tuple[str, str]) -> tuple[pl.DataFrame, bool]:
    """Windows of both versions with `call` set for model calls, and whether those hold latencies given the tokens."""
    both = (pl.col("service") == service) & pl.col("version").is_in(list(versions))
    windows, tokens = frames.windows.filter(both & (pl.col("kind") != "Metric")), frames.tokens.filter(both)
    windows, given = given_version(windows, tokens, versions[0])
    keys = ["operation", "kind"]
    named = tokens.filter(pl.col("input_bucket") >= 0).select(keys).unique().with_columns(call=pl.lit(True))
    windows = windows.join(named, on=keys, how="left", maintain_order="left").with_columns(
        pl.col("call").fill_null(False)
    )
    for kinds in (ENTRIES, ("Internal",)):
        if windows["kind"].is_in(kinds).any():
            entry = pl.col("kind").is_in(kinds)
            # Where work enters by model calls alone, they are the entries too.
            alone = windows.filter(entry & ~pl.col("call")).is_empty()
            called = windows.filter(pl.col("call"))
            entries = windows.filter(entry).with_columns(call=pl.lit(False)) if alone else windows.filter(
                entry & ~pl.col("call")
            )  # fmt: skip
            return pl.concat([entries, called]), given
    return windows, given


def _span(windows: pl.DataFrame) -> tuple[int, int]:
    times = windows["window_start_ns"]
    return (int(times.min()), int(times.max()) + 10_000_000_000) if len(times) else (0, 0)  # type: ignore[arg-type]


def _overlap(windows: pl.DataFrame, versions: tuple[str, str]) -> bool:
    """Whether at least half of the candidate's requests came in minutes in which the baseline was asked too."""
    block = pl.col("window_start_ns") // BLOCK_NS
    counts = windows.group_by(block.alias("block")).agg(
        *(pl.col("requests").filter(pl.col("version") == v).sum().alias(n) for v, n in zip(versions, "bc", strict=True))
    )
    shared = counts.filter(pl.col("b") > 0)["c"].sum()
    return bool(shared * 2 >= counts["c"].sum() > 0)


def _strata(windows: pl.DataFrame, versions: tuple[str, str], blocks: bool) -> Strata:
    first_ns, last_ns = _span(windows)
    fewest = min(int(windows.filter(pl.col("version") == version)["requests"].sum()) for version in versions)
    most = min(MAX_BLOCKS, max(1, fewest // PER_BLOCK))
    length_ns = max(WINDOW_NS, -(-(last_ns - first_ns) // (most * WINDOW_NS)) * WINDOW_NS)
    rows = windows.with_columns(
        block=(pl.col("window_start_ns") - first_ns) // length_ns * int(blocks),
        operation_no=pl.struct("operation", "kind").rank("dense").cast(pl.Int64) - 1,
        candidate=(pl.col("version") == versions[1]).cast(pl.Int64),
    )
    buckets = (
        rows.select("block", "operation_no", "candidate", "latency_buckets").explode("latency_buckets").drop_nulls()
    )
    fields = buckets["latency_buckets"].struct
    cell = ("block", "operation_no", "candidate")
    of_row, of_bucket = ([table[name].to_numpy() for name in cell] for table in (rows, buckets))
    return Strata.of(
        of_row[0],
        of_row[1],
        of_row[2],
        rows["requests"].to_numpy().astype(np.float64),
        rows["errors"].to_numpy().astype(np.float64),
        of_bucket[0],
        of_bucket[1],
        of_bucket[2],
        fields.field("bucket").to_numpy().astype(np.int64),
        fields.field("count").to_numpy().astype(np.float64),
    )


# ── the checks ──────────────────────────────────────────────────────────────────────────────────────────────────────


def _errors(strata: Strata, detect: DetectSettings, level: float) -> Check:
    result = compared(strata, strata.error_outcome())
    before, after = result.before, result.after
    large = after - before >= detect.error_min_increase and after >= detect.error_min_ratio * before
    bound = min(1.0, max(result.upper, before + 3.0 / max(strata.requests[1], 1.0)))
    sure = bound - before < detect.error_min_increase
    finding = _finding(large and result.p <= level, large or not sure, result.p_better <= level)
    return Check("error_ratio", "1", before, after, result.p, finding,
                 f"errors {before:.2%} → {after:.2%}, at most {bound:.2%}".replace("%", " %"))  # fmt: skip


def _latencies(strata: Strata, detect: DetectSettings, level: float) -> list[Check]:
    pooled = strata.histograms.sum(axis=(0, 2))  # [operation, bucket]
    standard = strata.standardised()  # [version, bucket]
    levels = quantiles_ms(standard, QUANTILES, strata.lowest)  # [quantile, version]
    p99, p95 = (compared(strata, strata.outcome(beyond(pooled, q).astype(np.float64))) for q in (0.99, 0.95))
    rank = compared(strata, strata.outcome(ranks(pooled)))
    margin = int(np.log2(1.0 + detect.p99_min_increase) * BUCKETS_PER_OCTAVE)
    checks = []
    for measure, q, (before, after), own in zip(MEASURES, QUANTILES, levels, (p99, p95, rank), strict=True):
        before, after = float(before), float(after)
        large = after - before > detect.p99_min_increase_ms and after > before * (1.0 + detect.p99_min_increase)
        # A slow body speaks for a slow tail where that has moved, as in the detection of shifts.
        p = min(1.0, 3.0 * min(own.p, p95.p, rank.p)) if q == 0.99 and large else own.p
        worse = _share_beyond(strata, q, margin)
        sure = worse < 1.0 - q or (q == 0.99 and strata.requests[1] < TAIL_REQUESTS)
        finding = _finding(large and p <= level, large or not sure, after < before and own.p_better <= level)
        text = f"{measure.removesuffix('_ms').replace('latency_p', 'P')} {before:.4g} → {after:.4g} ms"
        checks.append(Check(measure, "ms", before, after, p, finding, text))
    return checks


def _share_beyond(strata: Strata, q: float, margin: int) -> float:
    """Upper bound (95 %) of the share of the candidate's requests that are slower than the baseline's quantile by more
    than is worth telling."""
    own: Floats = strata.histograms[:, :, 0].sum(axis=0)
    above = np.cumsum(own, axis=1)
    column: Ints = np.count_nonzero(above < q * above[:, -1:], axis=1) + margin
    slower = (np.arange(own.shape[1]) > column[:, None]).astype(np.float64)
    return share_upper(strata, strata.outcome(slower))


def _finding(worse: bool, unclear: bool, better: bool) -> Finding:
    if worse:
        return "worse"
    return "better" if better else "unclear" if unclear else "same"


def _verdict(
    checks: Sequence[Check],
    requests: tuple[float, float],
    side_by_side: bool,
    versions: tuple[str, str],
    detect: DetectSettings,
    canary: CanarySettings,
) -> tuple[Verdict, tuple[str, ...]]:
    worse = [check for check in checks if check.finding == "worse"]
    if min(requests) >= detect.min_requests and worse:
        return "roll back", tuple(f"{check.text}, p = {check.p_value:.2g}" for check in worse)
    reasons = [
        f"version {version!r} had {n:.0f} requests that can be compared, {canary.min_requests} are needed"
        for version, n in zip(versions, requests, strict=True)
        if n < canary.min_requests
    ]
    if not side_by_side and min(requests) > 0:
        reasons.append("the versions did not run side by side: what differs may be the time of day")
    reasons += [f"{check.text}: not sure enough to tell" for check in checks if check.finding == "unclear"]
    if not checks and not reasons:
        reasons.append("no calls of both versions at the same time and with known tokens")
    if reasons:
        return "hold", tuple(reasons)
    return "promote", tuple(check.text for check in checks)


def worst(comparison: Comparison) -> Check:
    """The check that speaks loudest against the candidate."""
    return max(
        (check for check in comparison.checks if check.finding == "worse"),
        key=lambda check: (check.measure == "error_ratio", check.after / max(check.before, 1e-9)),
    )
