"""A service that fell silent: its callers still call it."""

from __future__ import annotations

import polars as pl
import pytest

from observe.diagnose import diagnose
from observe.settings import DiagnoseSettings
from observe.types import CauseKind, Shift
from tests.unit.diagnose_parts import NOW, ONSET, edge_rows, frames, self_rows


def lost_rows(caller, callee, calls, waited_ms=2.0, connection="external"):
    """Calls since the onset that fail without reaching anybody."""
    rows = edge_rows(caller, callee, (waited_ms, waited_ms), None, connection=connection, calls=calls)
    return rows.filter(pl.col("window_start_ns") >= ONSET).with_columns(
        errors=pl.col("calls"), callee_operation=pl.lit("POST")
    )


def client_rows(service, failed, *, calls=100):
    rows = self_rows(service, 1, 1, kind="Client", operation="POST", requests=calls)
    erring = pl.when(pl.col("window_start_ns") >= ONSET).then(failed).otherwise(0).cast(pl.UInt64)
    return rows.with_columns(errors=erring, origin_errors=erring, error_trace_id=pl.lit("t1"))


def until_onset(rows):
    return rows.filter(pl.col("window_start_ns") < ONSET)


def erring(rows, failed):
    errors = pl.when(pl.col("window_start_ns") >= ONSET).then(failed).otherwise(0).cast(pl.UInt64)
    return rows.with_columns(errors=errors)


def errors_of(service, after):
    return Shift(service, "/x", "Server", "error_ratio", 0.0, after, "1", 1e-9, 500, ONSET)


def gateway_and_callee(callee_rows, edges, failed):
    api = erring(self_rows("api", 5, 5), failed)
    return frames([api, client_rows("api", failed), *callee_rows], edges)


@pytest.mark.parametrize("waited_ms", [2.0, 1000.0])
def test_a_service_that_fell_silent_is_the_cause_of_the_errors_of_its_callers(waited_ms):
    view = gateway_and_callee(
        [until_onset(self_rows("guard", 8, 8))],
        [until_onset(edge_rows("api", "guard", (9, 9), (8, 8))), lost_rows("api", "guard:8080", 100, waited_ms)],
        100,
    )
    (found,) = diagnose([errors_of("api", 1.0)], view, NOW, DiagnoseSettings())
    first = found.causes[0]
    assert (first.kind, first.service, first.resource) == (CauseKind.SERVICE, "guard", "")
    assert first.score > 0.8
    assert first.path == ("api", "guard")
    assert first.exemplar_trace_ids == ("t1",)
    assert any("without a trace of it in guard" in e.text for e in first.evidence)


def test_a_caller_whose_calls_all_get_lost_while_others_get_through_is_the_cause_itself():
    callees = ["one", "two"]
    selfs = [erring(self_rows("api", 5, 5), 100), client_rows("api", 100), self_rows("web", 5, 5)]
    selfs += [self_rows(c, 8, 8) for c in callees]
    edges = [until_onset(edge_rows("api", c, (9, 9), (8, 8))) for c in callees]
    edges += [edge_rows("web", c, (9, 9), (8, 8)) for c in callees] + [lost_rows("api", c, 100) for c in callees]
    (found,) = diagnose([errors_of("api", 1.0)], frames(selfs, edges), NOW, DiagnoseSettings())
    assert found.causes[0].service == "api"


def test_one_crashed_instance_of_several_is_named_by_the_calls_that_it_lost():
    def instance(i):
        rows = self_rows("guard", 8, 8, instance=f"guard-{i}", requests=33)
        return until_onset(rows) if i == 1 else rows

    calls = edge_rows("api", "guard", (9, 9), (8, 8))
    calls = calls.with_columns(
        calls=pl.when(pl.col("window_start_ns") >= ONSET).then(66).otherwise(99).cast(pl.UInt64)
    ).with_columns(client_sum_ms=9.0 * pl.col("calls"), server_sum_ms=8.0 * pl.col("calls"))
    view = gateway_and_callee([instance(i) for i in range(3)], [calls, lost_rows("api", "guard-1:8080", 33)], 33)
    (found,) = diagnose([errors_of("api", 0.33)], view, NOW, DiagnoseSettings())
    first = found.causes[0]
    assert (first.kind, first.service, first.resource) == (CauseKind.INSTANCE, "guard", "guard-1")
    assert any("instance guard-1 served" in e.text for e in first.evidence)


def test_fewer_requests_of_a_silent_service_are_its_own_doing():
    view = gateway_and_callee(
        [until_onset(self_rows("guard", 8, 8))],
        [until_onset(edge_rows("api", "guard", (9, 9), (8, 8))), lost_rows("api", "guard", 100)],
        100,
    )
    fewer = Shift("guard", "/x", "Server", "requests_per_s", 10.0, 0.0, "{request}/s", 1e-9, 500, ONSET)
    (found,) = diagnose([fewer], view, NOW, DiagnoseSettings())
    assert (found.causes[0].kind, found.causes[0].service) == (CauseKind.SERVICE, "guard")
