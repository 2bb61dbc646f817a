"""Two versions side by side: promoted, held, or rolled back, whatever the mix of operations, minutes and tokens."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from observe.detect.canary import compare, released
from observe.detect.strata import Outcome, Strata, compared
from observe.frames import TOKEN_WINDOWS
from observe.settings import CanarySettings, DetectSettings, load
from observe.verdict import rollbacks
from tests.unit.detect_parts import frames, now_ns, row, window_ns
from tests.unit.test_detect_tokens import calls_of

DETECT, CANARY = DetectSettings(), CanarySettings()


def side_by_side(
    seed, *, windows=60, n=(60, 12), slow=(1.0, 1.0), wrong=(0.0, 0.0), shares=(0.5, 0.5), drift=0.0, first=0
):
    """Two operations, 20 ms and 200 ms; `shares` of each version's requests go to the slow one."""
    rng = np.random.default_rng(seed)
    rows = []
    for window in range(windows):
        level = np.exp(drift * np.sin(window / 9))
        for v in (0, 1):
            if v and window < first:
                continue
            for operation, ms, part in (("GET /", 20, 1 - shares[v]), ("POST /", 200, shares[v])):
                count = int(rng.poisson(n[v] * part))
                latencies = ms * slow[v] * level * rng.lognormal(0, 0.4, count)
                errors = int(rng.binomial(count, wrong[v])) if count else 0
                if count:
                    rows.append(row(window, list(latencies), errors=errors, operation=operation, version=f"v{v + 1}"))
    return frames(rows)


def verdict(seen, **options):
    return compare(seen, "shop", "v1", "v2", DETECT, CANARY, **options)


def test_an_equal_version_is_promoted():
    found = verdict(side_by_side(1))
    assert found.verdict == "promote", found.reasons
    assert found.side_by_side
    assert {check.finding for check in found.checks} <= {"same", "better"}


@pytest.mark.parametrize("fault", [{"slow": (1.0, 2.0)}, {"wrong": (0.005, 0.08)}])
def test_a_worse_version_is_rolled_back_and_the_reason_names_numbers(fault):
    found = verdict(side_by_side(2, **fault))
    assert found.verdict == "roll back"
    worse = {check.measure for check in found.checks if check.finding == "worse"}
    assert worse == ({"latency_p99_ms", "latency_p95_ms", "latency_p50_ms"} if "slow" in fault else {"error_ratio"})
    assert all("p = " in reason for reason in found.reasons)


def test_another_mix_of_operations_is_no_difference():
    seen = side_by_side(3, shares=(0.1, 0.9), n=(80, 40))
    assert verdict(seen).verdict == "promote"


def test_a_minute_in_which_everything_was_slow_is_no_difference():
    # The candidate takes its traffic in the slow half of the hour only.
    seen = side_by_side(4, drift=1.0, first=25)
    assert verdict(seen).verdict != "roll back"


def test_few_requests_are_held():
    found = verdict(side_by_side(5, n=(60, 1), windows=30))
    assert found.verdict == "hold"
    assert any("are needed" in reason for reason in found.reasons)


def test_one_error_of_three_requests_rolls_nothing_back():
    rows = [row(w, [20.0] * 30, version="v1") for w in range(30)] + [row(3, [20.0] * 3, errors=1, version="v2")]
    assert verdict(frames(rows)).verdict == "hold"


def test_versions_one_after_the_other_are_held_unless_clearly_worse():
    rng = np.random.default_rng(6)

    def after(factor):
        return frames([
            row(w, list(20 * (factor if w >= 30 else 1) * rng.lognormal(0, 0.3, 60)), version="v2" if w >= 30 else "v1")
            for w in range(60)
        ])  # fmt: skip

    held = verdict(after(1.0))
    assert (held.verdict, held.side_by_side) == ("hold", False)
    assert any("side by side" in reason for reason in held.reasons)
    assert verdict(after(3.0)).verdict == "roll back"


def test_an_unknown_version_is_held():
    found = compare(side_by_side(7), "shop", "v1", "v9", DETECT, CANARY)
    assert (found.verdict, found.requests, found.checks) == ("hold", (0, 0), ())
    assert len(found.reasons) == 2


