"""Each rule of the attribution on a system that shows it, and shares that add up."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from observe.diagnose import diagnose
from observe.diagnose.attribution import latency
from observe.diagnose.graph import Picture, picture
from observe.frames import Frames
from observe.settings import DiagnoseSettings
from observe.types import Shift
from tests.unit.diagnose_parts import NOW, ONSET, WHEN, edge_rows, frames, self_rows

WINDOWS = 40


def varied(level: tuple[float, float], seed: int, spread: float = 0.04) -> np.ndarray:
    """A mean per window that goes from the one to the other at window 30, and is never quite still."""
    noise = 1 + spread * np.random.default_rng(seed).standard_normal(WINDOWS)
    return np.where(np.arange(WINDOWS) < 30, *level) * noise


def serving(service: str, own: np.ndarray, lasted: np.ndarray, **columns: object) -> pl.DataFrame:
    table = self_rows(service, 1.0, 1.0, **columns)
    return table.with_columns(self_sum_ms=table["requests"] * own, duration_sum_ms=table["requests"] * lasted)


def calling(caller: str, callee: str, took: np.ndarray, **columns: object) -> pl.DataFrame:
    table = edge_rows(caller, callee, (1.0, 1.0), (1.0, 1.0), **columns)
    total = pl.Series(table["calls"].to_numpy() * took)
    return table.with_columns(client_sum_ms=total, server_sum_ms=total)


def shares(view: Picture, service: str) -> dict[str, float]:
    """Time of its own that each service adds to the change of one."""
    (split,) = latency(view, np.array([view.services.index(service)]))
    assert split.rest == pytest.approx(0, abs=0.05 * abs(split.total) + 0.06 * view.nodes.duration_ms[0].max())
    return dict(zip(view.services, split.own.tolist(), strict=True))


def gateway(b: np.ndarray, c: np.ndarray, d: np.ndarray) -> Picture:
    """`a` asks b and c at once, and then d."""
    own = varied((5.0, 5.0), 1)
    selfs = [
        serving("a", own, own + np.maximum(b, c) + d),
        *(serving(n, x, x) for n, x in zip("bcd", (b, c, d), strict=True)),
    ]
    return picture(frames(selfs, [calling("a", n, x) for n, x in zip("bcd", (b, c, d), strict=True)]), WHEN)


def test_of_parallel_calls_only_the_one_that_is_waited_for_counts():
    found = shares(gateway(varied((50, 50), 2), varied((20, 100), 3), varied((10, 10), 4)), "a")
    assert found["c"] == pytest.approx(50, rel=0.1)
    assert abs(found["b"]) < 3


def test_a_parallel_call_that_stays_the_shorter_one_explains_nothing():
    found = shares(gateway(varied((100, 100), 2), varied((20, 85), 3), varied((10, 40), 4)), "a")
    assert found["d"] == pytest.approx(30, rel=0.15)
    assert abs(found["c"]) < 5


@settings(deadline=None, max_examples=12)
@given(st.tuples(*[st.tuples(st.floats(5, 100), st.floats(5, 100))] * 3), st.integers(0, 10**6))
def test_shares_of_parallel_calls_add_up(levels, seed):
    b, c, d = (varied(level, seed + i) for i, level in enumerate(levels))
    shares(gateway(b, c, d), "a")


def told(frames: Frames, service: str, measure: str = "latency_p99_ms") -> list[tuple[str, float]]:
    """Services of the first diagnosis with their shares."""
    shift = Shift(service, "/x", "Server", measure, 10.0, 90.0, "ms", 1e-9, 900, ONSET)
    (found, *_) = diagnose([shift], frames, NOW, DiagnoseSettings())
    return [(cause.service, cause.share) for cause in found.causes]


def test_more_calls_of_the_slow_operation_are_the_callers_doing_and_not_slowness():
    """Ten calls for each request, of which six instead of one go to the slow operation; both are as fast as ever."""
    quick, slow = varied((5.0, 5.0), 2, 0.01), varied((80.0, 80.0), 3, 0.01)
    few, many = [900, 100], [400, 600]
    parts = []
    for w in range(WINDOWS):
        for operation, took, calls in zip(("/quick", "/slow"), (quick, slow), many if w >= 30 else few, strict=True):
            parts.append((w, operation, float(took[w]), calls))

    def rows(table: pl.DataFrame, count: str, times: tuple[str, ...], operation: str) -> pl.DataFrame:
        made = pl.DataFrame(parts, schema=["w", "op", "took", "n"], orient="row")
        base = table.with_row_index("w").with_columns(pl.col("w").cast(pl.Int64))
        return (
            base.join(made, on="w")
            .with_columns(pl.col("op").alias(operation), pl.col("n").cast(pl.UInt64).alias(count))
            .with_columns((pl.col("n") * pl.col("took")).alias(name) for name in times)
            .select(table.columns)
        )

    own = varied((5.0, 5.0), 1, 0.01)
    waited = np.where(np.arange(WINDOWS) < 30, 9 * quick + slow, 4 * quick + 6 * slow)
    b = rows(self_rows("b", 1, 1), "requests", ("self_sum_ms", "duration_sum_ms"), "operation")
    edge = rows(edge_rows("a", "b", (1, 1), (1, 1)), "calls", ("client_sum_ms", "server_sum_ms"), "callee_operation")
    ((first, share), *_) = told(frames([serving("a", own, own + waited), b], [edge]), "a")
    assert (first, share > 0.8) == ("a", True)


def test_a_callers_timeout_does_not_hide_the_slow_callee():
    """Calls are given up after a second; the callee goes on for five, and its spans say so."""
    own, served = varied((5.0, 5.0), 1), varied((50.0, 5000.0), 2)
    gave_up = np.minimum(served, 1000.0)
    late = pl.int_range(pl.len()) >= 30
    selfs = [
        serving("a", own, own + gave_up).with_columns(errors=pl.when(late).then(90).otherwise(0).cast(pl.UInt64)),
        serving("a", gave_up * 0 + 0.5, gave_up, kind="Client", operation="GET").with_columns(
            origin_errors=pl.when(late).then(90).otherwise(0).cast(pl.UInt64)
        ),
        serving("b", served, served),
    ]
    edge = calling("a", "b", gave_up).with_columns(
        server_sum_ms=pl.Series(100 * served), errors=pl.when(late).then(90).otherwise(0).cast(pl.UInt64)
    )
    assert told(frames(selfs, [edge]), "a", "error_ratio")[0][0] == "b"
    assert told(frames(selfs, [edge]), "a")[0][0] == "b"


def test_a_slow_way_between_two_healthy_services_is_no_self_time_of_either():
    own, served = varied((5.0, 5.0), 1), varied((20.0, 20.0), 2)
    way = varied((1.0, 60.0), 3)
    selfs = [serving("a", own, own + served + way), serving("b", served, served)]
    edge = calling("a", "b", served + way).with_columns(server_sum_ms=pl.Series(100 * served))
    view = picture(frames(selfs, [edge]), WHEN)
    (split,) = latency(view, np.array([0]))
    assert split.edge[0] == pytest.approx(59, rel=0.05)
    assert np.abs(split.own).max() < 2
    assert split.rest == pytest.approx(0, abs=2)


def test_a_new_callee_is_the_doing_of_the_service_that_calls_it():
    own, extra = varied((5.0, 5.0), 1), varied((0.0, 40.0), 2)
    since = np.arange(WINDOWS) >= 30
    c = serving("c", np.where(since, 40.0, 1.0), np.where(since, 40.0, 1.0)).filter(pl.Series(since))
    edge = calling("a", "c", np.full(WINDOWS, 40.0)).filter(pl.Series(since))
    ((first, share), *_) = told(frames([serving("a", own, own + extra), c], [edge]), "a")
    assert (first, share > 0.8) == ("a", True)


def test_a_pair_that_calls_and_sends_messages_waits_for_the_calls():
    own, served = varied((5.0, 5.0), 1), varied((20.0, 80.0), 2)
    selfs = [serving("a", own, own + served), serving("b", served, served)]
    messages = calling("a", "b", varied((0.1, 0.1), 3), connection="messaging", calls=300)
    both = [calling("a", "b", served), messages.with_columns(callee_operation=pl.lit("/queue"))]
    ((first, share), *_) = told(frames(selfs, both), "a")
    assert (first, share > 0.8) == ("b", True)


@pytest.mark.parametrize(("calls", "guilty"), [(2, "b"), (6, "a")])
def test_more_calls_than_failures_ask_for_are_the_callers_doing(calls, guilty):
    """Half of the calls fail since the onset: two for each request are retries, six are not."""
    late = pl.int_range(pl.len()) >= 30
    own, served = varied((5.0, 5.0), 1), varied((20.0, 20.0), 2)
    many = np.where(np.arange(WINDOWS) < 30, 1, calls)
    failing = {"errors": pl.when(late).then(50 * calls).otherwise(0).cast(pl.UInt64)}
    b = serving("b", served, served).with_columns(
        pl.Series("requests", 100 * many, pl.UInt64),
        pl.Series("self_sum_ms", 100 * many * served),
        pl.Series("duration_sum_ms", 100 * many * served),
        origin_errors=failing["errors"],
        **failing,
    )
    edge = calling("a", "b", served).with_columns(
        pl.Series("calls", 100 * many, pl.UInt64),
        *(pl.Series(name, 100 * many * served) for name in ("client_sum_ms", "server_sum_ms")),
        **failing,
    )
    ((first, share), *_) = told(frames([serving("a", own, own + many * served), b], [edge]), "a")
    assert (first, share > 0.8) == (guilty, True)
