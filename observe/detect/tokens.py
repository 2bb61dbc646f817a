"""Latency that is fair to language models: model calls are judged given their tokens.

Each call's latency is divided by what calls with as many tokens took in the baseline, and multiplied by what the usual
call took: on the scale of the histograms that is a shift by whole buckets. Longer prompts then change nothing, and a
slower engine shows although prompts got shorter. docs/detection.md has the method.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import polars as pl

from observe.detect.expected import Calls, expected_log_ms
from observe.detect.grid import HIGHEST_BUCKET, LOWEST_BUCKET, METRIC, Span, span_of
from observe.detect.latency import quantiles_ms
from observe.detect.shifts import detect
from observe.detect.statistics import Bools, Floats, Ints
from observe.frames import BUCKETS, BUCKETS_PER_OCTAVE, SERVICE_WINDOWS, Frames
from observe.settings import DetectSettings
from observe.types import WINDOW_NS, Interval, Shift

KEYS = ["service", "operation", "kind"]
MIN_BASELINE = 100.0
"""Calls that a series must have had before their tokens are taken to explain anything."""
GUARD_WINDOWS = 24
LEFT = 0.4
"""A rise is explained by tokens where, given them, no more than this part of it is left."""
QUANTILES = (0.99, 0.95, 0.50)
PARTS = {"first_buckets": "time_to_first_token", "per_token_buckets": "time_per_output_token"}


@dataclass(frozen=True, slots=True)
class Given:
    """What detection goes on with."""

    frames: Frames  # windows of model calls hold latencies given the tokens
    shifts: list[Shift]  # of the times to the first token and for each further one
    notes: dict[str, str] = field(default_factory=dict)  # per service: how tokens and latency moved, in words
    explained: frozenset[str] = frozenset()  # services whose calls got slower by their tokens alone


def given_tokens(frames: Frames, now_ns: int, settings: DetectSettings, abnormal: Sequence[Interval] = ()) -> Given:
    """`abnormal` intervals are no baseline."""
    span = span_of(now_ns, settings)
    rows = _rows(frames.tokens, span)
    if rows.is_empty():
        return Given(frames, [])
    usual = _usual(rows, span, abnormal)
    whole = _shifted(rows, "latency_buckets", usual)
    shifts = [s for name in PARTS for s in _part(rows, name, usual, frames, now_ns, settings, abnormal)]
    if whole.is_empty():
        return Given(frames, shifts)
    notes, explained = _explained(rows, whole, usual, span, settings)
    return Given(replace(frames, windows=_replaced(frames.windows, _of(rows, whole))), shifts, notes, explained)


def of_no_window(shifts: Sequence[Shift], frames: Frames) -> list[Shift]:
    """The shifts without the questions of those whose latency was judged given its tokens: no window holds that."""
    given = set(frames.tokens.select("service", "operation").unique().iter_rows())
    return [
        replace(s, query="") if s.measure.startswith("latency_") and (s.service, s.operation) in given else s
        for s in shifts
    ]


def given_version(windows: pl.DataFrame, tokens: pl.DataFrame, version: str) -> tuple[pl.DataFrame, bool]:
    """The windows with latencies given the tokens, by what calls of `version` take; False where too few are known."""
    times = tokens["window_start_ns"]
    if times.is_empty():
        return windows, False
    first_ns, last_ns = int(times.min()), int(times.max())  # type: ignore[arg-type]
    rows = _rows(tokens, Span(first_ns, (last_ns - first_ns) // WINDOW_NS + 1, (1,), 1))
    whole = _shifted(rows, "latency_buckets", rows["version"].to_numpy() == version)
    return (windows, False) if whole.is_empty() else (_replaced(windows, _of(rows, whole)), True)


def _rows(tokens: pl.DataFrame, span: Span) -> pl.DataFrame:
    """Calls whose tokens are known, in the windows that a look reads, with numbers for series and cells."""
    window = (pl.col("window_start_ns") - span.first_ns) // WINDOW_NS
    return (
        tokens.with_columns(window=window)
        .filter(pl.col("window").is_between(0, span.length - 1), pl.col("input_bucket") >= 0)
        .sort("window", *KEYS, "model", "version", "input_bucket", "output_bucket")
        .with_columns(
            series=pl.struct(KEYS).rank("dense").cast(pl.Int64) - 1,
            fit=pl.struct(*KEYS, "model").rank("dense").cast(pl.Int64) - 1,
            cell=pl.struct(*KEYS, "model", "input_bucket", "output_bucket").rank("dense").cast(pl.Int64) - 1,
            input_cell=pl.struct(*KEYS, "model", "input_bucket").rank("dense").cast(pl.Int64) - 1,
        )
    )


def _usual(rows: pl.DataFrame, span: Span, abnormal: Sequence[Interval]) -> Bools:
    """Which rows are baseline: not the newest, longer ago the longer the series is known, and no incident; [rows]."""
    first = rows.select(pl.col("window").min().over("series"))["window"].to_numpy()
    guard = np.clip((span.length - first) // 3, 3, GUARD_WINDOWS)
    window, service = rows["window"].to_numpy(), rows["service"].to_numpy()
    usual: Bools = window < span.length - guard
    for interval in abnormal:
        of = (service == interval.service) | (interval.service == "")
        usual &= ~(of & (window >= span.index(interval.start_ns)) & (window <= span.index(interval.end_ns - 1)))
    return usual


def _shifted(rows: pl.DataFrame, histogram: str, usual: Bools) -> pl.DataFrame:
    """One row a bucket: row number, bucket, count, and `moved`, the bucket given the tokens. Only of series that have
    enough of a baseline."""
    filled = rows[histogram].list.len().to_numpy() > 0
    rows, usual = rows.filter(filled), usual[filled]
    if rows.is_empty():
        return pl.DataFrame(schema={"row": pl.Int64, "bucket": pl.Int64, "count": pl.Float64, "moved": pl.Int64})
    buckets = rows.select(pl.int_range(pl.len(), dtype=pl.Int64).alias("row"), histogram).explode(histogram)
    row = buckets["row"].to_numpy()
    bucket = np.clip(buckets[histogram].struct.field("bucket").to_numpy(), LOWEST_BUCKET, HIGHEST_BUCKET)
    count = buckets[histogram].struct.field("count").to_numpy().astype(np.float64)
    n: Floats = np.bincount(row, weights=count, minlength=len(rows)).astype(np.float64)
    place = (bucket.astype(np.float64) + 0.5) / BUCKETS_PER_OCTAVE
    log_ms = np.bincount(row, weights=count * place, minlength=len(rows)) / n
    move = _moves(rows, histogram, n, log_ms, usual)
    known = np.isfinite(move)[row]
    moved = bucket.astype(np.int64) - np.nan_to_num(move)[row].astype(np.int64)
    number = np.flatnonzero(filled)[row]
    table = pl.DataFrame({"row": number, "bucket": bucket.astype(np.int64), "count": count, "moved": moved})
    return table.filter(known)


def _moves(rows: pl.DataFrame, histogram: str, n: Floats, log_ms: Floats, usual: Bools) -> Floats:
    """By how many buckets each row's calls are expected to be above the usual call; NaN: unknown; [rows]."""
    series, fit = rows["series"].to_numpy(), rows["fit"].to_numpy()
    requests = np.maximum(rows["requests"].to_numpy().astype(np.float64), 1.0)
    inputs, outputs = (
        rows[name].to_numpy().astype(np.float64) / requests for name in ("input_tokens", "output_tokens")
    )
    if histogram == "per_token_buckets":
        inputs, outputs = np.zeros(len(n)), np.zeros(len(n))
    if histogram == "first_buckets":
        outputs = np.zeros(len(n))
    cell = {"latency_buckets": "cell", "first_buckets": "input_cell", "per_token_buckets": "fit"}[histogram]
    calls = Calls(fit, rows[cell].to_numpy(), n, inputs, outputs, log_ms)
    expected = expected_log_ms(calls, usual, int(fit.max()) + 1)
    weight = np.where(usual & np.isfinite(expected), n, 0.0)
    total = np.bincount(series, weights=weight)
    middle = np.bincount(series, weights=weight * np.nan_to_num(expected)) / np.maximum(total, 1e-12)
    move = np.round(BUCKETS_PER_OCTAVE * (expected - middle[series]))
    return np.where(total[series] >= MIN_BASELINE, move, np.nan)


