from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from lossevo.comparison.statistics import Relevance, false_claim_probability, relevance

A = np.array([0.81, 0.79, 0.90, 0.65, 0.72, 0.88, 0.70])
B = np.array([0.80, 0.75, 0.91, 0.60, 0.71, 0.86, 0.71])


class TestFalseClaim:
    def test_is_the_published_formula(self):
        n, correlation = A.size, np.corrcoef(A, B)[0, 1]
        variance = A.var(ddof=1) + B.var(ddof=1) - 2 * correlation * A.std(ddof=1) * B.std(ddof=1)
        expected = stats.t.cdf(math.sqrt(n) * (B.mean() - A.mean()) / math.sqrt(variance), n - 1)
        assert false_claim_probability(A - B) == pytest.approx(expected)

    def test_is_scipys_one_sided_paired_t_test(self):
        expected = stats.ttest_rel(A, B, alternative="greater").pvalue
        assert false_claim_probability(A - B) == pytest.approx(expected)

    def test_claim_and_opposite_claim_sum_to_1(self):
        assert false_claim_probability(A - B) + false_claim_probability(B - A) == pytest.approx(1)

    def test_is_wrong_as_often_as_it_says_where_there_is_no_difference(self):
        """Of two losses that are equal one is claimed to be better at a risk of 5 % in 5 % of comparisons."""
        differences = np.random.default_rng(0).normal(0, 0.02, size=(4000, 13))
        risks = np.array([false_claim_probability(row) for row in differences])
        assert (risks < 0.05).mean() == pytest.approx(0.05, abs=0.011)  # three standard errors
        assert stats.kstest(risks, "uniform").pvalue > 0.01

    @pytest.mark.parametrize(("differences", "expected"), [([0.1] * 3, 0), ([-0.1] * 3, 1), ([0.0] * 3, 0.5)])
    def test_differences_without_spread_leave_no_doubt(self, differences, expected):
        assert false_claim_probability(np.array(differences)) == expected

    def test_float_noise_is_no_spread(self):
        assert false_claim_probability(np.array([0.3, 0.1 + 0.2])) == 0

    def test_one_subject_says_nothing(self):
        assert false_claim_probability(np.array([0.1])) is None


class TestRelevance:
    def test_is_the_posterior_as_drawn(self):
        """Normal differences, prior 1/σ: σ² is scaled inverse χ², the mean normal given it."""
        rng, differences = np.random.default_rng(1), A - B
        n = differences.size
        variance = differences.var(ddof=1) * (n - 1) / rng.chisquare(n - 1, size=400_000)
        means = rng.normal(differences.mean(), np.sqrt(variance / n))
        found = relevance(differences, 0.01)
        assert found.better == pytest.approx((means > 0.01).mean(), abs=0.004)
        assert found.equivalent == pytest.approx((np.abs(means) <= 0.01).mean(), abs=0.004)
        assert found.worse == pytest.approx((means < -0.01).mean(), abs=0.004)

    def test_sums_to_1_and_mirrors(self):
        found, mirrored = relevance(A - B, 0.005), relevance(B - A, 0.005)
        assert found.better + found.equivalent + found.worse == pytest.approx(1)
        assert (found.better, found.worse) == pytest.approx((mirrored.worse, mirrored.better))

    def test_without_rope_worse_is_the_false_claim(self):
        found = relevance(A - B, 0.0)
        assert found.worse == pytest.approx(false_claim_probability(A - B))
        assert found.equivalent == pytest.approx(0, abs=1e-12)

    @pytest.mark.parametrize(
        ("difference", "expected"),
        [(0.006, (1, 0, 0)), (0.005, (0, 1, 0)), (0.0, (0, 1, 0)), (-0.005, (0, 1, 0)), (-0.1, (0, 0, 1))],
    )
    def test_differences_without_spread(self, difference, expected):
        assert relevance(np.full(4, difference), 0.005) == Relevance(*expected)

    def test_one_subject_says_nothing(self):
        assert relevance(np.array([0.1]), 0.005) is None

    @pytest.mark.parametrize("rope", [-0.1, math.nan, math.inf])
    def test_a_rope_that_is_none(self, rope):
        with pytest.raises(ValueError, match="rope is"):
            relevance(A - B, rope)
