"""The store's windows against the same windows computed by polars from the spans as they happened."""

from __future__ import annotations

import time
from collections.abc import Iterator

import polars as pl
import pytest

from observe.bench.fleet import Fleet, generate
from observe.frames import Frames
from observe.types import WINDOW_NS
from tests.benchmarks.reference_frames import frames_of
from tests.benchmarks.replay_fleets import batches
from tests.fixtures.stores import Opened

FRAMES = ("windows", "selfs", "edges", "gauges")


@pytest.fixture(scope="module")
def fleet() -> Fleet:
    start_ns = (time.time_ns() - 3600 * 10**9) // WINDOW_NS * WINDOW_NS
    return generate(12, 1.5, start_ns=start_ns, kind="errors_service")


@pytest.fixture(scope="module", params=["chdb", pytest.param("server", marks=pytest.mark.clickhouse)])
def stored(request: pytest.FixtureRequest, fleet: Fleet, opened_store: Opened) -> Iterator[tuple[Frames, Frames]]:
    """The frames before and after settling."""
    with opened_store(request.param) as store:
        for batch, items in batches(fleet.requests()):
            store.insert(batch, items)
        reach = fleet.start_ns, fleet.end_ns + 120 * 10**9
        before = store.frames(*reach)
        store.settle(fleet.end_ns + 600 * 10**9)
        yield before, store.frames(*reach)


@pytest.fixture(scope="module")
def reference(fleet: Fleet) -> Frames:
    return frames_of(fleet)


@pytest.mark.parametrize("name", FRAMES)
def test_the_store_and_polars_see_the_same(stored: tuple[Frames, Frames], reference: Frames, name: str) -> None:
    ours, theirs = getattr(stored[1], name), getattr(reference, name)
    keys = [c for c, kind in theirs.schema.items() if kind == pl.String and not c.endswith("trace_id")]
    keys = ["window_start_ns", *keys]
    assert ours.select(keys).equals(theirs.select(keys))
    values = [c for c in theirs.columns if c not in keys and not c.endswith("trace_id")]
    both = ours.select(*keys, *values).join(theirs.select(*keys, *values), on=keys, suffix="_reference")
    assert both.height == ours.height > 0
    for value in values:
        expected = pl.col(f"{value}_reference")
        if theirs.schema[value].is_float():
            # Times are whole nanoseconds in one and fractions of milliseconds in the other.
            differs = ((pl.col(value) - expected).abs() > 1e-3 + 1e-5 * expected.abs()) | (
                pl.col(value).is_null() != expected.is_null()
            )
        else:
            differs = pl.col(value) != expected
        allowed = both.height // 500 if value.endswith("_buckets") else 0  # a nanosecond may cross a bucket's bound
        assert both.filter(differs).height <= allowed, value


def test_settling_changes_nothing_that_is_seen(stored: tuple[Frames, Frames]) -> None:
    before, after = stored
    for name in FRAMES:
        assert getattr(before, name).equals(getattr(after, name)), name
