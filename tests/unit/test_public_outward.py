"""Latency that callers measure accuses whom they call."""

from __future__ import annotations

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from observe.diagnose.offline import Case, rank
from tests.unit.public_parts import CALLS, INJECT_S, graph, metrics

NAMES = ("rpc_client_duration_p90", "rpc_server_duration_p90", "requests")
OUTWARD, INWARD = NAMES[:2]


def case(moved, *, known=True, seed=3, names=NAMES):
    table = metrics(seed, moved, names=names)
    same = table.with_columns(value=pl.when(pl.col("metric") == "requests").then(50.0).otherwise("value"))
    return Case(INJECT_S, same, graph=graph() if known else graph().clear())


def place(ranked, service):
    return ranked.services.index(service) + 1


def test_whom_all_slow_callers_call_is_accused():
    """The callee's own clock says nothing: its network is slow."""
    ranked = rank(case({("cart", OUTWARD): 4.0, ("catalog", OUTWARD): 4.0, ("front", INWARD): 1.5}))
    assert ranked.services[0] == "db"
    assert ranked.evidence["outward"][0] > 0.5


def test_a_callee_that_waits_itself_passes_it_on():
    moved = {("front", OUTWARD): 4.0, ("cart", OUTWARD): 4.0, ("catalog", OUTWARD): 4.0}
    found = rank(case(moved))
    outward = dict(zip(found.services, found.evidence["outward"], strict=True))
    assert outward["db"] > 2 * max(outward["cart"], outward["catalog"])


@pytest.mark.parametrize("known", [True, False])
def test_who_waits_for_others_is_excused(known):
    """Both got slower by their own clocks; one of them because its calls did."""
    own = {("cart", INWARD): 3.0, ("pay", INWARD): 3.0}
    without, with_calls = (rank(case(moved, known=known)) for moved in (own, own | {("cart", OUTWARD): 3.0}))
    excused = [dict(zip(r.services, r.evidence["own"], strict=True))["cart"] for r in (without, with_calls)]
    assert excused[1] < 0.6 * excused[0]
    assert place(with_calls, "pay") < place(with_calls, "cart")


def test_calls_of_models_and_databases_stay_with_the_caller():
    """Nothing in the data stands for whom they go to."""
    names = ("gen_ai.client.operation.duration", "requests")
    ranked = rank(case({("pay", names[0]): 4.0}, names=names))
    assert ranked.services[0] == "pay"
    assert max(ranked.evidence["outward"]) == 0


@settings(max_examples=15, deadline=None)
@given(moved=st.dictionaries(st.tuples(st.sampled_from(sorted(CALLS)), st.sampled_from(NAMES[:2])), st.just(5.0)))
def test_parts_of_an_accusation_stay_between_0_and_1(moved):
    ranked = rank(case(moved))
    assert all(0 <= value <= 1 for value in ranked.evidence["outward"])
    slow = {service for service, metric in moved if metric == OUTWARD}
    called = {callee for service in slow for callee in CALLS[service]}
    accused = {s for s, value in zip(ranked.services, ranked.evidence["outward"], strict=True) if value > 0.2}
    assert accused <= called
