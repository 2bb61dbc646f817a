"""When a window is judged, and that in the end live watching has said what a replay says."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import orjson
import polars as pl
import pytest

from observe import pipeline
from observe.frames import PROGRESS, Frames, empty
from observe.revise import Published, sealed
from observe.settings import DetectSettings, load
from observe.telemetry import REVISED
from observe.types import WINDOW_NS, State
from observe.watermark import Watermark
from observe.wire import incident_json
from tests.unit.detect_parts import START_NS, frames, row, window_ns
from tests.unit.test_pipeline_watch import incident

SECOND = 10**9
DETECT = DetectSettings()


def progress(**sent):
    rows = [
        {"source": s, "window_start_ns": w * WINDOW_NS, "items": n} for s, part in sent.items() for w, n in part.items()
    ]
    return pl.DataFrame(rows, schema=PROGRESS)


def watched(lags_s, windows=12):
    """A watermark that has seen sources whose windows were complete so long after their ends."""
    mark = Watermark(DETECT)
    for now_s in range(windows * 10 + 70):
        seen = {source: {w: 5 for w in range(windows) if now_s >= w * 10 + 10 + lag} for source, lag in lags_s.items()}
        mark.saw(progress(**seen), now_s * SECOND)
    return mark


def test_a_window_is_judged_before_its_time_where_all_sources_are_past_it():
    mark = watched({"a": 2, "b": 3})
    end = 12 * 10
    mark.saw(progress(a={12: 1}, b={11: 5}), (end + 3) * SECOND)
    assert not mark.passed(end * SECOND, (end + 5) * SECOND)
    mark.saw(progress(a={12: 2}, b={12: 1}), (end + 5) * SECOND)
    assert mark.passed(end * SECOND, (end + 5) * SECOND)


def test_a_source_that_is_always_late_is_waited_for_and_one_that_fell_silent_is_not():
    mark = watched({"a": 2, "late": 31})
    end = 12 * 10
    mark.saw(progress(a={12: 1}), (end + 3) * SECOND)
    assert not mark.passed(end * SECOND, (end + 20) * SECOND)
    assert mark.passed(end * SECOND, (end + 33) * SECOND)
    mark = watched({"a": 2, "b": 2})
    later = end + 20  # b sends nothing any more
    mark.saw(progress(a={12: 1, 13: 1, 14: 1}), (later + 3) * SECOND)
    assert not mark.passed(later * SECOND, (later + 8) * SECOND)
    assert mark.passed(later * SECOND, (later + 12) * SECOND)
    idle = end + 70
    mark.saw(progress(a={18: 1, 19: 1}), (idle + 3) * SECOND)
    assert mark.passed(idle * SECOND, (idle + 4) * SECOND)


def test_nobody_is_waited_for_longer_than_the_settings_say():
    mark = watched({"a": 2, "hours": 65})
    end = 12 * 10
    mark.saw(progress(a={12: 1}), (end + 3) * SECOND)
    assert mark.passed(end * SECOND, (end + DETECT.max_lag_s + 1) * SECOND)
    assert max(mark.lags_s(end * SECOND).values()) <= DETECT.max_lag_s + 1e-6


def test_what_was_there_at_the_start_says_nothing_of_lags():
    mark = Watermark(DETECT)
    mark.saw(progress(a=dict.fromkeys(range(9), 5)), 95 * SECOND)
    assert mark.lags_s(90 * SECOND) == {"a": DETECT.settle_s}
    assert mark.passed(90 * SECOND, 102 * SECOND)


def test_without_any_source_the_window_settles_by_the_clock():
    mark = Watermark(DETECT)
    assert not mark.passed(0, 11 * SECOND)
    assert mark.passed(0, 12 * SECOND)


def test_a_look_sees_nothing_of_what_comes_after_its_end_but_that_it_came():
    seen = frames([row(w, [20.0] * 5) for w in range(5)])
    cut = sealed(seen, window_ns(3))
    assert cut.windows["window_start_ns"].to_list() == [window_ns(w) for w in range(4)]
    assert cut.windows.row(3, named=True)["requests"] == 0
    more = frames([row(w, [20.0] * (5 if w < 3 else 99)) for w in range(5)])
    assert sealed(more, window_ns(3)).windows.equals(cut.windows)
    assert sealed(seen, window_ns(5)).windows.equals(seen.windows)


# ── live and replay ─────────────────────────────────────────────────────────────────────────────────────────────────

WINDOWS, FAULT, END, TAIL_S = 34, 18, 26, 130
SETTINGS = load(environ={}, options={"detect.baseline_s": 300, "diagnose.attributes": False})


def history(seed):
    """Windows of two services; errors in one of them, from FAULT to END."""
    rng = np.random.default_rng(seed)
    rows = []
    for w in range(WINDOWS):
        for service in ("shop", "stock"):
            bad = 9 if service == "shop" and FAULT <= w < END else 0
            rows.append(row(w, list(rng.lognormal(3, 0.2, 40)), errors=bad, service=service))
    return frames(rows)


class ArrivingStore:
    """Rows of windows become visible as they arrive; the clock is moved by the watcher's waits."""

    def __init__(self, whole, arrived_ns):
        self.rows = whole.windows.with_columns(arrived_ns=pl.Series(arrived_ns, dtype=pl.Int64))
        self.now_ns = START_NS + 10 * WINDOW_NS
        self.saved = {}
        self.versions = []

    def clock(self):
        return self.now_ns

    def wait_until(self, at_ns):
        self.now_ns = max(self.now_ns, at_ns)
        return self.now_ns <= window_ns(WINDOWS) + TAIL_S * SECOND

    def visible(self):
        return self.rows.filter(pl.col("arrived_ns") <= self.now_ns).drop("arrived_ns")

    def settle(self, now_ns):
        return 0

    def progress(self, from_ns):
        named = pl.col("service").alias("source"), "window_start_ns", pl.col("requests").alias("items")
        return self.visible().filter(pl.col("window_start_ns") >= from_ns).select(*named)

    def frames(self, from_ns, to_ns, *, joins=True):
        return replace(empty(), windows=self.visible()).between(from_ns, to_ns)

    def incidents(self, **_):
        return []

    def save_incidents(self, found):
        for one in found:
            assert one.id not in self.saved or one.version >= self.saved[one.id].version, "a version went back"
            self.saved[one.id] = one

    def save_look(self, *_):
        pass


