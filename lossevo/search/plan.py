"""How the budget of a search is shared out, in optimiser steps, and what is spent of it."""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from lossevo.errors import LossevoError
from lossevo.search.space import Budget, SearchSpace

LEAST_TUNING: Final = 5
"""Trainings of the smallest generation of CMA-ES and of the mean of what it favours."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How many optimiser steps each part of a search gets.

    Attributes:
        selection: what candidates are found and chosen with, the ``tuning`` of coefficients among it.
        tuning: at most so much goes to CMA-ES.
        confirmation: what ``finalists`` are confirmed with.
    """

    selection: int
    tuning: int
    confirmation: int
    finalists: int

    @classmethod
    def of(cls, budget: Budget, given: int, *, shortest: int, horizon: int, tuned: bool = True) -> Plan:
        """Confirmation gets what its share allows in whole candidates, at least two; tuning its share, if anything is
        ``tuned`` and it is enough for a generation; new candidates the rest.

        Args:
            budget: ``trainings`` of ``shortest`` steps in all.
            given: losses that the search begins with.
            shortest: steps of a candidate's first training.
            horizon: steps of a confirmation.
            tuned: whether coefficients are tuned.

        Raises:
            LossevoError: not even the given losses and two more could be trained.
        """

        def shared_out(trainings: int) -> Plan:
            total, each = trainings * shortest, budget.confirmation_seeds * horizon
            finalists = min(max(2, int(total * budget.confirmation_share / each)), 10 + given)
            tuning = int(trainings * budget.tuning_share)
            return cls(
                selection=total - finalists * each,
                tuning=tuning * shortest if tuned and tuning >= LEAST_TUNING else 0,
                confirmation=finalists * each,
                finalists=finalists,
            )

        def enough(plan: Plan) -> bool:
            return plan.selection - plan.tuning >= (given + 2) * shortest

        plan = shared_out(budget.trainings)
        if not enough(plan):
            least = next(n for n in itertools.count(budget.trainings) if enough(shared_out(n)))
            raise LossevoError(
                f"a budget of {budget.trainings} trainings is too small: beside {given} given losses, "
                f"{plan.tuning // shortest} trainings for tuning and {plan.confirmation // horizon} of {horizon} steps "
                f"for confirmation nothing is left to find; {least} would be enough"
            )
        return plan

    @property
    def total(self) -> int:
        """All steps."""
        return self.selection + self.confirmation

    @classmethod
    def of_space(cls, space: SearchSpace, *, shortest: int, horizon: int) -> Plan:
        """The plan of a search over ``space``.

        Raises:
            LossevoError: as :meth:`of`.
        """
        return cls.of(
            space.budget, len(space.seeds), shortest=shortest, horizon=horizon, tuned=space.tuning.structures > 0
        )


def lengths(shortest: int, horizon: int) -> tuple[int, ...]:
    """How long trainings are: from ``shortest``, each twice as long as the one before, up to ``horizon``.

    The last but one is left out if it is more than two thirds of the horizon.
    """
    found = [shortest]
    while 2 * found[-1] <= horizon * 2 / 3:
        found.append(2 * found[-1])
    return (*found, horizon) if found[-1] != horizon else tuple(found)


@dataclass
class Account:
    """What is spent of a plan: steps by what they were spent for."""

    plan: Plan
    spent: Counter[str] = field(default_factory=Counter)

    def spend(self, reason: str, steps: int) -> None:
        """Book a training."""
        self.spent[reason] += steps

    @property
    def selection(self) -> int:
        """Steps spent to find and choose."""
        return self.spent.total() - self.spent[CONFIRMATION]

    @property
    def left_for_selection(self) -> int:
        """Steps that it still has."""
        return self.plan.selection - self.selection


HORIZON: Final = "horizon"
EVOLUTION: Final = "evolution"
TUNING: Final = "tuning"
REPETITION: Final = "repetition"
PROMOTION: Final = "promotion"
CONFIRMATION: Final = "confirmation"
"""What a training is for: to find the horizon, a new candidate, coefficients, another seed, more steps, a finalist with
new seeds.
"""
