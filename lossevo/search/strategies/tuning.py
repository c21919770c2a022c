"""CMA-ES on the coefficients of the best structures, side by side with the strategy that finds structures."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lossevo.experiment.archive import Archive
from lossevo.experiment.candidate import Candidate
from lossevo.experiment.origin import Tuned
from lossevo.expression import Expression
from lossevo.search.plan import TUNING, Account
from lossevo.search.space import Tuning
from lossevo.search.strategies.coefficients import CoefficientTuner
from lossevo.search.strategies.strategy import Proposal, Strategy

BEGIN = 0.5
"""Share of the selection that is spent before the first structure is tuned."""
_PACE = 2.5
"""Between there and the end tuning is asked for so much more than its even share, so that it ends in time."""


@dataclass(frozen=True, slots=True)
class Structure:
    """What is tuned: a candidate, its expression with the slots of the space's settings, and which of them matter."""

    candidate: Candidate
    expression: Expression
    slots: list[int]


@dataclass
class _Course:
    """CMA-ES on one structure: whole generations, then the mean of the distribution.

    The point that it starts from is trained as the structure's candidate is, and nothing is trained twice.
    """

    structure: Structure
    tuner: CoefficientTuner
    budget: int
    archive: Archive
    steps: int
    spent: int = 0
    finished: bool = False
    _generation: list[Expression] = field(default_factory=list)
    _waiting: list[Expression] = field(default_factory=list)

    def ask(self) -> Proposal | None:
        """The next member of the generation, or the mean at the end; None while outcomes are missing or after it."""
        self._drop_known()
        self._open()
        if self._waiting:
            return Proposal(self._waiting[0], self._origin(), given=True)
        if self._generation or self.finished:
            return None
        mean = self.tuner.favourite()
        self.finished = self.archive.get(mean.hash) is not None
        return None if self.finished else Proposal(mean, self._origin(mean=True), given=True)

    def _origin(self, *, mean: bool = False) -> Tuned:
        return Tuned((self.structure.candidate.id,), mean=mean)

    def _open(self, taken: str = "") -> None:
        """Begin a generation if none is open and the budget has room for it and for the mean.

        What is ``taken`` now (a hash) was not known when the generation began.
        """
        while not self._generation and not self.finished and self.spent + self.tuner.population < self.budget:
            self._generation = self.tuner.ask()
            self._waiting = [
                found for found in self._generation if found.hash == taken or self.archive.get(found.hash) is None
            ]
            if not self._waiting:
                self.finished = True  # it stands still
            self._close()

    def take(self, candidate: Candidate) -> None:
        """A member of the generation, or the mean, is trained."""
        assert isinstance(candidate.origin, Tuned)
        if candidate.origin.mean:
            self.spent += 1
            self.finished = True
            return
        self._drop_known(candidate.definition.hash)
        self._open(candidate.definition.hash)  # before it counts: so it was when it was asked for
        self.spent += 1
        if candidate.expression in self._waiting:
            self._waiting.remove(candidate.expression)
        elif self._waiting:  # on record, and CMA-ES would ask for another one now
            asked = self._waiting.pop(0)
            self._generation[self._generation.index(asked)] = candidate.expression

    def _drop_known(self, taken: str = "") -> None:
        """Do not ask for what somebody else proposed meanwhile. Its score counts for the generation, too.

        What is ``taken`` now (a hash) was not known when it was asked for.
        """
        self._waiting = [
            found for found in self._waiting if found.hash == taken or self.archive.get(found.hash) is None
        ]
        if self._generation and not self._waiting:
            self._close()

    def tell(self) -> None:
        """Something was scored."""
        self._drop_known()

    def _close(self) -> None:
        """End the generation if each of its members has a score."""
        members = [self.archive.get(found.hash) for found in self._generation]
        values = [member.mean(self.steps) for member in members if member and self.steps in member.scores]
        if values and len(values) == len(self._generation):
            self.tuner.tell(self._generation, values)
            self._generation = []


