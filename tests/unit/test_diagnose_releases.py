"""One release of several services is one cause; what only looks like one is not."""

from __future__ import annotations

from dataclasses import replace

import polars as pl
import pytest

from observe.alert import step
from observe.diagnose import diagnose
from observe.explain import markdown
from observe.frames import SELF_WINDOWS
from observe.settings import AlertSettings, DiagnoseSettings
from observe.types import Cause, CauseKind, Diagnosis, Evidence, Impact, Shift
from observe.verdict import _with_rollbacks
from observe.wire import incident_from_json, incident_json
from tests.unit.diagnose_parts import NOW, ONSET, at, edge_rows, frames, self_rows

CALM, SLOW = 20, 90


def served(service, after, versions, since=30):
    """From window `since` on by the second of the versions; slow, if it is, from window 30 on."""
    rows = self_rows(service, CALM, after)
    new = pl.col("window_start_ns") >= at(since)
    return rows.with_columns(
        version=pl.when(new).then(pl.lit(versions[1])).otherwise(pl.lit(versions[0])),
        instance=pl.format("{}-{}", "service", pl.when(new).then(pl.lit("b")).otherwise(pl.lit("a"))),
    ).select(list(SELF_WINDOWS))


def told(*callees, moved=None):
    """The gateway calls each of the callees, which are (name, self time after, versions, window of the release)."""
    names = [name for name, *_ in callees]
    rise = sum(after - CALM for _, after, *_ in callees)
    gateway = self_rows("gateway", 2, 2, total=(2 + CALM * len(names), 2 + CALM * len(names) + rise), version="9")
    edges = [edge_rows("gateway", name, (CALM + 1, after + 1), (CALM, after)) for name, after, *_ in callees]
    shifts = [
        Shift(s, "/x", "Server", "latency_p99_ms", 50.0, 300.0, "ms", 1e-9, 900, ONSET)
        for s in ("gateway", *(moved if moved is not None else [n for n, after, *_ in callees if after > CALM]))
    ]
    given = frames([gateway, *(served(*callee) for callee in callees)], edges)
    return diagnose(shifts, given, NOW, DiagnoseSettings())


V2 = ("1.9.0", "2.0.0")


def test_a_release_that_breaks_several_services_is_one_cause():
    (found,) = told(
        ("retriever", SLOW, V2), ("reranker", SLOW + 30, V2), ("intent", CALM, V2), ("cart", CALM, ("7", "7"))
    )
    cause, *others = found.causes
    assert (cause.kind, cause.service, cause.resource) == (CauseKind.RELEASE, "reranker", "2.0.0")
    assert cause.services == ("reranker", "retriever")
    assert cause.score > 0.9
    assert cause.path == ("gateway", "reranker")
    assert {s.service for s in found.symptoms} == {"gateway", "reranker", "retriever"}
    assert not {c.service for c in others} & {"retriever", "reranker"}
    assert not {r.service for r in found.ruled_out} & {"retriever", "reranker"}
    common, first, second = [e for e in cause.evidence if e.kind == "version"]
    assert common.text.startswith("2 services got a new version at once, and each is worse than with the one before; ")
    assert common.text.endswith("not so intent, which got it too")
    assert first.text.startswith("reranker: version 2.0.0 arrived with the trouble: 99.9 ms more time per request")
    assert "service=retriever" in second.query


def test_versions_of_other_names_that_come_together_are_one_release():
    (found,) = told(("retriever", SLOW, ("1.4.2", "1.5.0")), ("reranker", SLOW + 30, ("3", "4")))
    assert (found.causes[0].kind, found.causes[0].resource) == (CauseKind.RELEASE, "4, 1.5.0")


def test_a_release_that_reaches_the_next_service_minutes_later_is_the_same():
    late = pl.col("window_start_ns") < at(36)
    gateway = self_rows("gateway", 2, 2, total=(42, 142), version="9")
    second = served("reranker", SLOW, V2, since=36).with_columns(
        pl.when(late).then(CALM * 100.0).otherwise(c).alias(c) for c in ("self_sum_ms", "duration_sum_ms")
    )
    edges = [edge_rows("gateway", n, (CALM + 1, SLOW + 1), (CALM, SLOW)) for n in ("retriever", "reranker")]
    given = frames([gateway, served("retriever", SLOW, V2), second], edges)
    shifts = [
        Shift(s, "/x", "Server", "latency_p99_ms", 50.0, 300.0, "ms", 1e-9, 900, at(w))
        for s, w in (("gateway", 30), ("retriever", 30), ("reranker", 36))
    ]
    (found,) = diagnose(shifts, given, at(48), DiagnoseSettings())
    assert found.causes[0].services == ("retriever", "reranker")


