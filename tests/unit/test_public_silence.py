"""Services that fall silent, failures told in different ways, and recorded cases made up in many dialects."""

from __future__ import annotations

import polars as pl
import pytest

from observe.bench.recorded import DIALECTS, FAULTS, recorded
from observe.diagnose.offline import Case, rank
from observe.diagnose.offline.floor import largest_shift
from observe.diagnose.offline.shifts import shifts, wide
from tests.unit.public_parts import INJECT_S, metric_case, metrics

USES = ("cpu", "mem", "requests")


def gone(table, service, names=None):
    """Without rows of the service after the fault."""
    dead = (pl.col("service") == service) & (pl.col("time_s") >= INJECT_S)
    return table.filter(~(dead & pl.col("metric").is_in(list(names or USES))))


def first(table, **more):
    return rank(Case(INJECT_S, table, **more)).services[0]


def test_a_service_that_reports_no_more_is_the_first_suspect():
    assert first(gone(metrics(1, names=USES), "pay")) == "pay"


def test_zeros_are_as_silent_as_nothing():
    assert first(metrics(1, {("pay", name): 0.0 for name in USES}, names=USES)) == "pay"


def test_who_follows_a_silent_caller_is_no_suspect():
    table = gone(gone(metrics(1, names=USES), "cart"), "db")
    calls = pl.DataFrame({"caller": ["front", "cart"], "callee": ["cart", "db"]})
    found = rank(Case(INJECT_S, table, graph=calls))
    assert found.services[0] == "cart"
    assert found.evidence["silence"][found.services.index("db")] == 0.0


def test_who_is_asked_no_more_but_lives_is_not_dead():
    found = rank(Case(INJECT_S, metrics(1, {("db", "requests"): 0.0}, names=USES)))
    assert found.evidence["silence"][found.services.index("db")] < 0.4


def test_what_was_often_silent_tells_nothing():
    table = gone(metrics(1, names=USES), "pay")
    now_and_then = (pl.col("service") == "pay") & ((pl.col("time_s") // 120) % 2 == 0)
    found = rank(Case(INJECT_S, table.filter(~now_and_then)))
    assert found.evidence["silence"][found.services.index("pay")] == 0.0


def test_a_recording_that_ends_is_no_silence():
    table = metrics(1, names=USES)
    for service in table["service"].unique():
        table = gone(table, service, ("cpu", "mem"))
    assert max(rank(Case(INJECT_S, table)).evidence["silence"]) == 0.0


def failing(service, share, names):
    """Requests and errors as counts, `share` of one service's failing after the fault."""
    table = metrics(3, names=("requests",)).with_columns(pl.col("value").round().clip(1.0))
    after = (pl.col("time_s") >= INJECT_S) & (pl.col("service") == service)
    bad = pl.when(after).then((pl.col("value") * share).round()).otherwise(0.0)
    errors = table.with_columns(metric=pl.lit(names), value=bad)
    return pl.concat([table, errors])


def test_errors_count_as_a_share_of_the_requests():
    moved = shifts(wide(failing("pay", 0.5, "errors")), INJECT_S)
    at = moved.service.tolist().index("pay") + moved.metric.tolist().index("errors")
    assert moved.kind[at] == "errors"
    assert moved.after_high[at] == pytest.approx(0.5, abs=0.1)


def test_errors_of_services_without_requests_are_counts():
    table = failing("pay", 0.5, "errors").filter(pl.col("metric") == "errors")
    assert set(shifts(wide(table), INJECT_S).kind.tolist()) <= {"counts", "errors"}
    assert first(table) == "pay"


def test_one_error_is_no_shift():
    table = failing("pay", 0.0, "errors").filter(pl.col("metric") == "errors")
    noisy = table.with_columns(
        value=pl.when(pl.col("time_s").is_in([100.0, 700.0, 900.0])).then(2.0).otherwise(pl.col("value"))
    )
    assert max(shifts(wide(noisy), INJECT_S).up) < 3


def test_latency_of_whom_nobody_asked_tells_nothing():
    table = metrics(5, {("db", "latency"): 50.0}, names=("latency", "requests"))
    idle = (pl.col("service") == "db") & (pl.col("metric") == "requests")
    table = table.with_columns(value=pl.when(idle).then(0.0).otherwise(pl.col("value")))
    moved = shifts(wide(table), INJECT_S)
    assert not [
        u
        for s, m, u in zip(moved.service, moved.metric, moved.up, strict=True)
        if (s, m) == ("db", "latency") and u > 3
    ]


def test_a_single_high_row_is_no_shift():
    spiked = metrics(7, names=("mem",)).with_columns(
        value=pl.when((pl.col("service") == "pay") & (pl.col("time_s") == 610.0)).then(1e6).otherwise(pl.col("value"))
    )
    moved = shifts(wide(spiked), INJECT_S)
    assert max(moved.up) < 3


def test_the_graph_being_unknown_the_callee_is_told_from_its_callers():
    moved = {("db", "latency"): 6.0, ("cart", "latency"): 2.0, ("front", "latency"): 1.4}
    case = metric_case(11, moved)
    assert rank(Case(INJECT_S, case.metrics)).services[0] == "db"


def test_made_up_cases_are_ranked_better_than_by_the_floor():
    ours = floor = count = 0
    for labelled in recorded(5, 3 * len(FAULTS)):
        assert labelled.truth in labelled.case.services()
        count += 1
        ours += rank(labelled.case).services[0] == labelled.truth
        floor += largest_shift(labelled.case)[0] == labelled.truth
    assert ours >= 0.6 * count
    assert ours > floor


def test_made_up_cases_are_their_seed():
    one, two = (next(iter(recorded(9, 1))) for _ in range(2))
    assert one.case.metrics.equals(two.case.metrics)
    assert set(one.case.metrics["metric"].unique()) in [set(d.values()) for d in DIALECTS]


def test_what_all_callers_feel_and_the_callee_does_not_is_between_them():
    """Three callers of one database wait for it; its own clock says nothing."""
    calls = pl.DataFrame(
        {
            "caller": ["front", "front", "front", "cart", "catalog", "pay"],
            "callee": ["cart", "catalog", "pay"] + ["db"] * 3,
        }
    )
    slower = (
        pl.col("service").is_in(["cart", "catalog", "pay"])
        & (pl.col("metric") == "latency")
        & (pl.col("time_s") >= INJECT_S)
    )
    table = metrics(11).with_columns(value=pl.col("value") + pl.when(slower).then(80.0).otherwise(0.0))
    same = table.with_columns(value=pl.when(pl.col("metric") == "requests").then(50.0).otherwise(pl.col("value")))
    assert rank(Case(INJECT_S, same, graph=calls)).services[0] == "db"


def test_one_caller_that_is_slow_is_slow_itself():
    calls = pl.DataFrame({"caller": ["front", "cart"], "callee": ["cart", "db"]})
    found = rank(Case(INJECT_S, metrics(11, {("cart", "latency"): 3.0}), graph=calls)).services
    assert found[:2] == ["cart", "db"]


def test_requests_below_zero_are_none():
    case = metric_case(11, {("db", "latency"): 6.0})
    below = case.metrics.with_columns(
        value=pl.when(pl.col("metric") == "requests").then(-pl.col("value")).otherwise(pl.col("value"))
    )
    found = rank(Case(INJECT_S, below, graph=case.graph))
    assert sorted(found.services) == case.services()
    assert all(0 <= score <= 1 for score in found.score)
