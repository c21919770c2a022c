from __future__ import annotations

import random
from collections import Counter

import pytest

from lossevo.experiment.candidate import Candidate
from lossevo.experiment.origin import Evolved
from lossevo.expression import Expression
from lossevo.search.screening import Screening
from lossevo.search.space import SearchSpace
from lossevo.search.strategies.steady_state import SteadyStateEvolution
from lossevo.search.strategies.strategy import Proposal
from tests.search.losses import DICE, unlike
from tests.search.synthetic import SEEDS, small_space

SCREENING = Screening(2)


def evolution(space: SearchSpace, size: int = 8) -> SteadyStateEvolution:
    return SteadyStateEvolution(space, space.strategy, size, lambda candidate: candidate.score, SCREENING.direction)


def unseeded(size: int = 4, **strategy) -> SteadyStateEvolution:
    return evolution(small_space(strategy=strategy).model_copy(update={"seeds": ()}), size)


def add(to: SteadyStateEvolution, formula: str, score: float, number: int = 0) -> Candidate:
    candidate = Candidate(Expression.parse(formula), Evolved("random"), number, {10: {0: score}})
    to.take(candidate)
    to.tell(candidate)
    return candidate


def taken(from_: SteadyStateEvolution, count: int) -> list[Proposal]:
    generator, proposals = random.Random(0), []
    while len(proposals) < count:
        proposal = from_.ask(generator)
        if proposal.expression is not None:
            proposals.append(proposal)
            from_.take(Candidate(proposal.expression, proposal.origin, len(proposals)))
    return proposals


def numbers(of: SteadyStateEvolution) -> list[int]:
    return [member.candidate.number for member in of.members]


class TestBeginning:
    def test_seeds_come_first_then_random_trees_then_children(self):
        made = evolution(small_space(), size=10)
        proposals = taken(made, 10)
        assert [proposal.origin.name for proposal in proposals[: len(SEEDS)]] == list(SEEDS)
        assert all(proposal.given for proposal in proposals[: len(SEEDS)])
        assert {str(proposal.origin) for proposal in proposals[len(SEEDS) :]} == {"random"}
        for number in range(4):
            add(made, unlike(number), 0.5 + number / 10, number)
        generator = random.Random(1)
        operators = Counter(str(made.ask(generator).origin).split()[0] for _ in range(400))
        wanted = {name for name, weight in made._settings.operators.model_dump().items() if weight}
        assert operators.keys() == wanted
        assert operators["crossover"] > operators["random"]

    def test_a_rejected_proposal_does_not_count(self):
        made, generator = unseeded(size=3), random.Random(0)
        assert {str(made.ask(generator).origin).split()[0] for _ in range(20)} == {"random"}

    def test_a_formula_among_the_seeds_is_no_hand_crafted_loss(self):
        made = evolution(small_space().model_copy(update={"seeds": ("dice", "class_mean(mean(p * y))")}))
        assert [str(proposal.origin) for proposal in taken(made, 2)] == ["hand-crafted: dice", "seed"]

    def test_before_two_members_are_in_there_are_no_children(self):
        made, generator = unseeded(size=2), random.Random(0)
        taken(made, 2)
        assert {str(made.ask(generator).origin).split()[0] for _ in range(20)} == {"random"}


class TestMembers:
    def test_the_worst_leaves_when_it_is_full(self):
        made = unseeded(parsimony=0.0)
        for number, score in enumerate((0.5, 0.3, 0.4, 0.6, 0.7)):
            add(made, unlike(number), score, number)
        assert numbers(made) == [0, 2, 3, 4]
        add(made, unlike(5), 0.1, 5)
        assert numbers(made) == [0, 2, 3, 4]

    def test_a_niche_holds_only_so_many_however_good_they_are(self):
        made = unseeded(niche_size=2, parsimony=0.0)
        add(made, unlike(0), 0.1, 0)
        for number in range(1, 5):
            add(made, f"{number} - foreground_mean({number} * sum(p * y) / sum(p + y))", 0.8 + number / 100, number)
        assert sorted(numbers(made)) == [0, 3, 4]

    def test_size_costs_what_parsimony_says(self):
        made = unseeded(parsimony=0.01)
        add(made, unlike(0), 0.5)
        (member,) = made.members
        assert member.value == pytest.approx(0.5 - 0.01 * len(member.tree))

    def test_further_trainings_count(self):
        made = unseeded(parsimony=0.0)
        candidate = add(made, unlike(0), 0.9)
        candidate.record(10, 1, 0.5)
        made.tell(candidate)
        assert [member.value for member in made.members] == pytest.approx([0.7])

    def test_of_equals_the_younger_leaves(self):
        made = unseeded(parsimony=0.0)
        for number in range(5):
            add(made, unlike(number), 0.5, number)
        assert numbers(made) == [0, 1, 2, 3]

    def test_what_the_space_has_no_word_for_is_no_member(self):
        made = unseeded()
        add(made, "class_mean(topk_mean(square(p - y)))", 0.9)
        assert made.members == []

    def test_a_loss_and_its_multiple_share_a_niche(self):
        made = unseeded(niche_size=1, parsimony=0.0)
        add(made, DICE, 0.5, 0)
        add(made, f"3 * ({DICE})", 0.6, 1)
        assert numbers(made) == [1]
