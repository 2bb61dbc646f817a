"""Fixed thresholds: what holds, for how long, and for whom."""

from __future__ import annotations

import pytest

from observe.detect.rules import evaluate
from observe.settings import DetectSettings, Rule
from tests.unit.detect_parts import frames, gauge, now_ns, row, window_ns


def settings(**rule: object) -> DetectSettings:
    return DetectSettings(rules=(Rule.model_validate({"name": "r", "measure": "error_ratio"} | rule),))


def errors(*per_window: int, service: str = "shop", operation: str = "GET /") -> list[dict[str, object]]:
    return [row(w, [10.0] * 10, errors=n, service=service, operation=operation) for w, n in enumerate(per_window)]


def test_no_rules_no_shifts() -> None:
    assert evaluate(frames(errors(9, 9)), now_ns(2), DetectSettings()) == []


def test_a_rule_that_holds() -> None:
    (shift,) = evaluate(frames(errors(0, 1, 5, 6, 7)), now_ns(5), settings(above=0.2, for_s=30))
    assert (shift.rule, shift.measure, shift.unit, shift.p_value) == ("r", "error_ratio", "1", 0.0)
    assert (shift.before, shift.after, shift.samples) == (0.05, 0.6, 30)
    assert shift.onset_ns == window_ns(2)


@pytest.mark.parametrize(
    ("per_window", "for_s", "holds"),
    [
        ((0, 0, 0, 5), 0, True),
        ((0, 0, 0, 5), 10, True),
        ((0, 0, 0, 5), 11, False),
        ((0, 0, 5, 5), 11, True),
        ((5, 5, 5, 2), 0, False),
        ((5, 5, 2, 5), 20, False),
    ],
)
def test_it_must_have_held_in_every_window(per_window: tuple[int, ...], for_s: float, holds: bool) -> None:
    found = evaluate(frames(errors(*per_window)), now_ns(len(per_window)), settings(above=0.2, for_s=for_s))
    assert bool(found) is holds


def test_a_window_without_data_breaks_the_run() -> None:
    rows = [part for part in errors(9, 9, 9, 9) if part["window_start_ns"] != window_ns(2)]
    assert evaluate(frames(rows), now_ns(4), settings(above=0.2, for_s=20)) == []
    assert evaluate(frames(rows), now_ns(5), settings(above=0.2)) == []


def test_windows_that_have_not_settled_are_not_read() -> None:
    assert evaluate(frames(errors(0, 0, 9)), now_ns(2), settings(above=0.2)) == []


def test_patterns_name_services_and_operations() -> None:
    rows = errors(9, service="shop-a") + errors(9, service="shop-b", operation="POST /pay") + errors(9, service="db")
    found = evaluate(frames(rows), now_ns(1), settings(above=0.2, service="shop-*", operation="POST*"))
    assert [(s.service, s.operation) for s in found] == [("shop-b", "POST /pay")]


def test_rules_come_in_order() -> None:
    both = DetectSettings(rules=(Rule(name="b", measure="error_ratio", above=0.2),
                                 Rule(name="a", measure="requests_per_s", above=0.5)))  # fmt: skip
    assert [s.rule for s in evaluate(frames(errors(9)), now_ns(1), both)] == ["b", "a"]


@pytest.mark.parametrize(
    ("measure", "bound", "holds"),
    [
        ("latency_p50_ms", 15.0, False),
        ("latency_p50_ms", 8.0, True),
        ("latency_p95_ms", 50.0, True),
        ("latency_p99_ms", 90.0, True),
        ("latency_p99_ms", 110.0, False),
    ],
)
def test_quantiles(measure: str, bound: float, holds: bool) -> None:
    rows = [row(w, [10.0] * 90 + [100.0] * 10) for w in range(3)]
    found = evaluate(frames(rows), now_ns(3), settings(measure=measure, above=bound, for_s=20))
    assert bool(found) is holds
    assert all(
        s.unit == "ms" and s.after == pytest.approx(10.0 if "p50" in measure else 100.0, rel=0.045) for s in found
    )
    below = evaluate(frames(rows), now_ns(3), settings(measure=measure, below=bound, for_s=20))
    assert bool(below) is not holds


def test_traffic_below_a_bound_counts_empty_windows() -> None:
    rows = [row(w, [1.0] * 100) for w in range(4)] + [row(w, [1.0] * 5, service="other") for w in range(7)]
    found = evaluate(frames(rows), now_ns(7), settings(measure="requests_per_s", below=0.2, for_s=30))
    assert [(s.service, s.before, s.after, s.onset_ns) for s in found] == [("shop", 10.0, 0.0, window_ns(4))]


def test_gauges() -> None:
    gauges = [
        gauge(w, 0.95 if w > 1 else 0.4, metric="vllm:kv_cache_usage_perc", hw_id="GPU-0", unit="1") for w in range(5)
    ]
    gauges += [gauge(w, 0.5, metric="vllm:kv_cache_usage_perc", hw_id="GPU-1", unit="1") for w in range(5)]
    (shift,) = evaluate(
        frames([], gauges), now_ns(5), settings(measure="vllm:kv_cache_usage_perc", above=0.9, for_s=30)
    )
    assert (shift.service, shift.operation, shift.kind) == ("llm", "hw.id=GPU-0", "Metric")
    assert (shift.before, shift.after, shift.onset_ns, shift.unit) == (0.4, 0.95, window_ns(2), "1")
