"""Steady-state evolution: one child at a time, niches by the direction of the gradient."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lossevo.experiment.candidate import Candidate
from lossevo.experiment.origin import Evolved
from lossevo.expression import Expression
from lossevo.search.genetic import Individual, Variation, select
from lossevo.search.space import SearchSpace
from lossevo.search.strategies.proposing import proposed
from lossevo.search.strategies.seeds import Seeds
from lossevo.search.strategies.strategy import Proposal
from lossevo.search.strategy_settings import SteadyState
from lossevo.search.valuation import Worth

Direction = NDArray[np.float32]
"""The unit vector of a loss's gradient on the screening's probe."""


@dataclass(eq=False, kw_only=True)
class _Member(Individual):
    direction: Direction


class SteadyStateEvolution:
    """Seeds, random trees until ``size`` candidates were taken, then children of members chosen by tournament.

    Never waits. A candidate enters with its first score. The worst of its niche leaves if that is crowded, else the
    worst of all if there are too many.

    Args:
        space: what trees are made of.
        settings: as the space states them.
        size: members at most.
        worth: what a candidate is worth.
        direction: tells how alike two losses are.
        unit: the range of the objective, of which a node costs its part.
    """

    def __init__(
        self,
        space: SearchSpace,
        settings: SteadyState,
        size: int,
        worth: Worth,
        direction: Callable[[Expression], Direction],
        unit: float = 1.0,
    ) -> None:
        self.members: list[_Member] = []
        self._settings = settings
        self._variation = Variation(space)
        self._size = size
        self._worth = worth
        self._direction = direction
        self._parsimony = unit * settings.parsimony
        self._seeds = Seeds(space)
        self._taken = 0
        self._known: set[str] = set()

    def ask(self, generator: random.Random) -> Proposal | None:
        """A seed, a random tree, or a child of members selected now."""
        if seed := self._seeds.ask():
            return seed
        variation = self._variation
        variation.generator = generator
        operator = "random"
        if self._taken >= self._size and len(self.members) >= 2:
            weights = self._settings.operators.model_dump()
            (operator,) = generator.choices(list(weights), list(weights.values()))
        if operator == "random":
            return proposed(variation, variation.random_tree(), Evolved("random"))
        parents = select(self.members, 2 if operator in ("crossover", "combine") else 1, self._settings, generator)
        tree = getattr(variation, operator)(*(parent.tree for parent in parents))
        return proposed(variation, tree, Evolved(operator, tuple(parent.candidate.id for parent in parents)))

    def take(self, candidate: Candidate) -> None:
        """Count it."""
        self._taken += 1
        self._seeds.take(candidate)

    def tell(self, candidate: Candidate) -> None:
        """Let a candidate in with its first score."""
        if candidate.definition.hash in self._known:
            return
        self._known.add(candidate.definition.hash)
        tree = self._variation.trees.to_tree(candidate.expression)
        if tree is None:
            return
        direction = self._direction(candidate.expression)
        newcomer = _Member(tree, candidate, self._worth, self._parsimony * len(tree), direction=direction)
        self.members.append(newcomer)
        similarity = self._settings.niche_similarity
        niche = [member for member in self.members if float(member.direction @ direction) > similarity]
        if len(niche) > self._settings.niche_size:
            self._drop_worst(niche)
        elif len(self.members) > self._size:
            self._drop_worst(self.members)

    def _drop_worst(self, among: list[_Member]) -> None:
        """Remove the member of least value, the youngest of equals."""
        self.members.remove(min(among, key=lambda member: (member.value, -member.candidate.number)))

    def state(self) -> dict[str, Any]:
        """Nothing: members follow from what was told."""
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """Nothing to restore."""
