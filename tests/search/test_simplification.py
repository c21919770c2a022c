from __future__ import annotations

import random

import pytest
import torch
from torch import Tensor

from lossevo.expression import Expression
from lossevo.losses import expressible_names, expression_of
from lossevo.losses.symbolic import ExpressionLoss
from lossevo.search.genetic import Variation
from lossevo.search.screening import Screening
from lossevo.search.simplification import effective_slots, simplify
from lossevo.search.space import load_space

CLASSES = 3
SCREENING = Screening(CLASSES)
fingerprint, behaviour = SCREENING.fingerprint, SCREENING.behaviour
DEAD_WEIGHT = (
    "({}) + 1",
    "7 - (3 - ({}))",
    "2.5 * ({})",
    "({}) / 0.7",
    "({}) + class_mean(mean(p - p))",
    "({}) * (0.3 + class_mean(mean(y)))",
    "max({}, ({}) - 1)",
    "min({}, 1e9)",
    "abs(({}) + 100)",
    "({}) + 0 * class_mean(mean(square(p)))",
)


def direction(expression: Expression, seed: int, scale: float) -> Tensor:
    """The gradient on logits and labels that the screening does not know, divided by its largest entry."""
    generator = torch.Generator().manual_seed(seed)
    logits = (scale * torch.randn(2, CLASSES, 9, 8, 7, generator=generator, dtype=torch.float64)).requires_grad_()
    labels = torch.randint(0, CLASSES, (2, 1, 9, 8, 7), generator=generator)
    (gradient,) = torch.autograd.grad(ExpressionLoss(expression, spacing_mm=(4, 4, 4))(logits, labels), logits)
    return gradient / gradient.abs().max()


class TestSimplify:
    @pytest.mark.parametrize("name", expressible_names())
    @pytest.mark.parametrize("dead_weight", DEAD_WEIGHT)
    def test_dead_weight_goes(self, name, dead_weight):
        loss = expression_of(name)
        loaded = Expression.parse(dead_weight.replace("{}", str(loss)))
        simple = simplify(loaded, behaviour)
        assert simple.root.size <= loss.root.size
        assert fingerprint(simple) == fingerprint(loss)
        for seed, scale in ((1, 1.0), (2, 4.0)):
            torch.testing.assert_close(
                direction(simple, seed, scale), direction(loss, seed, scale), rtol=1e-9, atol=1e-9
            )

    @pytest.mark.parametrize("name", ["cross_entropy", "focal", "tversky", "boundary"])
    def test_what_matters_stays(self, name):
        """But for the sign and the constants, which do not."""
        loss = expression_of(name)
        assert simplify(loss, behaviour).terminals == loss.terminals
        assert loss.root.size - simplify(loss, behaviour).root.size <= 3

    def test_coefficients_go_with_their_terms(self):
        simple = simplify(Expression.parse("2.0 * class_mean(mean(0.5 * square(p - y))) + 3.0"), behaviour)
        assert str(simple) == "class_mean(mean(square(p - y)))"
        kept = simplify(Expression.parse("class_mean(mean((p - y) ^ 3.0 * 0.5)) + 7.0"), behaviour)
        assert kept.coefficients == (3.0,)

    def test_the_result_is_simple_and_asked_for_once(self):
        simple = simplify(Expression.parse(DEAD_WEIGHT[0].format(expression_of("tversky"))), behaviour)
        assert simplify(simple, behaviour) == simple

    def test_evolved_candidates_keep_their_gradient_on_fresh_data(self):
        """Not only where the screening looks."""
        screening, variation = Screening(CLASSES), Variation(load_space("segmentation"), random.Random(5))
        parents = [variation.trees.to_tree(seed) for seed in variation.space.seed_expressions().values()]
        checked = []
        while len(checked) < 45:
            child = variation.crossover(*variation.generator.choices(parents, k=2))
            expression = variation.trees.to_expression(child)
            if not screening.screen(expression):
                continue
            simple = simplify(expression, screening.behaviour)
            assert simple.root.size <= expression.root.size
            if simple != expression:
                for scale in (1.0, 2.0, 6.0):
                    deviation = direction(simple, 3, scale) - direction(expression, 3, scale)
                    checked.append(float(deviation.abs().max()))
        assert max(checked) < 1e-3

    def test_protected_arithmetic_keeps_what_it_protects(self):
        """p / p is 1 but where p is below 1e-4; there its gradient pulls p up."""
        loss = Expression.parse("1 - foreground_mean(sum(p * y) / (sum(p * (y / p)) + sum(p)))")
        assert simplify(loss, fingerprint) != simplify(loss, behaviour)


class TestEffectiveSlots:
    @pytest.mark.parametrize(
        ("formula", "slots"),
        [
            ("class_mean(mean(p * y))", []),
            ("2.0 * class_mean(mean(square(p - y))) + 3.0", []),
            ("class_mean(mean(square(p - y) * 1.0 + y * logp * 2.0))", [0, 1]),
            ("3.0 * class_mean(mean((1 - p) ^ 2.0 * y * logp)) + 5.0", [1]),
            ("class_mean(mean(y * logp * (1.0 - 0.0)))", []),
            ("class_mean(mean((p + 0.0) ^ 3.0 * y))", [0, 1]),
        ],
    )
    def test_they_are_those_that_change_the_gradient(self, formula, slots):
        assert effective_slots(Expression.parse(formula), fingerprint) == slots
