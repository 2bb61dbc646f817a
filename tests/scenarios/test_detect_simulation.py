"""Small simulations with fixed seeds: found soon enough, and quiet where nothing happens.

tests/benchmarks/detect_simulation.py runs the large ones.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from observe.bench.days import HOUR, Unrest, quiet_days, was_drawn
from observe.bench.days import Fleet as QuietFleet
from observe.bench.detection import walk
from observe.bench.series import START_NS, WINDOW_S, Fault, Fleet, Known, Noise, draw
from observe.settings import DetectSettings

SETTINGS = DetectSettings()
HISTORY = 150  # windows
SERIES = 40
FLOORS: list[dict[str, Any]] = json.loads((Path(__file__).parent / "detect_floor.json").read_text())


def found(fault: Fault, size: float, rate: float, windows: int = 6) -> tuple[float, float, set[str]]:
    """Shares found within `windows` windows and with an onset within 10 s, and the measures."""
    rng = np.random.default_rng(11)
    onset = (HISTORY + rng.random(SERIES)) * WINDOW_S
    shifts = tuple(Known(i, fault, float(onset[i]), size) for i in range(SERIES))
    frames = draw(Fleet(np.full(SERIES + 2, rate), HISTORY + windows + 1, shifts=shifts), rng)
    first = {e.service: e for e in walk(frames, range(HISTORY, HISTORY + windows + 1), SETTINGS)}
    onset_ns = {f"service-{i:02d}": START_NS + int(at * 1e9) for i, at in enumerate(onset)}
    assert set(first) <= set(onset_ns), "a series to which nothing happened"
    errors = [abs(e.onset_error_s(onset_ns[service])) for service, e in first.items()]
    return len(first) / SERIES, float(np.mean(np.array(errors) <= 10)), {e.first.measure for e in first.values()}


@pytest.mark.parametrize("floor", FLOORS, ids=lambda floor: f"{floor['fault']} {floor['requests_per_s']:g}/s")
def test_faults_are_found_no_later_than_they_were(floor: dict[str, Any]) -> None:
    """What was reached once is the floor: raise the figures in detect_floor.json, never lower them."""
    share_found, share_timed, seen = found(floor["fault"], floor["size"], floor["requests_per_s"], floor["windows"])
    assert share_found >= floor["found"]
    assert share_timed >= floor["onset"]
    assert seen <= set(floor["measures"])


def test_days_in_which_nothing_is_wrong() -> None:
    """A short stretch of what the benchmark draws for thousands of service-days: nobody would be paged."""
    result = quiet_days(30, 60, seed=2)
    assert result["looks"] == 60
    assert result["service_days"] == pytest.approx(30 * 60 / 8640, abs=0.01)
    assert result["fired"] == 0, result["which"]
    assert result["interval_95"][0] == 0.0


def test_quiet_days_are_drawn_as_they_are_described() -> None:
    """Requests are those of the histograms, at both ends of traffic; failing windows fail, and are known for it."""
    unrest = Unrest(requests_per_s=(5.0, 200.0), daily=(0.0, 0.0), errors=(0.0, 0.0), error_hiccups_per_h=30.0)
    fleet = QuietFleet(6, 1, unrest)
    hour = fleet.hour()
    counts = hour["latency_buckets"].list.eval(pl.element().struct.field("count")).list.sum()
    assert (counts == hour["requests"]).all()
    per_service = hour.group_by("service").agg(pl.col("requests").sum()).sort("service")["requests"].to_numpy()
    assert per_service == pytest.approx(fleet.requests_per_s * 3600, rel=0.1)
    failing = np.array([[bool({"failing", "release"} & set(names)) for names in fleet.upsets(s, HOUR, HOUR)]
                        for s in range(6)])  # fmt: skip
    grid = hour.pivot("service", index="window_start_ns", values="errors").sort("window_start_ns")
    errors = grid.select(fleet.names).fill_null(0).to_numpy().T
    assert (errors[~failing] == 0).all()
    assert (errors[failing] > 0).mean() > 0.9
    assert 6 * 15 < failing.sum() < 6 * 60


@pytest.mark.parametrize(
    ("measure", "upsets", "drawn"),
    [
        ("error_ratio", [["failing"], [], ["release"], []], True),
        ("error_ratio", [["failing"], [], [], ["failing"]], False),
        ("error_ratio", [["failing"], ["slow"]], False),
        ("latency_p99_ms", [["slow"], ["release"]], True),
        ("latency_p99_ms", [["slow"], ["failing"], []], False),
        ("requests_per_s", [["release"], ["release"]], False),
    ],
)
def test_what_was_drawn_is_told_from_what_was_not(measure: str, upsets: list[list[str]], drawn: bool) -> None:
    assert was_drawn(measure, upsets) is drawn


def test_quiet_where_nothing_happens() -> None:
    rng = np.random.default_rng(3)
    rates = np.exp(rng.uniform(np.log(0.1), np.log(20.0), 40))
    frames = draw(Fleet(rates, 240), rng)
    assert walk(frames, range(120, 241, 4), SETTINGS) == []


def test_quiet_while_a_fleet_warms_up() -> None:
    rng = np.random.default_rng(4)
    rates = np.exp(rng.uniform(np.log(0.5), np.log(50.0), 40))
    frames = draw(Fleet(rates, 45, warm_up_s=50.0), rng)
    assert walk(frames, range(3, 46), SETTINGS) == []


def test_recurring_bursts_are_part_of_the_picture() -> None:
    """Hiccups of a window, thirty an hour: the baseline knows them, and none of them lasts."""
    rng = np.random.default_rng(5)
    frames = draw(Fleet(np.full(20, 20.0), 180, noise=Noise(bursts_per_h=30.0, burst_share=0.3)), rng)
    assert walk(frames, range(120, 181, 2), SETTINGS) == []


def test_same_seed_same_frames() -> None:
    fleet = Fleet(np.array([0.5, 100.0]), 20, shifts=(Known(1, "tail", 100.0, 0.1),))
    one, other = draw(fleet, np.random.default_rng(9)), draw(fleet, np.random.default_rng(9))
    assert one.windows.equals(other.windows)
    assert one.windows["window_start_ns"].is_sorted()
    counts = one.windows.select(
        n=one.windows["latency_buckets"].list.eval(pl.element().struct.field("count")).list.sum(), r="requests"
    )
    assert (counts["n"] == counts["r"]).all()