def _replaced(windows: pl.DataFrame, whole: pl.DataFrame) -> pl.DataFrame:
    """The windows with calls moved from their buckets to those given the tokens."""
    keys = ["window_start_ns", *KEYS, "version"]
    taken = whole.select(*keys, "bucket", -pl.col("count"))
    put = whole.select(*keys, pl.col("moved").alias("bucket"), "count")
    touched = windows.join(whole.select(keys).unique(), on=keys, how="semi")
    before = (
        touched.select(*keys, "latency_buckets")
        .explode("latency_buckets", empty_as_null=False, keep_nulls=False)
        .unnest("latency_buckets")
        .select(*keys, pl.col("bucket").cast(pl.Int64), pl.col("count").cast(pl.Float64))
    )
    after = (
        pl.concat([before, taken, put])
        .group_by(*keys, "bucket")
        .agg(pl.col("count").sum())
        .filter(pl.col("count") > 0.5)
        .sort(*keys, "bucket")
        .group_by(keys, maintain_order=True)
        .agg(pl.struct(pl.col("bucket").cast(pl.Int16), pl.col("count").cast(pl.UInt64)).alias("given"))
    )
    joined = windows.join(after, on=keys, how="left", maintain_order="left")
    chosen = pl.coalesce(pl.col("given").cast(BUCKETS), "latency_buckets").alias("latency_buckets")
    return joined.with_columns(chosen).select(list(SERVICE_WINDOWS))


