"""Evolution: populations that propose new trees from old ones. Screening, training and counting are the engine's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from deap import base, gp
from numpy.typing import NDArray

from lossevo.experiment.candidate import Candidate
from lossevo.experiment.origin import Evolved, HandCrafted, Origin, Seed
from lossevo.expression import Expression
from lossevo.search.variation import Variation

Direction = NDArray[np.float32]
"""The unit vector of a loss's gradient on the screening's probe."""


class Fitness(base.Fitness):  # type: ignore[misc]
    """DEAP fitness: one value, to be maximised."""

    weights = (1.0,)


@dataclass(eq=False)
class Individual:
    """A member of a population: a DEAP tree and its candidate, with the fitness that DEAP's selection reads."""

    tree: gp.PrimitiveTree
    candidate: Candidate
    parsimony: float
    direction: Direction
    noise: float = 0.0

    @property
    def value(self) -> float:
        """Mean utility, cautiously, minus what the tree's size costs."""
        return self.candidate.cautious_score(self.noise) - self.parsimony * len(self.tree)

    @property
    def fitness(self) -> Fitness:
        """The value as DEAP wants it."""
        return Fitness((self.value,))


@dataclass(frozen=True, slots=True)
class Proposal:
    """A tree to be screened, and how it came about."""

    tree: gp.PrimitiveTree
    origin: Origin


class Population(Protocol):
    """Proposes trees and learns how their candidates scored."""

    members: list[Individual]

    def propose(self) -> Proposal | None:
        """A new tree; None if nothing can be proposed before more outcomes are in."""

    def accepted(self) -> None:
        """The last proposal passed the screening and will be trained."""

    def add(self, tree: gp.PrimitiveTree, candidate: Candidate) -> None:
        """A proposal's candidate has its first score."""

    def believe(self, noise: float) -> None:
        """The standard deviation between seeds is estimated to be this."""


def create_population(
    variation: Variation, size: int, direction: Callable[[Expression], Direction], *, unit: float = 1.0
) -> Population:
    """The population of the space's strategy, of at most ``size`` members; ``direction`` tells how alike two are.

    ``unit`` is the range of the utilities, of which a node costs its part.
    """
    kind = SteadyState if variation.space.strategy.replacement == "steady_state" else Generational
    return kind(variation, size, direction, unit)


class _Seeded:
    """What both strategies share: members, and seeds that come before anything else."""

    def __init__(
        self, variation: Variation, size: int, direction: Callable[[Expression], Direction], unit: float
    ) -> None:
        self.strategy = variation.space.strategy
        self._parsimony = unit * self.strategy.parsimony
        self.variation = variation
        self.generator = variation.generator
        self.size = size
        self._direction = direction
        self._noise = 0.0
        self.members: list[Individual] = []
        self._accepted = 0
        self._seeds: list[Proposal] = []
        for name, expression in variation.space.seed_expressions().items():
            tree = variation.to_tree(expression)
            if tree is not None:
                origin = HandCrafted(name) if name.isidentifier() else Seed()
                self._seeds.append(Proposal(tree, origin))
        self._seeds.reverse()

    def accepted(self) -> None:
        """Count a proposal that will be trained."""
        self._accepted += 1

    def _individual(self, tree: gp.PrimitiveTree, candidate: Candidate) -> Individual:
        direction = self._direction(candidate.expression)
        return Individual(tree, candidate, self._parsimony, direction, self._noise)

    def believe(self, noise: float) -> None:
        """Value members with this standard deviation between seeds from now on."""
        self._noise = noise
        for member in self.members:
            member.noise = noise

    def _first(self) -> Proposal | None:
        """A seed, or a random tree until the population is full."""
        if self._seeds:
            return self._seeds.pop()
        if self._accepted < self.size:
            return Proposal(self.variation.random_tree(), Evolved("random"))
        return None


class SteadyState(_Seeded):
    """One child at a time; the worst member leaves when the population is full. Never waits."""

    def propose(self) -> Proposal | None:
        """A seed, a random tree, or a child of members selected now."""
        first = self._first()
        if first is not None:
            return first
        weights = self.strategy.operators.model_dump()
        (operator,) = self.generator.choices(list(weights), list(weights.values()))
        if operator == "random" or len(self.members) < 2:
            return Proposal(self.variation.random_tree(), Evolved("random"))
        parents = 2 if operator in ("crossover", "combine") else 1
        chosen = self.variation.select(self.members, parents)
        tree = getattr(self.variation, operator)(*(parent.tree for parent in chosen))
        return Proposal(tree, Evolved(operator, tuple(parent.candidate.id for parent in chosen)))

    def add(self, tree: gp.PrimitiveTree, candidate: Candidate) -> None:
        """Let a member in; the worst of its niche leaves if that is crowded, else the worst of all if there are too
        many.
        """
        newcomer = self._individual(tree, candidate)
        self.members.append(newcomer)
        similarity = self.strategy.niche_similarity
        niche = [member for member in self.members if float(member.direction @ newcomer.direction) > similarity]
        if len(niche) > self.strategy.niche_size:
            self._drop_worst(niche)
        elif len(self.members) > self.size:
            self._drop_worst(self.members)

    def _drop_worst(self, among: list[Individual]) -> None:
        """Remove the member of least value, the youngest of equals."""
        self.members.remove(min(among, key=lambda member: (member.value, -member.candidate.number)))


class Generational(_Seeded):
    """Whole generations with elites, as in GLO; waits at the end of each generation."""

    def __init__(
        self, variation: Variation, size: int, direction: Callable[[Expression], Direction], unit: float
    ) -> None:
        super().__init__(variation, size, direction, unit)
        self._next: list[Individual] = []
        self._expected = max(size, len(self._seeds))
        self._proposed = 0

    def propose(self) -> Proposal | None:
        """A member of the first generation, or a child of the current one; None until the generation is complete."""
        if self._proposed >= self._expected:
            return None
        if not self.members:
            return self._first()
        first, second = self.variation.select(self.members, 2)
        if self.generator.random() < self.strategy.crossover_rate:
            tree = self.variation.crossover(first.tree, second.tree)
            origin = Evolved("crossover", (first.candidate.id, second.candidate.id))
        else:
            tree, origin = first.tree, Evolved("mutation", (first.candidate.id,))
        return Proposal(self.variation.glo_mutation(tree), origin)

    def accepted(self) -> None:
        """Count towards the generation."""
        super().accepted()
        self._proposed += 1

    def add(self, tree: gp.PrimitiveTree, candidate: Candidate) -> None:
        """Fill the next generation; when complete it replaces the current one, whose elites stay."""
        self._next.append(self._individual(tree, candidate))
        if len(self._next) == self._expected:
            ranked = sorted(self.members, key=lambda member: (-member.value, member.candidate.number))
            elites = ranked[: self.strategy.elites]
            self.members = elites + self._next
            self._next = []
            self._proposed = 0
            self._expected = max(1, self.size - min(self.strategy.elites, self.size - 1))
