"""The order of work in `watch` and `replay`, with a store double and a look that is told what to find."""

import itertools
from dataclasses import replace

import polars as pl
import pytest

from observe import pipeline
from observe.errors import Unavailable
from observe.frames import PROGRESS, empty
from observe.looks import unpack
from observe.settings import load
from observe.types import Incident, Severity, State
from observe.verdict import Unjoined

SECOND = 10**9
SETTINGS = load(environ={})


def incident(id_: str, at_s: int, *, state: State = State.FIRING, fired: bool = True, severity=Severity.WARNING):
    at_ns = at_s * SECOND
    resolved_ns = at_ns if state is State.RESOLVED else None
    return Incident(
        id_, 1, state, severity, id_, at_ns, at_ns, at_ns, resolved_ns, (), (), fired_ns=at_ns if fired else None
    )


def looks(count, clock_ns=10**18):
    """A `wait_until` that stops after so many looks of a fleet that sends nothing."""
    last_ns = pipeline.next_look_ns(clock_ns, SETTINGS) + (count - 1) * 10 * SECOND
    return lambda at_ns: at_ns <= last_ns


class Store:
    def __init__(self, saved=()):
        self.saved = list(saved)
        self.asked = []
        self.joined = []
        self.settled = []
        self.away = 0
        self.kept = []

    def settle(self, now_ns):
        if self.away:
            self.away -= 1
            raise Unavailable("gone for a moment")
        self.settled.append(now_ns)
        return 0

    def progress(self, from_ns):
        return pl.DataFrame(schema=PROGRESS)

    def frames(self, from_ns, to_ns, *, joins=True):
        self.asked.append((from_ns, to_ns))
        self.joined.append(joins)
        return empty()

    def incidents(self, **_):
        return list(self.saved)

    def save_incidents(self, incidents):
        self.saved += incidents

    def save_look(self, at_ns, inputs, kept):
        self.kept += [(at_ns, unpack(inputs), [i.id for i in kept])]


def test_an_incident_is_saved_before_anybody_is_told(monkeypatch):
    store = Store()
    seen = []

    def look(frames, known, now_ns, settings, ask, memory):
        return [incident("a", now_ns // SECOND)] if not known else []

    def tell_checks(incidents, now_ns):
        seen.append([i.id for i in incidents])
        assert [i.id for i in store.saved] == ["a"]

    monkeypatch.setattr(pipeline, "look", look)
    pipeline.watch(store, tell_checks, SETTINGS, clock=lambda: 10**18, wait_until=looks(2))
    assert seen == [["a"], ["a"]]
    ((at_ns, look, ids),) = store.kept
    assert (look.at_ns, look.known, ids) == (at_ns, (), ["a"])


def test_self_times_and_edges_are_read_only_for_what_is_to_be_explained(monkeypatch):
    """Seven looks: quiet ones, one at which something is wrong, and those while the incident is open."""
    store, looked = Store(), []
    opened_ns = pipeline.next_look_ns(10**18, SETTINGS) + 30 * SECOND

    def look(frames, known, now_ns, settings, asked, memory):
        if now_ns == opened_ns and not asked.joined:
            raise Unjoined
        looked.append(asked.joined)
        return [incident("a", now_ns // SECOND)] if now_ns == opened_ns else []

    monkeypatch.setattr(pipeline, "look", look)
    pipeline.watch(store, lambda *_: None, SETTINGS, clock=lambda: 10**18, wait_until=looks(7))
    assert store.joined == [False, False, False, False, True, True, True, True]
    assert looked == [False, False, False, True, True, True, True]
    assert len(store.settled) == 1 + 3  # at the start, and at each look of the incident


def test_inputs_that_cannot_be_kept_end_no_watch(monkeypatch):
    store = Store()
    told = []

    def fail(*_):
        raise ValueError("too much")

    store.save_look = fail
    found = iter([[incident("a", 999_990)], [incident("b", 999_990)]])
    monkeypatch.setattr(pipeline, "look", lambda *_: next(found))
    tell = lambda seen, _: told.append({i.id for i in seen})  # noqa: E731
    pipeline.watch(store, tell, SETTINGS, clock=lambda: 10**18, wait_until=looks(2))
    assert told == [{"a"}, {"a", "b"}]


def test_a_store_that_is_away_is_asked_again_and_open_incidents_are_restored(monkeypatch):
    store = Store(saved=[incident("old", 999_990)])
    store.away = 2
    known_at_look = []

    def look(frames, known, now_ns, settings, ask, memory):
        known_at_look.append([i.id for i in known])
        return []

    monkeypatch.setattr(pipeline, "look", look)
    told = []
    pipeline.watch(store, lambda i, now: told.append(now), SETTINGS, clock=lambda: 10**18, wait_until=looks(4))
    assert len(told) == 4  # the first look found the store away twice, and was made all the same
    assert known_at_look == [["old"]] * 4


def test_looks_come_when_a_window_has_just_settled():
    settings = load(environ={}, options={"detect.settle_s": 12})
    first = pipeline.next_look_ns(1_000_000 * SECOND, settings)
    assert first == 1_000_002 * SECOND  # window [999 980, 999 990) + 12 s
    assert pipeline.next_look_ns(first, settings) == first + 10 * SECOND


def test_replay_reports_what_fired_worst_first_and_drops_what_did_not(monkeypatch):
    script = {
        3: [incident("warn", 30), incident("pending", 30, state=State.PENDING, fired=False)],
        5: [incident("crit", 50, severity=Severity.CRITICAL)],
        7: [replace(incident("warn", 30, state=State.RESOLVED), version=2)],
    }
    counter = iter(range(1000))
    monkeypatch.setattr(pipeline, "look", lambda *_: script.get(next(counter), []))
    result = pipeline.replay(lambda a, b: empty(), 0, 120 * SECOND, SETTINGS)
    assert [(i.id, i.version) for i in result] == [("crit", 1), ("warn", 2)]


@pytest.mark.parametrize("hours", [0.5, 3])
def test_replay_reads_in_chunks_and_looks_at_every_window_once(monkeypatch, hours):
    asked, looked = [], []
    monkeypatch.setattr(pipeline, "look", lambda frames, known, now_ns, settings, ask: looked.append(now_ns) or [])

    def read(from_ns, to_ns):
        asked.append((from_ns, to_ns))
        return empty()

    end = int(hours * 3600) * SECOND
    pipeline.replay(read, 0, end, SETTINGS)
    assert len(asked) == max(1, int(hours))
    assert asked[-1][1] == end
    assert looked == sorted(set(looked))
    assert {b - a for a, b in itertools.pairwise(looked)} == {10 * SECOND}
    settle = int(SETTINGS.detect.settle_s) * SECOND
    assert looked[0] <= 10 * SECOND  # the first window of the stretch
    assert looked[-1] > end + settle - 10 * SECOND  # and the last one, once it has settled
