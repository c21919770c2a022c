from __future__ import annotations

import random
from typing import Any

from lossevo.experiment.candidate import Candidate
from lossevo.experiment.origin import Evolved, Seed
from lossevo.expression import Expression
from lossevo.losses import expression_of
from lossevo.search.audit import Rejects
from lossevo.search.proposals import Proposals
from lossevo.search.screening import Screening
from lossevo.search.strategies import Proposal
from lossevo.search.surrogate import Preselection
from tests.search.synthetic import features, small_space


class InTurn:
    """Proposes what it was made with, again and again until one of them is taken."""

    def __init__(self, *proposals: Proposal) -> None:
        self.proposals = [*proposals]
        self._place = 0

    def ask(self, generator: random.Random) -> Proposal | None:
        if self._place == len(self.proposals):
            return None
        self._place += 1
        return self.proposals[self._place - 1]

    def take(self, candidate: Candidate) -> None:
        raise AssertionError("not asked for here")

    def tell(self, candidate: Candidate) -> None:
        raise AssertionError("not asked for here")

    def state(self) -> dict[str, Any]:
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        pass


def knowing() -> Preselection:
    """A preselection that can choose."""
    preselection = Preselection(features, 10)
    for number in range(12):
        loss = Expression.parse(f"-foreground_mean(sum(p * y) / sum(p ^ {1 + number / 4} + y))")
        preselection.tell(Candidate(loss, Evolved("random"), number), 10, 0.5 + 0.01 * number)
    return preselection


EVOLVED = Proposal(expression_of("dice"), Evolved("random"))
GIVEN = Proposal(expression_of("tversky"), Seed(), given=True)


def proposals(*asked: Proposal) -> Proposals:
    space = small_space().model_copy(update={"simplify": False})
    return Proposals(space, InTurn(*asked), Screening(2), Rejects(0), knowing())


def test_what_passed_is_not_lost_when_something_given_comes():
    found = proposals(EVOLVED, GIVEN).next(random.Random(0))
    assert found is not None
    assert found == (EVOLVED.expression, EVOLVED.origin)


def test_what_is_given_is_trained_without_a_rival():
    made = proposals(GIVEN, EVOLVED)
    assert made.next(random.Random(0)) == (GIVEN.expression, GIVEN.origin)
    assert made.passed_over == 0


def test_a_strategy_that_waits_has_its_only_proposal_trained():
    assert proposals(EVOLVED).next(random.Random(0)) is not None
    assert proposals().next(random.Random(0)) is None
