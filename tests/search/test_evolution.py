from __future__ import annotations

import random
from collections import Counter

import numpy as np
import pytest

from lossevo.experiment.candidate import Candidate
from lossevo.expression import Expression
from lossevo.search.evolution import Generational, Population, Proposal, SteadyState, create_population
from lossevo.search.screening import Screening
from lossevo.search.space import SearchSpace
from lossevo.search.variation import Variation
from tests.search.synthetic import SEEDS, small_space

SCREENING = Screening(2)
DICE = "1 - foreground_mean(2 * sum(p * y) / sum(p + y))"


def population(space: SearchSpace, size: int = 8, seed: int = 0) -> Population:
    return create_population(Variation(space, random.Random(seed)), size, SCREENING.direction)


def steady(**strategy) -> SteadyState:
    made = population(small_space(strategy=strategy).model_copy(update={"seeds": ()}), size=4)
    assert isinstance(made, SteadyState)
    return made


def generational(**strategy) -> Generational:
    made = population(small_space("glo", strategy=strategy), size=6)
    assert isinstance(made, Generational)
    return made


def add(to: Population, formula: str, score: float, number: int = 0) -> Candidate:
    """Let a loss in with a score; the tree does not matter."""
    candidate = Candidate(Expression.parse(formula), None, number, {0: score})
    to.add(to.variation.random_tree(), candidate)
    return candidate


def accepted(from_: Population, count: int) -> list[Proposal]:
    proposals = []
    for _ in range(count):
        proposals.append(from_.propose())
        assert proposals[-1] is not None
        from_.accepted()
    return proposals


def unlike(number: int) -> str:
    """Losses of different gradient directions."""
    return ["class_mean(mean(square(p - y)))", "-class_sum(mean(y * logp))", DICE, "class_mean(mean(y / p - logp))",
            "20 * foreground_mean(mean(p * d))", "-class_mean(mean(p * y))"][number]  # fmt: skip


class TestBeginning:
    def test_seeds_come_first_then_random_trees_then_children(self):
        made = population(small_space(), size=10)
        proposals = accepted(made, 10)
        assert [proposal.origin.name for proposal in proposals[: len(SEEDS)]] == list(SEEDS)
        assert {str(proposal.origin) for proposal in proposals[len(SEEDS) :]} == {"random"}
        for number in range(4):
            add(made, unlike(number), 0.5 + number / 10, number)
        operators = Counter(str(made.propose().origin).split()[0] for _ in range(400))
        wanted = {name for name, weight in made.strategy.operators.model_dump().items() if weight}
        assert operators.keys() == wanted
        assert operators["crossover"] > operators["random"]

    def test_a_rejected_proposal_does_not_count(self):
        made = population(small_space().model_copy(update={"seeds": ()}), size=3)
        assert {str(made.propose().origin).split()[0] for _ in range(20)} == {"random"}

    def test_a_formula_among_the_seeds_is_no_hand_crafted_loss(self):
        made = population(small_space().model_copy(update={"seeds": ("dice", "class_mean(mean(p * y))")}))
        assert [str(proposal.origin) for proposal in accepted(made, 2)] == ["hand-crafted: dice", "seed"]

    def test_before_two_members_are_in_there_are_no_children(self):
        made = population(small_space().model_copy(update={"seeds": ()}), size=2)
        accepted(made, 2)
        assert {str(made.propose().origin).split()[0] for _ in range(20)} == {"random"}


