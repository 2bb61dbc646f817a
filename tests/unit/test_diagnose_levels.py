"""Periods, levels, and how a change is divided among services, on small hand-made tables."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from observe.diagnose.addresses import resolved
from observe.diagnose.attribution import latency, reach
from observe.diagnose.graph import _standardized, picture, service_graph
from observe.diagnose.levels import Periods, levels, periods
from tests.unit.diagnose_parts import NOW, ONSET, T0, WHEN, at, edge_rows, frames, self_rows


def test_before_ends_ahead_of_the_onset_and_after_leaves_out_what_is_not_settled():
    windows = pl.DataFrame({"window_start_ns": [at(w) for w in range(40)]})
    found = periods(ONSET, NOW, windows)
    assert found == Periods(T0, at(28), at(30), at(39))


def test_nothing_before_the_onset_gives_no_periods():
    windows = pl.DataFrame({"window_start_ns": [at(w) for w in range(30, 40)]})
    assert periods(ONSET, NOW, windows) is None


def test_a_level_is_a_ratio_of_sums_whatever_the_windows_sizes():
    table = pl.DataFrame(
        {"key": "a", "period": [0, 0, 0, 1], "n": [1.0, 3.0, 4.0, 10.0], "total": [10.0, 3.0, 3.0, 50.0]}
    )
    (row,) = levels(table, ["key"], "n", "total").iter_rows(named=True)
    assert (row["mean0"], row["mean1"], row["change"]) == (2.0, 5.0, 3.0)


def test_windows_that_move_together_widen_the_standard_error():
    rng = np.random.default_rng(1)
    calm = [100.0 * (10 + x) for x in rng.normal(0, 0.1, 40)]
    moody = [100.0 * (10 + x) for x in rng.normal(0, 2.0, 40)]
    period = [0] * 20 + [1] * 20
    both = [
        levels(pl.DataFrame({"k": "a", "period": period, "n": 100.0, "total": t}), ["k"], "n", "total")["error"][0]
        for t in (calm, moody)
    ]
    assert both[1] == pytest.approx(2.0 * np.sqrt(2 / 20), rel=0.4)
    assert both[0] < both[1] / 10


# ── attribution ─────────────────────────────────────────────────────────────────────────────────────────────────────


@settings(deadline=None)
@given(
    st.lists(st.tuples(*[st.floats(0, 50)] * 4), min_size=1, max_size=8),
)
def test_speed_and_mix_add_up_to_the_change(rows):
    rate = np.array([[r[0] for r in rows], [r[1] for r in rows]])
    mean = np.array([[r[2] for r in rows], [r[3] for r in rows]])
    speed, mix, _ = _standardized(rate, mean, np.zeros(len(rows)))
    assert (speed + mix).sum() == pytest.approx((rate[1] * mean[1]).sum() - (rate[0] * mean[0]).sum(), abs=1e-6)


@settings(deadline=None, max_examples=25)
@given(st.tuples(*[st.floats(1, 100)] * 6))
def test_shares_of_a_chain_add_up_to_the_change(times):
    a0, b0, db0, a1, b1, db1 = times
    low, high = (b0 + db0, b1 + db1), (a0 + b0 + db0 + 1, a1 + b1 + db1 + 1)
    view = picture(
        frames(
            [self_rows("a", a0, a1, total=high), self_rows("b", b0, b1, total=low)],
            [
                edge_rows("a", "b", (low[0] + 1, low[1] + 1), low),
                edge_rows("b", "db", (db0, db1), None, connection="database"),
            ],
        ),
        WHEN,
    )
    (split,) = latency(view, np.array([0]))
    assert split.total == pytest.approx(high[1] - high[0], abs=0.05 * max(high))
    assert split.rest == pytest.approx(0, abs=0.05 * max(high))
    assert split.own[1] == pytest.approx(b1 - b0, abs=0.03 * max(b0, b1))


def test_a_cycle_ends_and_stays_bounded():
    view = picture(
        frames(
            [self_rows("a", 5, 5, total=(20, 20)), self_rows("b", 5, 50, total=(15, 60))],
            [edge_rows("a", "b", (15, 60), (15, 60)), edge_rows("b", "a", (10, 10), (10, 10), calls=100)],
        ),
        WHEN,
    )
    weight = np.ones(len(view.edges.caller))
    total = reach(view, np.array([0, 1]), weight)
    assert np.isfinite(total).all()
    assert total.max() <= 64


def test_a_missing_callee_known_by_its_address_is_the_service():
    selfs = pl.concat([self_rows("a", 5, 5), self_rows("reranker", 5, 5)])
    edges = edge_rows("a", "reranker.prod:8080", (10, 10), None, connection="external")
    view = picture(frames([selfs], [resolved(edges, selfs)]), WHEN)
    assert view.virtual == ()
    assert view.services == ("a", "reranker")


def test_the_graph_knows_virtual_nodes_and_leaves_out_calls_to_oneself():
    graph = service_graph(
        pl.concat(
            [
                edge_rows("a", "b", (10, 10), (9, 9)),
                edge_rows("b", "b", (1, 1), (1, 1)),
                edge_rows("b", "pg", (3, 3), None, connection="database"),
            ]
        )
    )
    assert sorted(graph.edges) == [("a", "b"), ("b", "pg")]
    assert [graph.nodes[n]["virtual"] for n in ("a", "b", "pg")] == [False, False, True]
