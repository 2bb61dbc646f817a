"""Incidents that nobody knows of, in the baseline: they neither hide the next one, nor make the series look calmer."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from observe.bench.series import START_NS, Fault, Fleet, Known, Noise, draw, now_ns
from observe.detect import detect
from observe.detect.cleaning import CALM, LEAST, _once, cleaned
from observe.detect.grid import Grid, Ranges, grid_of, ranges_of, span_of
from observe.settings import DetectSettings
from observe.types import Interval

SETTINGS = DetectSettings(baseline_s=1800.0)
SERIES = 12
OTHERS = 4
WINDOWS = 184


def drawn(*known: tuple[Fault, float, float, float], windows: int = WINDOWS):
    """A fleet in which SERIES series have faults (which, size, from and to in seconds), and the OTHERS none."""
    shifts = tuple(Known(i, fault, start, size, end) for i in range(SERIES) for fault, size, start, end in known)
    fleet = Fleet(np.full(SERIES + OTHERS, 10.0), windows, Noise(bursts_per_h=0.0), shifts)
    return draw(fleet, np.random.default_rng(7))


def found(frames, windows: int = WINDOWS, abnormal: tuple[Interval, ...] = ()) -> set[str]:
    return {shift.service for shift in detect(frames, now_ns(windows), SETTINGS, abnormal)}


@pytest.mark.parametrize(("fault", "size"), [("errors", 0.2), ("scale", 3.0), ("tail", 0.2)])
def test_an_incident_that_is_over_does_not_hide_the_next_one(fault: Fault, size: float):
    """Five minutes of half an hour; the detector looks for the first time after the second has begun."""
    frames = drawn((fault, size, 600.0, 900.0), (fault, size, 1780.0, np.inf))
    assert len(found(frames)) >= SERIES - 1


@pytest.mark.parametrize("fault", ["errors", "scale", "silence", "surge"])
def test_a_recovery_is_no_shift(fault: Fault):
    """At no look after the end, with the incident in the baseline and the detector new."""
    size = {"errors": 0.2, "scale": 3.0, "silence": 0.0, "surge": 3.0}[fault]
    frames = drawn((fault, size, 900.0, 1500.0))
    for windows in (156, 162, WINDOWS):
        assert found(frames.between(0, START_NS + windows * 10**10), windows) == set()


def test_what_came_twice_is_how_the_series_is():
    frames = drawn(("errors", 0.2, 500.0, 620.0), ("errors", 0.2, 1100.0, 1220.0))
    grid, ranges = parts(frames)
    assert (cleaned(grid, ranges, SETTINGS).baseline == ranges.baseline).all()


def test_a_new_level_is_no_incident_that_is_over():
    grid, ranges = parts(drawn(("scale", 2.0, 1000.0, np.inf)))
    assert (cleaned(grid, ranges, SETTINGS).baseline == ranges.baseline).all()


def test_only_the_incident_and_only_of_its_series_is_taken_out():
    grid, ranges = parts(drawn(("scale", 3.0, 600.0, 900.0)))
    gone = ranges.baseline & ~cleaned(grid, ranges, SETTINGS).baseline
    first = grid.span.index(START_NS + 600 * 10**9)
    inside = np.zeros_like(gone)
    inside[:SERIES, first - 2 : first + 32] = True
    assert not (gone & ~inside).any()
    assert gone[:SERIES].sum() >= 0.9 * SERIES * 30


def test_a_baseline_of_hiccups_is_left_as_it_is():
    noisy = Fleet(np.full(60, 10.0), WINDOWS, Noise(bursts_per_h=20.0))
    grid, ranges = parts(draw(noisy, np.random.default_rng(9)))
    assert (cleaned(grid, ranges, SETTINGS).baseline == ranges.baseline).all()


def parts(frames) -> tuple[Grid, Ranges]:
    grid = grid_of(frames.windows, span_of(now_ns(WINDOWS), SETTINGS))
    return grid, ranges_of(grid, ())


@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(10, 90), st.floats(0.0, 0.5))
def test_no_more_is_taken_than_one_stretch_that_is_long_enough_and_over(seed, length, first, rate):
    rng = np.random.default_rng(seed)
    trials = rng.poisson(50.0, (3, 120)).astype(float)
    counts = rng.binomial(trials.astype(int), 0.02).astype(float)
    counts[0, first : first + length] = rng.binomial(trials[0, first : first + length].astype(int), rate)
    baseline = np.ones((3, 120), dtype=bool)
    taken = _once(counts, trials, np.full(3, 0.02), baseline, 0.02)
    assert not taken[1:].any()
    at = np.flatnonzero(taken[0])
    if len(at):
        assert at[-1] - at[0] + 1 == len(at) >= LEAST
        assert at[-1] < 120 - CALM
        again = _once(
            np.where(taken, 0.0, counts), np.where(taken, 0.0, trials), np.full(3, 0.02), baseline & ~taken, 0.02
        )
        assert not again.any()
