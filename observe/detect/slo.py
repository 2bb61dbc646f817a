"""Error budgets: how fast they burn, and what is left. Pure: frames and `now` in.

Multi-window, multi-burn-rate alerts as in chapter 5 of "The Site Reliability Workbook" (Beyer et al. 2018, O'Reilly):
a budget that burns r times too fast over a long range is worth a page, if a short range says that it still does.
"""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from observe.detect.grid import span_of
from observe.detect.latency import quantiles_ms
from observe.detect.statistics import Floats
from observe.frames import BLOCK_NS, BUCKETS_PER_OCTAVE, Frames
from observe.settings import BurnRate, DetectSettings, Objective, SloSettings
from observe.types import WINDOW_NS, Shift

SECOND_NS = 1_000_000_000
ENTRIES = (("Server", "Consumer"), ("Internal", "Metric", "Unspecified", ""), ("Client", "Producer"))
"""Where requests enter: the first of these that the objective's spans have; others would count a request twice."""

COLUMNS = ["start_ns", "end_ns", "operation", "kind", "requests", "errors", "latency_buckets"]


@dataclass(frozen=True, slots=True)
class Burn:
    """One burn rate of one objective at one moment. Rates are multiples of what the budget allows."""

    limit: BurnRate
    long_rate: float
    short_rate: float
    bad: float  # in the long range

    def fires(self, min_bad: float) -> bool:
        return self.long_rate >= self.limit.rate <= self.short_rate and self.bad >= min_bad


@dataclass(frozen=True, slots=True)
class Status:
    """An objective at one moment. `remaining` is the part of its budget that is left; below 0 it is overspent."""

    objective: Objective
    total: float  # requests in the budget's days
    bad: float
    remaining: float
    burns: tuple[Burn, ...]
    firing: Burn | None


@dataclass(frozen=True, slots=True)
class Burning:
    """An alert: the shift that people are told of, the limit that it broke, and why, in words."""

    shift: Shift
    limit: BurnRate
    text: str


def reach_ns(settings: SloSettings) -> int:
    """How far back blocks are needed to judge the burn rates; 0 without objectives."""
    longest_s = max((limit.long_s for limit in settings.burn_rates), default=0.0)
    return int(longest_s * SECOND_NS) + BLOCK_NS if settings.objectives else 0


def services(settings: SloSettings) -> list[str]:
    return sorted({objective.service for objective in settings.objectives})


def burning(frames: Frames, now_ns: int, settings: SloSettings, detect: DetectSettings) -> list[Burning]:
    """The objectives that burn too fast at `now_ns`; each by the first limit that it breaks."""
    found = []
    for objective in settings.objectives:
        end_ns = span_of(now_ns, detect).end_ns
        points = _points(frames, objective, end_ns)
        burns = _burns(points, objective, end_ns, settings.burn_rates)
        firing = _firing(burns, settings)
        if firing is not None:
            shift = _shift(objective, points, end_ns, firing)
            found.append(Burning(shift, firing.limit, _words(objective, firing)))
    return found


def status(frames: Frames, now_ns: int, settings: SloSettings, detect: DetectSettings) -> list[Status]:
    """Every objective; `frames.blocks` reach back as far as its budget does."""
    end_ns = span_of(now_ns, detect).end_ns
    return [_status(frames, objective, end_ns, settings) for objective in settings.objectives]


def _status(frames: Frames, objective: Objective, end_ns: int, settings: SloSettings) -> Status:
    points = _points(frames, objective, end_ns)
    first_ns = end_ns - settings.days * 86_400 * SECOND_NS
    total, bad = _sums(points.filter(pl.col("start_ns") >= first_ns), objective)
    burns = _burns(points, objective, end_ns, settings.burn_rates)
    left = 1.0 - bad / max(total * (1.0 - objective.target), 1e-12) if total else 1.0
    return Status(objective, total, bad, left, burns, _firing(burns, settings))


def _firing(burns: Sequence[Burn], settings: SloSettings) -> Burn | None:
    firing = [burn for burn in burns if burn.fires(settings.min_bad_requests)]
    return max(firing, key=lambda burn: burn.limit.rate, default=None)


