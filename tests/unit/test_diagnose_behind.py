"""Diagnoses that end at an address, beside others that began together with them."""

from __future__ import annotations

import pytest

from observe.diagnose.behind import LEFT, behind
from observe.types import WINDOW_NS, Cause, CauseKind, Diagnosis, Impact, Shift


def diagnosis(service, kind, resource="", *, at=0, score=0.9):
    shift = Shift(service, "/", "Server", "latency_p99_ms", 10.0, 90.0, "ms", 1e-9, 100, at * WINDOW_NS)
    cause = Cause(1, kind, service, resource, score, 1.0, (service,), ())
    return Diagnosis((shift,), (cause,), (), Impact((service,), 0))


ADDRESS = diagnosis("web", CauseKind.EXTERNAL, "billing:8080")


def test_a_known_cause_that_began_together_comes_first_and_is_quoted():
    known = diagnosis("ledger", CauseKind.DATABASE, "db-1", at=2)
    first, second = behind([ADDRESS, known])
    assert first == known
    assert second.causes[0].score == pytest.approx(0.9 * LEFT)
    assert "billing:8080 sends no spans; db-1 of ledger" in second.causes[0].evidence[-1].text


@pytest.mark.parametrize(
    "other",
    [
        diagnosis("ledger", CauseKind.SERVICE, at=9),
        diagnosis("ledger", CauseKind.EXTERNAL, "api.example"),
        diagnosis("ledger", CauseKind.UNKNOWN),
    ],
    ids=["much later", "another address", "unknown"],
)
def test_others_say_nothing_about_an_address(other):
    assert behind([ADDRESS, other]) == [ADDRESS, other]


def test_the_surest_of_several_is_quoted():
    others = [diagnosis("a", CauseKind.SERVICE, score=0.5), diagnosis("b", CauseKind.SERVICE, score=0.8)]
    assert "b has had trouble" in behind([*others, ADDRESS])[-1].causes[0].evidence[-1].text
