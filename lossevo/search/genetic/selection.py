"""Selection on DEAP: parents from members that each have one value, to be maximised."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from deap import base, gp, tools

from lossevo.experiment.candidate import Candidate
from lossevo.search.genetic.variation import drawing_from
from lossevo.search.strategy_settings import Selection
from lossevo.search.valuation import Worth


class Fitness(base.Fitness):  # type: ignore[misc]
    """DEAP fitness: one value, to be maximised."""

    weights = (1.0,)


@dataclass(eq=False)
class Individual:
    """A member of a population: a DEAP tree and its candidate, with the fitness that DEAP's selection reads."""

    tree: gp.PrimitiveTree
    candidate: Candidate
    worth: Worth
    cost: float = 0.0

    @property
    def value(self) -> float:
        """What the candidate is worth, less what the size of its tree costs."""
        return self.worth(self.candidate) - self.cost

    @property
    def fitness(self) -> Fitness:
        """The value as DEAP wants it."""
        return Fitness((self.value,))


def select(
    members: Sequence[Individual], count: int, settings: Selection, generator: random.Random
) -> list[Individual]:
    """Parents by tournament or roulette (DEAP ``selTournament``, ``selRoulette``), with replacement."""
    with drawing_from(generator):
        if settings.selection == "tournament":
            size = min(settings.tournament_size, len(members))
            return list(tools.selTournament(members, count, tournsize=size))
        chosen = list(tools.selRoulette(members, count))
    # DEAP's wheel selects nobody while every fitness is 0, as when each training of a generation has failed.
    return chosen + generator.choices(members, k=count - len(chosen))