def _part(
    rows: pl.DataFrame,
    name: str,
    usual: Bools,
    frames: Frames,
    now_ns: int,
    settings: DetectSettings,
    abnormal: Sequence[Interval],
) -> list[Shift]:
    """Shifts of a part of the calls' latency; the ordinary test on windows of its own."""
    moved = _of(rows, _shifted(rows, name, usual))
    if moved.is_empty():
        return []
    keys = ["window_start_ns", *KEYS]
    histograms = (
        moved.group_by(*keys, "moved")
        .agg(pl.col("count").sum())
        .sort(*keys, "moved")
        .group_by(keys, maintain_order=True)
        .agg(
            pl.col("count").sum().cast(pl.UInt64).alias("requests"),
            pl.struct(pl.col("moved").cast(pl.Int16).alias("bucket"), pl.col("count").cast(pl.UInt64)).alias("given"),
        )
    )
    windows = histograms.select(
        *keys[:3],
        pl.lit(METRIC).alias("kind"),
        pl.col("kind").alias("version"),
        "requests",
        pl.lit(0, pl.UInt64).alias("errors"),
        pl.lit(0.0).alias("duration_sum_ms"),
        pl.col("given").cast(BUCKETS).alias("latency_buckets"),
    )
    kinds = {(r["service"], r["operation"]): r["kind"] for r in histograms.select(KEYS).unique().sort(KEYS).to_dicts()}
    found = detect(replace(frames, windows=windows), now_ns, settings, abnormal)
    return [
        replace(s, kind=kinds[s.service, s.operation], measure=s.measure.replace("latency", PARTS[name]), query="")
        for s in found
    ]


def _of(rows: pl.DataFrame, table: pl.DataFrame) -> pl.DataFrame:
    """The table with the rows' keys."""
    columns = ["window_start_ns", *KEYS, "version", "series", "window"]
    return pl.concat([rows.select(columns)[table["row"]], table], how="horizontal")


# ── what tokens explain ─────────────────────────────────────────────────────────────────────────────────────────────


def _explained(
    rows: pl.DataFrame, whole: pl.DataFrame, usual: Bools, span: Span, settings: DetectSettings
) -> tuple[dict[str, str], frozenset[str]]:
    """Per service what is to be said, and the services whose every rise is explained."""
    table = _of(rows, whole)
    series = int(rows["series"].max()) + 1  # type: ignore[arg-type]
    names = rows.select("series", *KEYS).unique().sort("series")
    number, row = table["series"].to_numpy(), table["row"].to_numpy()
    window = table["window"].to_numpy()
    pairs = [table[name].to_numpy() for name in ("bucket", "moved")]
    count = table["count"].to_numpy()
    lowest = int(min(pair.min() for pair in pairs))
    width = int(max(pair.max() for pair in pairs)) - lowest + 1

    def levels(which: Bools, bucket: Ints) -> Floats:
        cells = np.bincount((number * width + bucket - lowest)[which], weights=count[which], minlength=series * width)
        histogram: Floats = cells.astype(np.float64).reshape(series, width)
        return quantiles_ms(histogram, QUANTILES, lowest)  # [quantile, series]

    before = [np.maximum(levels(usual[row], pair), 1e-9) for pair in pairs]
    least = 1.0 + settings.p99_min_increase / 2.0
    notes: dict[str, str] = {}
    rose: set[str] = set()
    unexplained: set[str] = set()
    for length in (span.current, 2 * span.current, 4 * span.current):
        now = window >= span.length - length
        n = np.bincount(number[now], weights=count[now], minlength=series)
        raw, given = (levels(now, pair) / base for pair, base in zip(pairs, before, strict=True))
        for at in np.flatnonzero((n >= settings.min_requests) & ((raw > least) | (given > least)).any(axis=0)):
            service, operation, _ = names.select(KEYS).row(int(at))
            worst = int(np.argmax(np.maximum(raw[:, at], given[:, at])))
            left = given[:, at] - 1.0 > np.maximum(LEFT * (raw[:, at] - 1.0), settings.p99_min_increase / 2.0)
            (unexplained if left.any() else rose).add(service)
            moved = float(raw[worst, at]), float(given[worst, at])
            notes[service] = _words(rows, int(at), usual, span.length - length, operation, moved)
    return notes, frozenset(rose - unexplained)


def _words(
    rows: pl.DataFrame, series: int, usual: Bools, since: int, operation: str, moved: tuple[float, float]
) -> str:
    mine = pl.col("series") == series

    def tokens(part: pl.DataFrame) -> list[float]:
        total = max(1.0, float(part["requests"].sum()))
        return [float(part[name].sum()) / total for name in ("input_tokens", "output_tokens")]

    old, new = tokens(rows.filter(pl.Series(usual) & mine)), tokens(rows.filter(mine & (pl.col("window") >= since)))
    return (
        f"{operation}: {old[0]:,.0f} → {new[0]:,.0f} tokens in and {old[1]:,.0f} → {new[1]:,.0f} out a request; "
        f"it takes {moved[0]:.2f} times as long, {moved[1]:.2f} times given the tokens"
    )
