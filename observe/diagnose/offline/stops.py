"""Which services make requests stop early, from spans: calls that are no longer made.

Below a span its children follow each other in time; that sequence is read as a Markov chain with an end (control flow
of traces as transition frequencies: van der Aalst 2016, doi:10.1007/978-3-662-49851-4, ch. 6). A fault that fails fast
raises the chance that nothing follows a certain child. Whatever callees do less in consequence is explained by it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from observe.diagnose.offline.felt import certainty, surprise

Floats = NDArray[np.float64]

CHILD = ["child_service", "child_operation", "leads"]
SITE = ["service", "operation", *CHILD]
LEAST = 0.05
"""A chance that rises by less than this is put down to another mix of requests."""
TO_CALLEE = 0.6
"""What the callee gets of the blame where a caller stops after an outgoing call; the caller made the decision."""
INSIDE = 0.4
"""The same where the call is made by an inner function of the caller."""


@dataclass(frozen=True, slots=True)
class Stop:
    """Where requests end early, and how often: of `service`'s `operation`, after a child (or before any)."""

    service: str
    operation: str
    child_service: str
    child_operation: str
    before: float  # part of those that came so far
    after: float
    requests: int  # of after
    blame: float  # 0..1, of the service that is asked about

    @property
    def text(self) -> str:
        child = f"after {self.child_service} {self.child_operation}" if self.child_operation else "before any call"
        return (
            f"{self.service} {self.operation} goes no further {child} in {self.after:.0%} of {self.requests} sampled"
            f" requests, {self.before:.0%} before"
        )


def stops(before: pl.DataFrame, after: pl.DataFrame, names: NDArray[np.str_]) -> Floats:
    """0..1 per service: how certainly requests stop early because of it."""
    blame = np.zeros(len(names))
    for where, rows in _blamed(before, after):
        rows = rows.filter(pl.col(where).is_in(names.tolist()))
        at = np.searchsorted(names, rows[where].to_numpy().astype(np.str_))
        np.maximum.at(blame, at, rows["blame"].to_numpy())
    return blame


def explained_stops(before: pl.DataFrame, after: pl.DataFrame) -> dict[str, Stop]:
    """For each service that is to blame for such stops the clearest of them."""
    found: dict[str, Stop] = {}
    columns = ["service", "operation", "child_service", "child_operation", "usual", "now", "n_after", "blame"]
    for where, rows in _blamed(before, after):
        for name, *site in rows.filter(pl.col("blame") > 0).select(pl.col(where).alias("name"), *columns).iter_rows():
            stop = Stop(*site)
            if name and (name not in found or stop.blame > found[name].blame):
                found[name] = stop
    return found


def _blamed(before: pl.DataFrame, after: pl.DataFrame) -> Iterator[tuple[str, pl.DataFrame]]:
    """The column that names a service, and sites with their part of its `blame`: callers, then whom they called."""
    sites = _risen(_ends(before), _ends(after))
    sites = _deepest(sites.join(_targets(before, after), on=CHILD, how="left", maintain_order="left"))
    sites = sites.with_columns(usual=pl.col("ends") / pl.col("n"), now=pl.col("ends_after") / pl.col("n_after"))
    for where, part in (("service", 1 - pl.col("passed")), ("target", pl.col("passed"))):
        yield where, sites.with_columns(blame=pl.col("sure") * part).filter(pl.col("blame").is_not_null())


def _ends(tree: pl.DataFrame) -> pl.DataFrame:
    """Per site, a kind of span and a child of it (empty: nothing yet): how often it came (`n`), and was the last."""
    children = (
        tree.filter(pl.col("parent").is_not_null())
        .sort("parent", "start_us", "row")
        .select(
            pl.col("parent_service").alias("service"),
            pl.col("parent_operation").alias("operation"),
            pl.col("service").alias("child_service"),
            pl.col("operation").alias("child_operation"),
            "leads",
            last=pl.col("parent") != pl.col("parent").shift(-1, fill_value=-1),
        )
    )
    starts = tree.select(
        "service",
        "operation",
        pl.lit("").alias("child_service"),
        pl.lit("").alias("child_operation"),
        pl.lit("").alias("leads"),
        last=pl.col("children") == 0,
    )
    return pl.concat([children, starts]).group_by(SITE).agg(n=pl.len(), ends=pl.col("last").sum())


def _risen(before: pl.DataFrame, after: pl.DataFrame) -> pl.DataFrame:
    """Sites after which requests stop more often: `sure`, from the difference of two shares in standard errors, and
    less where other sites are much clearer: users who meet a fault also do other things."""
    pooled = (pl.col("ends") + pl.col("ends_after") + 0.5) / (pl.col("n") + pl.col("n_after") + 1)
    rise = pl.col("ends_after") / pl.col("n_after") - pl.col("ends") / pl.col("n")
    sites = before.join(after, on=SITE, suffix="_after").with_columns(
        rise=rise, z=rise / (pooled * (1 - pooled) * (1 / pl.col("n") + 1 / pl.col("n_after"))).sqrt()
    )
    sites = sites.filter(pl.col("rise") > LEAST).sort(SITE)
    says = surprise(sites["z"].to_numpy())
    return sites.with_columns(sure=certainty(sites["z"].to_numpy()) * says / max(float(says.max(initial=0.0)), 1e-300))


def _targets(*trees: pl.DataFrame) -> pl.DataFrame:
    """Whom a child stands for, and the part of the blame that is `passed` there: the service that it is, calls as a
    client span, or wraps the call of."""
    found = []
    for tree in trees:
        child = tree.select(
            "row",
            "parent",
            "children",
            "leads",
            child_service="service",
            child_operation="operation",
            elsewhere=(pl.col("parent_service") != pl.col("service")).fill_null(False),
        )
        clients = child.filter(pl.col("leads") != "").with_columns(target="leads", passed=pl.lit(TO_CALLEE))
        servers = child.filter("elsewhere").with_columns(target="child_service", passed=pl.lit(TO_CALLEE))
        wrapped = (
            child.filter(pl.col("children") == 1)
            .join(clients.select("parent", "target"), left_on="row", right_on="parent")
            .with_columns(passed=pl.lit(INSIDE))
        )
        found += [part.select(*CHILD, "target", "passed") for part in (clients, servers, wrapped)]
    return (
        pl.concat(found)
        .group_by(*CHILD, "target", "passed")
        .agg(n=pl.len())
        .sort("n", "passed", "target", descending=[True, False, False])
        .unique(CHILD, keep="first", maintain_order=True)
        .drop("n")
    )


def _deepest(sites: pl.DataFrame) -> pl.DataFrame:
    """A site is explained where the child, an inner function, stops early itself; where the target does, all blame
    goes there."""
    inner = sites.select(child_service="service", child_operation="operation").unique()
    below = sites.group_by(target="service").agg(below=pl.col("sure").max())
    elsewhere = (pl.col("target") != pl.col("service")).fill_null(False)
    inside = sites.join(inner, on=["child_service", "child_operation"], how="semi").filter(
        pl.col("child_service") == pl.col("service")
    )
    return (
        sites.join(inside, on=SITE, how="anti")
        .join(below, on="target", how="left", maintain_order="left")
        .with_columns(
            passed=pl.when(~elsewhere)
            .then(0.0)
            .when(pl.col("below") > pl.col("sure") / 2)
            .then(1.0)
            .otherwise("passed")
        )
    )
