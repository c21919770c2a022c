"""Evolution by generations, as in Genetic Loss-function Optimization (Gonzalez & Miikkulainen, arXiv 1905.11528)."""

from __future__ import annotations

import random
from typing import Any

from lossevo.experiment.candidate import Candidate
from lossevo.experiment.origin import Evolved
from lossevo.expression import Expression
from lossevo.search.genetic import Individual, Variation, select
from lossevo.search.space import SearchSpace
from lossevo.search.strategies.proposing import proposed
from lossevo.search.strategies.seeds import Seeds
from lossevo.search.strategies.strategy import Proposal
from lossevo.search.strategy_settings import Generational
from lossevo.search.valuation import Worth


class GenerationalEvolution:
    """Random trees, or seeds, then generation after generation; waits at the end of each.

    Two parents are selected. With a probability of ``crossover_rate`` they exchange a subtree and both children are
    kept, else the first parent alone goes on. Every node of a child may mutate. The ``elites`` best of a generation
    join the next.

    Args:
        space: what trees are made of.
        settings: as the space states them.
        size: members of a generation.
        worth: what a candidate is worth.
        unit: the range of the objective, of which a node costs its part.
    """

    def __init__(self, space: SearchSpace, settings: Generational, size: int, worth: Worth, unit: float = 1.0) -> None:
        self.members: list[Individual] = []
        self._settings = settings
        self._variation = Variation(space)
        self._size = size
        self._worth = worth
        self._parsimony = unit * settings.parsimony
        self._seeds = Seeds(space)
        self._next: list[Individual] = []
        self._expected = max(size, len(self._seeds))
        self._taken: set[str] = set()
        self._sibling: Proposal | None = None

    def ask(self, generator: random.Random) -> Proposal | None:
        """A member of the first generation, or a child of the current one; None until the generation is complete."""
        if len(self._taken) >= self._expected:
            return None
        if seed := self._seeds.ask():
            return seed
        variation = self._variation
        variation.generator = generator
        if not self.members:
            return proposed(variation, variation.weighted_tree(), Evolved("random"))
        if self._sibling is not None:
            sibling, self._sibling = self._sibling, None
            return sibling
        first, second = select(self.members, 2, self._settings, generator)
        rates = self._settings.node_mutation
        if generator.random() < self._settings.crossover_rate:
            origin = Evolved("crossover", (first.candidate.id, second.candidate.id))
            one, two = variation.exchange(first.tree, second.tree)
            self._sibling = proposed(variation, variation.glo_mutation(two, rates), origin)
        else:
            origin, one = Evolved("mutation", (first.candidate.id,)), first.tree
        return proposed(variation, variation.glo_mutation(one, rates), origin)

    def take(self, candidate: Candidate) -> None:
        """Count it towards the generation."""
        self._seeds.take(candidate)
        self._taken.add(candidate.definition.hash)

    def tell(self, candidate: Candidate) -> None:
        """Fill the next generation; when complete it replaces the current one, whose elites stay."""
        if candidate.definition.hash not in self._taken or any(member.candidate is candidate for member in self._next):
            return
        tree = self._variation.trees.to_tree(candidate.expression)
        self._next.append(Individual(tree, candidate, self._worth, self._parsimony * len(tree or ())))
        if len(self._next) == self._expected:
            ranked = sorted(self.members, key=lambda member: (-member.value, member.candidate.number))
            elites = ranked[: self._settings.elites]
            self.members = elites + [member for member in self._next if member.tree is not None]
            self._next = []
            self._taken = set()
            self._expected = max(1, self._size - min(self._settings.elites, self._size - 1))

    def state(self) -> dict[str, Any]:
        """The second child of a crossover whose first was asked for."""
        waiting = self._sibling
        if waiting is None:
            return {}
        formula = None if waiting.expression is None else waiting.expression.to_json()
        return {"sibling": formula, "parents": list(waiting.origin.parents)}

    def restore(self, state: dict[str, Any]) -> None:
        """Know that child."""
        self._sibling = None
        if not state:
            return
        formula = state["sibling"]
        expression = None if formula is None else Expression.from_json(formula)
        first, second = state["parents"]
        self._sibling = Proposal(expression, Evolved("crossover", (first, second)))
