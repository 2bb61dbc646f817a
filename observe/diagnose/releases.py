"""Releases: a new version that arrived with the trouble, and is slower or errs more than the old one did before.

Whether the old one still serves does not matter: the new one is compared with what the old one was before the onset.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from observe.diagnose.contrast import MIN_REQUESTS, SIGMAS, Of
from observe.types import WINDOW_NS

NEAR_NS = 12 * WINDOW_NS
"""A version first seen within this of the onset arrived with the trouble."""
FOLLOW_NS = 90 * WINDOW_NS
"""Versions of one name are one release where they come within this of each other."""
TOGETHER_NS = 3 * WINDOW_NS
"""Versions of other names are one release where they come within this of each other."""
COUNTS = 0.1
"""Of some symptom, what a service accounts for at least to be part of a release that is told."""
FAILED = 0.05
"""Rise of errors per request that is as far as twice the self time."""
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


@dataclass(frozen=True, slots=True)
class Train:
    """A release of several services that made each of them worse: one cause. The worst service comes first."""

    releases: tuple[tuple[str, Release], ...]  # by service
    unharmed: tuple[str, ...]  # services that got a version of the same name, and are no worse

    @property
    def services(self) -> tuple[str, ...]:
        return tuple(service for service, _ in self.releases)

    @property
    def name(self) -> str:
        return ", ".join(dict.fromkeys(release.name for _, release in self.releases))


def trains(
    bad: Mapping[str, Release], arrived: Mapping[str, str], most: Mapping[str, float], total: Mapping[str, float]
) -> list[Train]:
    """Bad releases that are one: versions of the same name, or such as came at the same time. `arrived` are all new
    versions by service; `most` is what each service with a bad one accounts for of the symptom that it explains best,
    `total` of all. Who accounts for nothing is part of it where the same version made it worse by far."""
    left = sorted(bad, key=lambda s: (-total.get(s, 0.0), s))
    found = []
    while left and most.get(left[0], 0.0) >= COUNTS:
        first = left.pop(0)
        mine = [
            s for s in left if _one(bad[first], bad[s]) and (most.get(s, 0.0) >= COUNTS or _far(bad[first], bad[s]))
        ]
        left = [s for s in left if s not in mine]
        if mine:
            names = {bad[s].name for s in (first, *mine)}
            unharmed = sorted(s for s, version in arrived.items() if version in names and s not in bad)
            found.append(Train(tuple((s, bad[s]) for s in (first, *mine)), tuple(unharmed)))
    return found


def _one(a: Release, b: Release) -> bool:
    return abs(a.first_seen_ns - b.first_seen_ns) <= (FOLLOW_NS if a.name == b.name else TOGETHER_NS)


def _far(a: Release, b: Release) -> bool:
    return a.name == b.name and b.excess >= (FAILED if b.unit == "1" else b.level)


def releases(rows: pl.DataFrame, of: Of, arrived: Mapping[str, str]) -> dict[str, Release]:
    """Service → its bad release, from `rows_of` any number of services and what `fresh` says of them."""
    found = {}
    for service, version in arrived.items():
        bad = release(rows.filter(pl.col("service") == service), version, of)
        if bad is not None:
            found[service] = bad
    return found


def fresh(rows: pl.DataFrame, onset_ns: int) -> dict[str, str]:
    """Service → the one version that came after the others, at about the onset; or later, but as in other services."""
    seen = (
        rows.group_by("service", "version").agg(first=pl.col("first_seen_ns").min()).sort("service", "first", "version")
    )
    first: dict[str, list[tuple[int, str]]] = {}
    for service, version, at_ns in seen.iter_rows():
        first.setdefault(service, []).append((at_ns, version))
    later = {s: [(at, v) for at, v in seen if at > seen[0][0] + WINDOW_NS and v] for s, seen in first.items()}
    found = _only({s: [v for at, v in new if abs(at - onset_ns) <= NEAR_NS] for s, new in later.items()})
    names, until_ns = set(found.values()), onset_ns + FOLLOW_NS
    follow = {s: [v for at, v in new if v in names and onset_ns < at <= until_ns] for s, new in later.items()}
    return _only(follow) | found


def _only(versions: Mapping[str, Sequence[str]]) -> dict[str, str]:
    return {service: names[0] for service, names in versions.items() if len(names) == 1}


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
    # The last requests of the old version are those that took longest: too few of them tell nothing.
    beside = rest / _requests(others) if _requests(others) >= MIN_REQUESTS else 0.0
    alone = excess >= COVER * (excess + rest) and beside <= 0.5 * excess / requests
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
