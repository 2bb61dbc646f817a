"""Causes told from spans alone: own time, network, requests that stop early, services that fell silent."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from observe.diagnose.offline import Case, rank
from observe.diagnose.offline.case import SPAN_COLUMNS
from observe.diagnose.offline.news import news
from observe.diagnose.offline.trees import called, trees, with_leads
from observe.diagnose.offline.waiting import waiting
from tests.unit.public_parts import CALLS, INJECT_S, span_case, spans


def evidence(case, kind):
    ranked = rank(case)
    return dict(zip(ranked.services, ranked.evidence[kind], strict=True))


@pytest.mark.parametrize("service", sorted(CALLS))
def test_the_service_that_got_slow_comes_first(service):
    assert rank(span_case(slow={service: 5.0})).services[0] == service


@pytest.mark.parametrize("service", ["cart", "catalog", "pay", "db"])
def test_a_slow_network_is_put_down_to_the_end_that_all_slow_edges_share(service):
    ranked = rank(span_case(network={service: 20_000.0}))
    assert ranked.services[0] == service


@pytest.mark.parametrize("service", ["front", "cart", "catalog"])
def test_a_service_that_fails_at_once_comes_first(service):
    ranked = rank(span_case(fails=(service,)))
    assert ranked.services[0] == service


def test_what_callees_do_less_after_an_early_stop_is_not_held_against_them():
    stops = evidence(span_case(fails=("cart",)), "stops")
    assert stops["catalog"] == stops["pay"] == 0
    assert stops["cart"] > 0.5


def test_a_callee_whose_spans_are_lost_is_still_seen_from_its_callers():
    case = span_case(silent=("db",), slow={"db": 20.0})
    waits = evidence(case, "waiting")
    assert waits["db"] == max(waits.values()) > 0.3


def test_no_fault_accuses_nobody_strongly():
    assert max(rank(span_case()).score) < 0.3


def test_scores_do_not_depend_on_names():
    renamed = {name: f"{chr(122 - i)}-service" for i, name in enumerate(sorted(CALLS))}

    def rename(frame):
        return frame.with_columns(pl.col("service").replace(renamed))

    case = span_case(slow={"catalog": 3.0}, network={"db": 900.0})
    other = Case(INJECT_S, spans_before=rename(case.spans_before), spans_after=rename(case.spans_after))
    one, two = rank(case), rank(other)
    expected = dict(zip(map(renamed.__getitem__, one.services), one.score, strict=True))
    assert dict(zip(two.services, two.score, strict=True)) == pytest.approx(expected, abs=1e-9)
    assert two.services[0] == renamed[one.services[0]]


def test_self_time_leaves_out_the_union_of_children():
    rows = [
        (b"t", b"1", b"", "a", "x", 0, 100),
        (b"t", b"2", b"1", "a", "y", 10, 40),
        (b"t", b"3", b"1", "a", "z", 30, 40),
        (b"t", b"4", b"1", "a", "late", 90, 50),
    ]
    tree = trees(pl.DataFrame(rows, schema=SPAN_COLUMNS, orient="row"))
    assert tree.filter(pl.col("operation") == "x")["self_us"].to_list() == [100 - 60 - 10]


def test_spans_that_are_their_own_parent_or_repeat_do_not_hang():
    rows = [
        (b"t", b"1", b"1", "a", "x", 0, 100),
        (b"t", b"1", b"1", "a", "x", 0, 100),
        (b"t", b"2", b"9", "b", "y", 5, 9),
    ]
    table = pl.DataFrame(rows, schema=SPAN_COLUMNS, orient="row")
    tree = trees(table)
    assert tree.height == 2
    assert tree["parent"].null_count() == 2
    assert sorted(rank(Case(INJECT_S, spans_before=table, spans_after=table)).services) == ["a", "b"]


def test_calls_are_read_off_the_tree():
    assert called(trees(spans(1, requests=3))) == {(a, b) for a, callees in CALLS.items() for b in callees}


def test_new_operations_accuse_the_service_in_which_they_came_first():
    def handled(start, service):
        return (start.to_bytes(16, "big"), bytes([1, len(service)]), b"", service, "handle_error", start, 1)

    old, new = spans(1), spans(2)
    errors = [handled(i, "db") for i in range(40)] + [handled(i, "front") for i in range(40)]
    later = pl.DataFrame(errors, schema=SPAN_COLUMNS, orient="row").with_columns(
        start_us=pl.col("start_us") + pl.when(pl.col("service") == "front").then(10).otherwise(0)
    )
    names = np.array(sorted(CALLS))
    found = dict(zip(names.tolist(), news(trees(old), trees(pl.concat([new, later])), names), strict=True))
    assert found["db"] > 0.5
    assert found["front"] == 0


def test_operations_with_ids_in_their_names_are_no_news():
    def numbered(table, offset):
        ids = (pl.int_range(pl.len()) + offset).cast(pl.String)
        return trees(table.with_columns(operation=pl.col("operation") + "/" + ids))

    names = np.array(sorted(CALLS))
    assert news(numbered(spans(1), 0), numbered(spans(2), 10**6), names).max() < 0.1


def test_twice_the_requests_change_little():
    before, after = trees(spans(1)), trees(spans(2, slow={"cart": 4.0}, requests=160))
    names = np.array(sorted(CALLS))
    few = trees(spans(2, slow={"cart": 4.0}))
    one = waiting(with_leads(before, before), with_leads(few, before), names)
    two = waiting(with_leads(before, before), with_leads(after, before), names)
    assert one == pytest.approx(two, abs=0.1)
