"""Exact Gaussian process regression (Rasmussen & Williams 2006, chapters 2 and 5) of scores on gradients and steps.

D is the mean over the probe states of the squared distance between unit gradients, Δ the difference between the
logarithms of the steps of two trainings. The covariance of their scores without noise is

    σ² exp(-Δ/λ) (exp(-D/ℓ) + τ²)

that is, a part of each loss and one that all losses share, both changing with the steps of the training. A point that
is the mean of n seeds has noise s²/n, with s² in inverse proportion to the steps: short trainings differ more between
seeds. The mean is an unknown constant, estimated by generalised least squares.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lossevo.search.surrogate.linear_algebra import cholesky, product, solve_lower

Floats = NDArray[np.float64]

SHARED: Final = 2.0
"""τ: the standard deviation, in units of σ, of what all losses gain by other steps."""
LENGTH_SCALES: Final = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2)
NOISE_RATIOS: Final = (0.1, 0.2, 0.35, 0.6, 1.0)
"""s/σ. None is below 0.1: the covariance matrix stays well conditioned."""
STEPS_SCALES: Final = (0.5, 1.0, 2.0, 4.0, 8.0)


@dataclass(frozen=True, slots=True)
class Hyperparameters:
    """σ, ℓ, s of a training of ``noise_steps`` steps, and λ."""

    signal: float
    length_scale: float
    noise: float
    steps_scale: float = 4.0
    noise_steps: float = 75.0

    def kernel(self, distances: Floats, steps: Floats, others: Floats) -> Floats:
        """Covariance matrix (n, m) of points with these ``distances`` (n, m), trained for ``steps`` and ``others``."""
        return self.signal**2 * _correlation(distances, steps, others, self.length_scale, self.steps_scale)

    def noise_variance(self, steps: Floats, seeds: Floats) -> Floats:
        """Of the mean of so many ``seeds``, each trained for so many ``steps``."""
        return self.noise**2 * self.noise_steps / (steps * seeds)


def _correlation(distances: Floats, steps: Floats, others: Floats, length_scale: float, steps_scale: float) -> Floats:
    apart: Floats = np.abs(np.log(steps)[:, None] - np.log(others)[None, :])
    return np.exp(-apart / steps_scale) * (np.exp(-distances / length_scale) + SHARED**2)


def squared_distances(
    features: NDArray[np.float32], others: NDArray[np.float32], lengths: NDArray[np.float32] | None = None
) -> Floats:
    """D (n, m) between features (n, states, components) and (m, states, components).

    Exact for components on the grid of :func:`lossevo.search.surrogate.probes.unit`, hence the same with any number of
    threads. ``lengths`` are the :func:`squared_lengths` of ``features``, if they are known.
    """
    lengths = squared_lengths(features) if lengths is None else lengths
    products = product(features.transpose(1, 0, 2), others.transpose(1, 2, 0))
    summed = lengths[:, :, None].astype(np.float64) + squared_lengths(others)[:, None, :]
    distances: Floats = (summed - 2.0 * products).mean(axis=0)
    return distances


def squared_lengths(features: NDArray[np.float32]) -> NDArray[np.float32]:
    """(states, n)."""
    lengths: NDArray[np.float32] = np.square(features).sum(axis=2).T
    return lengths


@dataclass(frozen=True, slots=True)
class Posterior:
    """Mean (m) and covariance (m, m) of points' scores, without the noise of a training."""

    mean: Floats
    covariance: Floats


