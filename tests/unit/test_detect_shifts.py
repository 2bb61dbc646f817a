"""What detect says about frames made by hand: effects, evidence, persistence, and what must not matter."""

from __future__ import annotations

import dataclasses

import numpy as np
import polars as pl
import pytest

from observe import frames as shapes
from observe.detect import detect
from observe.frames import Frames
from observe.settings import DetectSettings
from observe.types import WINDOW_NS, Interval
from tests.unit.detect_parts import bucket, frames, now_ns, row, window_ns

SETTINGS = DetectSettings()


def latencies(rng: np.random.Generator, n: int, factor: float = 1.0) -> list[float]:
    return list(factor * np.exp(rng.normal(3.0, 0.5, n)))


def history(rng: np.random.Generator, windows: int = 60, n: int = 50, service: str = "shop") -> list[dict[str, object]]:
    return [row(w, latencies(rng, n), service=service) for w in range(windows)]


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


def slow(rng: np.random.Generator, factor: float = 3.0, windows: int = 3, n: int = 50) -> list[dict[str, object]]:
    return history(rng, 60, n) + [row(60 + w, latencies(rng, n, factor)) for w in range(windows)]


def test_nothing_in_nothing_out() -> None:
    assert detect(shapes.empty(), now_ns(10), SETTINGS) == []


def test_steady_series_says_nothing(rng: np.random.Generator) -> None:
    assert detect(frames(history(rng, 63)), now_ns(63), SETTINGS) == []


def test_slow_requests_are_a_p99_shift(rng: np.random.Generator) -> None:
    (shift,) = detect(frames(slow(rng)), now_ns(63), SETTINGS)
    assert (shift.service, shift.operation, shift.kind, shift.rule) == ("shop", "GET /", "Server", "")
    assert (shift.measure, shift.unit, shift.samples) == ("latency_p99_ms", "ms", 150)
    assert shift.before == pytest.approx(np.exp(3.0 + 2.326 * 0.5), rel=0.15)
    assert shift.after / shift.before == pytest.approx(3.0, rel=0.4)
    assert shift.p_value < 1e-6
    assert shift.onset_ns == window_ns(60)


def test_faster_is_no_incident(rng: np.random.Generator) -> None:
    assert detect(frames(slow(rng, factor=0.3)), now_ns(63), SETTINGS) == []


def test_small_but_certain_change_is_not_worth_telling(rng: np.random.Generator) -> None:
    assert detect(frames(slow(rng, factor=1.15, n=2_000)), now_ns(63), SETTINGS) == []


def test_change_below_the_absolute_bound_is_not_worth_telling(rng: np.random.Generator) -> None:
    rows = [row(w, [0.2 if w < 60 else 0.6] * 50) for w in range(63)]
    assert detect(frames(rows), now_ns(63), SETTINGS) == []
    lower = SETTINGS.model_copy(update={"p99_min_increase_ms": 0.1})
    assert [s.measure for s in detect(frames(rows), now_ns(63), lower)] == ["latency_p99_ms"]


def test_one_slow_window_is_a_hiccup(rng: np.random.Generator) -> None:
    for position in (60, 61, 62):
        rows = history(rng, 63)
        rows[position] = row(position, latencies(rng, 50, 5.0))
        assert detect(frames(rows), now_ns(63), SETTINGS) == []


def test_a_slow_window_lends_no_effect_to_a_level_that_drifts(rng: np.random.Generator) -> None:
    """A release: half of one window slow, and all of it 12 % slower since. That is certain, and not worth telling."""
    for since in (3, 4):
        rows = [row(w, narrow(rng, 1_000, 1.0 if w < 90 else 1.12)) for w in range(90 + since)]
        rows[90] = row(90, [*narrow(rng, 500), *narrow(rng, 500, 8.0)])
        assert detect(frames(rows), now_ns(len(rows)), SETTINGS) == []
    rows[91:] = [row(w, narrow(rng, 1_000, 1.5)) for w in range(91, 94)]
    assert [s.measure for s in detect(frames(rows), now_ns(94), SETTINGS)] == ["latency_p99_ms"]


def narrow(rng: np.random.Generator, n: int, factor: float = 1.0) -> list[float]:
    return list(factor * np.exp(rng.normal(4.0, 0.3, n)))


def test_one_of_three_slow_requests_never_pages(rng: np.random.Generator) -> None:
    for n_slow in (1, 2, 3):
        rows = [row(w, latencies(rng, 1)) for w in range(120)]
        for at in range(117, 117 + n_slow):
            rows[at] = row(at, [900.0])
        assert detect(frames(rows), now_ns(120), SETTINGS) == []


