"""Random search: every candidate is a new random tree. The control that an evolution has to beat."""

from __future__ import annotations

import random
from typing import Any

from lossevo.experiment.candidate import Candidate
from lossevo.experiment.origin import Evolved
from lossevo.search.genetic import Variation
from lossevo.search.space import SearchSpace
from lossevo.search.strategies.proposing import proposed
from lossevo.search.strategies.seeds import Seeds
from lossevo.search.strategies.strategy import Proposal


class RandomTrees:
    """The seeds of the space, then random trees; never waits and learns nothing."""

    def __init__(self, space: SearchSpace) -> None:
        self._variation = Variation(space)
        self._seeds = Seeds(space)

    def ask(self, generator: random.Random) -> Proposal | None:
        """A seed or a random tree."""
        self._variation.generator = generator
        return self._seeds.ask() or proposed(self._variation, self._variation.random_tree(), Evolved("random"))

    def take(self, candidate: Candidate) -> None:
        """Know that a seed is trained."""
        self._seeds.take(candidate)

    def tell(self, candidate: Candidate) -> None:
        """Nothing is learned."""

    def state(self) -> dict[str, Any]:
        """Nothing."""
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """Nothing to restore."""