class WithTuning:
    """A strategy, and from half of the selection on the tuning of the structures that are the best by then.

    All structures are tuned side by side, and while their generations wait for outcomes the strategy goes on. What is
    tuned is told to it, too: it may go on from there.

    Args:
        strategy: finds structures.
        settings: of the tuning.
        account: what is spent, and what of it.
        archive: all candidates.
        steps: of the trainings whose scores count.
        best: the structures to tune, so many.
        structure: a candidate as a structure, if it can be tuned.
        seed: of the search.
    """

    def __init__(
        self,
        strategy: Strategy,
        settings: Tuning,
        account: Account,
        archive: Archive,
        steps: int,
        best: Callable[[int], Iterable[Structure]],
        structure: Callable[[Candidate], Structure | None],
        seed: int,
    ) -> None:
        self._strategy = strategy
        self._settings = settings
        self._account = account
        self._archive = archive
        self._steps = steps
        self._best = best
        self._structure = structure
        self._seed = seed
        self._courses: dict[str, _Course] | None = None

    def ask(self, generator: random.Random) -> Proposal | None:
        """Of the structure on which least was spent, if tuning is due; else what the strategy proposes."""
        if self._due():
            if self._courses is None:
                self._begin(self._best(self._count))
            assert self._courses is not None
            for course in sorted(self._courses.values(), key=lambda course: course.spent):
                proposal = course.ask()
                if proposal is not None:
                    return proposal
        return self._strategy.ask(generator)

    def _due(self) -> bool:
        plan, begin = self._account.plan, BEGIN * self._account.plan.selection
        since = self._account.selection - begin
        if not plan.tuning or since < 0:
            return False
        pace = _PACE * plan.tuning / plan.selection
        return self._account.spent[TUNING] <= min(pace * since, plan.tuning - self._steps)

    @property
    def _count(self) -> int:
        """How many structures: as many as the settings say, if each has a few generations."""
        return min(self._settings.structures, max(1, self._account.plan.tuning // self._steps // 16))

    def _begin(self, structures: Iterable[Structure]) -> None:
        self._courses = {}
        for structure in structures:
            self._add(structure)

    def _add(self, structure: Structure) -> _Course:
        assert self._courses is not None
        budget = self._account.plan.tuning // self._steps // self._count
        generator = np.random.default_rng([self._seed, structure.candidate.number])
        tuner = CoefficientTuner(structure.expression, structure.slots, self._settings, generator, budget=budget)
        course = _Course(structure, tuner, budget, self._archive, self._steps)
        self._courses[structure.candidate.id] = course
        return course

    def take(self, candidate: Candidate) -> None:
        """A proposal of a tuning, or of the strategy, is trained."""
        if not isinstance(candidate.origin, Tuned):
            self._strategy.take(candidate)
            return
        self._courses = self._courses or {}
        course = self._courses.get(candidate.origin.parents[0]) or self._known(candidate.origin.parents[0])
        if course is not None:
            course.take(candidate)

    def _known(self, parent_id: str) -> _Course | None:
        """The course of a parent that is on record."""
        parent = self._archive.by_id(parent_id)
        structure = self._structure(parent) if parent is not None else None
        return self._add(structure) if structure is not None else None

    def tell(self, candidate: Candidate) -> None:
        """Tell the strategy and each tuning."""
        self._strategy.tell(candidate)
        for course in (self._courses or {}).values():
            course.tell()

    def state(self) -> dict[str, Any]:
        """Which structures are tuned, and the strategy's state."""
        inner = self._strategy.state()
        own = {} if self._courses is None else {"tuned": [*self._courses]}
        return own | ({"strategy": inner} if inner else {})

    def restore(self, state: dict[str, Any]) -> None:
        """Tune these, and restore the strategy."""
        if "tuned" in state:
            self._courses = self._courses or {}
            for id_ in state["tuned"]:
                if id_ not in self._courses:
                    self._known(id_)
            self._courses = {id_: self._courses[id_] for id_ in state["tuned"] if id_ in self._courses}
        self._strategy.restore(state.get("strategy", {}))