COUNTER = {
    "one of two released breaks": [("retriever", SLOW, V2), ("reranker", CALM, V2)],
    "the other was released long before": [("retriever", SLOW, V2, 30), ("reranker", CALM, ("1.9.0", "2.0.0"), 2)],
}


@pytest.mark.parametrize("name", list(COUNTER))
def test_one_bad_release_is_that_service_alone(name):
    (found,) = told(*COUNTER[name])
    assert (found.causes[0].kind, found.causes[0].service) == (CauseKind.VERSION, "retriever")
    assert found.causes[0].services == ()


def test_a_version_that_all_have_for_ever_is_no_release():
    found = told(("retriever", SLOW, ("2.0.0", "2.0.0")), ("reranker", SLOW, ("2.0.0", "2.0.0")))
    assert {c.kind for d in found for c in d.causes} == {CauseKind.SERVICE}
    assert {c.service for d in found for c in d.causes} == {"retriever", "reranker"}


def test_releases_far_apart_are_two_causes():
    """The second was bad long before the trouble: its new version is in the past that is compared with."""
    earlier = served("reranker", CALM, V2, since=10).with_columns(
        pl.when(pl.col("window_start_ns") >= at(10)).then(SLOW * 100.0).otherwise(c).alias(c)
        for c in ("self_sum_ms", "duration_sum_ms")
    )
    gateway = self_rows("gateway", 2, 2, total=(42, 112), version="9")
    edges = [
        edge_rows("gateway", "retriever", (CALM + 1, SLOW + 1), (CALM, SLOW)),
        edge_rows("gateway", "reranker", (SLOW + 1, SLOW + 1), (SLOW, SLOW)),
    ]
    shifts = [
        Shift(s, "/x", "Server", "latency_p99_ms", 50.0, 300.0, "ms", 1e-9, 900, ONSET)
        for s in ("gateway", "retriever")
    ]
    (found,) = diagnose(
        shifts, frames([gateway, served("retriever", SLOW, V2), earlier], edges), NOW, DiagnoseSettings()
    )
    assert (found.causes[0].kind, found.causes[0].service, found.causes[0].services) == (
        CauseKind.VERSION,
        "retriever",
        (),
    )


def test_new_versions_that_are_worse_beside_the_old_ones_belong_to_their_release():
    (whole,) = told(("retriever", SLOW, V2), ("reranker", SLOW + 30, V2))
    shift = Shift(
        "retriever", "", "Server", "latency_p99_ms", 20.0, 90.0, "ms", 1e-9, 500, ONSET, "canary 1.9.0 → 2.0.0"
    )

    def worse(service, version):
        reason = Evidence("canary", f"{version} beside 1.9.0: slower")
        cause = Cause(1, CauseKind.VERSION, service, version, 0.95, 1.0, (service,), (reason,))
        return Diagnosis((shift,), (cause,), (), Impact((service,), 500))

    one, other = _with_rollbacks([whole], [worse("retriever", "2.0.0"), worse("cart", "2.0.0")])
    assert (one.causes[0].kind, one.causes[0].services) == (CauseKind.RELEASE, ("reranker", "retriever"))
    assert [e.text for e in one.causes[0].evidence if e.kind == "canary"] == ["2.0.0 beside 1.9.0: slower"]
    assert shift in one.symptoms
    assert other.causes[0].service == "cart"


def test_a_title_names_the_release_and_its_services():
    (whole,) = told(("retriever", SLOW, V2), ("reranker", SLOW + 30, V2))
    (incident,) = step([], [whole], NOW, AlertSettings())
    assert incident.title == "gateway P99 50 ms → 300 ms: release 2.0.0 of reranker, retriever (100 % of the rise)"
    assert incident_from_json(incident_json(incident)).causes[0].services == ("reranker", "retriever")
    assert "## Cause: release 2.0.0 of reranker, retriever — 99% sure" in markdown(incident)


def test_an_incident_that_nobody_was_told_of_says_so():
    (whole,) = told(("retriever", SLOW, V2), ("reranker", SLOW + 30, V2))
    (pending,) = step([], [whole], NOW, AlertSettings())
    (over,) = step([pending], [], NOW + 60 * 10**9, AlertSettings())
    assert "It was over before anybody was told" in markdown(over)
    assert "nobody" not in markdown(replace(over, fired_ns=NOW))
    assert "over before" not in markdown(replace(over, title=f"{over.title} (goes on as incident 17)"))
