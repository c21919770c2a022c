from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from lossevo.comparison.statistics import describe, holm, paired_difference, signed_rank


class TestHolm:
    def test_worked_by_hand(self):
        # Sorted .005 .01 .03 .04 times 4 3 2 1 = .02 .03 .06 .04; the last may not fall below the one before.
        assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])

    def test_is_capped_at_1(self):
        assert holm([0.6, 0.9]) == [1.0, 1.0]

    def test_one_test_needs_no_adjustment(self):
        assert holm([0.03]) == [0.03]

    def test_of_nothing_is_nothing(self):
        assert holm([]) == []

    @given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
    def test_lies_between_p_and_bonferroni_and_keeps_the_order(self, p_values):
        adjusted = holm(p_values)
        for p, p_holm in zip(p_values, adjusted, strict=True):
            assert p <= p_holm <= min(1.0, len(p_values) * p) + 1e-15
        by_p = [adjusted[index] for index in np.argsort(p_values, kind="stable")]
        assert by_p == sorted(by_p)


class TestSignedRank:
    @pytest.mark.parametrize("count", [3, 6, 12, 20, 50])
    def test_p_is_scipys_exact_one_where_no_sizes_tie(self, count):
        differences = np.random.default_rng(count).normal(0.3, 1, size=count)
        assert signed_rank(differences)[0] == pytest.approx(stats.wilcoxon(differences, method="exact").pvalue)

    def test_p_of_tied_sizes_is_that_of_all_sign_patterns(self):
        differences = np.array([0.3, -0.1, 0.1, 0.2, 0.2, 0.2, -0.4, 0.5])
        ranks = stats.rankdata(np.abs(differences))
        sums = np.array([ranks @ np.array(signs) for signs in itertools.product([0, 1], repeat=8)])
        observed = ranks[differences > 0].sum()
        assert signed_rank(differences)[0] == pytest.approx(
            2 * min((sums <= observed).mean(), (sums >= observed).mean())
        )

    def test_p_of_very_many_subjects_is_scipys_approximation(self):
        differences = np.random.default_rng(0).normal(0.1, 1, size=201)
        assert signed_rank(differences)[0] == stats.wilcoxon(differences, method="asymptotic").pvalue
        assert signed_rank(differences[:200])[0] == pytest.approx(stats.wilcoxon(differences[:200]).pvalue, rel=0.02)

    def test_by_hand(self):
        # Ranks 1 2 3 4 with signs - + + +: W- = 1. P(W- <= 1) = 2/16, two-sided 4/16. r = (9 - 1)/10.
        p, rank_biserial = signed_rank(np.array([-0.1, 0.2, 0.3, 0.4]))
        assert p == pytest.approx(0.25)
        assert rank_biserial == pytest.approx(0.8)

    def test_all_equal_is_no_difference(self):
        assert signed_rank(np.zeros(8)) == (1.0, 0.0)

    def test_zeros_are_dropped(self):
        with_zeros = signed_rank(np.array([0.0, -0.1, 0.2, 0.0, 0.3, 0.4]))
        assert with_zeros == signed_rank(np.array([-0.1, 0.2, 0.3, 0.4]))

    def test_three_equal_differences(self):
        # Of all eight sign patterns of three equal differences only two are as extreme as + + +.
        assert signed_rank(np.array([0.1, 0.1, 0.1])) == pytest.approx((0.25, 1.0))

    def test_one_subject_proves_nothing(self):
        assert signed_rank(np.array([0.5])) == (1.0, 1.0)

    @given(st.lists(st.integers(-50, 50), min_size=1, max_size=12))
    def test_swapping_the_losses_only_swaps_the_sign(self, whole_numbers):
        differences = np.array(whole_numbers) / 100
        (p, r), (swapped_p, swapped_r) = signed_rank(differences), signed_rank(-differences)
        assert p == pytest.approx(swapped_p)
        assert r == pytest.approx(-swapped_r)
        assert -1 <= r <= 1


