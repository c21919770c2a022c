from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from lossevo.comparison.statistics import bootstrap_interval, bootstrap_intervals


class TestBootstrap:
    def test_agrees_with_the_normal_interval_for_many_values(self):
        values = np.random.default_rng(1).normal(0.8, 0.05, size=400)
        low, high = bootstrap_interval(values, np.random.default_rng(2))
        se = values.std() / math.sqrt(values.size)
        assert low == pytest.approx(values.mean() - 1.96 * se, abs=0.1 * se)
        assert high == pytest.approx(values.mean() + 1.96 * se, abs=0.1 * se)

    def test_of_two_values_is_exact(self):
        # Means are 0, 1/2, 1 with probabilities 1/4, 1/2, 1/4: both tails are wider than 2.5 %.
        assert bootstrap_interval(np.array([0.0, 1.0]), np.random.default_rng(0)) == (0.0, 1.0)

    def test_tails_of_ten_coins(self):
        # The mean of ten resampled coins is binomial; its 2.5 and 97.5 % quantiles are 2 and 8 of 10.
        coins = np.array([0.0, 1.0] * 5)
        assert bootstrap_interval(coins, np.random.default_rng(0)) == pytest.approx((0.2, 0.8))

    def test_one_value_says_nothing_about_spread(self):
        assert bootstrap_interval(np.array([0.7]), np.random.default_rng(0)) == (None, None)

    def test_constant_values_have_no_spread(self):
        assert bootstrap_interval(np.full(9, 0.25), np.random.default_rng(0)) == (0.25, 0.25)

    def test_is_drawn_in_pieces_when_there_are_many_values(self):
        values = np.random.default_rng(3).normal(size=2000)
        low, high = bootstrap_interval(values, np.random.default_rng(4))
        assert low < values.mean() < high
        assert high - low == pytest.approx(2 * 1.96 * values.std() / math.sqrt(values.size), rel=0.05)

    def test_the_generator_alone_decides(self):
        values = np.random.default_rng(5).normal(size=20)
        first, second = (bootstrap_interval(values, np.random.default_rng(6)) for _ in range(2))
        assert first == second

    def test_is_scipys_bca(self):
        values = np.random.default_rng(7).beta(8, 2, size=15)
        expected = stats.bootstrap((values,), np.mean, method="BCa", n_resamples=9_999, rng=np.random.default_rng(8))
        assert bootstrap_interval(values, np.random.default_rng(8)) == pytest.approx(
            (expected.confidence_interval.low, expected.confidence_interval.high)
        )

    def test_is_moved_for_skew(self):
        """Two failures among good scores: the interval reaches further down than up; the percentile one less so."""
        values = np.array([0.0, 0.3, *[0.85] * 9, *[0.9] * 9])
        low, high = bootstrap_interval(values, np.random.default_rng(0))
        means = values[np.random.default_rng(1).integers(20, size=(20_000, 20))].mean(axis=1)
        percentile_low, percentile_high = np.quantile(means, [0.025, 0.975])
        assert low < percentile_low - 0.01
        assert high < percentile_high
        assert values.mean() - low > 1.2 * (high - values.mean())

    def test_rows_are_as_each_alone(self):
        rows = np.random.default_rng(9).normal(size=(5, 12))
        alone = [bootstrap_interval(row, np.random.default_rng(3)) for row in rows]
        assert np.array(bootstrap_intervals(rows, np.random.default_rng(3))) == pytest.approx(np.array(alone))

    def test_a_constant_row_among_others_has_no_spread(self):
        rows = np.array([[0.1, 0.5, 0.3], [0.2, 0.2, 0.2], [0.4, 0.1, 0.2]])
        intervals = bootstrap_intervals(rows, np.random.default_rng(0))
        assert intervals[1] == (0.2, 0.2)
        assert all(low < high for low, high in (intervals[0], intervals[2]))

    def test_all_but_one_equal_has_finite_ends(self):
        low, high = bootstrap_interval(np.array([0.0] * 19 + [1.0]), np.random.default_rng(0))
        assert 0 <= low < 0.05 < high <= 1

    def test_covers_the_mean_of_skewed_values_better_than_percentiles(self):
        """Dice near its ceiling: 1 minus an exponential, 20 subjects; 1,000 comparisons, 95 % nominal."""
        rng = np.random.default_rng(11)
        rows = 1 - 0.1 * rng.exponential(size=(1000, 20))
        intervals = np.array(bootstrap_intervals(rows, rng, resamples=2000))
        draws = rng.integers(20, size=(2000, 20))
        percentile = np.quantile(rows[:, draws].mean(axis=-1), [0.025, 0.975], axis=1).T

        def coverage(ends):
            return ((ends[:, 0] <= 0.9) & (ends[:, 1] >= 0.9)).mean()

        assert 0.91 <= coverage(intervals) <= 0.97
        assert coverage(intervals) > coverage(percentile)
