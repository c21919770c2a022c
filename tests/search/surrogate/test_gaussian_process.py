"""The Gaussian process beside the textbook's formulas with dense inverses, written out in loops."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from lossevo.search.surrogate.gaussian_process import (
    SHARED,
    GaussianProcess,
    Hyperparameters,
    fit,
    log_marginal_likelihood,
    squared_distances,
)
from lossevo.search.surrogate.probes import unit

KERNEL = Hyperparameters(signal=0.7, length_scale=0.3, noise=0.2, steps_scale=1.5, noise_steps=100.0)


def features(count: int, seed: int = 0, *, states: int = 3, components: int = 50):
    """Unit vectors, some of which are close to each other."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((4, states, components))
    vectors = centres[rng.integers(4, size=count)] + 0.7 * rng.standard_normal((count, states, components))
    return np.array([[unit(row) for row in rows] for rows in vectors], np.float32)


def data(count: int, seed: int = 0):
    """Distances, steps, seeds and targets."""
    rng = np.random.default_rng([seed, 1])
    made = features(count, seed)
    steps = rng.choice([75.0, 150.0, 400.0], count)
    return squared_distances(made, made), steps, rng.integers(1, 4, count).astype(float), rng.standard_normal(count)


def covariance(kernel: Hyperparameters, distances, steps, others):
    """One number after another."""
    found = np.empty(distances.shape)
    for i, j in np.ndindex(*distances.shape):
        decay = math.exp(-abs(math.log(steps[i] / others[j])) / kernel.steps_scale)
        found[i, j] = kernel.signal**2 * decay * (math.exp(-distances[i, j] / kernel.length_scale) + SHARED**2)
    return found


def noisy_covariance(kernel: Hyperparameters, distances, steps, seeds):
    return covariance(kernel, distances, steps, steps) + np.diag(
        [kernel.noise**2 * (kernel.noise_steps / s) / n for s, n in zip(steps, seeds, strict=True)]
    )


def gls_mean(inverse, targets) -> float:
    ones = np.ones(len(targets))
    return float(ones @ inverse @ targets / (ones @ inverse @ ones))


class TestDistances:
    def test_are_the_mean_over_states_of_squared_distances(self):
        a, b = features(5), features(4, seed=1)
        expected = [[np.mean([np.sum((x - y) ** 2) for x, y in zip(p, q, strict=True)]) for q in b] for p in a]
        np.testing.assert_allclose(squared_distances(a, b), expected, atol=1e-6)

    def test_are_exact_so_that_no_order_of_a_sum_matters(self):
        """Equal to the last bit to what double precision makes of shuffled components."""
        a = features(12, states=5, components=4096)
        order = np.random.default_rng(0).permutation(4096)
        wide = a.astype(np.float64)[:, :, order]
        exact = np.square(wide[:, None] - wide[None]).sum(axis=3).mean(axis=2)
        assert np.array_equal(squared_distances(a, a), exact)
        assert np.array_equal(squared_distances(a[:, :, order], a[:, :, order]), exact)
        assert not np.diagonal(exact).any()

    def test_make_a_positive_definite_kernel(self):
        distances, steps, *_ = data(60)
        eigenvalues = np.linalg.eigvalsh(KERNEL.kernel(distances, steps, steps))
        assert eigenvalues.min() > 1e-8
        np.testing.assert_allclose(
            KERNEL.kernel(distances, steps, steps), covariance(KERNEL, distances, steps, steps), rtol=1e-12
        )


