"""Releases: a new version that arrived with the trouble, and is slower or errs more than the old one did before.

Whether the old one still serves does not matter: the new one is compared with what the old one was before the onset.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from observe.diagnose.contrast import MIN_REQUESTS, SIGMAS, Of
from observe.types import WINDOW_NS

NEAR_NS = 12 * WINDOW_NS
"""A version first seen within this of the onset arrived with the trouble."""
SLOWER = 0.3
"""Rise of self time, as part of the old version's, from which a release is bad."""
FAILING = 0.01
"""Rise of errors per request, likewise."""
COVER = 0.5
"""Part of the service's excess that the new version carries at least."""


@dataclass(frozen=True, slots=True)
class Release:
    """`excess` is per request, in `unit` ("ms", or "1" for errors), over the `level` of the old versions."""

    name: str
    requests: float
    level: float
    excess: float
    error: float
    unit: str
    first_seen_ns: int


def releases(rows: pl.DataFrame, of: Of, onset_ns: int) -> dict[str, Release]:
    """Service → its bad release, from `rows_of` any number of services."""
    found = {}
    for service, version in fresh(rows, onset_ns).items():
        bad = release(rows.filter(pl.col("service") == service), version, of)
        if bad is not None:
            found[service] = bad
    return found


def fresh(rows: pl.DataFrame, onset_ns: int) -> dict[str, str]:
    """Service → the one version that came after the others, at about the onset."""
    seen = (
        rows.group_by("service", "version").agg(first=pl.col("first_seen_ns").min()).sort("service", "first", "version")
    )
    first: dict[str, list[tuple[int, str]]] = {}
    for service, version, at_ns in seen.iter_rows():
        first.setdefault(service, []).append((at_ns, version))
    found = {}
    for service, versions in first.items():
        new = [v for at_ns, v in versions if at_ns > versions[0][0] + WINDOW_NS and abs(at_ns - onset_ns) <= NEAR_NS]
        if len(new) == 1 and new[0]:
            found[service] = new[0]
    return found


def release(rows: pl.DataFrame, version: str, of: Of) -> Release | None:
    """`version` of one service, if its requests are worse than those of the others were before it came."""
    new, alike = pl.col("version") == version, ["operation", "kind"]
    old = (
        rows.filter(~new & (pl.col("period") == 0))
        .group_by(alike)
        .agg(
            level=pl.col("total").sum() / pl.col("n").sum(),
            wide=(pl.col("square") - pl.col("total") ** 2 / pl.col("n")).sum() / (pl.col("windows") - 1).sum().clip(1),
            old_n=pl.col("n").sum(),
        )
    )
    later = rows.filter(new | (pl.col("period") == 1)).join(old, on=alike)
    mine, others = later.filter(new), later.filter(~new)
    requests = _requests(mine)
    if requests < MIN_REQUESTS or _requests(old.rename({"old_n": "n"})) < MIN_REQUESTS:
        return None
    excess, rest = _excess(mine), max(_excess(others), 0.0)
    level = float((mine["n"] * mine["level"]).sum())
    if of == "errors":
        ratio = np.maximum(mine["level"].to_numpy(), 1.0 / mine["old_n"].to_numpy())
        wide = ratio * (1 - ratio).clip(0.0)
    else:
        wide = mine["wide"].fill_nan(0.0).to_numpy()
    n = mine["n"].to_numpy()
    error = float(np.sqrt((n * wide * (1 + n / mine["old_n"].to_numpy())).sum()))
    least = FAILING * requests if of == "errors" else SLOWER * level
    worse = excess > SIGMAS * error and excess > least
    alone = excess >= COVER * (excess + rest) and rest / max(_requests(others), 1.0) <= 0.5 * excess / requests
    if not (worse and alone):
        return None
    first_ns = int(mine["first_seen_ns"].to_numpy().min())
    unit = "1" if of == "errors" else "ms"
    return Release(version, requests, level / requests, excess / requests, error / requests, unit, first_ns)


def _excess(rows: pl.DataFrame) -> float:
    return float((rows["total"] - rows["n"] * rows["level"]).sum())


def _requests(rows: pl.DataFrame) -> float:
    """Of the operation that is served most: inner spans do not multiply requests."""
    sums = rows.group_by("operation", "kind").agg(pl.col("n").sum())
    return float(sums["n"].to_numpy().max()) if sums.height else 0.0
