from __future__ import annotations

import random

import pytest

from lossevo.experiment.candidate import Candidate
from lossevo.experiment.origin import Evolved
from lossevo.expression import Expression
from lossevo.search.strategies.generational import GenerationalEvolution
from lossevo.search.strategies.strategy import Proposal
from tests.search.synthetic import SEEDS, small_space


def generational(size: int = 6, *, seeds: tuple[str, ...] = (), **strategy) -> GenerationalEvolution:
    space = small_space("glo", strategy=strategy)
    settings = space.strategy
    if seeds:
        space = small_space().model_copy(update={"seeds": seeds})
    return GenerationalEvolution(space, settings, size, lambda candidate: candidate.score)


def taken(from_: GenerationalEvolution, count: int, seed: int = 0) -> list[Candidate]:
    """Candidates of its proposals; those beyond limits are turned down."""
    generator, found = random.Random(seed), []
    while len(found) < count:
        proposal = from_.ask(generator)
        assert proposal is not None
        known = {candidate.definition.hash for candidate in found}
        if proposal.expression is not None and proposal.expression.hash not in known:
            found.append(Candidate(proposal.expression, proposal.origin, len(found)))
            from_.take(found[-1])
    return found


def score(made: GenerationalEvolution, candidates: list[Candidate], scores: list[float]) -> None:
    for candidate, value in zip(candidates, scores, strict=True):
        candidate.record(10, 0, value)
        made.tell(candidate)


def test_it_waits_for_the_end_of_each_generation():
    made = generational(elites=2)
    first = taken(made, 6)
    assert made.ask(random.Random(0)) is None
    score(made, first[:5], [0.1, 0.2, 0.3, 0.4, 0.5])
    assert made.ask(random.Random(0)) is None
    score(made, first[5:], [0.6])
    children = taken(made, 4)
    assert {str(child.origin).split()[0] for child in children} <= {"crossover", "mutation"}
    assert made.ask(random.Random(0)) is None


def test_elites_survive_and_the_others_go():
    made = generational(elites=2, parsimony=0.0)
    first = taken(made, 6)
    score(made, first, [0.5, 0.9, 0.1, 0.8, 0.2, 0.3])
    children = taken(made, 4)
    score(made, children, [0.01] * 4)
    assert [member.candidate for member in made.members] == [first[1], first[3], *children]


@pytest.mark.parametrize(("rate", "operator"), [(1.0, "crossover"), (0.0, "mutation")])
def test_the_crossover_rate(rate, operator):
    made = generational(elites=2, crossover_rate=rate)
    score(made, taken(made, 6), [0.0, 0.1, 0.2, 0.3, 0.4, 0.5])
    generator = random.Random(0)
    assert {str(made.ask(generator).origin).split()[0] for _ in range(30)} == {operator}


def test_a_crossover_has_two_children():
    """Without mutation they hold what their parents hold."""
    off = {"shift": 0.0, "replace": 0.0, "delete": 0.0, "grow": 0.0}
    settings = small_space("glo").strategy.node_mutation.model_copy(update=off)
    made = generational(elites=2, crossover_rate=1.0, node_mutation=settings)
    first = taken(made, 6)
    score(made, first, [0.0, 0.1, 0.2, 0.3, 0.4, 0.5])
    by_id = {candidate.id: candidate for candidate in first}
    generator = random.Random(0)

    def words(proposal: Proposal | Candidate) -> list[str]:
        return sorted(node.name for node in proposal.expression.root.walk())

    pairs = 0
    for _ in range(12):
        one, two = made.ask(generator), made.ask(generator)
        assert one.origin == two.origin
        if one.expression and two.expression:
            parents = [by_id[parent] for parent in one.origin.parents]
            assert sorted(words(one) + words(two)) == sorted(words(parents[0]) + words(parents[1]))
            pairs += 1
    assert pairs > 3


@pytest.mark.parametrize("elites", [0, 6, 20])
def test_any_number_of_elites_leaves_room_for_children(elites):
    made = generational(elites=elites)
    score(made, taken(made, 6), [0.0, 0.1, 0.2, 0.3, 0.4, 0.5])
    for generation in range(3):
        children = taken(made, 6 if elites == 0 else 1, seed=generation)
        assert made.ask(random.Random(0)) is None
        score(made, children, [0.3] * len(children))


def test_when_every_training_has_failed_it_goes_on():
    made = generational(elites=2)
    score(made, taken(made, 6), [0.0] * 6)
    assert len(taken(made, 4)) == 4


def test_more_seeds_than_a_generation_holds():
    made = generational(size=4, seeds=SEEDS)
    assert [candidate.origin.name for candidate in taken(made, len(SEEDS))] == list(SEEDS)
    assert made.ask(random.Random(0)) is None


def test_what_others_train_is_none_of_its_generation():
    made = generational()
    first = taken(made, 6)
    stranger = Candidate(Expression.parse("-class_mean(mean(p * y))"), Evolved("random"), 99, {10: {0: 0.9}})
    made.tell(stranger)
    score(made, first, [0.0] * 6)
    assert stranger not in [member.candidate for member in made.members]
