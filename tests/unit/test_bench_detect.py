"""NAB's score, the detector of single gauges, the folder of labelled gauges, and ticks by number of series."""

from __future__ import annotations

import numpy as np
import orjson
import polars as pl
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from observe.bench import detect, nab, ticks
from observe.bench.rivals import Rival, z_loop
from observe.cli import cli
from observe.detect.streaming import LEVEL, QUIET, WARM_UP, surprises, told
from observe.errors import BadRecord, Misconfigured

POINTS = 1200
TIME_S = 300.0 * np.arange(POINTS)
WINDOW = (float(TIME_S[600]), float(TIME_S[699]))


def at(*points):
    detected = np.zeros(POINTS, dtype=bool)
    detected[list(points)] = True
    return detected


def score(*points, windows=(WINDOW,)):
    return nab.score(at(*points), TIME_S, windows)


# ── NAB ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_perfect_is_100_and_nothing_is_0():
    assert score(600).normalised == pytest.approx(100.0)
    assert score().normalised == 0.0
    assert nab.Score().normalised is None


def test_of_a_window_only_the_first_detection_counts():
    assert score(650, 660, 699).points == score(650).points
    assert score(650).found == 1
    # (2 / (1 + exp(5 x)) - 1) at x = -0.5, over its value at -1
    assert score(650).points == pytest.approx(0.848284 / 0.986614, abs=1e-5)


def test_a_false_alarm_costs_less_right_behind_a_window():
    missed = score().points
    assert score(300).points - missed == pytest.approx(-nab.FALSE_ALARM)
    assert score(1100).points - missed == pytest.approx(-nab.FALSE_ALARM)
    assert -nab.FALSE_ALARM / 2 < score(705).points - missed < 0
    assert score(300, 705).false_alarms == 2


def test_nothing_counts_in_probation():
    assert nab.probation(POINTS) == 180
    assert score(0, 179) == score()
    assert score(180).false_alarms == 1
    early = (float(TIME_S[100]), float(TIME_S[179]))
    assert score(650, windows=(early, WINDOW)) == score(650)
    reaching = score(185, windows=((float(TIME_S[100]), float(TIME_S[199])),))
    assert reaching.points == pytest.approx((2 / (1 + np.exp(-5 * 0.15)) - 1) / 0.986614, abs=1e-5)


def test_a_series_is_scored_as_the_public_scorer_scores_it():
    """Two windows, found late and early, and alarms before, right behind and far behind; each by its own formula."""

    def sigmoid(position):
        return 2.0 / (1.0 + np.exp(5.0 * position)) - 1.0

    windows = (WINDOW, (float(TIME_S[800]), float(TIME_S[849])))
    found = (sigmoid(-(699 - 690 + 1) / 100) + sigmoid(-(849 - 805 + 1) / 50)) / sigmoid(-1.0)
    alarms = -1.0 + sigmoid((720 - 699) / 99) + sigmoid((870 - 849) / 49) - 1.0
    assert score(400, 690, 695, 720, 805, 870, 1150, windows=windows).points == pytest.approx(found + 0.11 * alarms)


def test_without_windows_every_detection_costs_the_whole():
    assert score(300, 900, windows=()).points == pytest.approx(-2 * nab.FALSE_ALARM)


@given(st.integers(600, 698))
def test_earlier_is_better(point):
    assert score(point).points > score(point + 1).points >= 0


# ── the detector ────────────────────────────────────────────────────────────────────────────────────────────────────


def noise(seed, points=POINTS):
    return 50.0 + np.random.default_rng(seed).normal(0.0, 1.0, points)


def steps(value):
    return told(surprises(value), 180)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_level_that_moves_is_told_at_once(sign):
    value = noise(1)
    value[800:] += sign * 8.0
    found = steps(value)
    assert 800 in found or 801 in found
    assert len(found) <= 8


def test_a_small_lasting_shift_is_found_by_the_longer_means():
    value = noise(2)
    value[800:] += 2.0
    assert any(800 <= point < 864 for point in steps(value))


def test_noise_that_grows_is_told():
    value = noise(3)
    value[800:] = 50.0 + 4.0 * (value[800:] - 50.0)
    assert surprises(value)[800:832].max() > -np.log(LEVEL)


def test_a_flat_line_is_never_news_and_its_end_is():
    value = np.full(POINTS, 45.0)
    assert not surprises(value).any()
    value[700] = 46.0
    assert steps(value).tolist()[0] == 700


def test_noise_alone_is_seldom_told():
    told_of = sum(len(steps(noise(seed))) for seed in range(10))
    assert told_of <= 2 * LEVEL * 10 * (POINTS - 180)  # tails are fitted to few points at first


