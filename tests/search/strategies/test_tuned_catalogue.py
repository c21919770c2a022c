from __future__ import annotations

import json
import random
from collections import Counter

import pytest

from lossevo.experiment.candidate import Candidate
from lossevo.experiment.origin import HandCrafted, Variant, origin_document, origin_in
from lossevo.losses import expressible_names, expression_of
from lossevo.losses.tunable import expression_dimensions, placed
from lossevo.search.space import load_space
from lossevo.search.strategies import create_strategy
from lossevo.search.strategies.tuned_catalogue import CatalogueTuning, _placed_at, _share

SPACE = load_space("tuned_catalogue")


def catalogue(worth=lambda candidate: candidate.score, seeds=SPACE.seeds, **settings) -> CatalogueTuning:
    strategy = SPACE.strategy.model_copy(update=settings)
    space = SPACE.model_copy(update={"seeds": seeds, "strategy": strategy})
    return create_strategy(space, expected=100, worth=worth, direction=None)


def driven(made: CatalogueTuning, trainings: int, score) -> list[Candidate]:
    found: list[Candidate] = []
    for number in range(trainings):
        proposal = made.ask(random.Random(number))
        found.append(Candidate(proposal.expression, proposal.origin, number))
        made.take(found[-1])
        found[-1].record(10, number, score(found[-1]))
        made.tell(found[-1])
    return found


def test_the_space_has_every_loss_that_can_be_written_but_one():
    assert {*expressible_names()} - {*SPACE.seeds} == {"asymmetric_similarity"}
    (beta,) = expression_dimensions("asymmetric_similarity")
    (w_fp,) = expression_dimensions("tversky")
    for value in (beta.low, beta.high):
        assert w_fp.low <= 1 / (1 + value**2) <= w_fp.high, "its variants are those of tversky"


def test_the_published_losses_come_first():
    found = driven(catalogue(), len(SPACE.seeds), lambda candidate: 0.5)
    assert [candidate.origin for candidate in found] == [HandCrafted(name) for name in SPACE.seeds]
    assert [candidate.expression for candidate in found] == [expression_of(name) for name in SPACE.seeds]


def test_a_variant_is_the_loss_with_the_parameters_that_its_origin_names():
    found = driven(catalogue(), 200, lambda candidate: 0.5)
    known: dict[str, str] = {}
    changed: set[tuple[str, str]] = set()
    for candidate in found:
        origin = candidate.origin
        if isinstance(origin, Variant):
            assert candidate.expression == expression_of(origin.name, **origin.parameters)
            assert known[origin.parents[0]] == origin.name
            for dimension in expression_dimensions(origin.name):
                assert dimension.low <= origin.parameters.get(dimension.name, dimension.start) <= dimension.high
            changed |= {(origin.name, key) for key in origin.parameters}
        known[candidate.id] = origin.name
    assert {("dice", "batch"), ("dice_ce", "w_ce"), ("jaccard", "include_background")} <= changed


def test_of_flags_alone_there_are_only_so_many():
    found = driven(catalogue(seeds=("dice", "tversky")), 40, lambda c: 0.9 if c.origin.name == "dice" else 0.1)
    assert sum(candidate.origin.name == "dice" for candidate in found) == 8


def test_nothing_is_proposed_twice():
    """Even where the only parameter has few values."""
    found = driven(catalogue(seeds=("tversky",), spread=0.0001, random_share=0.0), 60, lambda candidate: 0.5)
    assert len({candidate.definition.hash for candidate in found}) == 60


def test_trainings_go_where_they_are_worth_most():
    def score(candidate: Candidate) -> float:
        return 0.9 if candidate.origin.name == "focal_tversky" else 0.3

    found = driven(catalogue(), 120, score)
    names = Counter(candidate.origin.name for candidate in found if isinstance(candidate.origin, Variant))
    assert names["focal_tversky"] > 60
    assert len(names) > 3, "a share is random"


def test_it_climbs():
    """The best weights of Tversky's are 0.8 and 0.2; published are 0.3 and 0.7."""

    def score(candidate: Candidate) -> float:
        chosen = candidate.origin.parameters if isinstance(candidate.origin, Variant) else {}
        return 1 - abs(chosen.get("w_fp", 0.3) - 0.8)

    found = driven(catalogue(seeds=("tversky", "dice")), 40, score)
    best = max(found, key=lambda candidate: candidate.score)
    assert best.origin.parameters["w_fp"] == pytest.approx(0.8, abs=0.03)
    assert best.origin.parameters["w_fn"] == pytest.approx(0.2, abs=0.03)


def test_a_wholly_random_variant_is_one_of_the_published_loss():
    found = driven(catalogue(random_share=1.0), 60, lambda candidate: 0.5)
    published = {candidate.id for candidate in found[: len(SPACE.seeds)]}
    assert {candidate.origin.parents[0] for candidate in found[len(SPACE.seeds) :]} <= published


@pytest.mark.parametrize("name", ["tversky", "focal_tversky", "exp_log"])
def test_a_step_is_reflected_at_the_bounds_on_the_scale_of_the_search(name):
    for dimension in expression_dimensions(name):
        for share in (0.0, 0.25, 0.9, 1.0):
            assert _share(dimension, _placed_at(dimension, share)) == pytest.approx(share, abs=1e-3)
        assert _placed_at(dimension, -0.2) == _placed_at(dimension, 0.2)
        assert _placed_at(dimension, 1.3) == pytest.approx(_placed_at(dimension, 0.7), rel=1e-3)
    middle = {dimension.name: _placed_at(dimension, 0.5) for dimension in expression_dimensions("focal_tversky")}
    assert middle["gamma"] == pytest.approx(1), "between a third and three by logarithm"


def test_the_origin_reads_well_and_comes_back_from_the_ledger():
    (w_fp,) = expression_dimensions("tversky")
    origin = Variant(("3fa9c1d2",), "tversky", placed([w_fp], {"w_fp": 0.41}))
    assert str(origin) == "variant of 3fa9c1d2: tversky with w_fp 0.41, w_fn 0.59"
    assert origin_in(origin_document(origin)) == origin
    flagged = Variant(("3fa9c1d2",), "dice_focal", {"w_dice": 1.5, "batch": True, "squared_denominator": False})
    assert str(flagged).endswith("dice_focal with w_dice 1.5, batch true, squared_denominator false")
    back = origin_in(json.loads(json.dumps(origin_document(flagged))))
    assert back == flagged
    assert [type(value) for value in back.parameters.values()] == [float, bool, bool]