def model_calls(seed, prompts, decode):
    rng = np.random.default_rng(seed)
    plain, tokens = [], []
    for window in range(60):
        for v in (0, 1):
            inputs = np.maximum(rng.lognormal(np.log(prompts[v]), 0.6, 25), 2).astype(int)
            outputs = np.maximum(rng.lognormal(np.log(80), 0.4, 25), 2).astype(int)
            first = 30 + 0.5 * inputs * rng.lognormal(0, 0.1, 25)
            whole, cells = calls_of(window, inputs, outputs, first, first + decode[v] * outputs)
            plain.append(whole | {"version": f"v{v + 1}"})
            tokens += [cell | {"version": f"v{v + 1}"} for cell in cells]
    return replace(frames(plain), tokens=pl.DataFrame(tokens, schema=TOKEN_WINDOWS))


def test_longer_prompts_do_not_speak_against_a_version():
    found = compare(model_calls(8, (500, 4000), (20, 20)), "llm", "v1", "v2", DETECT, CANARY)
    assert (found.verdict, found.given_tokens) == ("promote", True), found.reasons


def test_a_slower_engine_is_found_under_shorter_prompts():
    found = compare(model_calls(9, (3000, 300), (20, 34)), "llm", "v1", "v2", DETECT, CANARY)
    assert found.verdict == "roll back"


def test_a_release_is_seen_where_both_versions_take_traffic():
    seen = side_by_side(10, first=40)
    assert released(seen, window_ns(60)) == [("shop", "v1", "v2", window_ns(40))]
    assert released(seen, window_ns(40)) == []
    swapped = pl.concat([seen.windows.filter(pl.col("version") == "v1").head(60)], how="vertical")
    assert released(frames(swapped.to_dicts()), window_ns(60)) == []


def test_a_bad_release_is_told_by_the_watcher_but_neither_a_cold_start_nor_one_hiccup_is():
    def told(slow_windows):
        rng = np.random.default_rng(12)
        rows = []
        for w in range(60):
            rows.append(row(w, list(20 * rng.lognormal(0, 0.3, 60)), version="v1"))
            if w >= 30:
                slow = 4 if w in slow_windows else 1
                rows.append(row(w, list(20 * slow * rng.lognormal(0, 0.3, 40)), version="v2"))
        return rollbacks(frames(rows), now_ns(60), load(environ={}))

    (found,) = told(range(30, 60))
    assert (found.causes[0].kind, found.causes[0].resource) == ("version", "v2")
    assert found.symptoms[0].onset_ns == window_ns(30)
    assert told({30, 31, 32}) == []
    assert told({45}) == []
    assert told(()) == []


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_labels_that_are_swapped_give_the_opposite(seed):
    rng = np.random.default_rng(seed)
    n = rng.integers(1, 40, (7, 3, 2)).astype(float)
    errors = np.floor(n * rng.uniform(0, 0.5, n.shape))
    one = Strata(n, errors, np.zeros((7, 3, 2, 1)), 0)
    two = Strata(n[..., ::-1], errors[..., ::-1], one.histograms, 0)
    a, b = compared(one, one.error_outcome()), compared(two, two.error_outcome())
    assert (a.before, a.after) == pytest.approx((b.after, b.before))
    assert a.p == pytest.approx(b.p_better)


def test_equal_versions_look_this_bad_as_often_as_p_says():
    rng = np.random.default_rng(11)
    n = np.stack([rng.integers(20, 60, (12, 2)), rng.integers(5, 20, (12, 2))], axis=2).astype(float)
    p = []
    for _ in range(600):
        errors = rng.binomial(n.astype(int), 0.1).astype(float)
        p.append(compared(Strata(n, errors, np.zeros((12, 2, 2, 1)), 0), Outcome(errors, errors)).p)
    assert np.mean(np.array(p) <= 0.05) == pytest.approx(0.05, abs=0.03)
    assert np.mean(np.array(p) <= 0.5) == pytest.approx(0.5, abs=0.07)
