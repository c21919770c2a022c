"""The surrogate: predicts a training's score from the loss's gradients before it is trained, and says how surely.

Scores enter one training at a time. Whatever a decision may rest on is rounded: the last bits of linear algebra depend
on the number of threads.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lossevo.search.surrogate.gaussian_process import (
    Floats,
    GaussianProcess,
    Hyperparameters,
    Posterior,
    fit,
    squared_distances,
)
from lossevo.search.surrogate.linear_algebra import cholesky, product
from lossevo.search.surrogate.points import Points

MOST_POINTS: Final = 2000
KEPT_SHARE, BEST_SHARE = 0.75, 0.25
"""How many of them are kept when there are more, and the share of the best that is never dropped."""
ROUNDING: Final = 1e-6
"""Of means, standard deviations and samples, in parts of the objective's range."""

_START = Hyperparameters(signal=0.05, length_scale=0.4, noise=0.015)
_FIRST_FIT, _FIT_GROWTH, _MOST_FITTED = 10, 1.15, 400
"""The kernel is fitted after so many trainings, then whenever there are 15 % more; on at most so many points."""
_RECENT, _CLIP = 100, 3.0
_FACTORS = tuple(1.1**power for power in range(15))
_FACTOR_PRIOR = 0.3
"""Standard deviation of the factor's logarithm before anything is known."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """The joint posterior of several losses' scores, without the noise of a training; rounded.

    Below most scores the mean is on the bent scale of :meth:`~lossevo.search.surrogate.points.Scores.bent`.
    """

    mean: Floats
    sd: Floats
    covariance: Floats
    unit: float

    def sample(self, generator: np.random.Generator) -> Floats:
        """One draw, for Thompson sampling: train the largest, and draw again for the next place of a batch."""
        count = len(self.mean)
        jitter = count * ROUNDING * 1e-3 * self.unit**2  # more than what rounding takes from the eigenvalues
        factor = cholesky(self.covariance + jitter * np.eye(count))
        return _rounded(self.mean + product(factor, generator.standard_normal(count)), ROUNDING * self.unit)


@dataclass(frozen=True, slots=True)
class _Check:
    """A new score's error, and the variance that was predicted: without noise, and of the noise alone."""

    error: float
    variance: float
    noise: float


class Surrogate:
    """A Gaussian process of scores that learns as trainings end.

    Args:
        unit: the objective's range, from the utility of a failed training to that of a perfect one.
        most_points: more are not kept. Where there are more, the seeds of a loss become one point. If that is not
            enough the oldest are dropped, but none of the best quarter.
    """

    def __init__(self, unit: float = 1.0, *, most_points: int = MOST_POINTS) -> None:
        self.unit = unit
        self._most = most_points
        self._points = Points()
        self._process = _process_of(_START, self._points)
        self._told, self._fitted_at = 0, 0
        self._checks: list[_Check] = []

    def __len__(self) -> int:
        """How many points are kept."""
        return len(self._points)

    @property
    def fitted(self) -> bool:
        """Whether there were enough trainings to fit the kernel; before that nothing is predicted well."""
        return self._fitted_at > 0

    @property
    def hyperparameters(self) -> Hyperparameters:
        """As they were last fitted, in parts of the objective's range."""
        return self._process.hyperparameters

    def tell(self, features: NDArray[np.float32], score: float, *, steps: int) -> None:
        """A training of a loss with these features (states, components) has ended with this utility."""
        distances, length = self._points.distances_to(features[None]), np.array([float(steps)])
        predicted = self._posterior(distances, np.zeros((1, 1)), length)
        self._process.add(distances[:, 0], steps)
        self._points.add(features, distances[:, 0], score / self.unit, steps)
        if self._fitted_at:
            error = float(self._points.scores.bent()[-1] - predicted.mean[0])
            variance, noise = predicted.covariance[0, 0], self.hyperparameters.noise_variance(length, np.ones(1))[0]
            self._checks = [*self._checks, _Check(error, float(variance), float(noise))][-_RECENT:]
        self._told += 1
        if len(self) > self._most:
            self._points = self._points.merged().fewer(int(KEPT_SHARE * self._most), BEST_SHARE)
            self._process = _process_of(self.hyperparameters, self._points)
        if self._told >= max(_FIRST_FIT, _FIT_GROWTH * self._fitted_at):
            self._fit()

    def predict(self, features: NDArray[np.float32], *, steps: int) -> Prediction:
        """What losses with features (n, states, components) will score after so many steps.

        Standard deviations are as wide as :meth:`calibration` says.
        """
        distances, among = self._points.distances_to(features), squared_distances(features, features)
        found = self._posterior(distances, among, np.full(len(features), float(steps)))
        covariance = _rounded(self.calibration() ** 2 * found.covariance, ROUNDING * 1e-3) * self.unit**2
        sd = _rounded(np.sqrt(np.diagonal(covariance)), ROUNDING * self.unit)
        return Prediction(_rounded(found.mean * self.unit, ROUNDING * self.unit), sd, covariance, self.unit)

    def calibration(self) -> float:
        """The factor, at least 1, by which predicted standard deviations were too small of late; it is applied.

        It makes the errors of the last hundred new scores, each predicted before it was known, most likely.
        """
        if not self._checks:
            return 1.0
        error, variance, noise = np.array([[check.error, check.variance, check.noise] for check in self._checks]).T
        # One failure says little of good losses.
        squared = np.minimum(np.square(error), _CLIP**2 * (variance + noise))

        def likelihood(factor: float) -> float:
            total = factor**2 * variance + noise
            fitting = -0.5 * float((np.log(total) + squared / total).sum())
            return round(fitting - 0.5 * (math.log(factor) / _FACTOR_PRIOR) ** 2, 6)

        return max(_FACTORS, key=likelihood)

    def standardised_errors(self) -> Floats:
        """Of the last hundred new scores: (score - prediction) / predicted SD, noise included, as it was predicted."""
        return np.array([check.error / math.sqrt(check.variance + check.noise) for check in self._checks])

    def leave_one_out(self) -> tuple[Floats, Floats]:
        """Of each loss with as many steps: its mean score, bent, and what all others predict."""
        merged = self._points.merged()
        targets = merged.scores.values
        predicted = _process_of(self.hyperparameters, merged).leave_one_out(targets)
        return targets * self.unit, predicted * self.unit

    def _posterior(self, distances: Floats, among: Floats, steps: Floats) -> Posterior:
        return self._process.predict(self._points.scores.bent(), distances, steps, among)

    def _fit(self) -> None:
        count = len(self)
        points = self._points.of(np.unique(np.linspace(0, count - 1, min(count, _MOST_FITTED)).astype(np.intp)))
        scores = points.scores
        found = fit(points.distances, scores.steps, scores.seeds, scores.bent(), start=self.hyperparameters)
        self._process, self._fitted_at = _process_of(found, self._points), self._told


def _process_of(hyperparameters: Hyperparameters, points: Points) -> GaussianProcess:
    return GaussianProcess(hyperparameters, points.distances, points.scores.steps, points.scores.seeds)


def _rounded(values: Floats, to: float) -> Floats:
    rounded: Floats = np.round(values / to) * to
    return rounded
