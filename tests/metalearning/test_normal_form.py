from __future__ import annotations

import random

import pytest
import torch

from lossevo.expression import Expression
from lossevo.losses.symbolic import ExpressionLoss
from lossevo.metalearning.normal_form import normal_form
from lossevo.search.genetic import Variation, to_node
from lossevo.search.space import load_space


def form(text: str, *, weighted: bool = False) -> str:
    expression = Expression.parse(text)
    found = normal_form(expression.root, expression.coefficients, weighted=weighted)
    return "" if found is None else str(found).removeprefix("foreground_mean(mean(").removesuffix("))")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("-foreground_mean(mean(y * logp))", "-(y * logp)"),
        ("3.0 - 2.0 * class_sum(mean(y * logp))", "-(y * logp)"),
        ("foreground_mean(mean(0.5 * (8.0 * square(p - y)) + 2.0 * softplus(m)))", "square(p - y) + 0.5 * softplus(m)"),
        ("foreground_mean(mean(-(p + y) * -(m * 2)))", "(p + y) * m"),
        ("foreground_mean(mean(y * (p - log(1.0) * 3)))", "y * p"),
        ("foreground_mean(mean(square(-2.0 * p) - abs(-(y - p)) * 8))", "square(p) - 2.0 * abs(p - y)"),
        ("foreground_mean(mean((1 - p) ^ 2.0 * y * logp))", "(1 - p) ^ 2.0 * y * logp"),
        ("foreground_mean(mean(p * y + p * y - m))", "p * y - 0.5 * m"),
        ("log(foreground_mean(sum(p * y)))", "log(p * y)"),
        ("foreground_mean(mean(p)) - foreground_mean(mean(p))", ""),
        ("foreground_mean(f)", ""),
    ],
)
def test_examples(given, expected):
    assert form(given) == expected


def test_terms_are_weighted_on_demand():
    assert form("foreground_mean(mean(p - y * m))", weighted=True) == "p - 1.0 * (y * m)"
    assert form("foreground_mean(mean(p - y * m))") == "p - y * m"


def test_an_overflow_is_no_formula():
    assert form("foreground_mean(mean(p + 1e12 * p * (1e12 * y)))") == ""


def test_of_random_voxel_wise_formulas_only_the_scale_changes():
    """The gradient keeps its direction; a normal form is its own."""
    variation, compared = Variation(load_space("distillation"), random.Random(3)), 0
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 4, 4, generator=generator, dtype=torch.float64).requires_grad_()
    labels = torch.randint(0, 3, (2, 1, 4, 4), generator=generator)

    def gradient(expression: Expression) -> torch.Tensor:
        value = ExpressionLoss(expression)(logits, labels)
        return torch.autograd.grad(value, logits)[0] if value.requires_grad else torch.zeros_like(logits)

    while compared < 60:
        inner, values = to_node(variation.random_tree())
        drawn = normal_form(inner, values, weighted=True)
        if drawn is None:
            continue
        assert normal_form(drawn.root, drawn.coefficients, weighted=True) == drawn
        # As drawn, but for the reductions at the root: signs, factors and constants of all sorts.
        scrambled = Expression.parse(f"7 - 0.25 * (-{drawn} - 2.0)")
        a, b = gradient(scrambled), gradient(normal_form(scrambled.root, scrambled.coefficients))
        if not (torch.isfinite(a).all() and float(a.norm()) > 1e-9):
            continue
        assert float(torch.nn.functional.cosine_similarity(a.flatten(), b.flatten(), dim=0)) == pytest.approx(1)
        compared += 1
