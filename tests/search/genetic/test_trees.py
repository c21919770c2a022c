from __future__ import annotations

import random

import pytest

from lossevo.expression import Expression, ExpressionError
from lossevo.search.genetic import Variation
from lossevo.search.genetic.trees import Trees
from lossevo.search.space import load_space

GLO = load_space("glo")


def names(tree: list) -> list[str]:
    return [item.name for item in tree]


def test_a_wrapped_tree_survives_the_way_there_and_back():
    variation = Variation(GLO, random.Random(0))
    expressed = 0
    for _ in range(200):
        tree = variation.element(variation.trees.root_type, 5)
        try:
            expression = variation.trees.to_expression(tree)
        except ExpressionError:  # of numbers alone
            continue
        assert names(variation.trees.to_tree(expression)) == names(tree)
        expressed += 1
    assert expressed > 100


@pytest.mark.parametrize(
    "formula",
    ["class_mean(mean(p * y))", "-class_sum(mean(p * y))", "-class_mean(sum(p * y))", "-(class_mean(mean(p)) + 1)"],
)
def test_what_is_not_wrapped_as_the_space_says_is_no_tree(formula):
    assert Trees(GLO).to_tree(Expression.parse(formula)) is None


def test_coefficients_and_integers_of_a_wrapped_tree_are_voxel_maps():
    trees = Trees(GLO)
    expression = Expression.parse("-class_mean(mean(2.5 * (p - 1)))")
    tree = trees.to_tree(expression)
    assert names(tree) == ["mul_VV", "2.5", "sub_VV", "p", "1"]
    assert trees.to_expression(tree) == expression