def test_one_slow_request_among_many_never_pages(rng: np.random.Generator) -> None:
    rows = history(rng, 63)
    rows[62] = row(62, [*latencies(rng, 49), 60_000.0])
    assert detect(frames(rows), now_ns(63), SETTINGS) == []


def test_low_traffic_is_read_over_a_longer_range(rng: np.random.Generator) -> None:
    rows = [row(w, latencies(rng, 4, 1.0 if w < 180 else 8.0)) for w in range(186)]
    (shift,) = detect(frames(rows), now_ns(186), SETTINGS)
    assert shift.measure == "latency_p99_ms"
    assert shift.samples >= SETTINGS.min_requests
    assert abs(shift.onset_ns - window_ns(180)) <= WINDOW_NS


def test_a_fault_of_few_requests_is_found(rng: np.random.Generator) -> None:
    rows = history(rng, 120, 200)
    rows += [row(120 + w, [*latencies(rng, 190), *latencies(rng, 10, 20.0)]) for w in range(3)]
    (shift,) = detect(frames(rows), now_ns(123), SETTINGS)
    assert shift.measure == "latency_p99_ms"
    assert shift.after > 3 * shift.before


def test_p50_alone_where_the_tail_stays(rng: np.random.Generator) -> None:
    """A tail of time-outs hides the rest from P95 and P99."""

    def mixed(factor: float) -> list[float]:
        return [*latencies(rng, 90, factor), *[5_000.0] * 10]

    rows = [row(w, mixed(1.0 if w < 60 else 2.0)) for w in range(63)]
    assert [s.measure for s in detect(frames(rows), now_ns(63), SETTINGS)] == ["latency_p50_ms"]


def test_a_shift_that_has_passed_is_not_told(rng: np.random.Generator) -> None:
    rows = slow(rng, windows=3) + [row(63 + w, latencies(rng, 50)) for w in range(12)]
    told = [bool(detect(frames(rows[: 63 + w]), now_ns(63 + w), SETTINGS)) for w in range(12)]
    assert told == [True] + [False] * 11


def test_errors(rng: np.random.Generator) -> None:
    rows = [row(w, latencies(rng, 50), errors=int(w % 20 == 0) if w < 60 else 8) for w in range(63)]
    (shift,) = detect(frames(rows), now_ns(63), SETTINGS)
    assert (shift.measure, shift.unit, shift.samples) == ("error_ratio", "1", 150)
    assert shift.after == pytest.approx(24 / 150)
    assert shift.before == pytest.approx(3 / 3000, rel=0.3)
    assert shift.onset_ns == window_ns(60)


def test_errors_of_one_window_or_below_the_effect_are_not_told(rng: np.random.Generator) -> None:
    hiccup = [row(w, latencies(rng, 50), errors=10 if w == 61 else 0) for w in range(63)]
    few = [row(w, latencies(rng, 2_000), errors=0 if w < 60 else 30) for w in range(63)]
    assert detect(frames(hiccup), now_ns(63), SETTINGS) == []
    assert detect(frames(few), now_ns(63), SETTINGS) == []


def test_new_operation_is_held_against_its_service(rng: np.random.Generator) -> None:
    def rows(errors: int, kind: str = "Server") -> list[dict[str, object]]:
        new = [row(60 + w, latencies(rng, 20), errors=errors, operation="POST /new", kind=kind) for w in range(3)]
        return history(rng, 63) + new

    (shift,) = detect(frames(rows(errors=10)), now_ns(63), SETTINGS)
    assert (shift.operation, shift.measure, shift.onset_ns) == ("POST /new", "error_ratio", window_ns(60))
    assert detect(frames(rows(errors=0)), now_ns(63), SETTINGS) == []
    assert detect(frames(rows(errors=10, kind="Client")), now_ns(63), SETTINGS) == []


def test_two_hiccups_among_few_requests_are_no_shift(rng: np.random.Generator) -> None:
    """Half of a window slow, four windows apart: a range of twelve holds them among counts that are few on average."""
    hiccups = {170, 174}
    rows = []
    for w in range(179):
        part = latencies(rng, 25)
        slow_ones = [8.0 * ms for ms in part[:13]] if w in hiccups else part[:13]
        rows.append(row(w, slow_ones + part[13:]))
    for look in range(172, 180):
        assert detect(frames(rows[:look]), now_ns(look), SETTINGS) == []


