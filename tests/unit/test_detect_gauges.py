"""Gauges: what moved, which thing it was, and what is left alone."""

from __future__ import annotations

import numpy as np
import pytest

from observe.detect import gauge_shifts
from observe.settings import DetectSettings
from observe.types import WINDOW_NS, Interval
from tests.unit.detect_parts import frames, gauge, now_ns, window_ns

SETTINGS = DetectSettings()


def values(*levels: tuple[int, float], noise: float = 0.01, seed: int = 1) -> list[float]:
    rng = np.random.default_rng(seed)
    return [level * (1 + noise * rng.normal()) for windows, level in levels for _ in range(windows)]


def rows(series: list[float], **columns: str) -> list[dict[str, object]]:
    return [gauge(w, value, **columns) for w, value in enumerate(series)]


def test_nothing_in_nothing_out() -> None:
    assert gauge_shifts(frames([]), now_ns(50), SETTINGS) == []


@pytest.mark.parametrize(("before", "after"), [(1.98e9, 0.6e9), (0.3, 0.95), (0.0, 40.0), (-3.0, -9.0)])
def test_a_gauge_that_moved_either_way(before: float, after: float) -> None:
    moved = rows(values((60, before), (3, after)), host="gpu-7", hw_id="GPU-0", instance="a", labels="z=1,b=2")
    still = rows(values((63, 5.0)), hw_id="GPU-1")
    (shift,) = gauge_shifts(frames([], moved + still), now_ns(63), SETTINGS)
    assert (shift.service, shift.kind, shift.measure, shift.unit) == ("llm", "Metric", "hw.gpu.speed", "Hz")
    assert shift.operation == "b=2,host.name=gpu-7,hw.id=GPU-0,service.instance.id=a,z=1"
    assert shift.before == pytest.approx(before, rel=0.01)
    assert shift.after == pytest.approx(after, rel=0.03)
    assert shift.onset_ns == window_ns(60)


def test_noise_hiccups_and_small_moves_are_no_shift() -> None:
    noisy = rows(values((63, 10.0), noise=0.3), hw_id="noisy")
    hiccup = rows(values((61, 10.0), (1, 90.0), (1, 10.0)), hw_id="hiccup")
    small = rows(values((60, 100.0), (3, 107.0), noise=0.001), hw_id="small")
    short = rows(values((5, 10.0), (3, 90.0)), hw_id="short")
    assert gauge_shifts(frames([], noisy + hiccup + small), now_ns(63), SETTINGS) == []
    assert gauge_shifts(frames([], short), now_ns(8), SETTINGS) == []


def test_queue_that_is_often_busy_is_not_news() -> None:
    rng = np.random.default_rng(4)
    queue = [float(rng.choice([0, 0, 0, 20])) for _ in range(60)]
    assert gauge_shifts(frames([], rows([*queue, 20.0, 20.0, 20.0])), now_ns(63), SETTINGS) == []


def test_gauges_sent_every_minute_are_read_too() -> None:
    sent = [part for at, part in enumerate(rows(values((90, 10.0), (12, 50.0)))) if at % 6 == 0]
    (shift,) = gauge_shifts(frames([], sent), now_ns(102), SETTINGS)
    assert shift.after == pytest.approx(50.0, rel=0.05)
    assert abs(shift.onset_ns - window_ns(90)) <= 6 * WINDOW_NS


def test_abnormal_intervals_are_no_baseline() -> None:
    seen = frames([], rows(values((20, 10.0), (40, 50.0))))
    assert gauge_shifts(seen, now_ns(60), SETTINGS) == []
    for service in ("llm", ""):
        (shift,) = gauge_shifts(seen, now_ns(60), SETTINGS, [Interval(window_ns(20), now_ns(60), service)])
        assert shift.before == pytest.approx(10.0, rel=0.02)


@pytest.mark.parametrize(("whole", "unit"), [(100.0, "%"), (1.0, "1"), (100.0, ""), (1.0, "")])
@pytest.mark.parametrize("missing", [0.02, 0.5])
def test_a_share_that_was_always_whole_and_falls_by_little(whole: float, unit: str, missing: float) -> None:
    fell = rows([whole] * 60 + [whole * (1.0 - missing)] * 3, metric="availability", unit=unit)
    (shift,) = gauge_shifts(frames([], fell), now_ns(63), SETTINGS)
    assert shift.before == whole
    assert shift.after == pytest.approx(whole * (1.0 - missing))
    assert shift.onset_ns == window_ns(60)


def test_shares_that_are_nearly_whole_are_judged_by_what_is_missing() -> None:
    hits = rows(values((60, 97.0), (3, 91.0), noise=0.003), metric="hits", unit="%")
    (shift,) = gauge_shifts(frames([], hits), now_ns(63), SETTINGS)
    assert shift.after == pytest.approx(91.0, rel=0.01)


def test_small_moves_of_shares_and_of_what_is_no_share_are_left_alone() -> None:
    tenth = rows([100.0] * 60 + [99.5] * 3, metric="half a point", unit="%")
    usual = rows(([100.0] * 9 + [98.0]) * 6 + [98.0] * 3, metric="falls now and then", unit="%")
    middle = rows(values((60, 80.0), (3, 77.0), noise=0.002), metric="a fifth is missing", unit="%")
    better = rows(values((60, 92.0), (3, 99.0), noise=0.002), metric="rose", unit="%")
    warm = rows(values((60, 95.0), (3, 92.0), noise=0.001), metric="no share", unit="Cel")
    above = rows([101.0] + [100.0] * 59 + [98.0] * 3, metric="more than whole", unit="")
    assert gauge_shifts(frames([], tenth + usual + middle + better + warm + above), now_ns(63), SETTINGS) == []