def test_missing_points_are_no_news():
    value = noise(4)
    value[500:520] = np.nan
    assert not surprises(value)[500:520].any()
    assert surprises(np.full(300, np.nan)).tolist() == [0.0] * 300


def test_unit_and_offset_of_time_do_not_matter():
    value = noise(5)
    value[800:] += 8.0
    assert steps(value * 1024.0).tolist() == steps(value).tolist()


@hypothesis_settings(max_examples=20, deadline=None)
@given(st.integers(0, 500), st.integers(1, 400))
def test_the_future_changes_nothing(seed, known):
    value = np.random.default_rng(seed).gamma(1.0, 1.0, 420)
    np.testing.assert_allclose(surprises(value)[:known], surprises(value[:known]), rtol=1e-9)


@given(st.lists(st.floats(0.0, 30.0), max_size=400), st.integers(0, 200))
def test_what_is_told_keeps_its_distance(surprise, first):
    points = told(np.array(surprise), first)
    assert (np.diff(points) > QUIET).all()
    assert (points >= first).all()
    assert all(surprise[point] > -np.log(LEVEL) for point in points)


def test_short_series_are_not_judged():
    assert surprises(np.zeros(0)).tolist() == []
    assert not surprises(noise(6, WARM_UP)).any()


# ── folders ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def folder(tmp_path):
    shifted = noise(7)
    shifted[610:] += 10.0
    cases = [{"case": "shifted.csv", "windows_s": [list(WINDOW)]}, {"case": "quiet.csv", "windows_s": []}]
    (tmp_path / "cases.json").write_bytes(orjson.dumps(cases))
    pl.concat(
        [
            pl.DataFrame({"case": name, "time_s": TIME_S.astype(np.int64), "value": value})
            for name, value in (("quiet.csv", np.full(POINTS, 1.0)), ("shifted.csv", shifted))
        ]
    ).with_columns(pl.col("case").cast(pl.Categorical)).write_parquet(tmp_path / "metrics.parquet")
    return tmp_path


def test_the_command_prints_detections_and_scores(folder):
    answer = CliRunner().invoke(cli, ["bench", "detect", "--data", str(folder), "--json"], standalone_mode=False)
    assert answer.exception is None
    result = orjson.loads(answer.stdout)
    shifted, quiet = result["cases"]
    assert shifted["case"] == "shifted.csv"
    assert any(TIME_S[610] <= found["time_s"] <= TIME_S[614] for found in shifted["detections"])
    assert min(found["score"] for found in shifted["detections"]) > 6.2
    assert (quiet["detections"], quiet["nab"], quiet["nab_points"]) == ([], None, 0.0)
    scores = result["scores"]
    assert set(scores) == {"observe", "null", "always_on", "random", "robust_z_loop"}
    assert scores["observe"]["nab"] > 70
    assert scores["null"]["nab"] == 0.0
    assert scores["always_on"]["nab"] < -100
    assert scores["random"]["nab"] < scores["observe"]["nab"]
    assert scores["robust_z_loop"]["found"] == 1


def test_lines_for_people(folder):
    answer = CliRunner().invoke(cli, ["bench", "detect", "--data", str(folder)], standalone_mode=False)
    assert "shifted.csv" in answer.stdout
    assert "NAB 0.0" in answer.stdout


def test_what_is_no_such_folder_is_refused(tmp_path, folder):
    with pytest.raises(Misconfigured, match=r"cases\.json"):
        list(detect.series(tmp_path / "elsewhere"))
    (folder / "cases.json").write_bytes(orjson.dumps([{"case": "shifted.csv"}]))
    (wrong,) = detect.detect_data(folder)["cases"]
    assert "windows_s" in wrong["error"]
    pl.DataFrame({"case": ["shifted.csv"], "value": [1.0]}).write_parquet(folder / "metrics.parquet")
    with pytest.raises(Misconfigured, match="time_s"):
        list(detect.series(folder))


# ── ticks ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_ticks_measure_detection_and_rivals_on_the_same_windows():
    arguments = ["bench", "detect", "--series", "5", "--no-sql", "--json"]
    answer = CliRunner().invoke(cli, arguments, standalone_mode=False)
    assert answer.exception is None
    (tick,) = orjson.loads(answer.stdout)["ticks"]
    assert tick["series"] == 5
    assert tick["seconds"] > 0
    assert tick["cold_cpu_seconds"] > 0
    assert tick["peak_mib"] >= tick["held_mib"] >= 0
    parts = tick["fold_cpu_seconds"] + tick["screen_cpu_seconds"] + tick["tests_cpu_seconds"]
    assert 0 < parts <= 2 * tick["slowest_cpu_seconds"]
    loop = tick["rivals"]["robust_z_loop"]
    assert loop["over_detect"] == pytest.approx(loop["cpu_seconds"] / tick["cpu_seconds"], rel=0.2)
    assert "told_share" in tick["rivals"]["pelt"] or "not installed" in tick["rivals"]["pelt"]["skipped"]


