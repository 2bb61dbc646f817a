"""Narrowing: which instance, version or host of a guilty service carries the slow or failing requests.

Each value's excess is what its spans took (or erred) beyond the level of their operation before the onset, so another
mix of operations is no excess. A value is named when it carries nearly all of the excess and the others, with enough
requests to judge, have next to none.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import polars as pl

from observe.diagnose.levels import Periods

Of = Literal["self", "client", "errors"]
COVER = 0.8  # of the excess, by the values that are named
REST = 0.25  # of the named ones' excess per request, at most, by the others
MIN_REQUESTS = 20
WELL = 0.2  # of the services elsewhere may be sick at most, for a host to be the cause
SIGMAS = 4.0


@dataclass(frozen=True, slots=True)
class Value:
    """One instance, version or host. `excess` is per request, in ms or errors, `error` its standard error."""

    name: str
    requests: float
    requests_before: float
    level_before: float
    excess: float
    error: float
    first_seen_ns: int


@dataclass(frozen=True, slots=True)
class Contrast:
    """The values that carry the excess, and the others."""

    dimension: str
    carriers: tuple[Value, ...]
    others: tuple[Value, ...]
    unit: str  # "ms", or "1" for errors per request


def rows_of(selfs: pl.DataFrame, services: Sequence[str], when: Periods, of: Of) -> pl.DataFrame:
    """Per service, operation, version, instance, host and period: n, total, and the excess over the operation's level
    before, with its variance. `of` says whether time of its own, of its outgoing calls, or errors are meant."""
    return lazy_rows(selfs, services, when, of).collect()


def lazy_rows(selfs: pl.DataFrame, services: Sequence[str], when: Periods, of: Of) -> pl.LazyFrame:
    """`rows_of`, not computed yet: several of them together cost little more than one."""
    client = pl.col("kind") == "Client"
    total = pl.col("origin_errors") if of == "errors" else pl.col("self_sum_ms")
    places = ["service", "operation", "kind", "version", "instance", "host"]
    sums = (
        selfs.lazy()
        .filter(pl.col("service").is_in(list(services)) & (client if of == "client" else ~client))
        .with_columns(when.mark())
        .filter(pl.col("period").is_not_null())
        .with_columns(n=pl.col("requests").cast(pl.Float64), total=total.cast(pl.Float64))
        .group_by(*places, "period")
        .agg(
            pl.col("n").sum(),
            pl.col("total").sum(),
            square=(pl.col("total") ** 2 / pl.col("n")).sum(),
            windows=pl.len(),
            first_seen_ns=pl.col("window_start_ns").min(),
        )
    )
    alike = ["service", "operation", "kind"]
    old = sums.filter(pl.col("period") == 0)
    base = old.group_by(alike).agg(
        base=pl.col("total").sum() / pl.col("n").sum(),
        spread=(pl.col("square") - pl.col("total") ** 2 / pl.col("n")).sum() / (pl.col("windows") - 1).sum().clip(1),
        base_n=pl.col("n").sum(),
    )
    joined = sums.join(base, on=alike, how="inner")
    if of == "errors":
        ratio = pl.max_horizontal("base", 1.0 / pl.col("base_n"))
        joined = joined.with_columns(spread=ratio * (1 - ratio).clip(lower_bound=0.0))
    return joined.with_columns(
        excess=pl.col("total") - pl.col("n") * pl.col("base"),
        variance=pl.col("n") * pl.col("spread").fill_nan(0.0) * (1 + pl.col("n") / pl.col("base_n")),
    ).sort(*places, "period")


def values(rows: pl.DataFrame, dimension: str) -> list[Value]:
    """Every value of one dimension of one service that had requests after the onset, most excess first.

    "Requests" are those of the operation that a value serves most: inner spans do not multiply them.
    """
    after, before = pl.col("period") == 1, pl.col("period") == 0
    per_op = rows.group_by(dimension, "operation", "kind").agg(
        n1=pl.col("n").filter(after).sum(), n0=pl.col("n").filter(before).sum()
    )
    requests = per_op.group_by(dimension).agg(pl.col("n1").sum(), pl.col("n0").sum())
    sums = rows.group_by(dimension).agg(
        excess=pl.col("excess").filter(after).sum(),
        variance=pl.col("variance").filter(after).sum(),
        level=pl.col("total").filter(before).sum() / pl.col("n").filter(before).sum(),
        first=pl.col("first_seen_ns").min(),
    )
    table = requests.join(sums, on=dimension).filter(pl.col("n1") > 0)
    found = [
        Value(
            name=str(row[dimension]),
            requests=row["n1"],
            requests_before=row["n0"],
            level_before=0.0 if row["level"] is None or np.isnan(row["level"]) else row["level"],
            excess=row["excess"] / row["n1"],
            error=float(np.sqrt(max(row["variance"], 0.0))) / row["n1"],
            first_seen_ns=row["first"],
        )
        for row in table.iter_rows(named=True)
    ]
    return sorted(found, key=lambda v: (-v.excess, v.name))


def contrast(rows: pl.DataFrame, dimension: str, of: Of) -> Contrast | None:
    """The values that set themselves apart; None where all are alike, or too few requests tell."""
    if rows[dimension].n_unique() < 2:
        return None
    found = [v for v in values(rows, dimension) if v.name]
    total = sum(max(v.excess, 0.0) * v.requests for v in found)
    if len(found) < 2 or total <= 0:
        return None
    carried, size = 0.0, 0
    by_weight = sorted(found, key=lambda v: (-v.excess * v.requests, v.name))
    while carried < COVER * total:
        carried += by_weight[size].excess * by_weight[size].requests
        size += 1
    carriers, others = by_weight[:size], by_weight[size:]
    # Those that are as bad per request as the ones that carry most, but have few requests, belong to them.
    high = sum(v.excess * v.requests for v in carriers) / sum(v.requests for v in carriers)
    carriers += [v for v in others if v.excess > 0.5 * high and v.excess > 2 * v.error]
    others = [v for v in others if v not in carriers]
    judged = sum(v.requests for v in others)
    if judged < MIN_REQUESTS:
        return None
    low = sum(v.excess * v.requests for v in others) / judged
    noise = max(v.error for v in carriers) + float(np.sqrt(sum((v.error * v.requests) ** 2 for v in others))) / judged
    if low > REST * high or high - low < SIGMAS * noise:
        return None
    return Contrast(dimension, tuple(carriers), tuple(others), "1" if of == "errors" else "ms")


def sick_hosts(rows: pl.DataFrame, explained: Collection[str] = ()) -> dict[str, tuple[str, ...]]:
    """Hosts under which several services suffer that are well elsewhere → those services, from `rows_of` time.

    A host is named only where another host tells it apart: most of what runs on it is sick, next to nothing of the
    same services is sick elsewhere, and it carries most of the excess of the fleet, that of one service elsewhere
    apart. Services whose trouble is `explained` (by a release, say) accuse no host.
    """
    rows = rows.filter(pl.col("period") == 1)
    if not rows.height or rows["host"].n_unique() < 2:
        return {}
    by_place = (
        rows.lazy()
        .filter((pl.col("host") != "") & ~pl.col("service").is_in(list(explained)))
        .group_by("service", "host")
        .agg(
            n=pl.col("n").sum(),
            excess=pl.col("excess").sum(),
            error=pl.col("variance").sum().sqrt(),
            base=(pl.col("n") * pl.col("base")).sum(),
        )
        .filter(pl.col("n") >= MIN_REQUESTS)
        .with_columns(sick=(pl.col("excess") > SIGMAS * pl.col("error")) & (pl.col("excess") > 0.3 * pl.col("base")))
        .with_columns(sick_hosts=pl.col("sick").sum().over("service"))
        .sort("host", "service")
        .collect()
    )
    found: dict[str, tuple[str, ...]] = {}
    if not by_place["sick"].any():
        return found
    sick, alone = pl.col("sick"), pl.col("sick") & (pl.col("sick_hosts") == 1)
    by_host = by_place.group_by("host", maintain_order=True).agg(
        pl.len().alias("here"),
        sick.sum().alias("sick"),
        pl.col("service").filter(alone).alias("services"),
        pl.col("excess").filter(alone).sum().alias("excess"),
    )
    places, unwell = by_place.height, int(by_host["sick"].sum())
    for host, here, bad, services, excess in by_host.iter_rows():
        elsewhere, well = places - here, unwell - bad <= WELL * (places - here)
        most = excess >= 0.7 * (excess + _besides(by_place, host))
        if len(services) >= 2 and bad >= 0.7 * here and most and elsewhere and well:
            found[host] = tuple(services)
    return found


def _besides(by_place: pl.DataFrame, host: str) -> float:
    """Excess of what is sick but not on the host alone, less that of the one service that has most of it: a second
    fault beside a sick host hides it no more than a quiet fleet would."""
    sick = pl.col("sick")
    elsewhere = by_place.filter(sick & ((pl.col("host") != host) | (pl.col("sick_hosts") > 1)))
    each = elsewhere.group_by("service").agg(pl.col("excess").sum())["excess"].to_numpy()
    return float(each.sum() - each.max()) if len(each) else 0.0
