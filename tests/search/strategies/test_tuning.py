from __future__ import annotations

import random
from typing import Any

import pytest

from lossevo.experiment.archive import Archive
from lossevo.experiment.candidate import Candidate
from lossevo.experiment.origin import Evolved, Tuned
from lossevo.experiment.scoring import DICE
from lossevo.expression import Expression
from lossevo.search.finalists import finalists, tunable
from lossevo.search.plan import TUNING, Account, Plan
from lossevo.search.screening import Screening
from lossevo.search.space import Tuning
from lossevo.search.strategies.strategy import Proposal
from lossevo.search.strategies.tuning import WithTuning

FINGERPRINT = Screening(2).fingerprint
LOSSES = (
    "1 - foreground_mean(2 * sum(p * y) / sum(p + y)) - 0.5 * class_sum(mean(y * logp))",
    "class_mean(mean(square(p - y) * 2.0 + y * p)) - 0.3 * class_sum(mean(y * logp))",
)
SETTINGS = Tuning(structures=2)
STEPS = 10


class Nothing:
    """A strategy that has nothing to propose, and keeps what it was told."""

    def __init__(self) -> None:
        self.told: list[Candidate] = []

    def ask(self, generator: random.Random) -> Proposal | None:
        return None

    def take(self, candidate: Candidate) -> None:
        raise AssertionError("it proposed nothing")

    def tell(self, candidate: Candidate) -> None:
        self.told.append(candidate)

    def state(self) -> dict[str, Any]:
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        pass


class Tunings:
    """Two structures under tuning, and whoever trains for them: better, the nearer the last coefficient is to 1."""

    def __init__(self, trainings: int = 40) -> None:
        self.archive = Archive(DICE)
        self.account = Account(Plan(selection=200 * STEPS, tuning=trainings * STEPS, confirmation=0, finalists=2))
        self.account.spend("evolution", 120 * STEPS)
        self.inner = Nothing()
        self.strategy = WithTuning(
            self.inner, SETTINGS, self.account, self.archive, STEPS,
            best=lambda count: tunable(self.archive, self.worth, count, SETTINGS, FINGERPRINT),
            structure=lambda parent: tunable([parent], self.worth, 1, SETTINGS, FINGERPRINT)[0],
            seed=3,
        )  # fmt: skip
        for number, formula in enumerate(LOSSES):
            self.score(Candidate(Expression.parse(formula), Evolved("random"), number))

    @staticmethod
    def worth(candidate: Candidate) -> float:
        return candidate.score

    def score(self, candidate: Candidate) -> None:
        if self.archive.get(candidate.definition.hash) is None:
            self.archive.add(candidate)
        distance = abs(candidate.expression.coefficients[-1] - 1)
        self.archive.record(candidate, STEPS, candidate.number, 0.9 - 0.1 * min(distance, 5))

    def take(self, proposal: Proposal) -> Candidate:
        candidate = Candidate(proposal.expression, proposal.origin, len(self.archive))
        self.archive.add(candidate)
        self.strategy.take(candidate)
        self.account.spend(TUNING, STEPS)
        return candidate

    def tell(self, candidate: Candidate) -> None:
        self.score(candidate)
        self.strategy.tell(candidate)

    def ask(self) -> Proposal | None:
        self.account.spent["evolution"] += STEPS  # time passes
        return self.strategy.ask(random.Random(0))

    def go(self, window: int = 1) -> list[Candidate]:
        """Until nothing is proposed any more."""
        done, under_way = [], []
        for _ in range(400):
            proposal = self.ask() if len(under_way) < window else None
            if proposal is not None:
                under_way.append(self.take(proposal))
            elif under_way:
                self.tell(under_way.pop(0))
                done.append(self.archive)
        return [candidate for candidate in self.archive if isinstance(candidate.origin, Tuned)]


def test_before_half_of_the_selection_is_spent_nothing_is_tuned():
    made = Tunings()
    made.account.spent["evolution"] = 90 * STEPS
    assert made.strategy.ask(random.Random(0)) is None