class TestPosterior:
    def test_is_that_of_the_textbook(self):
        """Kriging with an unknown mean: Rasmussen & Williams (2.41), (2.42), for a constant basis function."""
        distances, steps, seeds, targets = data(30)
        known, asked = np.arange(22), np.arange(22, 30)
        process = GaussianProcess(KERNEL, distances[np.ix_(known, known)], steps[known], seeds[known])
        found = process.predict(
            targets[known], distances[np.ix_(known, asked)], steps[asked], distances[np.ix_(asked, asked)]
        )
        inverse = np.linalg.inv(noisy_covariance(KERNEL, distances[np.ix_(known, known)], steps[known], seeds[known]))
        cross = covariance(KERNEL, distances[np.ix_(known, asked)], steps[known], steps[asked])
        mean = gls_mean(inverse, targets[known])
        np.testing.assert_allclose(found.mean, mean + cross.T @ inverse @ (targets[known] - mean), rtol=1e-9)
        unexplained = 1 - cross.T @ inverse @ np.ones(22)
        expected = (
            covariance(KERNEL, distances[np.ix_(asked, asked)], steps[asked], steps[asked])
            - cross.T @ inverse @ cross
            + np.outer(unexplained, unexplained) / inverse.sum()
        )
        np.testing.assert_allclose(found.covariance, expected, atol=1e-10)

    def test_is_the_same_whether_points_come_one_by_one(self):
        distances, steps, _, targets = data(25)
        at_once = GaussianProcess(KERNEL, distances, steps, np.ones(25))
        one_by_one = GaussianProcess(KERNEL, np.empty((0, 0)), np.empty(0), np.empty(0))
        for i in range(25):
            one_by_one.add(distances[:i, i], steps[i])
        np.testing.assert_allclose(one_by_one.factor, at_once.factor, atol=1e-12)
        np.testing.assert_allclose(one_by_one.leave_one_out(targets), at_once.leave_one_out(targets), atol=1e-9)

    def test_of_no_points_is_the_prior(self):
        distances, steps, *_ = data(4)
        process = GaussianProcess(KERNEL, np.empty((0, 0)), np.empty(0), np.empty(0))
        found = process.predict(np.empty(0), np.empty((0, 4)), steps, distances)
        assert not found.mean.any()
        np.testing.assert_allclose(found.covariance, KERNEL.kernel(distances, steps, steps))

    def test_n_seeds_are_worth_one_point_with_an_nth_of_the_variance(self):
        distances, steps, _, targets = data(10)
        thrice = [*range(10), 3, 3]
        scores = np.array([*targets, 0.3, -0.8])
        mean = targets.copy()
        mean[3] = np.mean([targets[3], 0.3, -0.8])
        several = GaussianProcess(KERNEL, distances[np.ix_(thrice, thrice)], steps[thrice], np.ones(12))
        one = GaussianProcess(KERNEL, distances, steps, np.where(np.arange(10) == 3, 3.0, 1.0))
        a = several.predict(scores, distances[thrice], steps, distances)
        b = one.predict(mean, distances, steps, distances)
        np.testing.assert_allclose(a.mean, b.mean, atol=1e-10)
        np.testing.assert_allclose(a.covariance, b.covariance, atol=1e-10)

    def test_leave_one_out_is_a_fit_without_the_point(self):
        distances, steps, seeds, targets = data(15)
        left_out = GaussianProcess(KERNEL, distances, steps, seeds).leave_one_out(targets)
        for i in range(15):
            others = np.delete(np.arange(15), i)
            process = GaussianProcess(KERNEL, distances[np.ix_(others, others)], steps[others], seeds[others])
            found = process.predict(targets[others], distances[others, i : i + 1], steps[i : i + 1], np.zeros((1, 1)))
            assert left_out[i] == pytest.approx(found.mean[0], abs=1e-9)


class TestFit:
    def test_the_likelihood_is_that_of_a_normal_distribution(self):
        distances, steps, seeds, targets = data(20)
        inverse = np.linalg.inv(noisy_covariance(KERNEL, distances, steps, seeds))
        mean = gls_mean(inverse, targets)
        variance = (targets - mean) @ inverse @ (targets - mean) / 20  # by which the covariance is scaled at best
        scaled = replace(KERNEL, signal=0.7 * math.sqrt(variance), noise=0.2 * math.sqrt(variance))
        expected = multivariate_normal(np.full(20, mean), noisy_covariance(scaled, distances, steps, seeds))
        found = log_marginal_likelihood(KERNEL, distances, steps, seeds, targets)
        assert found == pytest.approx(expected.logpdf(targets), rel=1e-9)

    def test_finds_what_the_targets_were_drawn_from(self):
        made = features(250, states=1, components=3)
        distances, steps, seeds = squared_distances(made, made), np.full(250, 75.0), np.ones(250)
        truth = Hyperparameters(signal=0.05, length_scale=0.4, noise=0.01)
        rng = np.random.default_rng(3)
        targets = rng.multivariate_normal(np.full(250, 0.7), noisy_covariance(truth, distances, steps, seeds))
        found = fit(distances, steps, seeds, targets, start=KERNEL)
        assert found.length_scale == 0.4
        assert found.noise == pytest.approx(0.01, rel=0.3)
        assert found.noise_steps == 75
        assert found.signal == pytest.approx(0.05, rel=0.3)
        assert found.steps_scale == KERNEL.steps_scale

    def test_how_far_steps_reach_is_fitted_where_they_differ(self):
        made = features(200, states=1, components=3)
        distances, seeds = squared_distances(made, made), np.ones(200)
        steps = np.random.default_rng(4).choice([38.0, 75.0, 150.0, 400.0], 200)
        for steps_scale, around in ((0.5, (0.5, 1.0)), (8.0, (4.0, 8.0))):
            truth = Hyperparameters(0.05, 0.4, 0.005, steps_scale)
            targets = np.random.default_rng(5).multivariate_normal(
                np.full(200, 0.7), noisy_covariance(truth, distances, steps, seeds)
            )
            assert fit(distances, steps, seeds, targets, start=KERNEL).steps_scale in around

    def test_is_the_largest_likelihood_of_the_grid(self):
        distances, steps, seeds, targets = data(40)
        steps[:] = 75.0
        found = fit(distances, steps, seeds, targets, start=KERNEL)
        best = log_marginal_likelihood(found, distances, steps, seeds, targets)
        for length_scale, ratio in [(0.05, 0.1), (0.4, 0.35), (3.2, 1.0), (0.8, 0.1), (0.2, 1.0)]:
            other = Hyperparameters(1.0, length_scale, ratio, KERNEL.steps_scale, 75.0)
            assert log_marginal_likelihood(other, distances, steps, seeds, targets) <= best + 1e-6

    def test_equal_targets_are_no_trouble(self):
        distances, steps, seeds, _ = data(12)
        found = fit(distances, steps, seeds, np.full(12, 0.7), start=KERNEL)
        process = GaussianProcess(found, distances, steps, seeds)
        np.testing.assert_allclose(process.leave_one_out(np.full(12, 0.7)), 0.7, atol=1e-6)
