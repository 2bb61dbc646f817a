"""A short siege on both streams and both stores; `make soak` runs the long one."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from tests.faults.siege import Plan, besiege
from tests.fixtures.clickhouse import library_or_skip
from tests.fixtures.kafka import broker_or_skip

CALM = {"exports_per_s": 25.0, "freeze_s": 4.0, "away_s": 2.0, "pause_s": 1.0, "disks": False}


def besieged(folder: Path, stream: str, store: str, *faults: str) -> Any:
    seed = random.randrange(10**6)
    plan = Plan(kills=sum("kill" in fault for fault in faults), seed=seed, faults=faults, **CALM)  # type: ignore[arg-type]
    result = besiege(folder, stream, store, plan)
    assert not result["problems"], (seed, result)
    return result


@pytest.mark.kafka
@pytest.mark.clickhouse
def test_every_process_of_a_cluster_is_killed_under_load(tmp_path: Path) -> None:
    broker_or_skip()
    library_or_skip()
    result = besieged(
        tmp_path, "kafka", "clickhouse",
        "kill writer", "kill store", "freeze writer", "kill receiver", "kill broker", "kill writer",
    )  # fmt: skip
    assert result["kills"] == 5
    assert sum(result["acknowledged"].values()) > 0
    assert result["repeated"]["spans"] + result["repeated"]["log_records"] + result["repeated"]["metric_points"] > 0


def test_everything_in_one_process_is_killed_under_load(tmp_path: Path) -> None:
    result = besieged(tmp_path, "local", "chdb", "kill up")
    assert result["kills"] == 1
    assert sum(result["acknowledged"].values()) > 0
