"""Preselection: of several proposals the surrogate lets one be trained (Ulmer, Streichert & Zell, CEC 2003)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from lossevo.experiment.candidate import Candidate
from lossevo.expression import Expression
from lossevo.search.surrogate.surrogate import Surrogate

Features = NDArray[np.float32]
"""Unit gradients of a loss on the probe states, (states, components)."""
_REMEMBERED = 256
"""Losses whose features are kept: those under way, and those that are trained again."""


@dataclass(frozen=True, slots=True)
class _Ended:
    """A training that the surrogate has not been told of yet."""

    expression: Expression
    utility: float
    steps: int


@dataclass
class Preselection:
    """Chooses among proposals by Thompson sampling: the one of which a draw from the posterior at the horizon is best.

    A draw, not the mean: a loss that nobody knows wins where the surrogate is unsure, so the search does not close in
    on one family. Features and posterior are computed when a choice is to be made and not before, so a search that only
    follows its record computes none.

    Args:
        features: of a loss on the probe states; None if they are not finite.
        horizon: the steps at which losses are ranked.
        unit: the range of the objective.
    """

    features: Callable[[Expression], Features | None]
    horizon: int
    unit: float = 1.0
    _surrogate: Surrogate = field(init=False)
    _ended: list[_Ended] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._surrogate = Surrogate(unit=self.unit)
        self._features_of = lru_cache(maxsize=_REMEMBERED)(self.features)

    def tell(self, candidate: Candidate, steps: int, utility: float) -> None:
        """A training of a candidate has ended."""
        self._ended.append(_Ended(candidate.expression, utility, steps))

    def can_choose(self) -> bool:
        """Whether there were enough trainings to tell losses apart."""
        self._learn()
        return self._surrogate.fitted

    def choose(self, proposals: Sequence[Expression], generator: np.random.Generator) -> int:
        """The place of the one to be trained; the first if the surrogate can judge none."""
        self._learn()
        features = {place: self._features_of(proposal) for place, proposal in enumerate(proposals)}
        judged = {place: found for place, found in features.items() if found is not None}
        if not judged:
            return 0
        drawn = self._surrogate.predict(np.stack([*judged.values()]), steps=self.horizon).sample(generator)
        return [*judged][int(drawn.argmax())]

    def _learn(self) -> None:
        for ended in self._ended:
            features = self._features_of(ended.expression)
            if features is not None:
                self._surrogate.tell(features, ended.utility, steps=ended.steps)
        self._ended.clear()