def test_structures_are_tuned_side_by_side():
    tuned = Tunings().go(window=4)
    parents = [candidate.origin.parents[0] for candidate in tuned]
    assert all(17 <= parents.count(parent) <= 20 for parent in parents), "whole generations, then the mean"
    assert len(set(parents)) == 2
    assert len(set(parents[:6])) == 2


@pytest.mark.parametrize("window", [1, 7])
def test_it_keeps_to_its_budget_and_ends_with_the_mean_of_the_distribution(window):
    made = Tunings()
    tuned = made.go(window)
    assert len(tuned) <= 40
    means = [candidate for candidate in tuned if candidate.origin.mean]
    assert len(means) == 2
    for mean in means:
        parent = made.archive.by_id(mean.origin.parents[0])
        assert mean.score > parent.score
        assert str(mean.origin) == f"cma-es mean of {parent.id}"


def test_what_is_tuned_is_told_to_the_strategy():
    made = Tunings()
    assert made.inner.told == made.go()


def test_no_sample_is_a_finalist_but_the_mean_may_be():
    made = Tunings()
    made.go()
    chosen = finalists(made.archive, made.worth, 6, FINGERPRINT)
    assert any(isinstance(candidate.origin, Tuned) and candidate.origin.mean for candidate in chosen)
    assert not any(isinstance(candidate.origin, Tuned) and not candidate.origin.mean for candidate in chosen)


def test_no_two_finalists_have_the_same_gradient():
    """CMA-ES starts from its parent, with coefficients of 1 where there were none."""
    made = Tunings()
    parent = next(iter(made.archive))
    twin = Candidate(Expression.parse(f"3.0 * ({parent.expression}) + 5.0"), Evolved("random"), 9, {STEPS: {0: 0.95}})
    chosen = finalists([parent, twin], made.worth, 6, FINGERPRINT)
    assert chosen == [twin]


def test_a_structure_too_large_for_a_coefficient_per_node_is_left_out():
    deep = "p * y"
    for _ in range(50):
        deep = f"sqrt({deep})"
    candidate = Candidate(Expression.parse(f"-class_mean(mean({deep}))"), Evolved("random"), 0, {STEPS: {0: 0.9}})
    assert tunable([candidate], Tunings.worth, 1, Tuning(coefficients="per_node"), FINGERPRINT) == []


@pytest.mark.parametrize(("trained", "budget"), [(1, 40), (5, 40), (17, 40), (30, 40), *((2, n) for n in range(5, 13))])
def test_told_the_record_it_goes_on_as_it_was(trained, budget):
    """Also where the budget has room for just one generation."""
    undisturbed, resumed = Tunings(budget), Tunings(budget)
    for _ in range(trained):
        candidate = undisturbed.take(undisturbed.ask())
        undisturbed.tell(candidate)
        resumed.account.spent["evolution"] += STEPS
        twin = resumed.take(Proposal(candidate.expression, candidate.origin))
        resumed.tell(twin)
    resumed.strategy.restore(undisturbed.strategy.state())
    assert [str(c.expression) for c in resumed.go()] == [str(c.expression) for c in undisturbed.go()]


def test_on_record_may_be_what_it_would_not_ask_for_now():
    """CMA-ES of another version draws others; its generation takes them as its own."""
    made = Tunings()
    asked = made.ask()
    other = asked.expression.with_coefficients([value * 1.1 for value in asked.expression.coefficients])
    made.tell(made.take(Proposal(other, asked.origin)))
    assert other in [candidate.expression for candidate in made.go()]
    assert len([candidate for candidate in made.archive if isinstance(candidate.origin, Tuned)]) <= 40


@pytest.mark.parametrize("others", [1, 3, 30])
def test_what_somebody_else_proposed_meanwhile_is_not_trained_again(others):
    """And its score counts for the generation."""
    made = Tunings()
    for _ in range(others):
        made.tell(made.take(made.ask()))
        proposal = made.ask()
        if proposal is not None:
            theirs = Candidate(proposal.expression, Evolved("random"), len(made.archive))
            made.archive.add(theirs)
            made.tell(theirs)
    tuned = made.go(window=3)
    assert len({candidate.definition.hash for candidate in made.archive}) == len(made.archive)
    assert sum(candidate.origin.mean for candidate in tuned) == 2
