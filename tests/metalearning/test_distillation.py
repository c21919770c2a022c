from __future__ import annotations

import random
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch.nn import functional

from lossevo.errors import LossevoError
from lossevo.expression import Expression
from lossevo.losses import create
from lossevo.losses.neural import ACTIVATIONS, LearnedLoss, LossNetwork
from lossevo.losses.symbolic import ExpressionLoss
from lossevo.metalearning.distillation import Distilled, distill, recommended
from lossevo.metalearning.gradient_fields import STAGES, Teacher
from lossevo.search.screening import Check, Screening

QUICK = 12


def best(front: list[Distilled]) -> float:
    return max(member.agreement for member in front)


def cross_entropy(margin: torch.Tensor, target: float) -> torch.Tensor:
    return functional.softplus(-target * margin)


def focal(margin: torch.Tensor, target: float) -> torch.Tensor:
    return cross_entropy(margin, target) * torch.sigmoid(-target * margin) ** 2


def learned(curve, steps: int = 400) -> LearnedLoss:
    """A loss network whose slopes over the margin are fitted to those of a curve."""
    generator = torch.Generator().manual_seed(0)
    sizes = (2, 16, 16, 1)
    weights = [torch.randn(b, a, generator=generator) * (2 / a) ** 0.5 for a, b in pairwise(sizes)]
    weights = [weight.requires_grad_() for weight in weights]
    optimizer = torch.optim.Adam(weights, lr=2e-2)
    margins = torch.linspace(-12, 12, 121)

    def slope(function) -> torch.Tensor:
        x = margins.clone().requires_grad_()
        return torch.autograd.grad(function(x).sum(), x, create_graph=True)[0]

    def network(x: torch.Tensor, target: float) -> torch.Tensor:
        values = torch.stack([x, torch.full_like(x, target)])
        for weight in weights[:-1]:
            values = ACTIVATIONS["elu"](weight @ values)
        return functional.softplus(weights[-1] @ values)

    wanted = {target: slope(lambda x, y=target: curve(x, y)).detach() for target in (-1.0, 1.0)}
    for _ in range(steps):
        errors = [slope(lambda x, y=target: network(x, y)) - given for target, given in wanted.items()]
        optimizer.zero_grad()
        torch.stack(errors).square().mean().backward()
        optimizer.step()
    layers = tuple(tuple(map(tuple, weight.tolist())) for weight in weights)
    return LearnedLoss(LossNetwork(("margin", "target"), layers))


class TestKnownLosses:
    def test_cross_entropy_of_two_classes_is_found_exactly(self):
        found = recommended(distill(create("cross_entropy"), classes=2, seed=1, budget=QUICK))
        assert str(found.expression) == "foreground_mean(mean(softplus(m) - y * m))"
        assert found.agreement == pytest.approx(1, abs=1e-12)
        assert found.scale == pytest.approx(1)
        assert found.cosines == pytest.approx(dict.fromkeys(STAGES, 1.0))
        assert found.failed is None

    @pytest.mark.parametrize("gamma", [2.0, 3.0])
    def test_focal_is_found_with_its_exponent(self, gamma):
        found = recommended(distill(create("focal", gamma=gamma), classes=2, seed=1, budget=QUICK))
        assert str(found.expression) == f"foreground_mean(mean(abs(p - y) ^ {gamma:g} * (softplus(m) - y * m)))"
        assert found.agreement > 1 - 1e-9

    @pytest.mark.parametrize("weight", [0.25, 3])
    def test_a_weight_of_the_foreground_is_found(self, weight):
        """The factor by which a voxel of the foreground weighs more than one of the background."""
        cross_entropy = "-2.0 * class_mean(mean(y * logp))"
        loss = Expression.parse(f"{cross_entropy} - {weight - 1:.2f} * foreground_mean(mean(y * logp))")
        found = recommended(distill(ExpressionLoss(loss), classes=2, seed=1, budget=QUICK))
        assert str(found.expression) == f"foreground_mean(mean((1 - y) * softplus(m) + {weight} * (y * softplus(-m))))"
        assert found.agreement == pytest.approx(1, abs=1e-12)

    def test_cross_entropy_of_each_of_several_classes_against_the_rest(self):
        """That of all classes at once is none of these: with several, no single one knows the background's p."""
        formula = "foreground_mean(mean(-(y * logp + (1 - y) * log(1 - p))))"
        found = recommended(distill(ExpressionLoss(Expression.parse(formula)), classes=4, seed=1, budget=QUICK))
        assert (str(found.expression), found.agreement) == (formula, pytest.approx(1, abs=1e-12))
        assert best(distill(create("cross_entropy"), classes=4, seed=1, budget=QUICK)) < 0.9

    def test_a_mixture_is_found_with_its_weight(self):
        formula = "foreground_mean(mean(softplus(m) - y * m + 4 * square(p - y)))"
        found = recommended(distill(ExpressionLoss(Expression.parse(formula)), classes=2, seed=1, budget=20))
        assert (str(found.expression), found.agreement) == (formula, pytest.approx(1, abs=1e-9))

    @pytest.mark.parametrize("curve", [cross_entropy, focal])
    def test_a_network_that_learned_one_is_read_as_it(self, curve):
        loss = learned(curve)
        found = recommended(distill(loss, classes=2, seed=1, budget=20))
        assert found.agreement > 0.99
        assert found.complexity <= 15
        known = create(curve.__name__)
        field = Teacher(known, 2).field_of(found.expression)
        assert Teacher(known, 2).agreement(field) > 0.99

    def test_what_no_voxel_knows_agrees_less(self):
        assert best(distill(create("dice"), classes=2, seed=1, budget=QUICK)) < 0.9


