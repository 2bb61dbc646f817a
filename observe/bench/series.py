"""Windows of services with known shifts, drawn directly as counts and histograms: what detection is scored on.

No spans are simulated. A window's requests are a gamma–Poisson count, its histogram a multinomial over the buckets of
a lognormal body with a slow second mode; both levels wander together (correlated noise) and burst now and then.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import special

from observe import frames as shapes
from observe.frames import BUCKETS_PER_OCTAVE, SERVICE_WINDOWS, Frames
from observe.types import WINDOW_NS

START_NS = 1_700_000_000_000_000_000 // WINDOW_NS * WINDOW_NS
WINDOW_S = WINDOW_NS / 1e9
LOWEST, HIGHEST = -32, 288  # 0.25 ms … 4.4 min

Floats = NDArray[np.float64]
Fault = Literal["scale", "tail", "errors", "drop", "surge", "silence"]


@dataclass(frozen=True, slots=True)
class Known:
    """A shift that was put in: of which series, from which moment on, and how large."""

    series: int
    fault: Fault
    onset_s: float
    size: float  # factor of latency or traffic, share of slow requests ("tail"), added error ratio
    end_s: float = float("inf")
    slowdown: float = 10.0  # of the slow requests of "tail"


@dataclass(frozen=True, slots=True)
class Noise:
    """How unsteady things are with nothing wrong. Ranges are drawn from uniformly, per series."""

    sigma: tuple[float, float] = (0.3, 1.0)  # of log latency
    slow_share: tuple[float, float] = (0.0, 0.02)  # second mode, 8 times slower
    wander: tuple[float, float] = (0.0, 0.05)  # sd of the log level, correlated over `memory` windows
    memory: float = 12.0
    traffic_cv: tuple[float, float] = (0.0, 0.2)
    errors: tuple[float, float] = (0.0, 0.01)
    errors_cv: float = 0.5
    daily: float = 0.5  # amplitude of traffic's daily cycle
    bursts_per_h: float = 1.0  # hiccups: one window in which a share of the requests is slow
    burst_share: float = 0.05
    common: float = 0.3  # part of the wandering that all series share


@dataclass(frozen=True, slots=True)
class Fleet:
    """`requests_per_s` has one entry a series; each series is one operation of its own service."""

    requests_per_s: Floats
    windows: int
    noise: Noise = field(default_factory=Noise)
    shifts: tuple[Known, ...] = ()
    warm_up_s: float = 0.0  # slow, failing first requests of a fleet that starts


def draw(fleet: Fleet, rng: np.random.Generator) -> Frames:
    """Frames with `windows` filled, from START_NS on. The same generator state gives the same frames."""
    series, windows = len(fleet.requests_per_s), fleet.windows
    noise = fleet.noise
    level, rate = _levels(fleet, rng)
    error_ratio = rng.uniform(*noise.errors, (series, 1)) * _gamma(rng, noise.errors_cv, (series, windows))
    slow = np.broadcast_to(rng.uniform(*noise.slow_share, (series, 1)), (series, windows)).copy()
    burst = rng.random((series, windows)) < noise.bursts_per_h * WINDOW_S / 3600.0
    slow += burst * noise.burst_share
    tail, factor = np.zeros((series, windows)), np.full((series, 1), 10.0)
    for known in fleet.shifts:  # few; not a loop over series
        covered = _covered(known, windows)
        at = known.series
        if known.fault == "scale":
            # A window that is hit in part is a mixture; moving its level in proportion is near enough.
            level[at] += np.log(known.size) * covered
        elif known.fault == "tail":
            tail[at] += known.size * covered
            factor[at] = known.slowdown
        elif known.fault == "errors":
            error_ratio[at] += known.size * covered
        else:
            rate[at] *= 1.0 + (known.size - 1.0) * covered if known.fault != "silence" else 1.0 - covered
    starting = np.clip(fleet.warm_up_s / WINDOW_S - np.arange(windows), 0.0, 1.0)
    level, error_ratio = level + np.log(6.0) * starting, error_ratio + 0.3 * starting
    requests = rng.poisson(rate * WINDOW_S)
    errors = rng.binomial(requests, np.clip(error_ratio, 0.0, 1.0))
    sigma = rng.uniform(*noise.sigma, (series, 1))
    mix = _Mix(level, np.broadcast_to(sigma, level.shape), np.clip(slow, 0.0, 0.5), np.clip(tail, 0.0, 1.0),
               np.log(np.broadcast_to(factor, level.shape)))  # fmt: skip
    return _frames(requests, errors, _histograms(requests, mix, rng))


def now_ns(windows: int, settle_s: float = 12.0) -> int:
    """The moment at which the first `windows` windows have just settled."""
    return START_NS + windows * WINDOW_NS + int(settle_s * 1e9)


def _levels(fleet: Fleet, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Log of the median latency in ms, and requests per second; [series, window]."""
    series, windows = len(fleet.requests_per_s), fleet.windows
    noise = fleet.noise
    own = _wander(rng, (series, windows), noise.memory)
    shared = _wander(rng, (1, windows), noise.memory)
    mixed = np.sqrt(1.0 - noise.common) * own + np.sqrt(noise.common) * shared
    sd = rng.uniform(*noise.wander, (series, 1))
    median = np.exp(rng.uniform(np.log(5.0), np.log(500.0), (series, 1)))
    day = 2 * np.pi * (np.arange(windows) * WINDOW_S / 86_400.0 + rng.random((series, 1)))
    rate = fleet.requests_per_s[:, None] * (1.0 + noise.daily * np.sin(day))
    cv = rng.uniform(*noise.traffic_cv, (series, 1))
    level: Floats = np.log(median) + sd * mixed
    return level, rate * _gamma(rng, cv, (series, windows))


