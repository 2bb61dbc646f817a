"""The audit against scripted readings: nothing missed, nothing twice, whatever moves between two of them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import polars as pl
import pytest

from observe.audit import audit
from observe.types import DEAD_LETTERS, Json, PartitionState

TOPIC = "otlp_spans"


def row(**changes: Any) -> Json:
    base = {"topic": TOPIC, "partition": 0, "accepted": 100, "stored": 90, "rejected": 10, "first_offset": 0}
    return base | {"next_offset": 10, "gaps": 0, "overlaps": 0} | changes


class Scripted:
    """A stream of 20 records with 10 spans each. Reading the ledger gives the next of `ledgers`, the last for ever."""

    def __init__(self, *ledgers: list[Json], committed: int = 10, letters: list[Json] | None = None) -> None:
        self.ledgers = list(ledgers)
        self.committed = committed
        self.letters = letters or []
        self.differing: list[list[tuple[int, int]]] = [[]]  # as the ledgers

    def ledger(self) -> pl.DataFrame:
        rows = self.ledgers.pop(0) if len(self.ledgers) > 1 else self.ledgers[0]
        return pl.DataFrame(rows, schema=list(row())) if rows else pl.DataFrame(schema=list(row()))

    def query(self, sql: str) -> pl.DataFrame:
        if "FROM digests" in sql:
            return pl.DataFrame({"Topic": [TOPIC], "items": [7]})
        if "FROM service_windows" in sql:
            differing = self.differing.pop(0) if len(self.differing) > 1 else self.differing[0]
            return pl.DataFrame(list(differing), schema=["window", "difference"], orient="row")
        assert "FROM rejected" in sql
        return pl.DataFrame({"Signal": ["spans", "logs"], "Reason": ["trace_id", "time"], "items": [10, 3]})

    def partitions(self, group: str) -> list[PartitionState]:
        return [
            PartitionState(TOPIC, 0, 0, self.committed, 20),
            PartitionState(DEAD_LETTERS, 0, 5, 5, 5 + len(self.letters)),
        ]

    def pending(self, group: str, since: Mapping[tuple[str, int], int]) -> Mapping[tuple[str, int], int]:
        return {(TOPIC, 0): 10 * (20 - since[TOPIC, 0]), (DEAD_LETTERS, 0): 0}

    def dead_letters(self, limit: int) -> list[Json]:
        return self.letters[:limit]

    def audit(self) -> Json:
        self.waits: list[float] = []
        return audit(self, self, "g", wait=self.waits.append)  # type: ignore[arg-type]


def test_accepted_is_stored_and_rejected_and_pending() -> None:
    body = Scripted([row()]).audit()
    assert body["signals"]["spans"] == {"accepted": 200, "stored": 90, "rejected": 10, "pending": 100}
    assert body["signals"]["log_records"] == {"accepted": 0, "stored": 0, "rejected": 0, "pending": 0}
    assert body["reasons"] == {"spans": {"trace_id": 10}, "metric_points": {}, "log_records": {"time": 3}}
    assert body["repeated"] == {"spans": 7, "metric_points": 0, "log_records": 0}
    assert (body["ok"], body["dead_letters"]) == (True, 0)


def test_what_is_stored_and_not_yet_committed_counts_once() -> None:
    body = Scripted([row()], committed=4).audit()
    assert body["signals"]["spans"]["accepted"] == 200
    assert (body["ok"], body["partitions"][0]["committed"]) == (True, 4)


def test_nothing_stored_yet() -> None:
    body = Scripted([], committed=0).audit()
    assert body["signals"]["spans"] == {"accepted": 200, "stored": 0, "rejected": 0, "pending": 200}
    assert body["ok"] is True


def test_a_half_visible_insert_is_read_again() -> None:
    half = [row(accepted=120, next_offset=12, stored=95)]
    scripted = Scripted(half, half, [row(accepted=120, next_offset=12, stored=110)])
    assert scripted.audit()["signals"]["spans"] == {"accepted": 200, "stored": 110, "rejected": 10, "pending": 80}
    assert len(scripted.waits) == 2


def test_what_does_not_add_up_is_said_and_not_hidden() -> None:
    missing = Scripted([row(stored=89)]).audit()
    assert missing["ok"] is False
    assert missing["signals"]["spans"] == {"accepted": 200, "stored": 89, "rejected": 10, "pending": 100}
    assert Scripted([row(gaps=1)]).audit()["ok"] is False
    assert Scripted([row(overlaps=2)]).audit()["ok"] is False


def test_commits_beyond_the_ledger_are_missed_offsets() -> None:
    body = Scripted([row()], committed=13).audit()
    assert (body["ok"], body["partitions"][0]["missed"]) == (False, 3)


@pytest.mark.parametrize(
    ("ledger", "committed", "said"),
    [
        (row(), 10, []),
        (
            row(stored=89),
            10,
            ["otlp_spans, partition 0: 1 items were inserted and are not in the tables.*detached_parts"],
        ),
        (row(stored=92), 10, ["2 items more are in the tables than were inserted"]),
        (row(), 13, ["3 records before offset 13 were committed.*next_offset"]),
        (row(gaps=1, overlaps=2), 10, ["1 gaps in the offsets.*retention", "2 ranges of offsets were stored more"]),
    ],
)
def test_what_is_wrong_is_said_in_words(ledger: Json, committed: int, said: list[str]) -> None:
    advice = Scripted([ledger], committed=committed).audit()["advice"]
    assert len(advice) == len(said)
    for sentence, pattern in zip(advice, said, strict=True):
        assert re.search(pattern, sentence), sentence


def test_a_dead_letter_written_twice_counts_once() -> None:
    letter = {"topic": TOPIC, "partition": 0, "offset": 3}
    assert Scripted([row()], letters=[letter, letter, letter | {"offset": 4}]).audit()["dead_letters"] == 2


def test_windows_that_count_otherwise_than_spans_are_told() -> None:
    parts = Scripted([row()])
    parts.differing = [[(10, 3), (20, -1)], [(20, -1)], [(20, -1), (30, 5)], [(20, -1)]]
    body = parts.audit()
    assert (body["differing_windows"], body["ok"]) == (1, False)
    assert "1 windows of the last day" in body["advice"][0]


def test_windows_of_an_insert_under_way_are_not() -> None:
    parts = Scripted([row()])
    parts.differing = [[(10, 3)], [(10, 2)], []]
    body = parts.audit()
    assert (body["differing_windows"], body["ok"]) == (0, True)
    assert len(parts.waits) == 1