@pytest.fixture(scope="module")
def front() -> list[Distilled]:
    return distill(create("dice_ce"), classes=2, seed=3, budget=24)


@pytest.fixture(scope="module")
def less() -> tuple[list[Distilled], list[tuple[int, int, float]]]:
    """The front of half the budget, and what was told on the way."""
    told: list[tuple[int, int, float]] = []
    return distill(create("dice_ce"), classes=2, seed=3, budget=12, progress=lambda *now: told.append(now)), told


class TestFront:
    def test_it_is_one_of_agreement_and_complexity(self, front):
        for passing in (True, False):
            members = [member for member in front if (member.failed is None) is passing]
            assert [m.complexity for m in members] == sorted({m.complexity for m in members})
            assert [m.agreement for m in members] == sorted({m.agreement for m in members})

    def test_what_it_says_of_a_formula_is_so(self, front):
        teacher, screening = Teacher(create("dice_ce"), 2), Screening(2)
        for member in front:
            field = teacher.field_of(member.expression)
            assert member.agreement == teacher.agreement(field)
            assert member.cosines == teacher.cosines(field)
            assert member.failed == screening.measure(member.expression).failed

    def test_same_seed_same_front_and_no_global_generator(self, less):
        states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()  # noqa: NPY002
        again = distill(create("dice_ce"), classes=2, seed=3, budget=12)
        assert again == less[0]
        assert states == (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())  # noqa: NPY002

    def test_more_budget_is_never_worse(self, front, less):
        found, told = less
        assert [done for done, _, _ in told] == list(range(1, 13))
        assert [value for _, _, value in told] == sorted(value for _, _, value in told)
        assert told[-1] == (12, 12, best(found))
        assert best(found) <= best(front)

    def test_the_recommended_one_is_the_shortest_of_the_good_that_pass(self):
        def made(text: str, agreement: float, failed: Check | None = None) -> Distilled:
            return Distilled(Expression.parse(f"foreground_mean(mean({text}))"), agreement, {}, 1.0, failed)

        short, longer, longest = made("p", 0.9), made("p * y", 0.992), made("p * y + 2.0 * p", 0.995)
        unsafe = made("y", 0.999, Check.OVERFLOW)
        assert recommended([short, longer, longest, unsafe]) is longer
        assert recommended([short, longest]) is longest
        assert recommended([unsafe]) is unsafe
        with pytest.raises(ValueError, match="empty"):
            recommended([])


def test_a_loss_that_trains_nothing_is_read_but_known_as_that():
    formula = "foreground_mean(mean(y * m - softplus(m)))"
    front = distill(ExpressionLoss(Expression.parse(formula)), classes=2, seed=0, budget=QUICK)
    found = max(front, key=lambda member: member.agreement)
    assert (str(found.expression), found.failed) == (formula, Check.DESCENT)


def test_frequency_and_distance_are_words_only_where_the_loss_knows_them():
    network = LossNetwork(("margin", "target"), (((0.5, -0.5), (-1.0, 0.2)), ((1.0, 1.0),)))
    front = distill(LearnedLoss(network), classes=2, seed=0, budget=QUICK)
    assert not any(member.expression.terminals & {"f", "d"} for member in front)
    assert any("d" in m.expression.terminals for m in distill(create("boundary"), classes=2, seed=0, budget=QUICK))


def test_a_budget_of_nothing_is_refused():
    with pytest.raises(LossevoError, match="budget of a distillation is 0"):
        distill(create("dice"), classes=2, seed=0, budget=0)
