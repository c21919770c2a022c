"""What is judged safe is finite, value and gradient, as it is trained with: the worst of images, in float32."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from itertools import product

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from lossevo.expression import Expression, ExpressionError
from lossevo.expression.dangers import is_safe
from lossevo.expression.intervals import Limits
from lossevo.losses.symbolic import ExpressionLoss
from lossevo.search.genetic import Variation
from lossevo.search.space import load_space
from tests.expression.strategies import any_coefficient, expressions, tame_coefficient

SHAPES = [(2, 3, 4, 3), (1, 2, 2, 3, 2), (3, 5, 1, 4), (2, 4, 3, 2, 2)]
"""2D and 3D; with four classes and more, what concerns the true class is computed there alone."""
EVERYTHING = settings(
    max_examples=40, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)

huge_or_tiny = st.floats(-12, 12).map(lambda exponent: 10**exponent)
WILD = expressions(coefficients=any_coefficient | huge_or_tiny | tame_coefficient)
SPACE = load_space("segmentation")
SEEDS = list(SPACE.seed_expressions().values())
OPERATORS = [name for name in SPACE.strategy.operators.model_dump() if name not in ("random", "crossover", "combine")]


def of_logits(shape: tuple[int, ...]) -> Iterator[Tensor]:
    """Certain, of each of two classes and of a different one at each voxel; undecided; anything."""
    generator = torch.Generator().manual_seed(0)
    for favourite in range(2):
        yield torch.full(shape, -50.0).index_fill(1, torch.tensor(favourite), 50.0)
    yield 100 * torch.rand(shape, generator=generator).round() - 50
    yield torch.zeros(shape)
    yield 3 * torch.randn(shape, generator=generator)


def of_targets(shape: tuple[int, ...]) -> Iterator[Tensor]:
    """Labels: empty, full, of one voxel, anything. Probabilities: the same for all classes, certain, anything."""
    generator = torch.Generator().manual_seed(1)
    empty = torch.zeros((shape[0], 1, *shape[2:]), dtype=torch.int64)
    one_voxel = empty.clone()
    one_voxel.view(-1)[-1] = 1
    yield from (empty, empty + shape[1] - 1, one_voxel)
    yield torch.randint(0, shape[1], empty.shape, generator=generator)
    yield torch.full(shape, 1 / shape[1])
    yield torch.zeros(shape).scatter_(1, one_voxel, 1.0)
    yield torch.randn(shape, generator=generator).softmax(1)


def is_finite(expression: Expression, shape: tuple[int, ...]) -> bool:
    """Value and gradient, in the first and the last step of a training, far inside and far outside."""
    loss = ExpressionLoss(expression)
    for number, (given_logits, target) in enumerate(product(of_logits(shape), of_targets(shape))):
        if loss.progress is not None:
            loss.progress.fill_(number % 2)
        logits = given_logits.requires_grad_()
        value = loss(logits, target, torch.full(shape, 1e4 * (-1) ** number))
        if not value.isfinite():
            return False
        if value.requires_grad and not torch.autograd.grad(value, logits)[0].isfinite().all():
            return False
    return True


def limits_of(shape: tuple[int, ...]) -> Limits:
    """No larger than the images are, so that what is judged safe is as near to overflow as can be."""
    return Limits(voxels=math.prod(shape[2:]), classes=shape[1], images=shape[0])


def at_the_verge(expression: Expression, limits: Limits) -> Expression:
    """The expression times the largest power of ten with which it is judged safe."""

    def times(exponent: int) -> Expression:
        return Expression.parse(f"({expression})" + " * 1e12" * (exponent // 12) + f" * 1e{exponent % 12}")

    safe, unsafe = 0, 96
    while unsafe - safe > 1:
        middle = (safe + unsafe) // 2
        safe, unsafe = (middle, unsafe) if is_safe(times(middle), limits=limits) else (safe, middle)
    return times(safe)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_whatever_is_judged_safe_is_finite(shape: tuple[int, ...]) -> None:
    judged: list[tuple[bool, bool]] = []

    @EVERYTHING
    @given(WILD)
    def judge(expression: Expression) -> None:
        limits = limits_of(shape)
        judged.append((is_safe(expression, limits=limits), is_finite(expression, shape)))
        assert judged[-1] != (True, False)
        assert not judged[-1][0] or is_finite(at_the_verge(expression, limits), shape)

    judge()
    assert judged.count((True, True)) > 0.3 * len(judged)


@EVERYTHING
@given(st.integers(0, 2**32), st.sampled_from(SHAPES))
def test_what_a_search_makes_of_its_seeds_and_judges_safe_is_finite(seed: int, shape: tuple[int, ...]) -> None:
    generator = random.Random(seed)
    variation = Variation(SPACE, generator)
    tree = variation.trees.to_tree(generator.choice(SEEDS))
    for _ in range(generator.randint(1, 8)):
        tree = getattr(variation, generator.choice(OPERATORS))(tree)
    try:
        expression = variation.trees.to_expression(tree)
    except ExpressionError:
        return
    assert not is_safe(expression, limits=limits_of(shape)) or is_finite(expression, shape)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("seed", SPACE.seeds)
def test_seeds_are_safe_and_finite(seed: str, shape: tuple[int, ...]) -> None:
    expression = SPACE.seed_expressions()[seed]
    assert is_safe(expression)
    assert is_finite(expression, shape)
