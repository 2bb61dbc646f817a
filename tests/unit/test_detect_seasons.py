"""What came at the same time on earlier days is no news; what is worse, longer, or came only once, is."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from observe.alert import unusual_text, usual_text
from observe.detect.grid import span_of
from observe.detect.occurrences import edges_of
from observe.detect.periods import SPECTRUM_NS, period
from observe.detect.seasons import VOTES, known_cycles, seasons, voted
from observe.frames import BLOCK_NS
from observe.settings import DetectSettings
from observe.types import WINDOW_NS, Season, Shift
from tests.unit.days import DAY_NS, MINUTE_NS, MONDAY_NS, Now, Past

SETTINGS = DetectSettings()
HOUR_NS = 60 * MINUTE_NS
START_NS = MONDAY_NS + 2 * HOUR_NS
NOW_NS = START_NS + 40 * 10**9 + int(SETTINGS.settle_s * 1e9)
TODAY = MONDAY_NS // DAY_NS


def in_job(at_ns: int, minutes: int = 20) -> bool:
    return 2 * HOUR_NS <= at_ns % DAY_NS < 2 * HOUR_NS + minutes * MINUTE_NS


def shift(measure: str = "latency_p99_ms", before: float = 255.0, after: float = 1275.0, **other: object) -> Shift:
    unit = {"error_ratio": "1", "requests_per_s": "{request}/s"}.get(measure, "ms")
    made = Shift("shop", "GET /", "Server", measure, before, after, unit, 1e-9, 200, START_NS)
    return replace(made, **other)  # type: ignore[arg-type]


SLOW = shift()


def said(past: Past, one: Shift = SLOW, now_ns: int = NOW_NS, **since: int) -> Season | None:
    return seasons([one], now_ns, SETTINGS, past, since).get(one)


@cache
def nightly(**job: object) -> Past:
    """Drawn once: days of windows."""
    return Past(lambda at: Now(**job) if in_job(at) else Now(errors=0.001))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("past", "one"),
    [
        (nightly(median_ms=500.0), SLOW),
        (nightly(median_ms=500.0), shift("latency_p95_ms", 193.0, 960.0)),
        (nightly(median_ms=500.0), shift("latency_p50_ms", 100.0, 500.0)),
        (nightly(errors=0.3), shift("error_ratio", 0.001, 0.31)),
        (nightly(requests=200), shift("requests_per_s", 5.0, 20.0)),
        (nightly(requests=0), shift("requests_per_s", 5.0, 0.0)),
    ],
    ids=["p99", "p95", "median", "errors", "traffic", "silence"],
)
def test_what_comes_every_night_is_usual_and_what_is_more_is_not(past, one):
    season = said(past, one)
    assert season is not None
    assert (season.usual, season.cycle, season.times, season.out_of) == (True, "day", 3, 3)
    assert usual_text(season).startswith("usual at this time: shop GET / ")
    if one.after:
        worse = said(past, replace(one, after=one.after * 3.0))
        assert worse is not None
        assert not worse.usual
        assert "not explained by the time of day: at this time on the last 7 days shop GET /" in unusual_text(worse)


def test_a_quantile_of_few_requests_may_be_much_higher_by_chance():
    past = nightly(median_ms=500.0)
    few, many = (said(past, shift(after=2400.0, samples=n)) for n in (150, 3000))
    assert few is not None
    assert many is not None
    assert (few.usual, many.usual) == (True, False)


@pytest.mark.parametrize(
    ("days", "usual"),
    [
        (set(), False),
        ({1}, False),  # one incident at this time yesterday
        ({1, 2}, True),
        ({1, 3}, True),
        ({4, 5, 6, 7}, True),  # weekdays, after a weekend
        ({2, 5}, False),
        ({7, 14}, True),  # on Mondays
        ({7}, False),
    ],
    ids=str,
)
def test_more_than_half_of_some_days_or_weeks_must_agree(days, usual):
    past = Past(lambda at: Now(median_ms=500.0) if in_job(at) and TODAY - at // DAY_NS in days else Now())
    season = said(past)
    assert season is not None
    assert season.usual is usual


def test_two_days_of_history_must_both_agree_and_one_says_nothing():
    def since(days: int) -> Past:
        return replace(nightly(median_ms=500.0), first_ns=START_NS - days * DAY_NS - HOUR_NS, answers={})

    two = said(since(2))
    assert two is not None
    assert (two.usual, two.times, two.out_of) == (True, 2, 2)
    assert said(since(1)) is None


def test_days_of_the_trouble_itself_are_no_earlier_days():
    """An incident that has gone on since the night before last does not excuse itself."""
    past = Past(lambda at: Now(median_ms=500.0) if at >= START_NS - 3 * DAY_NS else Now())
    assert said(past, shop=START_NS - 3 * DAY_NS - WINDOW_NS).usual is False  # type: ignore[union-attr]


def test_a_job_that_is_not_over_in_time_is_usual_no_longer():
    past = Past(lambda at: Now(median_ms=500.0) if in_job(at, 10) or at >= START_NS else Now())
    late_ns = NOW_NS + 20 * MINUTE_NS
    assert said(past).usual is True  # type: ignore[union-attr]
    assert said(past, now_ns=late_ns).usual is False  # type: ignore[union-attr]


def test_a_job_every_hour_is_found_by_its_spectrum():
    past = Past(lambda at: Now(median_ms=500.0) if (at - START_NS) % HOUR_NS < 90 * 10**9 else Now())
    season = said(replace(past, first_ns=START_NS - 30 * HOUR_NS))  # there is no second day yet
    assert season is not None
    assert (season.usual, season.cycle) == (True, "60 min")
    assert usual_text(season).startswith("usual every 60 min: shop GET / P99 ")


def test_rules_are_told_at_any_time_and_so_is_all_without_seasons():
    past = Past(lambda at: Now())
    assert said(past, shift(rule="slow")) is None
    assert seasons([SLOW], NOW_NS, SETTINGS.model_copy(update={"seasons": False}), past) == {}
    assert past.answers == {}


def test_questions_stay_the_same_from_look_to_look():
    past = replace(nightly(median_ms=500.0), answers={})
    for seconds in range(0, 120, 10):
        assert said(past, now_ns=NOW_NS + seconds * 10**9).usual  # type: ignore[union-attr]
    assert len(past.answers) <= 2


# ── voting, periods, clocks ─────────────────────────────────────────────────────────────────────────────────────────

BOOLS = st.lists(st.booleans(), max_size=9).map(lambda found: np.array(found, dtype=bool))


@given(BOOLS, st.integers(0, 8))
def test_one_cycle_more_or_less_never_decides_alone(recurs, at):
    """Taking any one cycle's word away from a single agreeing one leaves nothing usual."""
    alone = np.zeros(len(recurs), dtype=bool)
    alone[at : at + 1] = True
    assert voted(alone, alone) == 0
    if voted(recurs, recurs):
        assert recurs.sum() >= 2
        assert voted(np.ones_like(recurs), np.ones_like(recurs)) > 0


