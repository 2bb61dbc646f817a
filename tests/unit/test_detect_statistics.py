"""Each statistic by itself: right by an independent computation, conservative under the null, monotone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from observe.detect.evidence import Current
from observe.detect.grid import grid_of, span_of
from observe.detect.latency import beyond, quantiles_ms, ranks
from observe.detect.statistics import (
    adjusted,
    binomial_upper,
    block_sums,
    chi_square_upper,
    combined,
    count_lower,
    count_upper,
    poisson_lower,
    rate_cv2,
    sliding_sums,
    student_upper,
)
from observe.settings import DetectSettings
from tests.unit.detect_parts import frames, now_ns, row

counts = st.integers(0, 400).map(float)
means = st.floats(0.01, 300.0)
shapes = st.floats(0.3, 1e4)


@given(counts, means, shapes)
def test_count_tails_are_the_negative_binomial(count: float, mean: float, shape: float) -> None:
    law = stats.nbinom(shape, shape / (shape + mean))
    upper, lower = (
        count_upper(np.array(count), np.array(mean), np.array(shape)),
        count_lower(np.array(count), np.array(mean), np.array(shape)),
    )
    assert upper == pytest.approx(law.sf(count - 1), rel=1e-6, abs=1e-290)
    assert lower == pytest.approx(law.cdf(count), rel=1e-6, abs=1e-290)


@given(counts, means, shapes)
def test_more_events_are_rarer_and_noise_makes_them_less_rare(count: float, mean: float, shape: float) -> None:
    p = count_upper(np.array([count, count + 1.0]), np.array(mean), np.array(shape))
    assert p[1] <= p[0]
    if count > mean + 4 * np.sqrt(mean + mean**2 / shape) + 2:
        assert count_upper(np.array(count), np.array(mean), np.array(shape / 2)) >= p[0]


def test_large_shape_is_poisson() -> None:
    x = np.arange(1.0, 30.0)
    assert count_upper(x, np.array(7.0), np.array(1e9)) == pytest.approx(stats.poisson(7.0).sf(x - 1), rel=1e-4)
    assert poisson_lower(x, np.full(x.shape, 7.0)) == pytest.approx(stats.poisson(7.0).cdf(x), rel=1e-12)


def test_student_tail() -> None:
    assert student_upper(np.array(3.0), np.array(7.0)) == pytest.approx(stats.t(7).sf(3.0), rel=1e-9)


@given(st.lists(st.floats(1e-12, 1.0), min_size=1, max_size=30))
def test_adjusted_is_benjamini_hochberg(p: list[float]) -> None:
    assert adjusted(np.array(p)) == pytest.approx(stats.false_discovery_control(p, method="bh"))


@given(st.lists(st.floats(1e-12, 1.0), min_size=1, max_size=20))
def test_combined_lies_between_the_smallest_and_bonferroni(p: list[float]) -> None:
    result = combined(np.array(p))
    assert min(p) * (1 - 1e-9) <= result <= min(1.0, len(p) * min(p)) * (1 + 1e-9)


def test_combined_holds_its_level_for_dependent_tests() -> None:
    rng = np.random.default_rng(5)
    common, own = rng.normal(size=(200_000, 1)), rng.normal(size=(200_000, 12))
    p = stats.norm.sf(np.sqrt(0.7) * common + np.sqrt(0.3) * own)
    assert (combined(p) <= 0.001).mean() < 0.0015


def test_exceedances_of_the_own_baseline_are_conservative() -> None:
    """Gumbel and von Schelling's law: baseline and current range from one continuous distribution."""
    rng = np.random.default_rng(1)
    for before, now in ((100, 50), (1_000, 150), (5_000, 600)):
        seen = before // 100
        threshold = rng.beta(before - seen, seen + 1, 20_000)  # the order statistic that `seen` of them lie above
        beyond_now = rng.binomial(now, 1.0 - threshold).astype(float)
        rate = (seen + 1.0) / (before + 1.0)
        p = count_upper(beyond_now, np.full(20_000, now * rate), np.full(20_000, seen + 1.0))
        for level in (0.05, 0.01, 0.001):
            assert (p <= level).mean() <= level * 1.1 + 3 * np.sqrt(level / 20_000)


def test_dispersion_finds_the_noise_that_was_put_in() -> None:
    rng = np.random.default_rng(2)
    trials = np.full((300, 120), 1_500.0)
    for cv in (0.0, 0.3, 0.6):
        rates = 0.01 * (rng.gamma(1 / cv**2, cv**2, trials.shape) if cv else 1.0)
        drawn = rng.poisson(trials * rates).astype(float)
        found = rate_cv2(drawn, trials, drawn.sum(axis=1) / trials.sum(axis=1))
        assert np.median(found) == pytest.approx(cv**2, abs=0.03)


def test_dispersion_without_counts_is_the_prior() -> None:
    nothing = np.zeros((1, 120))
    assert rate_cv2(nothing, nothing + 50.0, np.zeros(1), prior_cv2=0.1)[0] == pytest.approx(0.1)


def test_block_sums_leave_out_the_oldest_rest() -> None:
    assert block_sums(np.arange(7.0)[None, :], 3).tolist() == [[1 + 2 + 3, 4 + 5 + 6]]


