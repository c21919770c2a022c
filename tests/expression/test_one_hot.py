from __future__ import annotations

import pytest
from hypothesis import given, settings

from lossevo.expression import Expression
from lossevo.expression.one_hot import with_one_hot_target
from tests.expression.strategies import expressions


def shorter(text: str) -> str:
    expression = Expression.parse(text)
    return str(Expression.of(with_one_hot_target(expression.root, expression.coefficients), expression.coefficients))


@pytest.mark.parametrize(
    ("formula", "known"),
    [
        ("class_sum(mean(y * y * logp))", "class_sum(mean(y * logp))"),
        ("class_sum(sum(square(p) + square(y)))", "class_sum(sum(square(p) + y))"),
        ("class_sum(sum(p + y ^ 0.5))", "class_sum(sum(p + y))"),
        ("class_sum(mean((1 - y) ^ 1.7 * p))", "class_sum(mean((1 - y) * p))"),
        ("class_mean(mean(p)) + class_sum(mean((1 - y) ^ 0.813 * y * logp))", "class_mean(mean(p))"),
        ("class_mean(mean((1 - y) * y)) - class_mean(mean(p))", "-class_mean(mean(p))"),
        ("class_mean(mean(y * (y - p)))", "class_mean(mean(y * (1 - p)))"),
        ("class_mean(mean((1 - y) * (1 - p) * (y + p)))", "class_mean(mean((1 - y) * (1 - p) * p))"),
        ("class_mean(mean(y / (p + y)))", "class_mean(mean(y / (p + 1)))"),
        ("class_mean(mean(min(y, 1) * max(y, 0) * p))", "class_mean(mean(y * p))"),
        # Nothing is known within a reduction, of the logarithm of 0, of 0 to the power of nothing.
        ("class_mean(mean(y * sum(y * p)))", "class_mean(mean(y * sum(y * p)))"),
        ("class_mean(mean(y * avg_pool(y) * p))", "class_mean(mean(y * avg_pool(y) * p))"),
        ("class_mean(mean(log(y) * p))", "class_mean(mean(log(y) * p))"),
        ("class_mean(mean((1 - y) * p * y ^ 0.0))", "class_mean(mean((1 - y) * p * 0 ^ 0.0))"),
        # What has nothing to do with the target is written as before.
        ("2.0 * 3.0 * class_mean(mean(p * d)) + 0", "2.0 * 3.0 * class_mean(mean(p * d)) + 0"),
        # All of it is 0.
        ("class_mean(mean(y * (1 - y) * p))", "0"),
    ],
)
def test_what_is_known(formula: str, known: str) -> None:
    assert shorter(formula) == known


@given(expressions(max_depth=6))
@settings(max_examples=300)
def test_it_is_never_longer_and_is_a_loss(expression: Expression) -> None:
    found = Expression.of(with_one_hot_target(expression.root, expression.coefficients), expression.coefficients)
    assert found.root.size <= expression.root.size
    again = with_one_hot_target(found.root, found.coefficients)
    assert again.size <= found.root.size