@given(BOOLS, BOOLS)
def test_more_cycles_that_agree_never_make_it_less_usual(recurs, more):
    more = np.resize(more, len(recurs)) if len(more) else np.zeros(len(recurs), dtype=bool)
    if voted(recurs, recurs, VOTES):
        assert voted(recurs | more, recurs | more, VOTES)


@given(
    st.sampled_from(["latency_p99_ms", "error_ratio", "requests_per_s"]), st.floats(1e-3, 1.0), st.floats(1.01, 50.0)
)
def test_a_level_that_now_is_no_shift_against_reaches(measure, before, factor):
    """The edges are detection's own conditions, solved for the level."""
    one = shift(measure, before, before * factor)
    edges = edges_of([one], SETTINGS)
    level = float(edges.reaches[0])
    s = SETTINGS
    if measure == "latency_p99_ms":
        moved = one.after - level > max(s.p99_min_increase * level, s.p99_min_increase_ms) * (1 + 1e-9)
    elif measure == "error_ratio":
        moved = one.after - level >= s.error_min_increase * (1 + 1e-9) and one.after >= s.error_min_ratio * level * (
            1 + 1e-9
        )
    else:
        moved = one.after >= (1.0 + s.traffic_min_change) * level * (1 + 1e-9)
    assert not moved


def noise(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).lognormal(sigma=0.3, size=SPECTRUM_NS // BLOCK_NS)


def test_noise_and_incidents_of_hours_have_no_period():
    found = 0
    for seed in range(40):
        values = noise(seed)
        values[seed::17][:3] = np.nan
        values[10 * seed : 10 * seed + 36] *= 5.0  # three hours
        found += period(values) > 0
    assert found <= 1


@pytest.mark.parametrize("minutes", [20, 30, 60, 70, 90, 120])
def test_a_job_is_found_by_what_it_does_to_one_block_of_many(minutes):
    for seed in range(4):
        values = noise(seed)
        values[seed :: minutes // 5] *= 4.0
        assert period(values) == minutes * MINUTE_NS


def test_days_go_by_the_clocks_of_a_time_zone():
    """Berlin's clocks went back on 27 October 2024: two in the morning was an hour later in UTC."""
    spring = 1_730_077_200 * 10**9  # 2024-10-28 02:00 CET
    day = known_cycles(spring, "Europe/Berlin")[0]
    assert spring - day.ends_ns[1] == 2 * DAY_NS + HOUR_NS
    assert [spring - end for end in known_cycles(spring, "UTC")[0].ends_ns[:2]] == [DAY_NS, 2 * DAY_NS]
    span = span_of(NOW_NS, SETTINGS)
    assert all(end < span.end_ns for cycle in known_cycles(span.end_ns, "UTC") for end in cycle.ends_ns)
