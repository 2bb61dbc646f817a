"""Diagnosis on simulated fleets: a floor that only goes up, and what must hold whatever the fleet."""

from __future__ import annotations

from dataclasses import replace

import polars as pl
import pytest

from observe.bench.fleets import case, outcome, score, summary, uninstrumented
from observe.bench.graphs import FAULTS
from observe.bench.simulation import START_NS
from observe.diagnose import diagnose
from observe.frames import Frames, empty
from observe.settings import DiagnoseSettings
from observe.types import CauseKind, Shift

SETTINGS = DiagnoseSettings()
FAULT_NS = START_NS + 300 * 10**9


def small(seed, kind, services=8):
    return case(seed, services, kind, at_s=300.0, after_s=90.0, rate=10.0)


def symptom(given, service, measure="latency_p99_ms", before=50.0, after=400.0):
    return Shift(service, "/op0", "Server", measure, before, after, "ms", 1e-9, 200, FAULT_NS)


def told(given, frames=None):
    """The diagnosis of the guilty service's own shift."""
    shift = symptom(given, given.fault.service)
    return diagnose([shift], frames or given.frames, given.end_ns, SETTINGS)


@pytest.mark.parametrize("kind", [k for k in FAULTS if k != "none"])
def test_the_injected_fault_is_the_first_cause(kind):
    outcomes = [score(small(seed, kind)) for seed in (11, 12, 13)]
    seen = [o for o in outcomes if o.detected]
    assert len(seen) >= 2
    assert [o.rank for o in seen] == [1] * len(seen)
    assert sum(o.resource_right for o in seen) >= len(seen) - 1
    assert all(o.score >= 0.4 for o in seen)


def test_no_cause_is_named_where_nothing_is_wrong():
    given = small(21, "none")
    service = given.frames.windows["service"][0]
    found = diagnose([symptom(given, service)], given.frames, given.end_ns, SETTINGS)
    assert [d.causes[0].kind for d in found] == [CauseKind.UNKNOWN]


def test_the_same_frames_give_the_same_diagnosis():
    given = small(12, "latency")
    assert told(given) == told(given)


def test_names_only_label():
    given = small(12, "latency")
    names = given.frames.windows["service"].unique().to_list()
    other = {name: f"x{hash_of(name)}" for name in names}

    def renamed(frame: pl.DataFrame) -> pl.DataFrame:
        columns = [c for c in ("service", "caller", "callee") if c in frame.columns]
        changed = frame.with_columns(pl.col(columns).replace(other))
        return changed.sort([c for c in changed.columns if changed[c].dtype in (pl.String, pl.Int64)][:6])

    f = given.frames
    frames = Frames(renamed(f.windows), renamed(f.selfs), renamed(f.edges), renamed(f.gauges))
    (one,), (two,) = (
        told(given),
        diagnose([symptom(given, other[given.fault.service])], frames, given.end_ns, SETTINGS),
    )
    assert [other[c.service] for c in one.causes] == [c.service for c in two.causes]
    assert [c.score for c in one.causes] == pytest.approx([c.score for c in two.causes], abs=1e-3)


def hash_of(name: str) -> str:
    """Reverses the order of names, so that ties by order would show."""
    return "".join(chr(219 - ord(c)) if "a" <= c <= "z" else c for c in name)


def test_a_healthy_service_beside_changes_no_cause():
    given = small(12, "latency")
    beside = small(99, "none")
    f, g = given.frames, beside.frames
    both = Frames(
        *(
            pl.concat([getattr(f, part), getattr(g, part)]).sort("window_start_ns", maintain_order=True)
            for part in ("windows", "selfs", "edges", "gauges")
        )
    )
    assert [(c.kind, c.service) for c in told(given, both)[0].causes] == [
        (c.kind, c.service) for c in told(given)[0].causes
    ]


def test_two_faults_in_separate_fleets_are_two_diagnoses():
    one, two = small(12, "latency"), small(13, "latency")
    frames = Frames(
        *(
            pl.concat([getattr(one.frames, part), getattr(two.frames, part)]).sort(
                "window_start_ns", maintain_order=True
            )
            for part in ("windows", "selfs", "edges", "gauges")
        )
    )
    shifts = [symptom(one, one.fault.service), symptom(two, two.fault.service)]
    found = diagnose(shifts, frames, one.end_ns, SETTINGS)
    assert {d.causes[0].service for d in found} == {one.fault.service, two.fault.service}


def test_without_shifts_there_is_nothing_to_explain():
    assert diagnose([], empty(), FAULT_NS, SETTINGS) == []


def test_without_history_or_spans_the_cause_is_unknown():
    shift = Shift("ghost", "", "Metric", "queue_depth", 1.0, 9.0, "1", 1e-9, 30, FAULT_NS)
    (nothing,) = diagnose([shift], empty(), FAULT_NS, SETTINGS)
    assert nothing.causes[0].kind is CauseKind.UNKNOWN
    assert nothing.symptoms == (shift,)
    given = small(12, "latency")
    early = replace(symptom(given, given.fault.service), onset_ns=START_NS)
    (unknown,) = diagnose([early], given.frames, given.end_ns, SETTINGS)
    assert unknown.causes[0].kind is CauseKind.UNKNOWN


def test_every_shift_stands_in_exactly_one_diagnosis():
    given = small(12, "latency")
    services = given.frames.windows["service"].unique().sort().to_list()
    shifts = [symptom(given, s) for s in services] + [symptom(given, "ghost")]
    found = diagnose(shifts, given.frames, given.end_ns, SETTINGS)
    assert sorted(s.service for d in found for s in d.symptoms) == sorted(s.service for s in shifts)


def test_evidence_has_numbers_and_the_path_ends_at_the_cause():
    given = small(12, "latency")
    (cause, *_) = told(given)[0].causes
    assert cause.path[-1] == given.fault.service
    assert any(e.kind == "self_time" for e in cause.evidence)
    assert all(any(c.isdigit() for c in e.text) for e in cause.evidence)
    assert cause.exemplar_trace_ids


def test_a_quiet_case_counts_as_not_detected():
    quiet = outcome(small(21, "none"), [], 0.0)
    assert (quiet.detected, summary([quiet])["fault_free_detected"]) == (False, 0)


@pytest.mark.parametrize("kinds", [("errors", "database"), ("latency", "crash"), ("traffic", "latency")])
def test_two_faults_at_once_are_both_named(kinds):
    first, second = kinds
    outcomes = [score(small_with(seed, first, also=second)) for seed in (31, 32)]
    assert all(o.detected and o.rank == 1 for o in outcomes)
    assert sum(o.both for o in outcomes) >= 1


def test_clocks_that_are_off_change_no_cause():
    found = score(small_with(12, "latency", skew_s=2.0))
    assert (found.rank, found.resource_right) == (1, True)


def test_services_without_spans_are_addresses():
    given = small_with(12, "latency")
    hidden = uninstrumented(given.frames, {given.fault.service})
    assert given.fault.service not in hidden.selfs["service"].unique().to_list()
    into = hidden.edges.filter(pl.col("callee") == given.fault.service)
    assert into["server_sum_ms"].null_count() == into.height
    found = score(replace(given, frames=hidden, hidden=frozenset({given.fault.service})))
    assert not found.detected or found.rank == 1


def small_with(seed, kind, **more):
    return case(seed, 8, kind, at_s=300.0, after_s=90.0, rate=10.0, **more)
