"""A replay beside what was recorded, and scored by what people know."""

from dataclasses import replace

import pytest

from observe.backtest import Label, report
from observe.types import Cause, CauseKind, Impact, State
from tests.unit.test_pipeline_watch import incident

SECOND = 10**9


def of(id_, at_s, service="shop", cause="db", lasts_s=100):
    one = incident(id_, at_s, state=State.RESOLVED)
    named = Cause(1, CauseKind.SERVICE, cause, "", 0.9, 0.9, (service, cause))
    return replace(one, resolved_ns=(at_s + lasts_s) * SECOND, causes=(named,), impact=Impact((service,), 1))


def test_the_same_trouble_is_paired_and_the_rest_is_listed():
    found = [of("a", 1000), of("b", 5000, cause="cache")]
    recorded = [of("x", 1010), of("y", 5000, cause="db"), of("z", 9000)]
    body = report(found, recorded, [], 0, 10_000 * SECOND)
    pairs = {(p["replayed_id"], p["recorded_id"]): p for p in body["recorded"]["in_both"]}
    assert set(pairs) == {("a", "x"), ("b", "y")}
    assert pairs["a", "x"]["onset_later_s"] == -10
    assert (pairs["a", "x"]["same_cause"], pairs["b", "y"]["same_cause"]) == (True, False)
    assert [i["id"] for i in body["recorded"]["only_recorded"]] == ["z"]
    assert body["recorded"]["only_replayed"] == []
    assert body["score"] is None


def test_trouble_of_other_services_or_times_is_not_the_same():
    body = report([of("a", 1000)], [of("x", 1000, service="mail", cause="smtp"), of("y", 3000)], [], 0, 9000 * SECOND)
    assert body["recorded"]["in_both"] == []


def test_labels_give_recall_precision_delay_and_the_share_of_right_causes():
    labels = [
        Label(990 * SECOND, 1200 * SECOND, "shop", "db", "one"),
        Label(5000 * SECOND, 5100 * SECOND, "shop", "cache"),
        Label(7000 * SECOND, 7100 * SECOND, "mail"),
    ]
    body = report([of("a", 1000), of("b", 5020), of("c", 8000)], [], labels, 0, 9000 * SECOND)
    assert [one["incident_id"] for one in body["labels"]] == ["a", "b", None]
    assert body["score"] == {
        "labels": 3, "found": 2, "recall": pytest.approx(2 / 3), "precision": pytest.approx(2 / 3),
        "false_incidents": 1, "median_delay_s": 15, "causes_right": 0.5,
    }  # fmt: skip


def test_what_never_fired_finds_no_label():
    quiet = replace(of("a", 1000), fired_ns=None)
    assert report([quiet], [], [Label(1000 * SECOND, 1100 * SECOND)], 0, 9000 * SECOND)["score"]["found"] == 0
