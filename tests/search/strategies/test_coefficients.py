from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings

from lossevo.expression import Expression
from lossevo.losses import expressible_names, expression_of
from lossevo.losses.symbolic import ExpressionLoss
from lossevo.search.space import Tuning
from lossevo.search.strategies.coefficients import CoefficientTuner, per_node, with_slots
from tests.expression.strategies import expressions, tame_coefficient

START = Expression.parse("0.5 * class_mean(mean((p - y) ^ 4.0)) - 3.0 * class_mean(mean(y * logp))")
LOG = Tuning(scale="log", sigma=0.4)
LINEAR = Tuning(scale="linear", sigma=0.4)


def tuner(expression: Expression = START, settings_: Tuning = LOG, seed: int = 0, slots=None) -> CoefficientTuner:
    slots = range(len(expression.coefficients)) if slots is None else slots
    return CoefficientTuner(expression, slots, settings_, np.random.default_rng(seed))


def tuned(made: CoefficientTuner, score, generations: int) -> list[list[Expression]]:
    asked = []
    for _ in range(generations):
        asked.append(made.ask())
        made.tell(asked[-1], [score(expression) for expression in asked[-1]])
    return asked


def log_distance(optimum):
    """Minus the squared distance to an optimum in log space: a quadratic of which CMA-ES must find the top."""

    def score(expression: Expression) -> float:
        return -sum(math.log(abs(c / best)) ** 2 for c, best in zip(expression.coefficients, optimum, strict=True))

    return score


class TestCoefficientTuner:
    @pytest.mark.parametrize("scale", [LOG, LINEAR])
    def test_the_first_point_is_the_start(self, scale):
        assert tuner(settings_=scale).ask()[0] == START

    def test_it_climbs_a_quadratic_in_log_space(self):
        made, score = tuner(), log_distance((2.0, 1.0, 0.5))
        tuned(made, score, 40)
        assert score(START) < -6
        assert score(made.favourite()) > -1e-3
        assert made.favourite().coefficients == pytest.approx((2.0, 1.0, 0.5), rel=0.05)

    def test_it_climbs_in_linear_space_across_zero(self):
        made = tuner(settings_=LINEAR)
        tuned(made, lambda e: -sum((c - best) ** 2 for c, best in zip(e.coefficients, (-1, 5, 1), strict=True)), 60)
        assert made.favourite().coefficients == pytest.approx((-1, 5, 1), abs=0.1)

    def test_noise_is_borne(self):
        noise = np.random.default_rng(1)
        made, score = tuner(), log_distance((1.0, 2.0, 1.0))
        tuned(made, lambda expression: score(expression) + noise.normal(0, 0.05), 40)
        assert score(made.favourite()) > -0.2

    def test_one_coefficient(self):
        expression = Expression.parse("class_mean(mean((p - y) ^ 4.0))")
        made, score = tuner(expression), log_distance((1.5,))
        tuned(made, score, 25)
        assert made.population >= 4
        assert made.favourite().coefficients == pytest.approx((1.5,), rel=0.05)

    @pytest.mark.parametrize(("budget", "population"), [(None, 7), (100, 7), (12, 6), (9, 4), (1, 4)])
    def test_a_small_budget_makes_small_generations(self, budget, population):
        made = CoefficientTuner(START, range(3), LOG, np.random.default_rng(0), budget=budget)
        assert made.population == len(made.ask()) == population

    def test_no_coefficient_is_a_mistake_of_the_caller(self):
        with pytest.raises(ValueError, match="without coefficients"):
            tuner(Expression.parse("class_mean(mean(p * y))"))

    def test_only_the_slots_given_move(self):
        asked = [expression for generation in tuned(tuner(slots=[1]), lambda e: 0.0, 3) for expression in generation]
        assert {expression.coefficients[0] for expression in asked} == {0.5}
        assert {expression.coefficients[2] for expression in asked} == {3.0}
        assert len({expression.coefficients[1] for expression in asked}) > 3
        assert {expression.root for expression in asked} == {START.root}

    def test_on_a_log_scale_signs_are_kept(self):
        start = START.with_coefficients((-0.5, 4.0, -3.0))
        wild = Tuning(scale="log", sigma=3.0)
        for generation in tuned(tuner(start, wild), lambda e: e.coefficients[0], 20):
            for expression in generation:
                assert [math.copysign(1, c) for c in expression.coefficients] == [-1, 1, -1]
                assert all(math.isfinite(c) and c for c in expression.coefficients)

    def test_zeros_are_moved_linearly(self):
        start = START.with_coefficients((0.0, 4.0, 3.0))
        firsts = [e.coefficients[0] for generation in tuned(tuner(start), lambda e: 0.0, 3) for e in generation]
        assert min(firsts) < 0 < max(firsts)

    def test_coefficients_can_be_read(self):
        for expression in tuner().ask():
            assert all(len(f"{c:g}") <= 12 and float(f"{c:.6g}") == c for c in expression.coefficients)

    def test_the_generator_alone_decides(self):
        score = log_distance((2.0, 1.0, 0.5))
        assert tuned(tuner(seed=1), score, 5) == tuned(tuner(seed=1), score, 5)
        assert tuned(tuner(seed=1), score, 5) != tuned(tuner(seed=2), score, 5)

    def test_numpys_global_generator_is_neither_read_nor_moved(self):
        score, found = log_distance((2.0, 1.0, 0.5)), []
        for seed in (1, 2):
            np.random.seed(seed)  # noqa: NPY002 - the global generator is what is tested
            before = np.random.get_state()[1].copy()  # noqa: NPY002
            found.append(tuned(tuner(), score, 10))
            assert (np.random.get_state()[1] == before).all()  # noqa: NPY002
        assert found[0] == found[1]

    @pytest.mark.parametrize("scores", [lambda e: 0.0, lambda e: 0.0 if e.coefficients[0] > 0.5 else 0.8])
    def test_failures_and_ties_are_borne(self, scores):
        made = tuner()
        tuned(made, scores, 30)
        assert all(math.isfinite(c) for c in made.favourite().coefficients)

    def test_it_says_nothing(self, capfd):
        tuned(tuner(), lambda e: 0.0, 5)
        assert capfd.readouterr() == ("", "")


