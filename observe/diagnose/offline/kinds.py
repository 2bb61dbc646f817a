"""What each series is about: by its metric's name, and where that says nothing, by how the metric behaves.

Shares of successes stay at their best; requests are whole numbers that rise and fall with those of the callers; a
caller takes as long as whom it waits for, and longer. What does none of that is a resource, which may move either way.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import polars as pl
from numpy.typing import NDArray

from observe.diagnose.offline.names import Kind, named_kind

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

BEST = (1.0, 100.0)
"""What a share of successes is at best."""
AT_BEST = 0.6
"""Part of its values that a share of successes spends there."""
TOGETHER = 0.5
"""Correlation of a caller's requests with those of whom it calls, over time."""
PASSED_ON = 0.8
"""Part of the calls in which the caller takes as long as whom it waits for."""
FEWEST_CALLS = 3
"""Fewer pairs of caller and callee say nothing about how a metric travels."""


def kinds(values: Floats, names: pl.DataFrame, calls: Collection[tuple[str, str]]) -> NDArray[np.str_]:
    """Kind per series. `values` are time × series, nan where there is none; `names` has `service` and `metric` of each;
    `calls` are pairs of services, caller first."""
    metrics, services = names["metric"].to_list(), names["service"].to_list()
    told: dict[str, Kind] = {}
    for metric in dict.fromkeys(metrics):
        columns = {services[i]: i for i in range(len(metrics)) if metrics[i] == metric}
        pairs = [(columns[a], columns[b]) for a, b in sorted(calls) if a != b and a in columns and b in columns]
        told[metric] = named_kind(metric) or behaves_like(values, list(columns.values()), pairs)
    return np.array([told[metric] for metric in metrics], dtype=np.str_)


def behaves_like(values: Floats, columns: list[int], calls: list[tuple[int, int]]) -> Kind:
    """`columns` are the series of one metric, `calls` those of callers and callees."""
    mine = values[:, columns]
    known = mine[np.isfinite(mine)]
    if not len(known) or known.min() < 0:
        return "resource"
    if any(known.max() <= best and (known == best).mean() >= AT_BEST for best in BEST):
        return "success"
    if len(calls) < FEWEST_CALLS:
        return "resource"
    if (known % 1 == 0).all():
        together = [_correlation(values[:, a], values[:, b]) for a, b in calls]
        return "traffic" if float(np.median(together)) >= TOGETHER else "resource"
    level = {i: float(np.nanmedian(values[:, i])) for i in columns if np.isfinite(values[:, i]).any()}
    longer = [level.get(a, 0.0) >= level.get(b, 0.0) for a, b in calls]
    return "latency" if float(np.mean(longer)) >= PASSED_ON else "resource"


def _correlation(x: Floats, y: Floats) -> float:
    both = np.isfinite(x) & np.isfinite(y)
    if both.sum() < FEWEST_CALLS or np.ptp(x[both]) == 0 or np.ptp(y[both]) == 0:
        return 0.0
    return float(np.corrcoef(x[both], y[both])[0, 1])
