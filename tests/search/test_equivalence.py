"""Two expressions are one loss only if values and gradients agree, also where arithmetic is protected."""

from __future__ import annotations

import pytest

from lossevo.expression import Expression
from lossevo.losses import expressible_names, expression_of
from lossevo.search.equivalence import same_loss


@pytest.mark.parametrize("name", expressible_names())
def test_a_loss_is_itself_and_no_other(name):
    loss = expression_of(name)
    same = same_loss(loss)
    assert same(loss)
    for other in ("({}) + 1", "2 * ({})", "({}) + 0.001 * class_mean(mean(square(p - y)))"):
        assert not same(Expression.parse(other.replace("{}", str(loss))))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("class_mean(mean(square(p - y)))", "class_mean(mean(square(y - p)))"),
        ("foreground_mean(2 * sum(p * y) / sum(p + y))", "2 * foreground_mean(sum(p * y) / (sum(p) + sum(y)))"),
        ("foreground_mean(mean(0.1 * p + 0.2 * p))", "0.3 * foreground_mean(mean(p))"),
    ],
)
def test_how_it_is_written_does_not_matter(one, other):
    assert same_loss(Expression.parse(one))(Expression.parse(other))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("foreground_mean(mean(p * y / p))", "foreground_mean(mean(y)) + 0 * foreground_mean(mean(p))"),
        ("foreground_mean(mean(p * (1 - p) ^ 1))", "foreground_mean(mean(p * (1 - p)))"),
        ("class_mean(sum(p * y))", "210 * class_mean(mean(p * y))"),
        ("class_mean(batch_sum(p * y))", "2 * class_mean(sum(p * y))"),
        # Apart only where an image has no foreground.
        ("foreground_mean(sum(p * y) / (sum(y) * sum(y)))", "foreground_mean(sum(p * y) / sum(y) / sum(y + 1e-6))"),
        # Apart only where a class is in one image of the batch and not in another.
        ("present_mean(sum(p) / sum(p) * batch_mean(square(p - y)))", "present_mean(batch_mean(square(p - y)))"),
        ("t * class_mean(mean(square(p - y)))", "square(t) * class_mean(mean(square(p - y)))"),
    ],
)
def test_what_differs_somewhere_is_another(one, other):
    assert not same_loss(Expression.parse(one))(Expression.parse(other))