class TestPairedDifference:
    def test_pairs_by_subject(self):
        reference = {"a": 0.9, "b": 0.8, "c": 0.7, "d": 0.6}
        other = {"d": 0.6, "c": 0.75, "b": 0.6, "a": 0.5}
        pair = paired_difference(reference, other, seed=0)
        # Differences .4 .2 -.05 0: mean .1375, variance (.26250² + .0625² + .1875² + .1375²)/3.
        assert pair.difference == pytest.approx(0.1375)
        assert pair.se == pytest.approx(math.sqrt((0.2625**2 + 0.0625**2 + 0.1875**2 + 0.1375**2) / 3 / 4))
        assert (pair.wins, pair.ties, pair.losses, pair.subjects) == (2, 1, 1, 4)
        assert pair.ci_low < pair.difference < pair.ci_high

    def test_a_subject_that_one_loss_lacks_is_refused(self):
        """Left out, it would be left out for what a loss predicted there."""
        for reference, other in (({"a": 0.5, "b": 0.7}, {"a": 0.4}), ({"a": 0.5}, {"a": 0.4, "b": 0.7})):
            with pytest.raises(ValueError, match="only one of the two losses has a score of subject b"):
                paired_difference(reference, other, seed=0)

    def test_one_subject_says_nothing_about_spread(self):
        pair = paired_difference({"a": 0.9}, {"a": 0.8}, seed=0)
        assert (pair.subjects, pair.se, pair.ci_low, pair.ci_high) == (1, None, None, None)
        assert pair.difference == pytest.approx(0.1)

    def test_no_subject(self):
        with pytest.raises(ValueError, match="no subject"):
            paired_difference({}, {}, seed=0)

    def test_pairing_is_far_sharper_than_the_spread_between_subjects(self):
        rng = np.random.default_rng(0)
        hard = rng.uniform(0.3, 0.9, size=20)
        other = {str(n): value for n, value in enumerate(hard)}
        reference = {str(n): value + 0.01 + rng.normal(0, 0.002) for n, value in enumerate(hard)}
        pair = paired_difference(reference, other, seed=0)
        assert pair.wins == 20
        assert pair.ci_low > 0.008
        assert pair.p < 1e-4
        assert pair.rank_biserial == 1.0

    @pytest.mark.parametrize("count", [2, 5, 6])
    def test_smallest_p_is_reached_when_all_agree(self, count):
        pair = paired_difference(
            {str(n): 0.5 + n / 100 for n in range(1, count + 1)}, {str(n): 0.5 for n in range(1, count + 1)}, seed=0
        )
        assert pair.p == pytest.approx(pair.p_smallest) == 2 ** (1 - count)

    def test_float_noise_is_a_tie(self):
        pair = paired_difference({"a": 0.1 + 0.2, "b": 0.5}, {"a": 0.3, "b": 0.5}, seed=0)
        assert (pair.wins, pair.ties, pair.losses) == (0, 2, 0)
        assert pair.p == 1.0


class TestDescribe:
    def test_mean_and_sample_standard_deviation(self):
        mean = describe({"a": 0.7, "b": 0.8, "c": 0.9}, seed=0)
        assert mean.mean == pytest.approx(0.8)
        assert mean.sd == pytest.approx(0.1)
        assert mean.subjects == 3

    def test_does_not_depend_on_the_order_of_subjects(self):
        scores = dict(zip("abcdef", np.linspace(0.5, 0.9, 6), strict=True))
        assert describe(scores, seed=3) == describe(dict(reversed(scores.items())), seed=3)

    def test_one_subject(self):
        assert describe({"a": 0.7}, seed=0).sd is None

    @pytest.mark.parametrize("value", [math.nan, math.inf])
    def test_what_is_no_finite_number_is_refused(self, value):
        with pytest.raises(ValueError, match="subject b: the score is"):
            describe({"a": 0.7, "b": value}, seed=0)


def test_where_lower_is_better_the_lower_one_wins():
    pair = paired_difference({"a": 2.0, "b": 3.0}, {"a": 4.0, "b": 4.0}, seed=0, higher_is_better=False)
    assert (pair.difference, pair.wins, pair.losses) == (1.5, 2, 0)
