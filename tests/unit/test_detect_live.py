"""The screen passes over nothing that the exact tests tell of, and the memory is what its windows make it."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from scipy import stats

from observe.bench.series import START_NS, WINDOW_S, Fault, Fleet, Known, draw, now_ns
from observe.detect import detect
from observe.detect.live import detect_live, renew
from observe.detect.memory import Memory
from observe.detect.screen import screen
from observe.detect.statistics import chernoff, poisson_bound
from observe.detect.uneven import uneven
from observe.frames import SERVICE_WINDOWS, Frames
from observe.settings import DetectSettings
from observe.types import WINDOW_NS, Interval
from tests.unit.detect_parts import frames, row
from tests.unit.detect_parts import now_ns as parts_now_ns

SETTINGS = DetectSettings(baseline_s=1800.0)
FIRST = START_NS // WINDOW_NS
HISTORY = 190  # windows
FAULTS: tuple[tuple[Fault, float], ...] = (
    ("scale", 2.0),
    ("scale", 1.4),
    ("tail", 0.05),
    ("errors", 0.05),
    ("surge", 3.0),
    ("drop", 0.2),
    ("silence", 0.0),
)


@pytest.fixture(scope="module")
def seen() -> Frames:
    """Each fault at 2 and at 20 requests/s, and twice as many series without any."""
    rng = np.random.default_rng(4)
    onset = (HISTORY - 6) * WINDOW_S
    shifts = tuple(Known(i, FAULTS[i // 2][0], onset, FAULTS[i // 2][1]) for i in range(2 * len(FAULTS)))
    rates = np.where(np.arange(6 * len(FAULTS)) % 2 == 0, 2.0, 20.0)
    return draw(Fleet(rates, HISTORY + 6, shifts=shifts), rng)


def upto(frames: Frames, windows: int) -> Frames:
    return frames.between(0, now_ns(windows))


def test_live_tells_what_the_tests_tell_of_everything(seen: Frames) -> None:
    memory, told = Memory(SETTINGS), 0
    for look in range(HISTORY - 12, HISTORY + 6):
        at = now_ns(look)
        everything = detect(upto(seen, look), at, SETTINGS)
        assert detect_live(memory, upto(seen, look), at, SETTINGS) == everything
        told += len(everything)
    assert told > 40
    again = now_ns(HISTORY)
    assert detect_live(memory, upto(seen, HISTORY), again, SETTINGS) == detect(upto(seen, HISTORY), again, SETTINGS)
    assert memory.end == FIRST + HISTORY + 5


def test_errors_of_many_small_operations_pass_the_screen_together() -> None:
    windows = 100
    rows = [
        row(w, [20.0] * 5, errors=int(w >= 96 and (w + o) % 2 == 0), operation=f"GET /{o}")
        for w in range(windows)
        for o in range(10)
    ]
    seen = frames(rows + [row(w, [20.0] * 5, service=name) for w in range(windows) for name in ("a", "z")])
    memory, told = Memory(SETTINGS), 0
    for look in range(60, windows + 1):
        at = parts_now_ns(look)
        everything = detect(seen.between(0, at), at, SETTINGS)
        assert detect_live(memory, seen.between(0, at), at, SETTINGS) == everything
        told += len(everything)
    assert told >= 10
    assert screen(memory, SETTINGS).services == {"shop"}


def test_an_incident_from_before_the_first_look_hides_no_other_from_the_screen() -> None:
    """Both ways take it out of the baseline, or live watching would not be what a replay is."""
    faults: tuple[tuple[Fault, float], ...] = (("scale", 3.0), ("tail", 0.2), ("errors", 0.1))
    times = ((600.0, 1000.0), ((HISTORY - 6) * WINDOW_S, np.inf))
    shifts = tuple(Known(i, f, start, size, end) for i, (f, size) in enumerate(faults) for start, end in times)
    seen = draw(Fleet(np.full(9, 10.0), HISTORY + 6, shifts=shifts), np.random.default_rng(6))
    memory, told = Memory(SETTINGS), set[str]()
    for look in range(HISTORY - 6, HISTORY + 6):
        at = now_ns(look)
        everything = detect(upto(seen, look), at, SETTINGS)
        assert detect_live(memory, upto(seen, look), at, SETTINGS) == everything
        told |= {shift.service for shift in everything}
    assert len(told) == len(faults)


def test_few_quiet_series_are_tested_exactly(seen: Frames) -> None:
    memory = Memory(SETTINGS)
    quiet = seen.windows.filter(pl.col("service") >= "service-14")
    memory.fold(quiet, FIRST, FIRST + HISTORY)
    memory.last = FIRST + HISTORY + 1
    assert len(screen(memory, SETTINGS).services) <= 3


def test_folding_window_by_window_is_folding_at_once(seen: Frames) -> None:
    once, each = Memory(SETTINGS), Memory(SETTINGS)
    once.fold(seen.windows, FIRST, FIRST + HISTORY)
    for window in range(FIRST, FIRST + HISTORY):
        each.fold(seen.windows, window, window + 1)
    one, other = once.reference(), each.reference()
    assert once.keys.sort("service").equals(each.keys.sort("service"))
    order = [each.keys["service"].to_list().index(name) for name in once.keys["service"]]
    assert (once.requests == each.requests[:, order]).all()
    assert (once.beyond == each.beyond[:, :, order]).all()
    assert (one.columns == other.columns[:, order]).all()
    assert (one.ranks == other.ranks[order]).all()


def test_stragglers_are_counted(seen: Frames) -> None:
    late = seen.windows.filter(
        (pl.col("window_start_ns") // WINDOW_NS != FIRST + 100) | (pl.col("service") > "service-2")
    )
    memory, whole = Memory(SETTINGS), Memory(SETTINGS)
    renew(memory, late, FIRST + HISTORY)
    renew(whole, seen.windows, FIRST + HISTORY)
    assert (memory.requests != whole.requests).any()
    renew(memory, seen.windows, FIRST + HISTORY)
    assert (memory.requests == whole.requests).all()


def test_services_in_incidents_are_always_tested(seen: Frames) -> None:
    memory = Memory(SETTINGS)
    memory.fold(seen.windows, FIRST, FIRST + HISTORY)
    assert "service-40" in screen(memory, SETTINGS, {"service-40", "unheard-of"}).services
    assert "unheard-of" not in screen(memory, SETTINGS, {"unheard-of"}).services
    at = now_ns(HISTORY)
    everywhere = [Interval(at - 60 * 10**9, at)]
    assert detect_live(memory, upto(seen, HISTORY), at, SETTINGS, everywhere) == detect(
        upto(seen, HISTORY), at, SETTINGS, everywhere
    )


def test_what_is_gone_is_forgotten(seen: Frames) -> None:
    memory = Memory(SETTINGS)
    memory.fold(seen.windows, FIRST, FIRST + HISTORY)
    known = memory.series
    later = [pl.col("window_start_ns") + times * HISTORY * WINDOW_NS for times in (1, 2)]
    few = seen.windows.filter(pl.col("service") < "service-05")
    left = pl.concat([few.with_columns(start) for start in later])
    memory.fold(left, FIRST + HISTORY, FIRST + 3 * HISTORY)
    assert (known, memory.series) == (42, 5)
    assert memory.reference().requests.shape == (5,)
    assert int(memory.requests.sum()) == int(
        left.filter((pl.col("window_start_ns") // WINDOW_NS).is_between(memory.end - memory.length, memory.end - 1))[
            "requests"
        ].sum()
    )


def test_what_was_never_seen_has_a_bound() -> None:
    assert poisson_bound(np.array([0.0, 3.0]), np.zeros(2)).tolist() == [0.0, -np.inf]


def test_chernoff_bounds_the_tail_from_above() -> None:
    count, mean = np.meshgrid(np.arange(1.0, 60.0), np.array([0.01, 0.5, 3.0, 20.0]))
    exact = stats.poisson(mean).sf(count - 1)
    assert (np.exp(chernoff(count, mean)) >= exact * (1 - 1e-9))[count > mean].all()


def test_a_fault_that_comes_again_is_seen_in_spite_of_a_past_that_holds_it() -> None:
    """The tests take the first time out of the baseline; the screen must not go by a reference with it."""
    again = (HISTORY - 6) * WINDOW_S
    kinds: tuple[tuple[Fault, float], ...] = (("errors", 0.1), ("scale", 3.0), ("tail", 0.15), ("scale", 1.8))
    shifts = tuple(
        Known(i, kinds[i // 3][0], onset, kinds[i // 3][1], end)
        for i in range(3 * len(kinds))
        for onset, end in [(600.0, 1000.0), (again, np.inf)]
    )
    frames = draw(Fleet(np.full(3 * len(kinds) + 12, 20.0), HISTORY + 6, shifts=shifts), np.random.default_rng(6))
    memory, told = Memory(SETTINGS), set()
    for look in range(HISTORY - 8, HISTORY + 6):
        at = now_ns(look)
        everything = detect(upto(frames, look), at, SETTINGS)
        assert detect_live(memory, upto(frames, look), at, SETTINGS) == everything
        told |= {shift.service for shift in everything}
    assert len(told) >= 10
    assert memory.reference().uneven.sum() >= 8


def test_uneven_pasts_are_told_from_chance() -> None:
    """Stretches of five minutes: few requests with a stray error are not uneven, an incident among many is."""
    rng = np.random.default_rng(8)
    requests = rng.poisson(np.repeat([[70.0, 70.0, 3000.0, 3000.0]], 9, axis=0)).astype(np.float32)
    bad = rng.binomial(requests.astype(int), 0.005, (2, 9, 4)).astype(np.float32)
    bad[1, 4, 0] = 2  # of 70, where the median has none
    bad[0, 3:5, 2] = 450  # slow ones, twice in a row
    found, calm = uneven(requests, bad)
    assert found.tolist() == [False, False, True, False]
    assert calm[0, 2] == pytest.approx(0.005, abs=0.002)


def test_histograms_are_read_whatever_arrow_makes_of_them() -> None:
    """Slices, empty histograms and missing ones."""
    rows = [{"bucket": 3, "count": 2}, {"bucket": 9, "count": 1}]
    lists = pl.Series([rows, None, [], rows[:1], rows], dtype=SERVICE_WINDOWS["latency_buckets"])
    windows = pl.DataFrame({
        "window_start_ns": [WINDOW_NS * at for at in range(5)], "service": "a", "operation": "b", "kind": "Server",
        "version": "", "requests": [3, 0, 0, 2, 3], "errors": 0, "duration_sum_ms": 0.0, "latency_buckets": lists,
    }).select(pl.col(name).cast(kind) for name, kind in SERVICE_WINDOWS.items())  # fmt: skip
    for first in (0, 1, 3):
        memory = Memory(SETTINGS)
        memory.fold(windows[first:], first, 5)
        assert memory.requests[memory.rows(5 - first), 0].tolist() == [3, 0, 0, 2, 3][first:]
        assert memory._open.sum() == sum([3, 0, 0, 2, 3][first:])
