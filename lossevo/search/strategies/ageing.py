"""Ageing evolution by mutation alone, as in AutoLoss-Zero (Li et al., CVPR 2022, arXiv 2103.14026)."""

from __future__ import annotations

import math
import random
from collections import deque
from typing import Any

from lossevo.experiment.candidate import Candidate
from lossevo.experiment.origin import Evolved
from lossevo.search.genetic import Individual, Variation
from lossevo.search.space import SearchSpace
from lossevo.search.strategies.proposing import proposed
from lossevo.search.strategies.seeds import Seeds
from lossevo.search.strategies.strategy import Proposal
from lossevo.search.strategy_settings import Ageing
from lossevo.search.valuation import Worth

_MUTATIONS = ("insert", "shrink", "node")
"""Insertion, deletion and replacement of an operator."""


class AgeingEvolution:
    """Random trees until ``initial`` candidates were taken, then mutants of the best of a random few; the oldest leave.

    A share ``restart`` of the children are new random trees. Never waits.
    """

    def __init__(self, space: SearchSpace, settings: Ageing, worth: Worth) -> None:
        self.members: deque[Individual] = deque(maxlen=settings.population)
        self._settings = settings
        self._variation = Variation(space)
        self._worth = worth
        self._seeds = Seeds(space)
        self._taken = 0
        self._known: set[str] = set()

    def ask(self, generator: random.Random) -> Proposal | None:
        """A seed, a random tree, or a mutant."""
        if seed := self._seeds.ask():
            return seed
        variation = self._variation
        variation.generator = generator
        if self._taken < self._settings.initial or not self.members or generator.random() < self._settings.restart:
            return proposed(variation, variation.random_tree(), Evolved("random"))
        count = max(1, math.ceil(self._settings.tournament_share * len(self.members)))
        parent = max(generator.sample(list(self.members), count), key=lambda member: member.value)
        mutation = generator.choice(_MUTATIONS)
        return proposed(variation, getattr(variation, mutation)(parent.tree), Evolved(mutation, (parent.candidate.id,)))

    def take(self, candidate: Candidate) -> None:
        """Count it."""
        self._taken += 1
        self._seeds.take(candidate)

    def tell(self, candidate: Candidate) -> None:
        """Let a candidate in with its first score; the oldest leaves when there are too many."""
        if candidate.definition.hash in self._known:
            return
        self._known.add(candidate.definition.hash)
        tree = self._variation.trees.to_tree(candidate.expression)
        if tree is not None:
            self.members.append(Individual(tree, candidate, self._worth))

    def state(self) -> dict[str, Any]:
        """Nothing: members follow from what was told."""
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """Nothing to restore."""