class TestSteadyState:
    def test_the_worst_leaves_when_it_is_full(self):
        made = steady(parsimony=0.0)
        for number, score in enumerate((0.5, 0.3, 0.4, 0.6, 0.7)):
            add(made, unlike(number), score, number)
        assert [member.candidate.number for member in made.members] == [0, 2, 3, 4]
        add(made, unlike(5), 0.1, 5)
        assert [member.candidate.number for member in made.members] == [0, 2, 3, 4]

    def test_a_niche_holds_only_so_many_however_good_they_are(self):
        made = steady(niche_size=2, parsimony=0.0)
        add(made, unlike(0), 0.1, 0)
        for number in range(1, 5):
            add(made, f"{number} - foreground_mean({number} * sum(p * y) / sum(p + y))", 0.8 + number / 100, number)
        assert sorted(member.candidate.number for member in made.members) == [0, 3, 4]

    def test_size_costs_what_parsimony_says(self):
        made = steady(parsimony=0.01)
        add(made, unlike(0), 0.5)
        (member,) = made.members
        assert member.value == pytest.approx(0.5 - 0.01 * len(member.tree))
        assert member.fitness.values == (member.value,)

    def test_a_member_is_worth_the_mean_over_its_seeds(self):
        made = steady(parsimony=0.0)
        candidate = add(made, unlike(0), 0.9)
        candidate.scores[1] = 0.5
        assert made.members[0].value == pytest.approx(0.7)

    def test_the_fewer_its_seeds_the_more_cautiously(self):
        made = steady(parsimony=0.0)
        once, often = add(made, unlike(0), 0.81, 0), add(made, unlike(1), 0.80, 1)
        often.scores |= {1: 0.80, 2: 0.80, 3: 0.80}
        made.believe(0.04)
        assert [member.value for member in made.members] == pytest.approx([0.81 - 0.04, 0.80 - 0.02])
        for number in range(2, 5):
            add(made, unlike(number), 0.9, number)
        assert [member.candidate for member in made.members if member.candidate in (once, often)] == [often]

    def test_of_equals_the_younger_leaves(self):
        made = steady(parsimony=0.0)
        for number in range(5):
            add(made, unlike(number), 0.5, number)
        assert {member.candidate.number for member in made.members} == {0, 1, 2, 3}


class TestGenerational:
    def test_it_waits_for_the_end_of_each_generation(self):
        made = generational(elites=2)
        accepted(made, 6)
        assert made.propose() is None
        for number in range(6):
            assert made.propose() is None
            add(made, unlike(number), number / 10, number)
        assert [str(proposal.origin) for proposal in accepted(made, 4)] != ["random"] * 4
        assert made.propose() is None

    def test_elites_survive_and_the_others_go(self):
        made = generational(elites=2, parsimony=0.0)
        accepted(made, 6)
        for number, score in enumerate((0.5, 0.9, 0.1, 0.8, 0.2, 0.3)):
            add(made, unlike(number), score, number)
        accepted(made, 4)
        for number in range(4):
            add(made, unlike(number), 0.01, 10 + number)
        assert [member.candidate.number for member in made.members] == [1, 3, 10, 11, 12, 13]

    @pytest.mark.parametrize(("rate", "operator"), [(1.0, "crossover"), (0.0, "mutation")])
    def test_the_crossover_rate(self, rate, operator):
        made = generational(elites=2, crossover_rate=rate)
        accepted(made, 6)
        for number in range(6):
            add(made, unlike(number), number / 10, number)
        assert {str(made.propose().origin).split()[0] for _ in range(30)} == {operator}

    @pytest.mark.parametrize("elites", [0, 6, 20])
    def test_any_number_of_elites_leaves_room_for_children(self, elites):
        made = generational(elites=elites)
        accepted(made, 6)
        for number in range(6):
            add(made, unlike(number), number / 10, number)
        for generation in range(3):
            children = 6 if elites == 0 else 1
            accepted(made, children)
            assert made.propose() is None
            for number in range(children):
                add(made, unlike(number), 0.3, 10 * (generation + 1) + number)

    def test_when_every_training_has_failed_it_goes_on(self):
        made = generational(elites=2)
        accepted(made, 6)
        for number in range(6):
            add(made, unlike(number), 0.0, number)
        assert len(accepted(made, 4)) == 4


def test_directions_tell_how_alike_losses_are():
    """The cosine between gradients: 1 for what trains alike, less for what does not."""
    dice, same, other = (
        SCREENING.direction(Expression.parse(formula)) for formula in (DICE, f"3 * ({DICE})", unlike(4))
    )
    assert np.linalg.norm(dice) == pytest.approx(1, abs=1e-6)
    assert dice @ same == pytest.approx(1, abs=1e-6)
    assert dice @ other < 0.9
    flat = SCREENING.direction(Expression.parse("class_mean(mean(p - p + y))"))
    assert not flat.any()
