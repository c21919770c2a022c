from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.power import TTestPower

from lossevo.comparison.statistics import pair_power, signal_to_noise


def simulated(rng, *, comparisons, seeds, subjects, folds=1, sd_subject, sd_training, sd_rest) -> np.ndarray:
    """Differences (comparisons, seeds, subjects) with no difference of the means."""
    return (
        rng.normal(0, sd_subject, size=(comparisons, 1, subjects))
        + rng.normal(0, sd_training, size=(comparisons, seeds, folds)).repeat(subjects // folds, axis=2)
        + rng.normal(0, sd_rest, size=(comparisons, seeds, subjects))
    )


class TestOneSeed:
    @pytest.mark.parametrize("subjects", [3, 5, 13, 38, 200])
    def test_is_the_t_test_of_statsmodels(self, subjects):
        differences = np.random.default_rng(subjects).normal(0, 0.03, size=(1, subjects))
        power = pair_power(differences, 0.005)
        effect = power.smallest / differences.std(ddof=1)
        # statsmodels' two-sided power also counts findings in the wrong direction.
        assert TTestPower().power(effect, subjects, 0.05, alternative="two-sided") == pytest.approx(0.8, abs=1e-4)

    def test_subjects_needed_are_those_of_statsmodels(self):
        differences = np.random.default_rng(1).normal(0, 0.02, size=(1, 20))
        needed = TTestPower().solve_power(0.005 / differences.std(ddof=1), power=0.8, alpha=0.05)
        assert pair_power(differences, 0.005).subjects_needed == math.ceil(needed)

    def test_is_found_in_80_percent_of_simulations(self):
        """The smallest difference of a spread of 0.02, put into 4,000 new comparisons of 15 subjects."""
        rng = np.random.default_rng(2)
        spread = rng.normal(size=(1, 15))
        spread = 0.02 * (spread - spread.mean()) / spread.std(ddof=1)
        smallest = pair_power(spread, 0.005).smallest
        p = stats.ttest_1samp(rng.normal(smallest, 0.02, size=(4000, 15)), 0, axis=1).pvalue
        assert (p < 0.05).mean() == pytest.approx(0.8, abs=0.02)

    def test_cannot_tell_what_seeds_would_give(self):
        power = pair_power(np.random.default_rng(3).normal(size=(1, 9)), 0.005)
        assert power.seeds_needed is power.sd_training is power.sd_rest is None


SOURCES = {"sd_subject": 0.02, "sd_training": 0.01, "sd_rest": 0.03}


class TestSeveralSeeds:
    @pytest.mark.parametrize("folds", [1, 3, 150])
    def test_components_are_found_again(self, folds):
        rng = np.random.default_rng(4)
        (differences,) = simulated(rng, comparisons=1, seeds=300, subjects=300, folds=folds, **SOURCES)
        power = pair_power(differences, 0.005, np.repeat(range(folds), 300 // folds))
        assert power.sd_subject == pytest.approx(0.02, rel=0.1)
        assert power.sd_training == pytest.approx(0.01, rel=0.1)
        assert power.sd_rest == pytest.approx(0.03, rel=0.02)

    @pytest.mark.parametrize("folds", [1, 3, 30])
    def test_the_variance_is_that_of_simulated_means(self, folds):
        rng = np.random.default_rng(5)
        many = simulated(rng, comparisons=2000, seeds=4, subjects=30, folds=folds, **SOURCES)
        of_subject = np.repeat(range(folds), 30 // folds)
        smallest = [pair_power(differences, 0.005, of_subject).smallest for differences in many]
        noncentrality = TTestPower().solve_power(nobs=30, power=0.8, alpha=0.05) * math.sqrt(30)
        variances = (np.array(smallest) / noncentrality) ** 2
        assert variances.mean() == pytest.approx(many.mean(axis=(1, 2)).var(), rel=0.1)

    def test_the_luck_of_the_networks_of_folds_is_not_taken_for_that_of_subjects(self):
        """Without the folds it would be in the rest, of which 30 subjects have 30 draws; it has 2 a seed."""
        rng = np.random.default_rng(12)
        sources = {"sd_subject": 0.001, "sd_training": 0.05, "sd_rest": 0.001}
        many = simulated(rng, comparisons=300, seeds=3, subjects=30, folds=2, **sources)
        known = np.mean([pair_power(one, 0.005, np.repeat(range(2), 15)).smallest ** 2 for one in many])
        noncentrality = TTestPower().solve_power(nobs=30, power=0.8, alpha=0.05) * math.sqrt(30)
        assert known == pytest.approx(noncentrality**2 * 0.05**2 / 6, rel=0.15)

    def test_folds_of_different_sizes(self):
        rng = np.random.default_rng(13)
        of_subject = np.repeat(range(3), (4, 10, 16))
        training = rng.normal(0, 0.03, size=(2000, 4, 3))[:, :, of_subject]
        many = training + rng.normal(0, 0.01, size=(2000, 4, 30))
        found = np.mean([pair_power(one, 0.005, of_subject).smallest ** 2 for one in many])
        noncentrality = TTestPower().solve_power(nobs=30, power=0.8, alpha=0.05) * math.sqrt(30)
        assert found / noncentrality**2 == pytest.approx(many.mean(axis=(1, 2)).var(), rel=0.1)

    def test_needed_numbers_are_the_least_that_are_enough(self):
        rng = np.random.default_rng(6)
        (differences,) = simulated(rng, comparisons=1, seeds=5, subjects=40, **(SOURCES | {"sd_training": 0.001}))
        power = pair_power(differences, 0.006)

        def variance(subjects: int, seeds: int) -> float:
            return power.sd_subject**2 / subjects + power.sd_training**2 / seeds + power.sd_rest**2 / (subjects * seeds)

        def found(subjects: int, seeds: int) -> float:
            effect = 0.006 / math.sqrt(subjects * variance(subjects, seeds))
            return TTestPower().power(effect, subjects, 0.05)

        assert found(power.subjects_needed - 1, 5) < 0.8 <= found(power.subjects_needed, 5) + 1e-6
        assert power.subjects_needed > 40

    def test_no_number_of_subjects_outweighs_the_luck_of_few_trainings(self):
        differences = np.array([[0.0], [0.1]]) + np.random.default_rng(7).normal(0, 0.001, size=(2, 30))
        power = pair_power(differences, 0.005)
        assert power.subjects_needed is None
        assert power.seeds_needed == pytest.approx(2 * (power.smallest / 0.005) ** 2, rel=0.05)

    def test_no_number_of_seeds_outweighs_few_subjects(self):
        differences = np.random.default_rng(8).normal(0, 0.1, size=8) + np.random.default_rng(9).normal(0, 1e-3, (3, 8))
        power = pair_power(differences, 0.005)
        assert power.seeds_needed is None
        assert power.subjects_needed > 1000


class TestDegenerate:
    def test_equal_losses_find_everything(self):
        power = pair_power(np.zeros((2, 6)), 0.005)
        assert (power.smallest, power.subjects_needed, power.seeds_needed) == (0.0, 2, 1)

    def test_one_subject(self):
        assert pair_power(np.array([[0.1], [0.2]]), 0.005) is None

    def test_without_a_target_nothing_is_enough(self):
        assert pair_power(np.random.default_rng(0).normal(size=(2, 6)), 0.0).subjects_needed is None

    def test_a_negative_target(self):
        with pytest.raises(ValueError, match="target is -1"):
            pair_power(np.zeros((1, 3)), -1)


class TestSignalToNoise:
    def test_worked_by_hand(self):
        """Means of a: 0.5, 0.7; of b: 0.8, 0.8. Between: SD of 0.6 and 0.8. Within: variances 0.02 and 0."""
        by_seed = {
            0: {"a": {"x": 0.4, "y": 0.6}, "b": {"x": 0.7, "y": 0.9}},
            1: {"a": {"x": 0.6, "y": 0.8}, "b": {"x": 0.8, "y": 0.8}},
        }
        found = signal_to_noise(by_seed)
        assert found.between == pytest.approx(0.2 / math.sqrt(2))
        assert found.within == pytest.approx(0.1)
        assert found.ratio == pytest.approx(math.sqrt(2))

    def test_by_noise_alone_it_is_one_by_the_root_of_the_seeds(self):
        rng = np.random.default_rng(10)
        by_seed = {seed: {f"l{n}": {"x": rng.normal()} for n in range(2000)} for seed in range(4)}
        assert signal_to_noise(by_seed).ratio == pytest.approx(0.5, rel=0.05)

    def test_what_a_seed_does_to_all_losses_alike_is_no_noise(self):
        rng = np.random.default_rng(11)
        alike = rng.normal(0, 5, size=4)
        by_seed = {seed: {f"l{n}": {"x": alike[seed] + rng.normal()} for n in range(2000)} for seed in range(4)}
        assert signal_to_noise(by_seed).ratio == pytest.approx(0.5, rel=0.05)

    def test_one_seed_has_no_noise(self):
        found = signal_to_noise({0: {"a": {"x": 0.1}, "b": {"x": 0.3}}})
        assert found.within is found.ratio is None
        assert found.between == pytest.approx(0.2 / math.sqrt(2))

    def test_seeds_that_make_no_difference(self):
        scores = {"a": {"x": 0.1}, "b": {"x": 0.3}}
        found = signal_to_noise({0: scores, 1: scores})
        assert (found.within, found.ratio) == (0.0, None)

    def test_seeds_that_differ_by_rounding_make_no_difference(self):
        scores = {"a": {"x": 0.1 + 0.2}, "b": {"x": 0.7}}
        found = signal_to_noise({0: scores, 1: {"a": {"x": 0.3}, "b": {"x": 0.7}}})
        assert (found.within, found.ratio) == (0.0, None)

    def test_one_loss(self):
        assert signal_to_noise({0: {"a": {"x": 0.1}}}) is None