def _wander(rng: np.random.Generator, shape: tuple[int, int], memory: float) -> Floats:
    """First-order autoregressive noise of variance 1 along the windows, by blocks of its impulse response."""
    decay = np.exp(-1.0 / memory)
    taps = decay ** np.arange(int(6 * memory))
    taps /= np.sqrt((taps**2).sum())
    white = rng.normal(size=(shape[0], shape[1] + len(taps) - 1))
    size = 1 << int(np.ceil(np.log2(white.shape[1] + len(taps))))
    folded = np.fft.irfft(np.fft.rfft(white, size) * np.fft.rfft(taps, size), size)
    result: Floats = folded[:, len(taps) - 1 : len(taps) - 1 + shape[1]]
    return result


def _gamma(rng: np.random.Generator, cv: Floats | float, shape: tuple[int, int]) -> Floats:
    alpha = 1.0 / np.maximum(np.broadcast_to(cv, shape), 1e-3) ** 2
    factor: Floats = rng.gamma(alpha, 1.0 / alpha)
    return factor


def _covered(known: Known, windows: int) -> Floats:
    """Which part of each window lies in the fault."""
    start = np.arange(windows) * WINDOW_S
    inside = np.minimum(start + WINDOW_S, known.end_s) - np.maximum(start, known.onset_s)
    part: Floats = np.clip(inside / WINDOW_S, 0.0, 1.0)
    return part


@dataclass(frozen=True, slots=True)
class _Mix:
    """Latency of each window as a mixture of three lognormals; all [series, window], or [rows]."""

    level: Floats  # log of the median in ms
    sigma: Floats
    slow: Floats  # share of the second mode
    tail: Floats  # share that a fault slows down
    log_factor: Floats  # by how much

    def of(self, rows: NDArray[np.bool_] | NDArray[np.int64]) -> _Mix:
        return _Mix(*(part[rows] for part in (self.level, self.sigma, self.slow, self.tail, self.log_factor)))


SPARSE = 400  # requests of a window up to which drawing them one by one is cheaper than drawing buckets
CHUNK = 20_000  # rows drawn at a time


def _histograms(requests: NDArray[np.int64], mix: _Mix, rng: np.random.Generator) -> pl.DataFrame:
    """row, bucket, count, sorted; rows go by window and then by series."""
    flat = requests.T.ravel()
    mix = _Mix(*(part.T.ravel() for part in (mix.level, mix.sigma, mix.slow, mix.tail, mix.log_factor)))
    sparse, dense = np.flatnonzero((flat > 0) & (flat <= SPARSE)), np.flatnonzero(flat > SPARSE)
    parts = [_one_by_one(flat[rows], rows, mix.of(rows), rng) for rows in _chunks(sparse)]
    parts += [_by_bucket(flat[rows], rows, mix.of(rows), rng) for rows in _chunks(dense)]
    return pl.concat(parts).sort("row", "bucket")


