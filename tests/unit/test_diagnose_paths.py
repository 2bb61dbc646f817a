"""From where users feel it to the cause."""

from __future__ import annotations

from dataclasses import replace

import polars as pl
import pytest

from observe.diagnose import diagnose
from observe.settings import DiagnoseSettings
from observe.types import WINDOW_NS, CauseKind, Shift
from tests.unit.diagnose_parts import NOW, ONSET, at, edge_rows, frames, self_rows


def slow(service):
    return Shift(service, "/x", "Server", "latency_p99_ms", 50.0, 400.0, "ms", 1e-9, 200, ONSET)


def shop():
    """web → (api → (cart → stock, and stock itself), and stock itself): stock got slow."""
    selfs = [
        self_rows("web", 5, 5, total=(70, 160)),
        self_rows("api", 5, 5, total=(50, 110)),
        self_rows("cart", 5, 5, total=(15, 45)),
        self_rows("stock", 10, 40),
    ]
    edges = [
        edge_rows("web", "api", (50, 110), (50, 110)),
        edge_rows("web", "stock", (10, 40), (10, 40), calls=300),
        edge_rows("api", "cart", (15, 45), (15, 45)),
        edge_rows("api", "stock", (10, 40), (10, 40)),
        edge_rows("cart", "stock", (10, 40), (10, 40)),
    ]
    return frames(selfs, edges)


@pytest.mark.parametrize(
    ("seen", "top"),
    [(("stock", "cart", "api", "web"), "web"), (("stock", "cart", "api"), "api"), (("stock",), "stock")],
)
def test_a_path_starts_at_the_topmost_symptom(seen, top):
    (found,) = diagnose([slow(s) for s in seen], shop(), NOW, DiagnoseSettings())
    first = found.causes[0]
    assert first.service == "stock"
    assert (first.path[0], first.path[-1]) == (top, "stock")


def test_what_cannot_be_explained_still_shows_where_users_feel_it():
    calm = [self_rows("web", 5, 5, total=(16, 16)), self_rows("stock", 10, 10)]
    view = frames(calm, [edge_rows("web", "stock", (11, 11), (10, 10))])
    late = replace(slow("web"), onset_ns=ONSET + WINDOW_NS)
    (found,) = diagnose([slow("stock"), late], view, NOW, DiagnoseSettings())
    assert (found.causes[0].kind, found.causes[0].path) == (CauseKind.UNKNOWN, ("web", "stock"))


@pytest.mark.parametrize("looked", [33, 35, 40])
@pytest.mark.parametrize("rollover", ["complete", "under way"])
def test_a_bad_release_comes_before_its_host_and_traffic_that_rose(looked, rollover):
    before, after = pl.col("window_start_ns") < ONSET, pl.col("window_start_ns") >= ONSET

    def busier(rows):
        more = pl.when(after).then(1.8).otherwise(1.0)
        counts = [c for c in ("requests", "calls") if c in rows.columns]
        times = [c for c in rows.columns if c.endswith("_sum_ms")]
        return rows.with_columns((pl.col(counts) * more).cast(pl.UInt64), pl.col(times) * more)

    old = self_rows("rank", 10, 12, version="1", host="h1", requests=70)
    new = self_rows("rank", 10, 40, version="2", host="h1", requests=30 if rollover == "under way" else 100)
    selfs = [
        self_rows("web", 5, 5, total=(28, 62), host="h2"),
        self_rows("store", 10, 14, host="h1"),
        old if rollover == "under way" else old.filter(before),
        new.filter(after),
    ]
    edges = [
        edge_rows("web", "rank", (11, 41), (10, 40)),
        edge_rows("web", "store", (11, 15), (10, 14)),
    ]
    view = frames([busier(s) for s in selfs], [busier(e) for e in edges]).between(0, at(looked))
    (found,) = diagnose([slow("web"), slow("rank")], view, at(looked), DiagnoseSettings())
    first = found.causes[0]
    assert (first.kind, first.service, first.resource) == (CauseKind.VERSION, "rank", "2")
    assert first.path == ("web", "rank")