def many_operations(failing: int, operations: int = 10, kind: str = "Server") -> Frames:
    """Operations of one service at 0.5 requests/s each, of which some fail once in five times from window 60 on."""
    each = [
        row(w, [20.0] * 5, errors=int(w >= 60 and o < failing), operation=f"GET /{o}", kind=kind)
        for w in range(64)
        for o in range(operations)
    ]
    return frames(each + [row(w, [20.0] * 5, service="other") for w in range(64)])


def test_operations_too_small_to_be_sure_of_are_told_by_their_service() -> None:
    found = detect(many_operations(failing=10), now_ns(64), SETTINGS)
    assert {(s.service, s.measure) for s in found} == {("shop", "error_ratio")}
    assert len(found) == 10
    for shift in found:
        assert (shift.before, shift.samples) == (0.0, 15)
        assert shift.after == pytest.approx(0.2)
        assert (shift.onset_ns, shift.p_value < 1e-6) == (window_ns(60), True)


def test_an_operation_that_does_not_fail_is_not_told_by_its_service() -> None:
    found = detect(many_operations(failing=6), now_ns(64), SETTINGS)
    assert {s.operation for s in found} == {f"GET /{o}" for o in range(6)}


def test_one_operation_has_nobody_to_vouch_for_it() -> None:
    assert detect(many_operations(failing=1, operations=1), now_ns(64), SETTINGS) == []
    assert detect(many_operations(failing=1), now_ns(64), SETTINGS) == []


def test_history_shorter_than_asked_is_not_judged(rng: np.random.Generator) -> None:
    def after(windows: int) -> list[str]:
        rows = history(rng, windows, 100) + [row(windows + w, latencies(rng, 100, 10.0)) for w in range(3)]
        return [s.measure for s in detect(frames(rows), now_ns(windows + 3), SETTINGS)]

    assert after(8) == []
    assert after(9) == ["latency_p99_ms"]


def test_warm_up_is_no_shift(rng: np.random.Generator) -> None:
    """Slow, failing first requests and growing traffic, then steady: at no look a word."""
    rows = []
    for w in range(40):
        warm = max(0.0, 1.0 - w / 6)
        n = int(100 * (1 - 0.7 * warm))
        rows.append(row(w, latencies(rng, n, 1 + 9 * warm), errors=int(0.2 * warm * n)))
    for look in range(3, 41):
        assert detect(frames(rows[:look]), now_ns(look), SETTINGS) == []


def test_abnormal_intervals_are_no_baseline(rng: np.random.Generator) -> None:
    rows = history(rng, 60) + [row(60 + w, latencies(rng, 50, 3.0)) for w in range(60)]
    at = now_ns(120)
    assert detect(frames(rows), at, SETTINGS) == []
    for service in ("shop", ""):
        (shift,) = detect(frames(rows), at, SETTINGS, [Interval(window_ns(60), at, service)])
        assert shift.before == pytest.approx(np.exp(3.0 + 2.326 * 0.5), rel=0.15)
        assert abs(shift.onset_ns - window_ns(60)) <= WINDOW_NS
    assert detect(frames(rows), at, SETTINGS, [Interval(window_ns(60), at, "other")]) == []


def test_silence_of_one_service(rng: np.random.Generator) -> None:
    others = history(rng, 130, 50, service="other")
    found = detect(frames(history(rng, 120, 50) + others), now_ns(128), SETTINGS)
    assert [(s.service, s.measure, s.after, s.samples) for s in found] == [("shop", "requests_per_s", 0.0, 0)]
    assert found[0].before == pytest.approx(5.0)
    assert found[0].onset_ns == window_ns(120)


def test_the_end_of_all_telemetry_is_nobodys_silence(rng: np.random.Generator) -> None:
    rows = history(rng, 120, 50) + history(rng, 120, 50, service="other")
    rows += [row(120, latencies(rng, 10)), row(120, latencies(rng, 10), service="other")]
    for look in range(118, 150):
        seen = frames(rows).between(0, now_ns(look))
        assert detect(seen, now_ns(look), SETTINGS) == []


def test_a_gap_of_all_telemetry_is_nobodys_silence(rng: np.random.Generator) -> None:
    there = [w for w in range(160) if not 120 <= w < 130]
    rows = [row(w, latencies(rng, 50), service=s) for w in there for s in ("shop", "other")]
    for look in range(118, 150):
        assert detect(frames(rows).between(0, now_ns(look)), now_ns(look), SETTINGS) == []


