"""What the surrogate knows: the losses' features, and what their trainings scored."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lossevo.search.surrogate.gaussian_process import Floats, squared_distances, squared_lengths

QUANTILE: Final = 0.8
BELOW: Final = 0.08
"""Scores are bent where they are so far below the quantile."""
_SOFTNESS = 0.02
_LEAST_SCORES = 5
"""Of trainings with the same steps, for a quantile of their own."""


@dataclass(frozen=True, slots=True)
class Scores:
    """Scores of trainings in parts of the objective's range, their steps, and of how many seeds each is the mean."""

    values: Floats
    steps: Floats
    seeds: Floats

    def of(self, chosen: NDArray[np.intp]) -> Scores:
        """Some of them, in this order."""
        return Scores(self.values[chosen], self.steps[chosen], self.seeds[chosen])

    def with_one(self, value: float, steps: int) -> Scores:
        """One training more."""
        return Scores(np.append(self.values, value), np.append(self.steps, float(steps)), np.append(self.seeds, 1.0))

    def bent(self) -> Floats:
        """The scores, those below a threshold b drawn up to b - c log(1 + (b - score)/c): failures do not stretch the
        scale, and are still told apart.

        The threshold is the 80 % quantile of the trainings with as many steps, or fewer if theirs is higher, minus 8 %
        of the range.
        """
        threshold = np.full(len(self.values), -np.inf)
        highest = -np.inf
        for steps in np.unique(self.steps):
            among = self.steps == steps
            if among.sum() >= _LEAST_SCORES:
                highest = max(highest, float(np.quantile(self.values[among], QUANTILE)) - BELOW)
            threshold[among] = highest
        missing = np.maximum(np.where(np.isfinite(threshold), threshold, self.values) - self.values, 0.0)
        bent: Floats = self.values + missing - _SOFTNESS * np.log1p(missing / _SOFTNESS)
        return bent


NO_SCORES: Final = Scores(np.empty(0), np.empty(0), np.empty(0))


class Points:
    """Points in the order in which they came, with the distances between them."""

    def __init__(self) -> None:
        self.scores = NO_SCORES
        self.distances: Floats = np.empty((0, 0))
        self._room: NDArray[np.float32] = np.empty((0, 1, 1), np.float32)
        self._lengths: NDArray[np.float32] = np.empty((1, 0), np.float32)

    def __len__(self) -> int:
        return len(self.scores.values)

    @property
    def features(self) -> NDArray[np.float32]:
        """(n, states, components)."""
        return self._room[: len(self)]

    def distances_to(self, features: NDArray[np.float32]) -> Floats:
        """D (n, m) to losses with features (m, states, components)."""
        if not len(self):
            return np.empty((0, len(features)))
        return squared_distances(self.features, features, self._lengths)

    def add(self, features: NDArray[np.float32], distances: Floats, value: float, steps: int) -> None:
        """A training of the loss with features (states, components) and these distances (n) to those before."""
        count = len(self)
        if count == len(self._room):  # twice as much: adding many takes a time in proportion
            room = np.empty((max(16, 2 * count), *features.shape), np.float32)
            room[:count] = self.features
            self._room = room
        self._room[count] = features
        length = squared_lengths(features[None])
        self._lengths = np.column_stack([self._lengths, length]) if count else length
        self.distances = np.pad(self.distances, (0, 1))
        self.distances[count, :count] = self.distances[:count, count] = distances
        self.scores = self.scores.with_one(value, steps)

    def of(self, chosen: NDArray[np.intp]) -> Points:
        """Some of them, in this order."""
        points = Points()
        points.scores, points.distances = self.scores.of(chosen), self.distances[np.ix_(chosen, chosen)]
        points._room, points._lengths = self.features[chosen], self._lengths[:, chosen]
        return points

    def merged(self) -> Points:
        """One point for all seeds of a loss with as many steps: the mean of their bent scores, where the first was."""
        same = (self.distances == 0) & (self.scores.steps[:, None] == self.scores.steps)
        first, group = np.unique(same.argmax(axis=1), return_inverse=True)
        weights = self.scores.seeds
        seeds = np.bincount(group, weights=weights).astype(np.float64)
        values = np.bincount(group, weights=weights * self.scores.bent()) / seeds
        chosen = self.of(first)
        chosen.scores = Scores(values, chosen.scores.steps, seeds)
        return chosen

    def fewer(self, most: int, best_share: float) -> Points:
        """At most so many: the oldest are dropped, but none of the best ``best_share`` of ``most``."""
        count = len(self)
        if count <= most:
            return self
        best = np.argsort(-self.scores.bent(), kind="stable")[: int(best_share * most)]
        others = np.setdiff1d(np.arange(count), best)
        return self.of(np.sort(np.concatenate([best, others[len(others) - (most - len(best)) :]])))
