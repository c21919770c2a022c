from __future__ import annotations

import pytest
import torch

from lossevo.expression import Expression
from lossevo.expression.terms import without_each_term
from lossevo.losses import expression_of, from_spec


def rests(text: str) -> list[str]:
    return [str(rest) for _, rest in without_each_term(Expression.parse(text))]


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        ("class_mean(mean(p)) + class_mean(mean(m))", ["class_mean(mean(m))", "class_mean(mean(p))"]),
        ("class_mean(mean(p)) - class_mean(mean(m))", ["-class_mean(mean(m))", "class_mean(mean(p))"]),
        ("class_mean(mean(2.0 * (p - m)))", ["class_mean(mean(2.0 * -m))", "class_mean(mean(2.0 * p))"]),
        ("class_mean(mean((p + m) / 3))", ["class_mean(mean(m / 3))", "class_mean(mean(p / 3))"]),
        ("-(class_mean(mean(p + m + logp)))",
         ["-class_mean(mean(m + logp))", "-class_mean(mean(p + logp))", "-class_mean(mean(p + m))"]),
        # a constant, a term of the target alone and a single term are none
        ("1 - foreground_mean(sum(p * y) / sum(p + y))", []),
        ("class_mean(mean(p + y)) + 3", []),
        ("class_mean(mean(square(p - y)))", []),
        # nonlinear, or scaled by an input: not opened
        ("class_mean(mean(y * (p + m)))", []),
        ("class_mean(log(mean(p + m)))", []),
        ("class_mean(mean(t * (p + m)))", []),
        # whether a class is present is decided per image or for the batch by all that is reduced below
        ("present_mean(batch_mean(p * p) + mean(p * y))", []),
        # without p a number would stand where a region is reduced
        ("class_mean(mean(p) + 2.0 * t)", []),
        # equal ones once
        ("class_mean(mean(p)) + class_mean(mean(p))", ["class_mean(mean(p))"]),
    ],
)  # fmt: skip
def test_terms_and_what_is_left(loss, expected):
    assert rests(loss) == expected


def test_coefficients_of_what_is_left_keep_their_values():
    loss = Expression.parse("2.0 * class_mean(mean(p)) + 3.0 * class_mean(mean(m ^ 4.0))")
    (_, first), (_, second) = without_each_term(loss)
    assert (first.coefficients, second.coefficients) == ((3.0, 4.0), (2.0,))


@pytest.mark.parametrize("name", ["dice_ce", "dice_focal"])
def test_a_compound_loss_without_a_term_is_the_other(name):
    assert len(without_each_term(expression_of(name))) == 2


@pytest.mark.parametrize(
    "loss",
    [
        "1 - foreground_mean(2 * sum(p * y) / sum(p + y)) - class_sum(mean(y * logp)) + 0.5 * class_mean(mean(p * d))",
        "class_mean(mean(2.0 * (square(p - y) - 0.3 * p * d)) / 4) + foreground_mean(batch_mean(-y * m + p * p))",
        "frequency_mean(mean(p * y) + target_mean(square(p))) - present_mean(complement_mean(p + sqrt(p)))",
    ],
)
def test_the_gradient_is_the_sum_of_those_of_the_terms(loss):
    """With n terms, every term is left out once: the gradients of the rests sum to n − 1 times that of the loss."""
    expression = Expression.parse(loss)
    found = without_each_term(expression)
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(2, 3, 4, 5, 6, generator=generator, dtype=torch.float64)
    labels = torch.randint(3, (2, 1, 4, 5, 6), generator=generator)
    distance = torch.randn(2, 3, 4, 5, 6, generator=generator, dtype=torch.float64)

    def gradient(one: Expression) -> torch.Tensor:
        leaf = logits.clone().requires_grad_()
        module = from_spec({"expression": one.to_json()})
        given = {"distance_map": distance} if "d" in one.terminals else {}
        (slope,) = torch.autograd.grad(module(leaf, labels, **given), leaf)
        return slope

    assert len(found) >= 3
    summed = sum(gradient(rest) for _, rest in found)
    torch.testing.assert_close(summed, (len(found) - 1) * gradient(expression), rtol=1e-9, atol=1e-12)