def _chunks(rows: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    return np.array_split(rows, max(1, -(-len(rows) // CHUNK)))


def _one_by_one(n: NDArray[np.int64], rows: NDArray[np.int64], mix: _Mix, rng: np.random.Generator) -> pl.DataFrame:
    at = np.repeat(np.arange(len(n)), n)
    slowed, tailed = rng.random(len(at)) < mix.slow[at], rng.random(len(at)) < mix.tail[at]
    log_ms = mix.level[at] + mix.sigma[at] * rng.normal(size=len(at))
    log_ms += np.where(tailed, mix.log_factor[at], np.log(8.0) * slowed)
    bucket = np.clip(np.ceil(log_ms / np.log(2.0) * BUCKETS_PER_OCTAVE) - 1, LOWEST, HIGHEST - 1)
    drawn = pl.DataFrame({"row": rows[at], "bucket": bucket.astype(np.int16)})
    return drawn.group_by("row", "bucket").agg(pl.len().cast(pl.UInt64).alias("count"))


def _by_bucket(n: NDArray[np.int64], rows: NDArray[np.int64], mix: _Mix, rng: np.random.Generator) -> pl.DataFrame:
    counts = rng.multinomial(n, _shares(mix))
    at, bucket = np.nonzero(counts)
    return pl.DataFrame({
        "row": rows[at],
        "bucket": (bucket + LOWEST).astype(np.int16),
        "count": counts[at, bucket].astype(np.uint64),
    })  # fmt: skip


def _shares(mix: _Mix) -> Floats:
    """Probability of each bucket, [rows, bucket]; the outer buckets take what lies beyond them."""
    edges = np.log(2.0) * np.arange(LOWEST + 1, HIGHEST) / BUCKETS_PER_OCTAVE

    def below(level: Floats) -> Floats:
        probability: Floats = special.ndtr((edges - level[:, None]) / mix.sigma[:, None])
        return probability

    slow, tail = mix.slow[:, None], mix.tail[:, None]
    body = (1.0 - slow) * below(mix.level) + slow * below(mix.level + np.log(8.0))
    body = (1.0 - tail) * body + tail * below(mix.level + mix.log_factor)
    ends = np.zeros((len(body), 1))
    shares: Floats = np.maximum(np.diff(np.concatenate([ends, body, ends + 1.0], axis=1), axis=1), 0.0)
    whole: Floats = shares.sum(axis=1, keepdims=True)
    return shares / whole


def _frames(requests: NDArray[np.int64], errors: NDArray[np.int64], entries: pl.DataFrame) -> Frames:
    series, windows = requests.shape
    middle = np.exp2((entries["bucket"].to_numpy() + 0.5) / BUCKETS_PER_OCTAVE)
    histograms = (
        entries.with_columns(ms=pl.Series(middle) * pl.col("count"))
        .group_by("row", maintain_order=True)
        .agg(pl.struct("bucket", "count").alias("latency_buckets"), pl.col("ms").sum().alias("duration_sum_ms"))
    )
    names = pl.Series([f"service-{i:0{len(str(series - 1))}d}" for i in range(series)])
    rows = pl.DataFrame({
        "row": np.arange(series * windows),
        "window_start_ns": START_NS + np.repeat(np.arange(windows), series) * WINDOW_NS,
        "service": names[np.tile(np.arange(series), windows)],
        "requests": requests.T.ravel(),
        "errors": errors.T.ravel(),
    }).with_columns(operation=pl.lit("GET /"), kind=pl.lit("Server"), version=pl.lit("1"))  # fmt: skip
    frame = rows.join(histograms, on="row", how="inner", maintain_order="left").select(
        pl.col(name).cast(dtype) for name, dtype in SERVICE_WINDOWS.items()
    )
    nothing = shapes.empty()
    return Frames(frame, nothing.selfs, nothing.edges, nothing.gauges)
