"""How the budget of a search is shared out among its phases."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from lossevo.errors import LossevoError
from lossevo.search.space import Budget, SearchSpace
from lossevo.search.tuning import LEAST_BUDGET


@dataclass(frozen=True, slots=True)
class Plan:
    """How many trainings each phase gets."""

    evolution: int
    tuning: int
    confirmation: int

    @classmethod
    def of(cls, budget: Budget, hand_crafted: int, *, tuned: bool = True) -> Plan:
        """Confirmation gets what its shares allow in whole candidates, at least two; tuning its share, if anything is
        ``tuned`` and it is enough for a generation; evolution the rest.

        Raises:
            LossevoError: evolution could not even train the seeds and two children.
        """

        def shared_out(total: int) -> Plan:
            finalists = max(2, int(total * budget.confirmation_share / budget.confirmation_seeds))
            confirmation = min(finalists, 10 + hand_crafted) * budget.confirmation_seeds
            tuning = int(total * budget.tuning_share)
            tuning = tuning if tuned and tuning >= LEAST_BUDGET else 0
            return cls(total - tuning - confirmation, tuning, confirmation)

        plan = shared_out(budget.trainings)
        if plan.evolution < hand_crafted + 2:
            enough = next(n for n in itertools.count(budget.trainings) if shared_out(n).evolution >= hand_crafted + 2)
            raise LossevoError(
                f"a budget of {budget.trainings} trainings is too small: after {hand_crafted} hand-crafted seeds, "
                f"{plan.tuning} trainings for tuning and {plan.confirmation} for confirmation nothing is left to "
                f"evolve; {enough} would be enough"
            )
        return plan

    @property
    def total(self) -> int:
        """All trainings."""
        return self.evolution + self.tuning + self.confirmation

    @classmethod
    def of_space(cls, space: SearchSpace) -> Plan:
        """The plan of a search over ``space``.

        Raises:
            LossevoError: as :meth:`of`.
        """
        return cls.of(space.budget, len(space.seeds), tuned=space.tuning.structures > 0)