@pytest.mark.parametrize(("factor", "told"), [(0.2, True), (0.7, False), (1.3, False), (3.0, True)])
def test_traffic(rng: np.random.Generator, factor: float, told: bool) -> None:
    def n(w: int) -> int:
        return int(rng.poisson(100 * (factor if w >= 120 else 1.0)))

    rows = [row(w, latencies(rng, n(w))) for w in range(130)] + history(rng, 130, 50, service="other")
    found = detect(frames(rows), now_ns(128), SETTINGS)
    assert [(s.service, s.measure) for s in found] == [("shop", "requests_per_s")] * told
    for shift in found:
        assert shift.after / shift.before == pytest.approx(factor, rel=0.15)
        assert abs(shift.onset_ns - window_ns(120)) <= WINDOW_NS


def test_a_renamed_operation_is_no_silence(rng: np.random.Generator) -> None:
    rows = [row(w, latencies(rng, 50), operation="old" if w < 120 else "new") for w in range(130)]
    rows += history(rng, 130, 50, service="other")
    assert detect(frames(rows), now_ns(128), SETTINGS) == []


def test_histograms_sent_as_metrics_are_latencies_without_errors_or_traffic(rng: np.random.Generator) -> None:
    rows = [
        row(w, latencies(rng, 50 if w < 120 else 500, 1.0 if w < 120 else 4.0), kind="Metric", operation="ttft")
        for w in range(130)
    ] + history(rng, 130, 50, service="other")
    (shift,) = detect(frames(rows), now_ns(123), SETTINGS)
    assert (shift.kind, shift.operation, shift.measure) == ("Metric", "ttft", "latency_p99_ms")


def test_versions_add_up(rng: np.random.Generator) -> None:
    rows = slow(rng)
    split = []
    for at, whole in enumerate(rows):
        part = {**whole, "version": "2", "requests": 0, "errors": 0, "latency_buckets": []}
        split += [part, whole] if at % 2 else [{**whole, "version": "3"}, part]
    assert detect(frames(split), now_ns(63), SETTINGS) == detect(frames(rows), now_ns(63), SETTINGS)


def test_order_of_rows_changes_nothing(rng: np.random.Generator) -> None:
    seen = frames(slow(rng) + history(rng, 63, service="other"))
    shuffled = dataclasses.replace(seen, windows=seen.windows.sample(fraction=1.0, shuffle=True, seed=3))
    assert detect(shuffled, now_ns(63), SETTINGS) == detect(seen, now_ns(63), SETTINGS)


def test_names_change_nothing(rng: np.random.Generator) -> None:
    seen = frames(slow(rng) + history(rng, 63, service="other"))
    renamed = dataclasses.replace(seen, windows=seen.windows.with_columns(pl.col("service").replace("shop", "zzz")))
    (one,), (other,) = detect(seen, now_ns(63), SETTINGS), detect(renamed, now_ns(63), SETTINGS)
    query = one.query.replace("service=shop", "service=zzz")
    assert other == dataclasses.replace(one, service="zzz", query=query)


@pytest.mark.parametrize("octaves", [-3, 5])
def test_scaling_all_latencies_scales_the_shift(rng: np.random.Generator, octaves: int) -> None:
    settings = SETTINGS.model_copy(update={"p99_min_increase_ms": 0.0})
    seen = frames(slow(rng))
    entry = pl.struct(
        (pl.element().struct.field("bucket") + 16 * octaves).cast(pl.Int16).alias("bucket"),
        pl.element().struct.field("count").alias("count"),
    )
    scaled: Frames = dataclasses.replace(
        seen, windows=seen.windows.with_columns(pl.col("latency_buckets").list.eval(entry))
    )
    (one,), (other,) = detect(seen, now_ns(63), settings), detect(scaled, now_ns(63), settings)
    assert other.after == pytest.approx(one.after * 2**octaves)
    assert (other.p_value, other.samples, other.onset_ns) == (one.p_value, one.samples, one.onset_ns)


def test_larger_effects_are_surer(rng: np.random.Generator) -> None:
    seed = rng.integers(1 << 30)
    p = []
    for factor in (1.8, 2.5, 5.0):
        (shift,) = detect(frames(slow(np.random.default_rng(seed), factor)), now_ns(63), SETTINGS)
        p.append(shift.p_value)
    assert p == sorted(p, reverse=True)


def test_hostile_bucket_numbers_cost_no_memory(rng: np.random.Generator) -> None:
    odd = row(10, [1.0])
    odd["latency_buckets"] = [{"bucket": -32_000, "count": 1}, {"bucket": 32_000, "count": 1}]
    assert [s.measure for s in detect(frames([odd, *slow(rng)]), now_ns(63), SETTINGS)] == ["latency_p99_ms"]


def test_buckets_by_hand() -> None:
    assert (bucket(1.0), bucket(1.01), bucket(2.0)) == (-1, 0, 15)
