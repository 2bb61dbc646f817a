"""Made-up labelled cases in the format of recorded ones: metrics of services under one fault, no spans.

Rates, latencies and failures follow from a call graph (a caller's latency holds its callees', a failure fails callers);
processor, memory, disk and network follow from requests. How systems are measured differs from case to case on purpose:
names, step, length, which metrics there are, gaps, series that never move, graph and symptom known or not. Nothing here
comes from the public sets, and the methods know nothing of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from observe.bench.public import Labelled
from observe.diagnose.offline import Case
from observe.diagnose.offline.case import EDGE_COLUMNS, METRIC_COLUMNS

Floats = NDArray[np.float64]

FAULTS = ("cpu", "memory", "disk", "delay", "loss", "errors", "crash")
MEASURES = ("cpu", "memory", "disk", "received", "sent", "latency50", "latency90", "requests", "errors")
DIALECTS: tuple[dict[str, str], ...] = (
    {
        "cpu": "cpu",
        "memory": "mem",
        "disk": "diskio",
        "received": "socket",
        "latency50": "latency-50",
        "latency90": "latency-90",
        "requests": "workload",
        "errors": "error",
    },
    {
        "cpu": "container_cpu_usage_seconds_total",
        "memory": "container_memory_working_set_bytes",
        "disk": "container_fs_writes_bytes_total",
        "received": "container_network_receive_bytes_total",
        "sent": "container_network_transmit_bytes_total",
        "latency90": "http_server_request_duration_seconds_p95",
        "requests": "http_server_requests_rate",
        "errors": "http_server_errors_rate",
    },
    {
        "cpu": "CPUUtilization",
        "memory": "MemoryUtilization",
        "latency50": "ResponseTime",
        "requests": "RequestCount",
        "errors": "HTTPCode_5XX",
    },
    {"latency50": "latency", "requests": "requests", "errors": "availability"},
    {"cpu": "m1", "memory": "m2", "disk": "m3", "received": "m4", "sent": "m5", "latency90": "m6", "errors": "m7"},
    {"cpu": "cpu", "memory": "mem", "disk": "io_write", "received": "net_rx", "sent": "net_tx"},
)
"""Measure → its name. `availability` is the share of requests that went well; errors otherwise are counts per step."""
SHOWS: dict[str, tuple[str, ...]] = {
    "cpu": ("cpu",),
    "memory": ("memory",),
    "disk": ("disk",),
    "delay": ("latency50", "latency90", "received", "sent"),
    "loss": ("latency50", "latency90", "received", "sent", "errors"),
    "errors": ("errors",),
    "crash": ("requests", "cpu", "memory", "received", "sent"),
}
STEPS_S = (1.0, 5.0, 15.0, 60.0, 300.0)


@dataclass(frozen=True, slots=True)
class Shop:
    """A system: service 0 takes what users ask. Arrays are per service; `calls` is caller × callee, per request."""

    names: list[str]
    calls: Floats
    own_ms: Floats
    cpu: Floats
    memory: Floats
    disk: Floats
    bytes: Floats


def recorded(seed: int, count: int) -> Iterator[Labelled]:
    """Cases of random systems; faults take turns."""
    for number in range(count):
        yield _case(np.random.default_rng([seed, number]), number)


def _case(rng: np.random.Generator, number: int) -> Labelled:
    fault = FAULTS[number % len(FAULTS)]
    shop = _shop(rng, int(rng.choice([8, 12, 20, 35, 50, 70])))
    visits = _visits(shop)
    place = int(rng.choice(np.flatnonzero(visits >= 0.1)[1:]))
    step_s = float(rng.choice(STEPS_S))
    before, after = int(rng.choice([30, 60, 120, 300])), int(rng.choice([5, 10, 30, 60]))
    values = _measured(rng, shop, visits, fault, place, step_s, before, after)
    dialect = DIALECTS[int(rng.integers(len(DIALECTS)))]
    times = 1_700_000_000.0 + step_s * np.arange(before + after, dtype=np.float64)
    metrics = _table(rng, shop.names, dialect, values, times, silent=place if fault == "crash" else -1, begins=before)
    graph = _edges(rng, shop) if rng.random() < 0.5 else pl.DataFrame(schema=EDGE_COLUMNS)
    noticed = _noticed(dialect, fault) if rng.random() < 0.5 else ""
    case = Case(
        float(times[before]),
        metrics,
        graph=graph,
        symptom_service=shop.names[0] if noticed else "",
        symptom_metric=noticed,
    )
    shows = tuple(dialect[m] for m in SHOWS[fault] if m in dialect)
    return Labelled(f"made-up/{number}", fault, shop.names[place], shows, case)


def _noticed(dialect: dict[str, str], fault: str) -> str:
    failing = fault in ("errors", "crash", "loss")
    wanted = ("errors", "latency90", "latency50") if failing else ("latency90", "latency50")
    return next((dialect[m] for m in wanted if m in dialect), "")


# ── systems ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _shop(rng: np.random.Generator, size: int) -> Shop:
    calls = np.zeros((size, size))
    for callee in range(1, size):
        first = int(rng.integers(max(0, callee - 8), callee))
        calls[first, callee] = float(rng.choice([1.0, 1.0, 2.0, 0.4]))
        if rng.random() < 0.25:
            calls[int(rng.integers(0, callee)), callee] = float(rng.choice([1.0, 0.3]))
    for caller in range(size):  # no request becomes hundreds
        calls[caller] *= min(1.0, 2.5 / max(float(calls[caller].sum()), 1e-9))

    def some(low: float, high: float) -> Floats:
        return np.asarray(np.exp(rng.uniform(np.log(low), np.log(high), size)))

    names = [f"{rng.choice(['ts', 'app', 'x'])}-{tag:05x}" for tag in rng.choice(2**20, size, replace=False)]
    return Shop(names, calls, some(1, 40), some(0.01, 0.5), some(3e7, 1e9), some(1e2, 1e5), some(2e2, 2e4))


def _visits(shop: Shop) -> Floats:
    visits = np.zeros(len(shop.names))
    visits[0] = 1.0
    for caller in range(len(visits)):  # callees come after their callers
        visits += visits[caller] * shop.calls[caller]
    return visits


# ── what is measured ────────────────────────────────────────────────────────────────────────────────────────────────


def _measured(
    rng: np.random.Generator, shop: Shop, visits: Floats, fault: str, place: int, step_s: float, before: int, after: int
) -> dict[str, Floats]:
    """Measure → time × service."""
    steps, size = before + after, len(visits)
    during = np.arange(steps) >= before
    if rng.random() < 0.3:  # it ends before the recording does
        during &= np.arange(steps) < before + max(3, int(0.6 * after))
    harm = np.where(during, 1.0, 0.0)
    own = shop.own_ms * _wobble(rng, steps, size, rng.uniform(0.02, 0.1))
    extra, breaks, use = np.zeros((steps, size)), rng.choice([0.0, 1e-4, 2e-3], size) * np.ones((steps, size)), {}
    added = float(np.exp(rng.uniform(np.log(20), np.log(500))))
    if fault in ("cpu", "memory", "disk"):
        slower = {"cpu": rng.uniform(1.3, 5), "memory": rng.uniform(1.0, 1.5), "disk": rng.uniform(1.0, 3)}[fault]
        own[:, place] *= 1 + harm * (slower - 1)
        ramp = np.clip(np.cumsum(harm) / max(1, after // 2), 0, 1) if fault == "memory" else harm
        use[fault] = 1 + ramp * (float(rng.uniform(1.5, 3) if fault == "memory" else rng.uniform(2, 20)) - 1)
    elif fault == "delay":
        extra[:, place] = harm * added
    elif fault == "loss":
        extra[:, place] = harm * added * rng.uniform(0.1, 1)
        breaks[:, place] += harm * rng.uniform(0.02, 0.2)
    elif fault == "errors":
        breaks[:, place] += harm * rng.uniform(0.05, 0.6)
        own[:, place] *= 1 - 0.5 * harm * breaks[:, place]
    else:
        breaks[:, place] = np.where(during, 1.0, breaks[:, place])
    seen_inside = rng.random() < 0.6  # whether the service's own clock covers its slow network
    latency, failing = _travelling(shop, own, extra, breaks, seen_inside=seen_inside, place=place)
    rate = 10 ** rng.uniform(0.5, 2) * _wobble(rng, steps, 1, 0.05)[:, 0]
    rate *= 1 + 0.15 * np.sin(2 * np.pi * np.arange(steps) * step_s / 86400 + rng.uniform(0, 6))
    if rng.random() < 0.5:  # users wait for answers before they ask again
        think = 2000.0
        rate *= (think + latency[:before, 0].mean()) / (think + latency[:, 0])
    asked = rate[:, None] * visits * step_s
    if fault == "crash":
        asked[:, place] *= 1 - harm
    return _series(rng, shop, asked, latency, failing, own, use, place)


def _travelling(
    shop: Shop, own: Floats, extra: Floats, breaks: Floats, *, seen_inside: bool, place: int
) -> tuple[Floats, Floats]:
    """Latency and failures of each service, callees first: time × service."""
    latency, failing = own.copy(), breaks.copy()
    for caller in range(len(shop.names) - 1, -1, -1):
        for callee in np.flatnonzero(shop.calls[caller]).tolist():
            weight = shop.calls[caller, callee]
            outside = extra[:, callee] + extra[:, caller]
            latency[:, caller] += weight * (latency[:, callee] + outside)
            failing[:, caller] = 1 - (1 - failing[:, caller]) * (1 - min(weight, 1.0) * 0.9 * failing[:, callee])
    if seen_inside:
        latency[:, place] += extra[:, place]
    return latency, failing


def _series(
    rng: np.random.Generator,
    shop: Shop,
    asked: Floats,
    latency: Floats,
    failing: Floats,
    own: Floats,
    use: dict[str, Floats],
    place: int,
) -> dict[str, Floats]:
    steps, size = asked.shape
    count = rng.poisson(asked).astype(np.float64)
    rough = 1 + rng.normal(0, 0.6, (steps, size)) / np.sqrt(np.maximum(count, 1.0))
    busy = count / np.maximum(asked.mean(axis=0), 1e-9)
    found = {
        "latency50": latency * 0.8 * np.maximum(rough, 0.05),
        "latency90": latency * 2.2 * np.maximum(1 + 1.6 * (rough - 1), 0.05),
        "requests": count,
        "errors": rng.binomial(count.astype(np.int64), np.clip(failing, 0, 1)).astype(np.float64),
        "cpu": shop.cpu * (0.3 + 0.7 * busy * own / shop.own_ms) * _wobble(rng, steps, size, 0.05),
        "memory": shop.memory * _wobble(rng, steps, size, 0.01),
        "disk": shop.disk * (busy * _wobble(rng, steps, size, 0.3) + 0.05),
        "received": shop.bytes * count * _wobble(rng, steps, size, 0.05) + 100,
        "sent": shop.bytes * 1.7 * count * _wobble(rng, steps, size, 0.05) + 100,
    }
    for measure, factor in use.items():
        found[measure][:, place] *= factor
    for values in found.values():  # somebody backs up, deploys, scrapes: spikes that mean nothing
        values *= np.where(rng.random((steps, size)) < 0.002, rng.uniform(1.5, 6, (steps, size)), 1.0)
    found["availability"] = 1 - found["errors"] / np.maximum(count, 1.0)
    return found


def _wobble(rng: np.random.Generator, steps: int, size: int, sigma: float) -> Floats:
    """Around 1; each step remembers most of the last."""
    noise = rng.normal(0, sigma, (steps, size))
    level = np.zeros((steps, size))
    for step in range(1, steps):
        level[step] = 0.7 * level[step - 1] + noise[step]
    return np.asarray(np.exp(level))


# ── the format ──────────────────────────────────────────────────────────────────────────────────────────────────────


def _table(
    rng: np.random.Generator,
    names: list[str],
    dialect: dict[str, str],
    values: dict[str, Floats],
    times: Floats,
    *,
    silent: int,
    begins: int,
) -> pl.DataFrame:
    """A service that is gone reports nothing, or zeros; some services lack some metrics, some rows are lost."""
    parts, zeros = [], bool(rng.random() < 0.5)
    for measure, metric in dialect.items():
        series = values["availability" if metric == "availability" else measure]
        for service, name in enumerate(names):
            if rng.random() < 0.05:
                continue
            column, kept = series[:, service], rng.random(len(times)) > 0.01
            if service == silent and measure != "requests" and metric != "availability":
                column = np.where(np.arange(len(times)) >= begins, 0.0, column)
                kept &= zeros | (np.arange(len(times)) < begins)
            parts.append(
                pl.DataFrame({"time_s": times[kept], "value": column[kept]}).with_columns(
                    service=pl.lit(name), metric=pl.lit(metric)
                )
            )
    return pl.concat(parts).select(list(METRIC_COLUMNS))


def _edges(rng: np.random.Generator, shop: Shop) -> pl.DataFrame:
    """Who calls whom; one call in ten is not known."""
    rows = [
        (shop.names[caller], shop.names[callee])
        for caller, callee in zip(*np.nonzero(shop.calls), strict=True)
        if rng.random() < 0.9
    ]
    return pl.DataFrame(rows, schema=EDGE_COLUMNS, orient="row")