def test_more_series_than_are_drawn_are_copies():
    pool = ticks.Pool(3, 20, seed=1)
    windows = pool.windows(8, 0, 20)
    assert windows["service"].n_unique() == 8
    assert windows["window_start_ns"].is_sorted()
    one = windows["service"].min()
    assert pool.services([one], 20).equals(windows.filter(pl.col("service") == one).select(pool.all.columns))


def test_a_rival_takes_as_much_for_each_series():
    rival = z_loop(ticks.Pool(4, 40, seed=1).all, 4)
    assert rival.at(8, 0.1)["cpu_seconds"] == pytest.approx(2 * rival.at(4, 0.1)["cpu_seconds"], abs=2e-4)
    assert Rival(0, 0.0, 0, "not here").at(8, 0.1) == {"skipped": "not here"}


def test_folders_of_the_format_may_hold_anything(tmp_path):
    """Gaps, missing and infinite values, constants, too short, too large, unsorted, steps of a second or an hour."""
    rng, n = np.random.default_rng(0), 1500
    usual = rng.normal(10.0, 1.0, n)
    broken = usual + 20.0 * ((np.arange(n) >= 1200) & (np.arange(n) < 1230))
    gap = np.arange(n) + 1e6 * (np.arange(n) > 700)
    series = {
        'odd name ü,"x"/y': (1.7e9 + np.arange(n), broken, [[1.7e9 + 1195, 1.7e9 + 1250]]),
        "hours with gaps": (3600.0 * gap, np.where(rng.random(n) < 0.3, np.nan, usual), []),
        "constant": (np.arange(n), np.full(n, 5.0), [[100, 200]]),
        "nothing but NaN": (np.arange(50.0), np.full(50, np.nan), [[0, 10]]),
        "infinite": (np.arange(n), np.where(np.arange(n) == 900, np.inf, usual), []),
        "huge": (np.arange(n), 1e300 * usual / 10.0, []),
        "short": (np.arange(3), np.arange(3.0), []),
        "unsorted, twice": (np.repeat(np.arange(n / 2)[::-1], 2), usual, []),
    }
    frames = [pl.DataFrame({"case": name, "time_s": t.astype(float), "value": v}) for name, (t, v, _) in series.items()]
    pl.concat(frames).write_parquet(tmp_path / "metrics.parquet")
    cases = [{"case": name, "windows_s": windows} for name, (_, _, windows) in series.items()]
    (tmp_path / "cases.json").write_bytes(orjson.dumps([*cases, {"case": "absent", "windows_s": [[1, 2]]}]))
    result = detect.detect_data(tmp_path)
    found = {entry["case"]: entry for entry in result["cases"]}
    assert list(found) == [*series, "absent"]
    assert found['odd name ü,"x"/y']["found"] == 1
    for name in ("constant", "nothing but NaN", "huge", "short", "absent"):
        assert found[name]["detections"] == []
    assert [name for name, entry in found.items() if entry["error"]] == ["absent"]
    assert orjson.loads(orjson.dumps(result)) == result


def test_times_may_be_dates_and_what_is_no_set_is_said(tmp_path):
    frame = pl.DataFrame({"case": "a", "time_s": [60.0, 120.0], "value": [1.0, 2.0]})
    dated = frame.with_columns(pl.from_epoch(pl.col("time_s").cast(pl.Int64), time_unit="s"))
    dated.write_parquet(tmp_path / "metrics.parquet")
    (tmp_path / "cases.json").write_bytes(orjson.dumps([{"case": "a", "windows_s": []}]))
    (case,) = detect.series(tmp_path)
    assert case.time_s.tolist() == [60.0, 120.0]
    for text in (b"", b"{}"):
        (tmp_path / "cases.json").write_bytes(text)
        with pytest.raises(BadRecord, match=r"cases\.json"):
            list(detect.series(tmp_path))
    (tmp_path / "cases.json").write_bytes(orjson.dumps([{"case": "a", "windows_s": []}]))
    frame.with_columns(time_s=pl.lit("noon")).write_parquet(tmp_path / "metrics.parquet")
    with pytest.raises(Misconfigured, match=r"metrics\.parquet"):
        list(detect.series(tmp_path))
