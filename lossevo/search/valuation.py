"""What a candidate is worth to a search: what its longest trainings promise at the horizon, cautiously."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from lossevo.experiment.archive import Archive
from lossevo.experiment.candidate import Candidate

Worth = Callable[[Candidate], float]
"""What a candidate is worth: larger is better, −∞ before its first score. It may change with every training."""


class Valuation:
    """Values candidates of one archive that were trained for different numbers of steps.

    A score y at ``lengths[k]`` steps with n seeds counts as

        y + g_k + g_{k+1} + … − s / √n

    where g_k is the mean gain from ``lengths[k]`` to ``lengths[k + 1]`` over the candidates that have both, 0 while
    none has, and s is the standard deviation between seeds. With one length this is the mean less its standard error:
    one lucky seed does not win.
    """

    def __init__(self, archive: Archive, lengths: Sequence[int]) -> None:
        self._archive = archive
        self._lengths = tuple(lengths)
        self._changes = -1
        self._ahead: dict[int, float] = {}
        self._noise: dict[int, float] = {}

    def worth(self, candidate: Candidate) -> float:
        """The value; −∞ before the first score."""
        steps = candidate.longest
        if not steps:
            return -math.inf
        if self._changes != self._archive.changes:
            self._estimate()
        error = self._noise[steps] / math.sqrt(len(candidate.scores[steps]))
        return candidate.score + self._ahead[steps] - error

    def _estimate(self) -> None:
        self._changes = self._archive.changes
        ahead = 0.0
        *_, last = self._lengths
        self._ahead = {last: 0.0}
        for shorter, longer in zip(self._lengths[-2::-1], self._lengths[:0:-1], strict=True):
            both = [candidate for candidate in self._archive.trained(longer) if shorter in candidate.scores]
            gains = [candidate.mean(longer) - candidate.mean(shorter) for candidate in both]
            ahead += float(np.mean(gains)) if gains else 0.0
            self._ahead[shorter] = ahead
        self._noise = {steps: self._archive.noise(steps) for steps in self._lengths}
