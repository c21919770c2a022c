from __future__ import annotations

import random
from collections import Counter

import pytest

from lossevo.experiment.candidate import Candidate
from lossevo.expression import Expression
from lossevo.search.genetic import Individual, select
from lossevo.search.strategy_settings import Selection

ROULETTE = Selection(selection="roulette")
TOURNAMENT = Selection(selection="tournament", tournament_size=4)
LOSS = Expression.parse("class_mean(mean(p * y))")


def shares(settings: Selection, values: list[float], draws: int = 4000) -> list[float]:
    """How often members of these values are selected."""
    members = [
        Individual(None, Candidate(LOSS, None, number), lambda candidate: values[candidate.number])
        for number in range(len(values))
    ]
    chosen = Counter(member.candidate.number for member in select(members, draws, settings, random.Random(1)))
    return [chosen[number] / draws for number in range(len(values))]


def test_roulette_is_proportional_to_fitness():
    assert shares(ROULETTE, [0.1, 0.2, 0.3, 0.4]) == pytest.approx([0.1, 0.2, 0.3, 0.4], abs=0.03)


@pytest.mark.parametrize("values", [[0.0, 0.0, 0.0], [-0.1, -0.2], [0.0], [0.5, -0.2, 0.0]])
def test_roulette_selects_as_many_as_asked_whatever_the_fitness(values):
    assert sum(shares(ROULETTE, values, draws=50)) == pytest.approx(1)


def test_a_tournament_prefers_the_better():
    expected = [(k / 4) ** 4 - ((k - 1) / 4) ** 4 for k in range(1, 5)]
    assert shares(TOURNAMENT, [0.1, 0.2, 0.3, 0.4]) == pytest.approx(expected, abs=0.03)


def test_a_tournament_is_no_larger_than_the_population():
    assert shares(TOURNAMENT, [0.3], draws=5) == [1.0]


def test_a_member_is_worth_less_for_its_cost():
    member = Individual(None, Candidate(LOSS, None), lambda candidate: 0.5, cost=0.1)
    assert member.value == pytest.approx(0.4)
    assert member.fitness.values == (member.value,)
