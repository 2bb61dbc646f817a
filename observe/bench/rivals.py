"""What one would write first: a loop over series, with a robust z-score or with PELT (Killick et al. 2012,
doi:10.1080/01621459.2012.737745) of the package `ruptures`, on the windows that detection reads."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import polars as pl

from observe.detect.statistics import Floats
from observe.types import Json

CURRENT = 3  # newest windows
Z_TOLD = 6.0
PENALTY = 10.0  # of PELT for a change point, in variances: about 2 ln n, doubled


@dataclass(frozen=True, slots=True)
class Rival:
    """What a loop over `series` series took, and of how many it told."""

    series: int
    cpu_seconds: float
    told: int
    missing: str = ""  # why it was not run

    def at(self, series: int, cpu_seconds: float) -> Json:
        """Its cost of that many series, beside that of detection: a loop takes as much for each."""
        if self.missing:
            return {"skipped": self.missing}
        scaled = self.cpu_seconds * series / self.series
        return {
            "measured_on": self.series,
            "cpu_seconds": round(scaled, 4),
            "told_share": round(self.told / self.series, 4),
            "over_detect": round(scaled / max(cpu_seconds, 1e-9), 1),
        }


def z_loop(windows: pl.DataFrame, series: int) -> Rival:
    """Mean latency, error ratio and requests against median and median deviation. It reads no histogram."""
    return _looped(windows, series, lambda measures: any(_robust_z(values) > Z_TOLD for values in measures))


def pelt(windows: pl.DataFrame, series: int) -> Rival:
    """The same three measures; tells where the last change point lies among the newest windows."""
    try:
        import ruptures
    except ImportError:
        return Rival(0, 0.0, 0, "the package ruptures is not installed")

    def changed(values: Floats) -> bool:
        scale = float(np.std(values)) or 1.0
        found = ruptures.Pelt(model="l2", min_size=2, jump=5).fit(values / scale).predict(pen=PENALTY)
        return len(found) > 1 and found[-2] >= len(values) - 2 * CURRENT

    return _looped(windows, series, lambda measures: any(changed(values) for values in measures))


def _looped(windows: pl.DataFrame, series: int, told: Callable[[list[Floats]], bool]) -> Rival:
    names = windows["service"].unique().sort()[:series]
    some = windows.filter(pl.col("service").is_in(names.implode()))
    began = time.process_time()
    count = 0
    for part in some.partition_by("service", "operation", "kind"):
        requests = part["requests"].to_numpy().astype(np.float64)
        some_ms, errors = part["duration_sum_ms"].to_numpy(), part["errors"].to_numpy()
        count += told([some_ms / np.maximum(requests, 1.0), errors / np.maximum(requests, 1.0), requests])
    return Rival(len(names), time.process_time() - began, count)


def _robust_z(values: Floats) -> float:
    past = values[:-CURRENT]
    if not len(past):
        return 0.0
    middle = float(np.median(past))
    spread = 1.4826 * float(np.median(np.abs(past - middle)))
    return abs(float(np.median(values[-CURRENT:])) - middle) / max(spread, 1e-9 + 1e-3 * abs(middle))
