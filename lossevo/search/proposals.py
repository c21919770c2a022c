"""From a strategy's proposals to a loss that is trained: screened, preselected, simplified."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lossevo.errors import LossevoError
from lossevo.experiment.ledger import Ledger
from lossevo.experiment.origin import Origin
from lossevo.expression import Expression
from lossevo.expression.dangers import is_safe
from lossevo.search.audit import Rejects
from lossevo.search.effect import same_effect
from lossevo.search.screening import Screening
from lossevo.search.simplification import simplify
from lossevo.search.space import SearchSpace
from lossevo.search.strategies import Proposal, Strategy
from lossevo.search.surrogate import Preselection

MAX_REJECTED_IN_A_ROW = 50_000


@dataclass
class Proposals:
    """Finds the next loss that is worth a training.

    Attributes:
        space: how many proposals compete, and whether the chosen one is simplified.
        strategy: proposes.
        screening: turns down, and counts what it saw.
        rejects: a sample of what was turned down.
        preselection: chooses among those that pass; None: the first that passes is trained.
        passed_over: proposals that passed and were not chosen.
    """

    space: SearchSpace
    strategy: Strategy
    screening: Screening
    rejects: Rejects
    preselection: Preselection | None
    passed_over: int = 0

    def next(self, generator: random.Random) -> tuple[Expression, Origin] | None:
        """The next loss to be trained; None if the strategy waits for outcomes.

        Raises:
            LossevoError: the space holds nothing new.
        """
        for _ in range(MAX_REJECTED_IN_A_ROW):
            passed = self._passed(generator)
            if not passed:
                return None
            proposal = passed[self._preferred(passed, generator)]
            expression = proposal.expression
            assert expression is not None
            if proposal.given:
                return expression, proposal.origin
            simplified = self._simplified(expression)
            if simplified == expression or self.screening.is_new(simplified, than=expression):
                return simplified, proposal.origin
        raise self._exhausted()

    def _passed(self, generator: random.Random) -> list[Proposal]:
        """The proposals that compete for the next training; none if the strategy waits for outcomes."""
        passed: list[Proposal] = []
        for _ in range(MAX_REJECTED_IN_A_ROW):
            proposal = self.strategy.ask(generator)
            if proposal is None or (proposal.given and passed):  # what is given is proposed until it is trained
                return passed
            if proposal.given:
                assert proposal.expression is not None
                self.screening.admit(proposal.expression)
                return [proposal]
            if self.screening.screen(proposal.expression):
                passed.append(proposal)
                if len(passed) == self._competing():
                    return passed
        if passed:
            return passed
        raise self._exhausted()

    def _competing(self) -> int:
        return self.space.competing if self.preselection is not None and self.preselection.can_choose() else 1

    def _preferred(self, passed: Sequence[Proposal], generator: random.Random) -> int:
        """The place of the one that the surrogate prefers."""
        if self.preselection is None or len(passed) == 1:
            return 0
        self.passed_over += len(passed) - 1
        expressions = [proposal.expression for proposal in passed if proposal.expression is not None]
        return self.preselection.choose(expressions, np.random.default_rng(generator.getrandbits(64)))

    def _simplified(self, expression: Expression) -> Expression:
        """The expression without what does not change its gradient, if that is safe to train."""
        if not self.space.simplify:
            return expression
        smaller = simplify(expression, same_effect(expression, self.screening.classes))
        # What was dropped may have bounded a value that only other images make large.
        return smaller if is_safe(smaller) else expression

    def _exhausted(self) -> LossevoError:
        return LossevoError(
            f"search space '{self.space.name}': the screening rejected {MAX_REJECTED_IN_A_ROW} candidates in a row, "
            "so it holds nothing new; widen its primitives or limits, or lower the budget"
        )

    @property
    def rejected(self) -> dict[str, int]:
        """How many proposals each check turned down, and how many the surrogate passed over."""
        counts = {check.value: count for check, count in self.screening.rejected.items()}
        return counts | {"surrogate": self.passed_over}

    def note(self) -> dict[str, Any]:
        """What goes on record with a decision, for :meth:`restore`."""
        return {
            "strategy": self.strategy.state(),
            "seen": self.screening.counts(),
            "passed over": self.passed_over,
        }

    def keep(self, ledger: Ledger) -> None:
        """Put on record what was measured and rejected since this was last done."""
        ledger.remember_measured(self.screening.new())
        self.rejects.keep(ledger)

    def restore(self, ledger: Ledger, note: Mapping[str, Any]) -> None:
        """Go on from what is on record."""
        self.strategy.restore(note.get("strategy", {}))
        self.screening.restore(ledger.measured(), note.get("seen", {}))
        self.passed_over = note.get("passed over", 0)