# ── counting ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _points(frames: Frames, objective: Objective, end_ns: int) -> pl.DataFrame:
    """What happened, as windows where there are any and as whole blocks before them; all end by `end_ns`."""
    name = "tokens" if objective.model else "windows"
    fine: pl.DataFrame = getattr(frames, name)
    fine = fine.filter(pl.col("window_start_ns") + WINDOW_NS <= end_ns)
    oldest: object = fine["window_start_ns"].min()
    seam_ns = -(-(oldest if isinstance(oldest, int) else end_ns) // BLOCK_NS) * BLOCK_NS
    windows = _matching(fine, objective).select(
        pl.col("window_start_ns").alias("start_ns"),
        (pl.col("window_start_ns") + WINDOW_NS).alias("end_ns"),
        *COLUMNS[2:],
    )
    coarse = frames.blocks.filter((pl.col("model") != "") == bool(objective.model))
    blocks = _matching(coarse, objective).select(
        pl.col("block_start_ns").alias("start_ns"), (pl.col("block_start_ns") + BLOCK_NS).alias("end_ns"), *COLUMNS[2:]
    )
    points = pl.concat([
        blocks.filter(pl.col("end_ns") <= min(seam_ns, end_ns)), windows.filter(pl.col("start_ns") >= seam_ns)
    ]) if not coarse.is_empty() else windows  # fmt: skip
    return _entries(points)


def _matching(rows: pl.DataFrame, objective: Objective) -> pl.DataFrame:
    rows = rows.filter(pl.col("service") == objective.service)
    for column, pattern in (("operation", objective.operation), ("model", objective.model)):
        if pattern not in ("*", ""):
            names = [name for name in rows[column].unique().sort() if fnmatch.fnmatchcase(name, pattern)]
            rows = rows.filter(pl.col(column).is_in(names))
    return rows


def _entries(points: pl.DataFrame) -> pl.DataFrame:
    kinds = set(points["kind"].unique())
    for entry in ENTRIES:
        if kinds & set(entry):
            return points.filter(pl.col("kind").is_in(entry))
    return points


def _burns(points: pl.DataFrame, objective: Objective, end_ns: int, limits: Sequence[BurnRate]) -> tuple[Burn, ...]:
    burns = []
    for limit in limits:
        rates = []
        for length_s in (limit.long_s, limit.short_s):
            total, bad = _sums(points.filter(pl.col("start_ns") >= end_ns - int(length_s * SECOND_NS)), objective)
            rates.append((bad / total / (1.0 - objective.target) if total else 0.0, bad))
        burns.append(Burn(limit, rates[0][0], rates[1][0], rates[0][1]))
    return tuple(burns)


def _sums(points: pl.DataFrame, objective: Objective) -> tuple[float, float]:
    """Requests, and the bad ones among them."""
    return float(points["requests"].sum()), float(points.select(bad_requests(objective).sum()).item())


def bad_requests(objective: Objective) -> pl.Expr:
    """Of each row: errors, or requests slower than the objective; inside a bucket they lie evenly on the log scale."""
    if objective.latency_ms is None:
        return pl.col("errors").cast(pl.Float64)
    column = math.log2(objective.latency_ms) * BUCKETS_PER_OCTAVE
    bucket, count = pl.element().struct.field("bucket"), pl.element().struct.field("count")
    return pl.col("latency_buckets").list.eval((bucket + 1.0 - column).clip(0.0, 1.0) * count).list.sum()


# ── telling ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _shift(objective: Objective, points: pl.DataFrame, end_ns: int, burn: Burn) -> Shift:
    short = points.filter(pl.col("start_ns") >= end_ns - int(burn.limit.short_s * SECOND_NS))
    total, bad = _sums(short, objective)
    plain = not any(sign in objective.operation for sign in "*?[")
    slow = objective.latency_ms is not None
    return Shift(
        service=objective.service,
        operation=objective.operation if plain else "",
        kind=str(points["kind"][0]),
        measure=f"latency_p{objective.target * 100:g}_ms" if slow else "error_ratio",
        before=objective.latency_ms or 1.0 - objective.target,
        after=_quantile(short, objective.target) if slow else bad / max(total, 1.0),
        unit="ms" if slow else "1",
        p_value=0.0,
        samples=round(total),
        onset_ns=_onset(points, objective, end_ns),
        rule=rule_name(objective, burn.limit),
    )


def rule_name(objective: Objective, limit: BurnRate) -> str:
    return f"slo {objective.name} {limit.rate:g}×"


def _onset(points: pl.DataFrame, objective: Objective, end_ns: int) -> int:
    """Where the budget began to burn faster than it may: the lowest point of the cumulated excess (Page 1954,
    doi:10.1093/biomet/41.1-2.100)."""
    bad = bad_requests(objective).sum().alias("bad")
    steps = points.group_by("start_ns").agg(pl.col("requests").sum(), bad).sort("start_ns")
    excess = steps["bad"].to_numpy() - (1.0 - objective.target) * steps["requests"].to_numpy().astype(np.float64)
    before = np.concatenate([[0.0], np.cumsum(excess)[:-1]])
    lowest = np.flatnonzero(before == before.min()) if len(before) else np.array([], dtype=np.int64)
    return int(steps["start_ns"][int(lowest[-1])]) if len(lowest) else end_ns


def _quantile(points: pl.DataFrame, q: float) -> float:
    buckets = points.select("latency_buckets").explode("latency_buckets").unnest("latency_buckets").drop_nulls()
    if buckets.is_empty():
        return 0.0
    bucket = buckets["bucket"].to_numpy().astype(np.int64)
    histogram: Floats = np.bincount(bucket - bucket.min(), weights=buckets["count"].to_numpy()).astype(np.float64)
    return float(quantiles_ms(histogram[None, :], (q,), int(bucket.min()))[0, 0])


def _words(objective: Objective, burn: Burn) -> str:
    promise = "succeed" if objective.latency_ms is None else f"take less than {objective.latency_ms:g} ms"
    return (
        f"objective {objective.name} ({objective.target * 100:g} % {promise}): its error budget burns "
        f"{burn.long_rate:.3g} times too fast over {_duration(burn.limit.long_s)} and {burn.short_rate:.3g} times over "
        f"{_duration(burn.limit.short_s)}; {burn.limit.rate:g} times is the limit"
    )


def _duration(seconds: float) -> str:
    """
    >>> _duration(21600), _duration(300), _duration(90)
    ('6 h', '5 min', '90 s')
    """
    for length, unit in ((3600, "h"), (60, "min")):
        if seconds % length == 0:
            return f"{seconds / length:g} {unit}"
    return f"{seconds:g} s"
