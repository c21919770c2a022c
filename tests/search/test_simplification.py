from __future__ import annotations

import math
import random

import pytest
import torch
from torch import Tensor

from lossevo.expression import Expression
from lossevo.losses import expressible_names, expression_of
from lossevo.losses.symbolic import ExpressionLoss
from lossevo.search.effect import DEGREES, same_effect, turns
from lossevo.search.genetic import Variation
from lossevo.search.screening import Screening
from lossevo.search.simplification import effective_slots, simplify
from lossevo.search.space import load_space

CLASSES = 3
SCREENING = Screening(CLASSES)
fingerprint = SCREENING.fingerprint
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


def simple(expression: Expression, classes: int = CLASSES) -> Expression:
    return simplify(expression, same_effect(expression, classes))


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
        found = simple(loaded)
        assert found.root.size <= loss.root.size
        for seed, scale in ((1, 1.0), (2, 4.0)):
            cosine = torch.cosine_similarity(
                direction(found, seed, scale).flatten(), direction(loss, seed, scale).flatten(), dim=0
            )
            assert float(cosine) > math.cos(math.radians(1))

    @pytest.mark.parametrize("name", ["cross_entropy", "focal", "tversky", "boundary"])
    def test_what_matters_stays(self, name):
        """But for the sign and the constants, which do not."""
        loss = expression_of(name)
        assert simple(loss).terminals == loss.terminals
        assert loss.root.size - simple(loss).root.size <= 3

    def test_coefficients_go_with_their_terms(self):
        found = simple(Expression.parse("2.0 * class_mean(mean(0.5 * square(p - y))) + 3.0"))
        assert str(found) == "class_mean(mean(square(p - y)))"
        kept = simple(Expression.parse("class_mean(mean((p - y) ^ 3.0 * 0.5)) + 7.0"))
        assert kept.coefficients == (3.0,)

    def test_the_result_is_simple_and_asked_for_once(self):
        found = simple(Expression.parse(DEAD_WEIGHT[0].format(expression_of("tversky"))))
        assert simple(found) == found

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
            found = simple(expression)
            assert found.root.size <= expression.root.size
            if found != expression:
                for scale in (1.0, 2.0, 6.0):
                    pair = [direction(loss, 3, scale).flatten() for loss in (found, expression)]
                    checked.append(float(torch.cosine_similarity(*pair, dim=0)))
        assert min(checked) > math.cos(math.radians(1.5))

    def test_protected_arithmetic_keeps_what_it_protects(self):
        """p / p is 1 but where p is below 1e-4; there its gradient pulls p up."""
        loss = Expression.parse("1 - foreground_mean(sum(p * y) / (sum(p * (y / p)) + sum(p)))")
        on_noise = simplify(loss, lambda other: fingerprint(other) == fingerprint(loss))
        assert simple(loss) != on_noise
        assert max(turns(loss, on_noise, CLASSES)) > 1


class TestByEffect:
    """What is known of labels, and what is too small to matter."""

    CASE = "1 - foreground_mean(2 * sum(p * y) / sum(square(p) + y)) - class_sum(mean((1 - y)^0.813 * y * logp))"
    DICE = "1 - foreground_mean(2 * sum(p * y) / sum(p + y))"
    CROSS_ENTROPY = "class_sum(mean(y * logp))"

    @pytest.mark.parametrize("classes", [2, 3, 6])
    def test_a_term_that_labels_make_0_goes(self, classes):
        """It won on the hippocampus. What the protection of the power leaves of it is cross-entropy times 0.0006."""
        found = simple(Expression.parse(self.CASE), classes)
        assert str(found) == "1 - foreground_mean(sum(p * y) / sum(square(p) + y))"

    def test_the_first_of_a_difference_goes_too(self):
        loss = Expression.parse(f"class_mean(mean((1 - y) * y * logp)) - {self.CROSS_ENTROPY}")
        assert str(simple(loss)) == f"-{self.CROSS_ENTROPY}"

    @pytest.mark.parametrize(("weight", "stays"), [("0.0001", False), ("0.03", True)])
    def test_a_weight_decides(self, weight, stays):
        loss = Expression.parse(f"{self.DICE} - {weight} * {self.CROSS_ENTROPY}")
        assert ("logp" in simple(loss).terminals) is stays

    def test_a_term_that_is_small_in_one_place_and_large_in_another_stays(self):
        """Where an image lacks the foreground Dice has hardly a gradient: the term is all that it has there."""
        loss = Expression.parse("1 - foreground_mean((2 * sum(p * y) + 1) / (sum(p + y) + 1))")
        without = Expression.parse("1 - foreground_mean(2 * sum(p * y) / (sum(p + y) + 1))")
        assert min(turns(loss, without, 2)) < DEGREES < max(turns(loss, without, 2))
        assert simple(loss, 2) == loss

    def test_a_sum_counts_as_it_does_in_a_patch(self):
        """On the 512 voxels of the noise it weighs next to nothing, on those of a patch it does not."""
        loss = Expression.parse(f"{self.DICE} + 0.00001 * class_mean(sum(square(p - y)))")
        without = Expression.parse(self.DICE)
        on_noise, _, *in_patches = turns(loss, without, 2)
        assert on_noise < DEGREES < max(in_patches)
        assert simple(loss, 2).root.size > 0.7 * loss.root.size

    def test_a_positive_factor_is_no_change_and_a_sign_is(self):
        dice = Expression.parse(self.DICE)
        same = same_effect(dice, 2)
        assert same(Expression.parse(f"0.001 * ({self.DICE}) + 3"))
        assert not same(Expression.parse(f"-({self.DICE})"))
        assert not same(Expression.parse(self.CROSS_ENTROPY))
        assert not same(Expression.parse("class_mean(mean(y))"))

    def test_one_that_changes_in_a_training_is_looked_at_all_along_it(self):
        loss = Expression.parse(f"{self.DICE} - max(t - 0.9, 0) * {self.CROSS_ENTROPY}")
        assert simple(loss, 2).terminals == {"p", "y", "logp", "t"}


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
