"""Causes told from metrics alone: what moved, what travelled, what the graph explains."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from observe.diagnose.offline import Case, rank
from observe.diagnose.offline.floor import largest_shift
from observe.diagnose.offline.places import reach
from observe.diagnose.offline.shifts import shifts, wide
from tests.unit.public_parts import CALLS, INJECT_S, graph, metric_case, metrics, spans

MOVED = {("db", "latency"): 6.0, ("cart", "latency"): 1.6, ("catalog", "latency"): 1.5, ("front", "latency"): 1.3}


@pytest.mark.parametrize("service", sorted(CALLS))
def test_a_moved_resource_accuses_its_service(service):
    assert rank(metric_case(3, {(service, "cpu"): 3.0})).services[0] == service


def test_a_resource_that_follows_its_traffic_accuses_nobody():
    moved = {("cart", "cpu"): 0.3, ("cart", "requests"): 0.3}
    ranked = rank(metric_case(4, moved))
    found = dict(zip(ranked.services, ranked.evidence["resource"], strict=True))
    assert found["cart"] < 0.1
    assert found["cart"] < dict(zip(*_resource(metric_case(4, {("cart", "cpu"): 0.3})), strict=True))["cart"]


def _resource(case):
    ranked = rank(case)
    return ranked.services, ranked.evidence["resource"]


def test_a_caller_is_excused_by_what_its_callee_passed_on():
    level = pl.when(pl.col("metric") == "latency").then(
        pl.col("value") / pl.col("value").mean().over("service", "metric")
    )
    table = metrics(5, names=("latency",)).with_columns(value=level)
    late = pl.col("time_s") >= INJECT_S
    more = pl.col("service").replace_strict({"db": 0.5, "cart": 0.5, "front": 0.5}, default=0.0)
    table = table.with_columns(value=pl.col("value") + pl.when(late).then(more).otherwise(0.0))
    ranked = rank(Case(INJECT_S, table, graph=graph(), symptom_service="front", symptom_metric="latency"))
    assert ranked.services[0] == "db"


def test_availability_falls_where_failures_rise():
    table = metrics(6, names=("availability", "requests"))
    good = pl.when(pl.col("metric") == "availability").then(100.0).otherwise("value")
    bad = (pl.col("time_s") >= INJECT_S) & (pl.col("metric") == "availability")
    lost = pl.col("service").replace_strict({"pay": 20.0, "front": 8.0}, default=0.0)
    table = table.with_columns(value=good).with_columns(value=pl.col("value") - pl.when(bad).then(lost).otherwise(0.0))
    case = Case(INJECT_S, table, graph=graph(), symptom_service="front", symptom_metric="availability")
    assert rank(case).services[0] == "pay"
    better = table.with_columns(
        value=pl.when(bad).then(100.0).when(pl.col("metric") == "availability").then(80.0).otherwise("value")
    )
    assert max(rank(Case(INJECT_S, better, graph=graph())).evidence["own"]) < 0.1


def test_the_symptom_must_depend_on_the_cause():
    edges = pl.DataFrame({"caller": ["front"], "callee": ["cart"]})
    moved = {("cart", "latency"): 2.0, ("pay", "latency"): 2.0, ("front", "latency"): 1.5}
    case = Case(INJECT_S, metrics(7, moved), graph=edges, symptom_service="front", symptom_metric="latency")
    ranked = rank(case)
    assert ranked.services.index("cart") < ranked.services.index("pay")


@settings(max_examples=10, deadline=None)
@given(st.permutations(sorted(CALLS)), st.sampled_from([1e-3, 60.0, 1e6]))
def test_neither_names_nor_units_matter(order, factor):
    renamed = dict(zip(sorted(CALLS), [f"s-{name}" for name in order], strict=True))
    case = metric_case(8, MOVED, symptom_service="front", symptom_metric="latency")
    unit = pl.when(pl.col("metric") == "latency").then(factor).otherwise(1.0)
    other = Case(
        INJECT_S,
        case.metrics.with_columns(pl.col("service").replace(renamed), value=pl.col("value") * unit).sample(
            fraction=1.0, shuffle=True, seed=1
        ),
        graph=case.graph.with_columns(pl.all().replace(renamed)),
        symptom_service=renamed["front"],
        symptom_metric="latency",
    )
    one, two = rank(case), rank(other)
    assert [renamed[name] for name in one.services] == two.services
    assert one.score == pytest.approx(two.score, rel=1e-6)


def test_cycles_end():
    edges = pl.DataFrame({"caller": ["a", "b", "c", "a"], "callee": ["b", "c", "a", "a"]})
    table = metrics(9, {("b", "latency"): 4.0}, services=("a", "b", "c"))
    case = Case(INJECT_S, table, graph=edges, symptom_service="a", symptom_metric="latency")
    assert rank(case).services[0] == "b"


def test_reach_follows_calls_only_downwards():
    calls = np.array([[0, 1, 0], [0, 0, 0], [1, 0, 0]], dtype=bool)
    assert reach(calls, 0).tolist() == [True, True, False]


def test_gaps_and_services_that_appear_late_are_no_trouble():
    table = metrics(10, {("cart", "cpu"): 4.0}).filter(~((pl.col("service") == "pay") & (pl.col("time_s") < INJECT_S)))
    holes = table.with_columns(value=pl.when(pl.int_range(pl.len()) % 7 == 0).then(float("nan")).otherwise("value"))
    ranked = rank(Case(INJECT_S, holes, graph=graph()))
    assert ranked.services[0] == "cart"
    assert set(ranked.services) == set(CALLS)


def test_a_case_with_nothing_in_it_ranks_nothing():
    assert rank(Case(INJECT_S)).services == []
    assert set(rank(Case(INJECT_S, graph=graph())).services) == set(CALLS)
    assert set(rank(Case(INJECT_S, spans_after=spans(1, requests=2))).services) == set(CALLS)


def test_what_had_moved_before_the_fault_is_no_shift():
    times = pl.col("time_s") >= INJECT_S - 200
    early = metrics(11).with_columns(
        value=pl.col("value") * pl.when(times & (pl.col("service") == "db")).then(5).otherwise(1)
    )
    moved = shifts(wide(early), INJECT_S)
    assert moved.up.max() < 5


def test_one_failed_request_of_ten_is_no_shift():
    rows = [
        (float(t), "a", m, v)
        for t in range(0, 1200, 10)
        for m, v in (("availability", 90.0 if t == 900 else 100.0), ("requests", 10.0))
    ]
    table = pl.DataFrame(rows, schema=["time_s", "service", "metric", "value"], orient="row")
    assert shifts(wide(table), INJECT_S).up.max() < 3


def test_the_floor_sees_what_rose_most():
    case = metric_case(12, {("catalog", "cpu"): 9.0})
    assert largest_shift(case)[0] == "catalog"
    assert set(largest_shift(case)) == set(CALLS)