histograms = st.lists(st.integers(0, 50), min_size=2, max_size=40).filter(any).map(lambda h: np.array([h], dtype=float))


@given(histograms, st.sampled_from([0.5, 0.95, 0.99]), st.integers(-40, 40))
def test_quantiles_scale_with_the_latencies(histogram: np.ndarray, q: float, shift: int) -> None:
    one, other = quantiles_ms(histogram, [q], 0), quantiles_ms(histogram, [q], shift)
    assert other[0, 0] == pytest.approx(one[0, 0] * 2 ** (shift / 16))


@given(histograms, st.sampled_from([0.5, 0.95, 0.99]))
def test_quantiles_lie_where_the_share_says(histogram: np.ndarray, q: float) -> None:
    level = quantiles_ms(histogram, [q], 0)[0, 0]
    column = np.log2(level) * 16
    n = histogram.sum()
    assert histogram[0, : int(np.floor(column + 1e-9))].sum() <= q * n + 1e-6
    assert histogram[0, : int(np.ceil(column - 1e-9))].sum() >= q * n - 1e-6


@given(histograms, st.sampled_from([0.95, 0.99]))
def test_no_more_lies_beyond_a_quantile_than_it_says(histogram: np.ndarray, q: float) -> None:
    assert (histogram * beyond(histogram, q)).sum() <= (1 - q) * histogram.sum() + 1e-9


@given(histograms)
def test_ranks_are_centred_and_vary_no_more_than_uniform_ones(histogram: np.ndarray) -> None:
    rank, n = ranks(histogram), histogram.sum()
    assert (rank * histogram).sum() / n == pytest.approx(0.0, abs=1e-9)
    assert (rank**2 * histogram).sum() / n <= 1 / 12 + 1e-9


def test_quantile_of_lognormal_latencies() -> None:
    rng = np.random.default_rng(3)
    ms = np.exp(rng.normal(3.0, 0.8, 200_000))
    histogram = np.bincount(np.ceil(np.log2(ms) * 16).astype(int) - 1 + 100, minlength=400)[None, :].astype(float)
    for q in (0.5, 0.95, 0.99):
        assert quantiles_ms(histogram, [q], -100)[0, 0] == pytest.approx(np.quantile(ms, q), rel=0.022)


@given(st.integers(0, 200), st.integers(0, 200), st.floats(0.001, 0.999))
def test_binomial_tails_are_the_binomial(count: int, more: int, share: float) -> None:
    upper = binomial_upper(np.array(float(count)), np.array(float(count + more)), np.array(share))
    assert upper == pytest.approx(max(stats.binom.sf(count - 1, count + more, share), 1e-300), rel=1e-6, abs=1e-290)


@given(st.floats(0.0, 500.0), st.integers(0, 30))
def test_chi_square_tails(square: float, degrees: int) -> None:
    expected = max(stats.chi2.sf(square, degrees), 1e-300) if degrees else 1.0
    assert chi_square_upper(np.array(square), float(degrees)) == pytest.approx(expected, rel=1e-6, abs=1e-290)


@given(st.lists(st.integers(0, 9).map(float), min_size=1, max_size=30), st.integers(1, 30))
def test_sliding_sums_are_those_of_every_place(values: list[float], length: int) -> None:
    length = min(length, len(values))
    places = [sum(values[at : at + length]) for at in range(len(values) - length + 1)]
    assert sliding_sums(np.array([values]), length).tolist() == [places]


@pytest.mark.parametrize(
    ("counts", "told"),
    [
        ([13.0, 0, 0, 0, 14, 0, 0, 0, 0, 0, 0, 0], True),  # two hiccups that hold everything
        ([3.0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0], True),
        ([1.0, 2, 0, 1, 2, 1, 0, 3, 1, 0, 2, 1], False),  # few, and as chance has them
        ([4.0, 3, 5, 2, 4, 3, 4, 2, 5, 3, 4, 3], True),  # many: a third is a small part
        ([2.0, 3.0], False),
    ],
)
def test_a_third_is_taken_away_of_many_counts_and_of_uneven_ones(counts: list[float], told: bool) -> None:
    sums = np.array([counts])
    trials = np.full_like(sums, 30.0)
    assert Current(sums, trials, sums.sum(axis=1), trials.sum(axis=1)).trimmable.tolist() == [told]


@given(st.lists(st.integers(0, 5), min_size=1, max_size=6, unique=True), st.integers(0, 2**32 - 1))
def test_entries_of_some_series_are_theirs(chosen: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows = [
        row(w, list(np.exp(rng.normal(3.0, 1.0, rng.integers(0, 5)))), service=f"s{s}")
        for w in range(4)
        for s in range(6)
    ]
    grid = grid_of(frames(rows).windows, span_of(now_ns(4), DetectSettings()))
    series = np.array(sorted(chosen))
    some, (every, windows) = grid.entries.of(series, 6), grid.shape
    of_all = rng.random((every, windows)) < 0.5
    whole = grid.entries.histogram(every, of_all)[series]
    assert (some.histogram(len(series), of_all[series]) == whole).all()
    requests = grid.entries.requests(grid.shape)[series]
    assert (some.requests((len(series), windows)) == requests).all()
