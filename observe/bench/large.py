"""Frames of large fleets, an hour of windows drawn from their levels: what a look at an incident costs by size.

Requests are not simulated one by one (an hour of 1,000 a second through ten services each would be 36 million spans):
counts are Poisson, sums are normal around what the graph implies, which is what a rollup of such spans looks like.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from observe.bench.graphs import Floats, Ints
from observe.frames import BUCKETS_PER_OCTAVE, EDGE_WINDOWS, SELF_WINDOWS, Frames, empty
from observe.types import WINDOW_NS, Shift

START_NS = 1_700_000_000_000_000_000 // WINDOW_NS * WINDOW_NS
SPREAD = 0.6
"""Standard deviation of one span's time, as part of its mean."""
MOOD = 0.03
"""The same of what all spans of one window share."""
INSTANCES = 2
PER_SPAN = 0.9
"""Calls that an average request of a service makes, all callees together: some ten spans for a request of a user."""


@dataclass(frozen=True, slots=True)
class Large:
    """A fleet with one service that got slow, its hour, and what was noticed."""

    frames: Frames
    shifts: list[Shift]
    now_ns: int
    guilty: str
    services: int
    edges: int
    requests: int  # of users, over the hour


def large(
    services: int, edges: int, requests_per_s: float = 1000.0, *, windows: int = 360, after: int = 30, seed: int = 0
) -> Large:
    """`after` windows of the hour are abnormal: the self time of one service is twenty times what it was."""
    rng = np.random.default_rng(seed)
    names = np.array([f"service-{number:04d}" for number in rng.permutation(services)])
    caller, callee, calls = _calls(rng, services, edges)
    visits = _down(caller, callee, calls, services)
    own = np.exp(rng.uniform(np.log(1), np.log(30), services))
    way = rng.uniform(0.2, 2.0, len(caller))
    fit = np.flatnonzero((visits > np.quantile(visits, 0.5)) & (np.arange(services) > services // 4))
    guilty = int(rng.choice(fit))
    slow = own * np.where(np.arange(services) == guilty, 20.0, 1.0)
    took = [_up(caller, callee, calls, way, part) for part in (own, slow)]
    fault = windows - after
    rate = visits * requests_per_s * WINDOW_NS / 1e9
    selfs = _selfs(rng, names, rate, (own, slow), took, (windows, fault))
    table = _edges(rng, names, (caller, callee), rate[caller] * calls, way, took, (windows, fault))
    onset_ns = START_NS + fault * WINDOW_NS
    shifts = [
        Shift(str(names[s]), "/work", "Server", "latency_p99_ms", took[0][s], took[1][s], "ms", 1e-9, 1000, onset_ns)
        for s in np.flatnonzero(took[1] > 1.3 * took[0]).tolist()
    ]
    frames = Frames(empty().windows, selfs, table, empty().gauges)
    now_ns = START_NS + windows * WINDOW_NS
    total = int(requests_per_s * windows * WINDOW_NS / 1e9)
    return Large(frames, shifts, now_ns, str(names[guilty]), services, len(caller), total)


def _calls(rng: np.random.Generator, services: int, edges: int) -> tuple[Ints, Ints, Floats]:
    """Callees have larger numbers; everybody but the first few is called. Calls are per request of the caller."""
    first = np.arange(1, services)
    pairs = set(zip(rng.integers(np.maximum(0, first - 40), first).tolist(), first.tolist(), strict=True))
    while len(pairs) < edges:
        a, b = sorted(rng.integers(0, services, 2).tolist())
        if a != b:
            pairs.add((a, b))
    caller, callee = (np.array(side, np.int64) for side in zip(*sorted(pairs), strict=True))
    weight = rng.gamma(2.0, 1.0, len(caller))
    total = np.bincount(caller, weight, services)
    return caller, callee, PER_SPAN * weight / total[caller]


def _down(caller: Ints, callee: Ints, calls: Floats, services: int) -> Floats:
    """Requests of each service for one of a user."""
    visits = np.zeros(services)
    visits[0] = 1.0
    order = np.argsort(caller, kind="stable")
    for edge in order.tolist():
        visits[callee[edge]] += visits[caller[edge]] * calls[edge]
    return visits


def _up(caller: Ints, callee: Ints, calls: Floats, way: Floats, own: Floats) -> Floats:
    """Mean duration of a request at each service: its own time and what it waits for."""
    took = own.copy()
    for edge in np.argsort(-caller, kind="stable").tolist():
        took[caller[edge]] += calls[edge] * (way[edge] + took[callee[edge]])
    return took


# ── tables ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _levels(before: Floats, after: Floats, windows: int, fault: int) -> Floats:
    """windows × things."""
    return np.where((np.arange(windows) < fault)[:, None], before, after)


def _sums(rng: np.random.Generator, count: Floats, mean: Floats) -> Floats:
    noise = rng.normal(0, 1, count.shape) * SPREAD / np.sqrt(np.maximum(count, 1.0))
    mood = rng.normal(0, MOOD, count.shape)
    return np.asarray(count * mean * np.maximum(1 + noise + mood, 0.05))


def _histogram(mean: pl.Expr, count: pl.Expr) -> pl.Expr:
    """Four buckets an octave apart, from half the mean on."""
    low = ((mean / 2).clip(lower_bound=1e-3).log(2) * BUCKETS_PER_OCTAVE).floor()
    parts = (0.3, 0.45, 0.2, 0.05)
    return pl.concat_list(
        pl.struct(bucket=(low + i * BUCKETS_PER_OCTAVE).cast(pl.Int16), count=(count * part).ceil().cast(pl.UInt64))
        for i, part in enumerate(parts)
    )


def _long(windows: int, size: int) -> dict[str, Ints]:
    return {
        "window_start_ns": START_NS + np.repeat(np.arange(windows), size) * WINDOW_NS,
        "at": np.tile(np.arange(size), windows),
    }


def _selfs(
    rng: np.random.Generator,
    names: np.ndarray,
    rate: Floats,
    own: tuple[Floats, Floats],
    took: list[Floats],
    hour: tuple[int, int],
) -> pl.DataFrame:
    windows, _ = hour
    parts = []
    for number in range(INSTANCES):
        count = rng.poisson(rate / INSTANCES, (windows, len(names))).astype(np.float64)
        level = _levels(*own, *hour)
        spent = _sums(rng, count, level)
        waited = count * (_levels(took[0], took[1], *hour) - level)
        table = pl.DataFrame(
            _long(windows, len(names))
            | {"requests": count.ravel(), "self_sum_ms": spent.ravel(), "duration_sum_ms": (spent + waited).ravel()}
        )
        known = pl.DataFrame({"service": names}).with_columns(
            at=pl.int_range(pl.len()),
            instance=pl.col("service") + f"-{number}",
            host=pl.format("host-{}", pl.int_range(pl.len()) // 8 + number * 1000),
        )
        parts.append(table.filter(pl.col("requests") > 0).join(known, on="at"))
    return (
        pl.concat(parts)
        .with_columns(
            operation=pl.lit("/work"),
            kind=pl.lit("Server"),
            version=pl.lit("1.0.0"),
            errors=0,
            origin_errors=0,
            self_buckets=_histogram(pl.col("self_sum_ms") / pl.col("requests"), pl.col("requests")),
            slowest_trace_id=pl.lit("0" * 31 + "1"),
            error_trace_id=pl.lit(""),
        )
        .select(list(SELF_WINDOWS))
        .cast(SELF_WINDOWS)  # type: ignore[arg-type]
        .sort("window_start_ns", "service", "instance")
    )


def _edges(
    rng: np.random.Generator,
    names: np.ndarray,
    ends: tuple[Ints, Ints],
    rate: Floats,
    way: Floats,
    took: list[Floats],
    hour: tuple[int, int],
) -> pl.DataFrame:
    windows, _ = hour
    caller, callee = ends
    count = rng.poisson(rate, (windows, len(rate))).astype(np.float64)
    served = _sums(rng, count, _levels(took[0][callee], took[1][callee], *hour))
    table = pl.DataFrame(
        _long(windows, len(rate))
        | {
            "calls": count.ravel(),
            "client_sum_ms": (served + _sums(rng, count, np.broadcast_to(way, count.shape))).ravel(),
            "server_sum_ms": served.ravel(),
        }
    )
    known = pl.DataFrame({"caller": names[caller], "callee": names[callee]}).with_columns(at=pl.int_range(pl.len()))
    return (
        table.filter(pl.col("calls") > 0)
        .join(known, on="at")
        .with_columns(
            caller_operation=pl.lit("GET"),
            callee_operation=pl.lit("/work"),
            connection=pl.lit("direct"),
            errors=0,
            latency_buckets=_histogram(pl.col("client_sum_ms") / pl.col("calls"), pl.col("calls")),
        )
        .select(list(EDGE_WINDOWS))
        .cast(EDGE_WINDOWS)  # type: ignore[arg-type]
        .sort("window_start_ns", "caller", "callee")
    )