def value_and_gradient(expression: Expression) -> tuple[np.ndarray, np.ndarray]:
    generator = torch.Generator().manual_seed(3)
    logits = (2 * torch.randn(2, 3, 3, 4, generator=generator, dtype=torch.float64)).requires_grad_()
    labels = torch.randint(0, 3, (2, 1, 3, 4), generator=generator)
    value = ExpressionLoss(expression, spacing_mm=(1, 1))(logits, labels)
    if not value.requires_grad:
        return value.numpy(), np.zeros(logits.shape)
    (gradient,) = torch.autograd.grad(value, logits)
    return value.detach().numpy(), gradient.numpy()


class TestPerNode:
    """One coefficient per node, as in GLO's second phase."""

    @given(expressions(max_depth=4, coefficients=tame_coefficient))
    @settings(max_examples=300)
    def test_coefficients_of_one_change_nothing(self, expression):
        slotted = per_node(expression)
        assert [value for value in slotted.coefficients if value != 1.0] == [
            value for value in expression.coefficients if value != 1.0
        ]
        expected, found = value_and_gradient(expression), value_and_gradient(slotted)
        for one, other in zip(expected, found, strict=True):
            largest = np.abs(one).max(initial=0.0, where=np.isfinite(one))
            rounding = 1e-12  # of intermediates of order 1, even where they cancel
            np.testing.assert_allclose(other, one, rtol=1e-9, atol=rounding + 1e-9 * largest, equal_nan=True)

    @pytest.mark.parametrize(
        ("formula", "slotted"),
        [
            ("-class_mean(mean(y / p))", "-class_mean(mean(y / p))"),
            ("-class_mean(mean(y + p))", "-class_mean(mean(1.0 * y + 1.0 * p))"),
            ("class_mean(mean(log(p) * y))", "class_mean(mean(log(1.0 * p) * y))"),
            ("class_mean(mean(sqrt(y * p)))", "class_mean(mean(sqrt(1.0 * (y * p))))"),
            ("class_mean(mean(p - 1))", "class_mean(mean(1.0 * p - 1.0 * 1))"),
            ("class_mean(mean(square(p + 0.5)))", "class_mean(mean(square(1.0 * (1.0 * p + 0.5))))"),
        ],
    )
    def test_a_factor_that_another_absorbs_is_left_out(self, formula, slotted):
        assert str(per_node(Expression.parse(formula))) == slotted

    @pytest.mark.parametrize("name", expressible_names())
    def test_what_has_slots_keeps_them_unless_asked(self, name):
        expression = expression_of(name)
        with_own = with_slots(expression, Tuning(coefficients="slots"))
        assert with_own == (expression if expression.coefficients else per_node(expression))
        assert with_slots(expression, Tuning(coefficients="per_node")) == per_node(expression)