class GaussianProcess:
    """Points with their Cholesky factor, to which a point is added in O(n²).

    Args:
        hyperparameters: of the kernel.
        distances: D (n, n) between the points.
        steps: of their trainings (n).
        seeds: how many seeds each is the mean of (n).
    """

    def __init__(self, hyperparameters: Hyperparameters, distances: Floats, steps: Floats, seeds: Floats) -> None:
        self.hyperparameters = hyperparameters
        self.steps = np.asarray(steps, np.float64)
        covariance = hyperparameters.kernel(distances, self.steps, self.steps)
        covariance[np.diag_indices_from(covariance)] += hyperparameters.noise_variance(self.steps, seeds)
        self.factor: Floats = cholesky(covariance)

    def add(self, distances: Floats, steps: float) -> None:
        """A point of one seed with these distances (n) to those before."""
        new = np.array([float(steps)])
        row = self._whitened(distances[:, None], new)[:, 0]
        noise = self.hyperparameters.noise_variance(new, np.ones(1))
        itself = float(self.hyperparameters.kernel(np.zeros((1, 1)), new, new)[0, 0] + noise[0])
        size = len(self.steps)
        factor = np.zeros((size + 1, size + 1))
        factor[:size, :size] = self.factor
        factor[size, :size] = row
        factor[size, size] = math.sqrt(itself - float(row @ row))
        self.factor, self.steps = factor, np.append(self.steps, new)

    def predict(self, targets: Floats, distances: Floats, steps: Floats, among: Floats) -> Posterior:
        """The posterior of m points, given the points' ``targets`` (n).

        Args:
            targets: scores of the points.
            distances: D (n, m) from the points.
            steps: of the m points (m).
            among: D (m, m) among them.
        """
        prior = self.hyperparameters.kernel(among, steps, steps)
        if not len(self.steps):
            return Posterior(np.zeros(len(steps)), prior)
        whitened = self._whitened(distances, steps)
        ones, residuals, mean = _centred(self.factor, targets)
        unexplained = 1 - product(whitened.T, ones)
        covariance = prior - product(whitened.T, whitened) + np.outer(unexplained, unexplained) / (ones @ ones)
        # Rounding may leave a point on record less than nothing.
        covariance[np.diag_indices_from(covariance)] = np.maximum(np.diagonal(covariance), 0.0)
        return Posterior(mean + product(whitened.T, residuals), covariance)

    def leave_one_out(self, targets: Floats) -> Floats:
        """What is predicted of each point from all others (Rasmussen & Williams, equation 5.12)."""
        inverse = solve_lower(self.factor, np.eye(len(self.steps)))
        # The mean is estimated without the point, too.
        ones = product(inverse.T, inverse.sum(axis=1))
        precision = product(inverse.T, inverse) - np.outer(ones, ones) / ones.sum()
        left: Floats = targets - product(precision, targets) / np.diagonal(precision)
        return left

    def _whitened(self, distances: Floats, steps: Floats) -> Floats:
        return solve_lower(self.factor, self.hyperparameters.kernel(distances, self.steps, steps))


def _centred(factor: Floats, targets: Floats) -> tuple[Floats, Floats, float]:
    """The whitened ones, the whitened targets without their mean, and the mean."""
    ones, white = solve_lower(factor, np.column_stack([np.ones(len(targets)), targets])).T
    mean = float(ones @ white / (ones @ ones))
    return ones, white - mean * ones, mean


def log_marginal_likelihood(
    hyperparameters: Hyperparameters, distances: Floats, steps: Floats, seeds: Floats, targets: Floats
) -> float:
    """Of the targets, at the mean and at the σ that make it largest: the given σ and s state their ratio only."""
    process = GaussianProcess(_normalised(hyperparameters), distances, steps, seeds)
    return _profile(process, targets)[0]


def _normalised(hyperparameters: Hyperparameters) -> Hyperparameters:
    ratio = hyperparameters.noise / hyperparameters.signal
    return replace(hyperparameters, signal=1.0, noise=ratio)


def _profile(process: GaussianProcess, targets: Floats) -> tuple[float, float]:
    """The log marginal likelihood at the best σ, and that σ."""
    _, residuals, _ = _centred(process.factor, targets)
    count = len(targets)
    variance = max(float(residuals @ residuals) / count, 1e-12)
    log_determinant = 2 * float(np.log(np.diagonal(process.factor)).sum())
    return -0.5 * (count * math.log(2 * math.pi * variance) + count + log_determinant), math.sqrt(variance)


def fit(distances: Floats, steps: Floats, seeds: Floats, targets: Floats, *, start: Hyperparameters) -> Hyperparameters:
    """The hyper-parameters of the grid with the largest marginal likelihood; of equals the first.

    λ is chosen after the others, which are chosen at that of ``start``, and only where steps differ.
    """
    best, largest = start, -math.inf
    noise_steps = float(np.median(steps))

    def consider(length_scale: float, ratio: float, steps_scale: float) -> None:
        nonlocal best, largest
        tried = Hyperparameters(1.0, length_scale, ratio, steps_scale, noise_steps)
        likelihood, signal = _profile(GaussianProcess(tried, distances, steps, seeds), targets)
        if round(likelihood, 6) > largest:  # rounded: the last bits depend on the number of threads
            best, largest = replace(tried, signal=signal, noise=ratio * signal), round(likelihood, 6)

    for length_scale, ratio in itertools.product(LENGTH_SCALES, NOISE_RATIOS):
        consider(length_scale, ratio, start.steps_scale)
    if len(np.unique(steps)) > 1:
        chosen = best
        for steps_scale in STEPS_SCALES:
            consider(chosen.length_scale, chosen.noise / chosen.signal, steps_scale)
    return best
