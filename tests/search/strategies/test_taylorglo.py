from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from lossevo.experiment.candidate import Candidate
from lossevo.losses.symbolic import ExpressionLoss
from lossevo.search.space import load_space
from lossevo.search.strategies import create_strategy
from lossevo.search.strategies.cma_es import CmaEsSearch
from lossevo.search.strategies.taylorglo import taylor_form, trainable
from tests.conformance.strategy import Dialogue

SPACE = load_space("taylorglo")
FORM = taylor_form(SPACE.wrap)
CROSS_ENTROPY_TO_THE_THIRD = (0.0, 1.0, 0.0, 0.0, 0.0, 1.0, -0.5, 0.0)
"""y (u - u²/2) with u = p - 1: the beginning of y log p."""


def strategy(classes: int = 2, **settings) -> CmaEsSearch:
    space = SPACE.model_copy(update={"strategy": SPACE.strategy.model_copy(update=settings)})
    return create_strategy(space, expected=80, worth=lambda c: c.score, direction=None, classes=classes)


def polynomial(parameters, y, p):
    c0, c1, c2, c3, c4, c5, c6, c7 = parameters
    u, v = p - c1, y - c0
    return c2 * u + c3 * u**2 + c4 * u**3 + c5 * v * u + c6 * v * u**2 + c7 * v**2 * u


def slope_at_the_null_epoch(parameters, y: float, classes: int) -> float:
    p = torch.tensor(1 / classes, dtype=torch.float64, requires_grad=True)
    return float(torch.autograd.grad(polynomial(parameters, y, p), p)[0])


def vectors(count: int):
    return np.random.default_rng(7).normal(0, 1.2, size=(count, 8))


def test_the_loss_is_the_negative_of_the_polynomial_averaged():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 4, 5, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, 3, (2, 1, 4, 5), generator=generator)
    y = torch.nn.functional.one_hot(labels[:, 0], 3).movedim(-1, 1).double()
    for vector in vectors(5):
        expression = FORM.expression(vector)
        expected = -polynomial(FORM.parameters(vector), y, logits.softmax(1)).mean()
        torch.testing.assert_close(ExpressionLoss(expression)(logits, labels), expected)


def test_the_search_begins_at_zero_with_eight_parameters():
    assert FORM.start.tolist() == [0.0] * 8


@pytest.mark.parametrize("classes", [2, 3, 10])
def test_the_invariant_is_that_of_the_slopes_at_the_null_epoch(classes):
    found = []
    for vector in vectors(200):
        other, true = (slope_at_the_null_epoch(vector, y, classes) for y in (0.0, 1.0))
        found.append(trainable(vector, classes))
        assert found[-1] == (true - other >= (classes - 2) * other)
    assert 40 < sum(found) < 160


def test_of_two_classes_it_tells_which_losses_begin_to_train():
    """From equal logits the true class's must rise against the other's."""
    logits, labels = torch.zeros(1, 2, 2, 2, dtype=torch.float64, requires_grad=True), torch.zeros(1, 1, 2, 2).long()
    for vector in vectors(50):
        loss = ExpressionLoss(FORM.expression(vector))(logits, labels)
        (gradient,) = torch.autograd.grad(loss, logits)
        assert trainable(vector, 2) == bool(gradient[0, 0, 0, 0] < 0)


@pytest.mark.parametrize("classes", [2, 4, 20])
def test_cross_entropy_is_trainable_and_its_negative_is_not(classes):
    assert trainable(CROSS_ENTROPY_TO_THE_THIRD, classes)
    assert not trainable([*CROSS_ENTROPY_TO_THE_THIRD[:2], *(-c for c in CROSS_ENTROPY_TO_THE_THIRD[2:])], classes)


@pytest.mark.parametrize("classes", [2, 5])
def test_what_violates_the_invariant_is_not_proposed(classes):
    def kept(invariant: bool) -> float:
        formulas = [
            proposal.expression for proposal in Dialogue(strategy(classes, invariant=invariant)).go(60).proposals
        ]
        return sum(trainable(FORM.parameters(FORM.vector(formula)), classes) for formula in formulas) / 60

    assert kept(True) == 1
    assert kept(False) < 0.95


def test_a_generation_is_that_of_the_space_or_a_fourth_of_the_budget():
    for population, size in ((28, 20), (16, 16)):
        made = strategy(population=population)
        for number in range(size):
            proposal = made.ask(random.Random(number))
            assert proposal is not None
            made.take(Candidate(proposal.expression, proposal.origin, number))
        assert made.ask(random.Random(0)) is None