def live(seed, delays_s, settings=SETTINGS):
    """What was saved and told by watching rows that arrive so long after their windows' ends."""
    whole = history(seed)
    arrived = whole.windows["window_start_ns"].to_numpy() + WINDOW_NS + (np.asarray(delays_s) * SECOND).astype(np.int64)
    store, told = ArrivingStore(whole, arrived), {}
    pipeline.watch(
        store, lambda found, now_ns: told.update({i.id: i for i in found}), settings,
        clock=store.clock, wait_until=store.wait_until,
    )  # fmt: skip
    return store.saved, told


@cache
def replayed(seed):
    whole = history(seed)

    def read(from_ns: int, to_ns: int) -> Frames:
        return whole.between(from_ns, to_ns)

    return pipeline.replay(read, START_NS + 10 * WINDOW_NS, window_ns(WINDOWS) + TAIL_S * SECOND, SETTINGS)


def bytes_of(incidents, *, version=True):
    bodies = [incident_json(i) for i in incidents]
    kept = [body if version else {k: v for k, v in body.items() if k != "version"} for body in bodies]
    return orjson.dumps(sorted(kept, key=lambda body: body["id"]), option=orjson.OPT_SORT_KEYS)


def test_arrival_in_any_order_before_a_window_is_judged_gives_the_bytes_of_a_replay():
    saved, told = live(1, np.random.default_rng(1).uniform(0.2, 8, 2 * WINDOWS))
    expected = replayed(1)
    assert len(expected) == 1
    assert bytes_of(told.values()) == bytes_of(expected)
    assert bytes_of(i for i in saved.values() if i.fired_ns) == bytes_of(expected)


@pytest.mark.parametrize(("seed", "share"), [(2, 0.05), (3, 0.3)])
def test_stragglers_make_looks_again_until_live_says_what_a_replay_says(seed, share):
    rng = np.random.default_rng(seed)
    late = rng.random(2 * WINDOWS) < share
    before = REVISED._value.get()
    saved, _ = live(1, np.where(late, rng.uniform(15, 120, 2 * WINDOWS), rng.uniform(0.2, 8, 2 * WINDOWS)))
    stands = [i for i in saved.values() if i.fired_ns is not None]
    assert REVISED._value.get() > before
    assert bytes_of(stands, version=False) == bytes_of(replayed(1), version=False)
    assert all(i.state is State.RESOLVED for i in saved.values())


def test_what_comes_after_the_allowed_lateness_changes_nothing():
    delays = np.full(2 * WINDOWS, 2.0)
    delays[4] = 100.0
    before = REVISED._value.get()
    settings = load(
        environ={}, options={"detect.baseline_s": 300, "diagnose.attributes": False, "detect.lateness_s": 20}
    )
    saved, told = live(1, delays, settings)
    assert REVISED._value.get() == before
    assert told.keys() == {i.id for i in saved.values() if i.fired_ns}


def test_an_incident_that_late_data_refute_is_taken_back_once():
    published = Published()
    (first,) = published.of([incident("a", 50)])
    (ended,) = published.revised({}, 0, 90 * SECOND)
    assert (ended.id, ended.state, ended.version, ended.fired_ns) == ("a", State.RESOLVED, first.version + 1, None)
    assert published.told() == [ended]
    assert published.revised({}, 0, 90 * SECOND) == []


def test_versions_that_people_were_told_never_go_back():
    published = Published()
    published.of([replace(incident("a", 50), version=3)])
    anew = replace(incident("a", 50), version=1)
    assert published.revised({"a": anew}, 0, 90 * SECOND) == []  # nothing new, but for its number
    (later,) = published.of([replace(anew, version=2)])
    assert later.version == 4
