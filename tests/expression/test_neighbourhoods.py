"""Neighbourhoods against SciPy, their gradients against autograd; the margin and the largest against definitions."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor

from lossevo.expression import PRIMITIVES, Expression, compile_with_gradient
from lossevo.expression.neighbourhoods import (
    avg_pool,
    gaussian,
    margin,
    margin_gradient,
    max_pool,
    max_pool_gradient,
    max_weights,
    top_weights,
)

SHAPES = [(2, 3, 5, 4), (1, 2, 4, 1, 3), (2, 2, 2, 3, 4)]
shapes = pytest.mark.parametrize("shape", SHAPES, ids=str)


def random_map(shape: tuple[int, ...], seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def ties(shape: tuple[int, ...]) -> Tensor:
    """Few values, so that many are equal."""
    return random_map(shape).round()


@shapes
def test_neighbourhoods_are_those_of_scipy_with_the_nearest_voxel_beyond_the_border(shape: tuple[int, ...]) -> None:
    x = random_map(shape)
    axes = len(shape) - 2
    binomial = np.array([1.0, 2.0, 1.0]) / 4
    for image in np.ndindex(shape[:2]):
        voxels = x[image].numpy()
        smooth = voxels
        for axis in range(axes):
            smooth = ndimage.correlate1d(smooth, binomial, axis, mode="nearest")
        for found, expected in (
            (avg_pool(x), ndimage.uniform_filter(voxels, 3, mode="nearest")),
            (gaussian(x), smooth),
            (max_pool(x), ndimage.maximum_filter(voxels, 3, mode="nearest")),
        ):
            np.testing.assert_allclose(found[image].numpy(), expected, rtol=0, atol=1e-14)


@shapes
def test_means_of_neighbourhoods_are_symmetric_operators(shape: tuple[int, ...]) -> None:
    """What differentiation takes for granted: ⟨Ax, y⟩ = ⟨x, Ay⟩, at the border too."""
    x, y = random_map(shape, 1), random_map(shape, 2)
    for smooth in (avg_pool, gaussian):
        torch.testing.assert_close((smooth(x) * y).sum(), (x * smooth(y)).sum(), rtol=1e-12, atol=1e-12)


@shapes
@pytest.mark.parametrize("make", [random_map, ties])
def test_the_gradient_of_the_largest_is_that_of_autograd(shape: tuple[int, ...], make) -> None:
    x, received = make(shape).requires_grad_(), random_map(shape, 3)
    (expected,) = torch.autograd.grad(max_pool(x), x, received)
    found = max_pool_gradient(received, x.detach())
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found.sum(), received.sum())
    torch.testing.assert_close(
        max_pool_gradient(torch.tensor(2.0, dtype=torch.float64), x.detach()).sum(),
        2.0 * x.numel() * torch.ones((), dtype=torch.float64),
    )


@shapes
@pytest.mark.parametrize("make", [random_map, ties])
def test_the_margin_is_to_the_largest_of_the_others(shape: tuple[int, ...], make) -> None:
    logits = make(shape).requires_grad_()
    found = margin(logits)
    for c in range(shape[1]):
        others = torch.cat([logits[:, :c], logits[:, c + 1 :]], 1)
        torch.testing.assert_close(found[:, c], logits[:, c] - others.amax(1))
    received = random_map(shape, 4)
    (expected,) = torch.autograd.grad(found, logits, received)
    torch.testing.assert_close(margin_gradient(received, logits.detach()), expected, rtol=1e-12, atol=1e-12)


def test_the_margin_of_two_classes_is_the_log_odds() -> None:
    logits = random_map((2, 2, 3, 4))
    p = logits.softmax(1)
    torch.testing.assert_close(margin(logits), (p / (1 - p)).log())


@shapes
def test_the_largest_tenth_weighs_all_and_equal_values_share(shape: tuple[int, ...]) -> None:
    for x in (random_map(shape), ties(shape)):
        for batch in (False, True):
            weights = top_weights(x, batch=batch)
            values = x.transpose(0, 1).flatten(1) if batch else x.flatten(2)
            weighed = (weights * x).transpose(0, 1).flatten(1) if batch else (weights * x).flatten(2)
            count = math.ceil(values.shape[-1] / 10)
            torch.testing.assert_close(weighed.sum(-1), values.sort(-1, descending=True).values[..., :count].mean(-1))
            flat = weights.transpose(0, 1).flatten(1) if batch else weights.flatten(2)
            torch.testing.assert_close(flat.sum(-1), torch.ones_like(flat.sum(-1)))
    same = torch.zeros(1, 1, 4, 5, dtype=torch.float64)
    assert top_weights(same).unique().tolist() == [1 / 20]


def test_the_largest_class_weighs_all() -> None:
    r = torch.tensor([[1.0, 3.0, 3.0], [2.0, 1.0, 0.0]])
    assert max_weights(r).tolist() == [[0.0, 0.5, 0.5], [1.0, 0.0, 0.0]]


@pytest.mark.parametrize("formula", ["target_mean({})", "complement_mean({})", "topk_mean({})", "log_mean_exp({})"])
@pytest.mark.parametrize("prefix", ["", "batch_"])
def test_a_reduction_of_a_constant_is_the_constant(formula: str, prefix: str) -> None:
    logits = random_map((2, 3, 4, 5))
    labels = torch.randint(0, 3, (2, 1, 4, 5), generator=torch.Generator().manual_seed(0))
    y = torch.zeros_like(logits).scatter_(1, labels, 1.0)
    given = {"logits": logits, "p": logits.softmax(1), "y": y, "labels": labels}
    expression = Expression.parse(f"present_mean({prefix}{formula.format('0 * p + 3')}) + 0 * class_mean(mean(p))")
    value, _ = compile_with_gradient(expression)(given, torch.zeros(0))
    assert float(value) == pytest.approx(3.0, rel=1e-12)


@pytest.mark.parametrize("coefficients", [(1.0,), (0.2,), (5.0, 0.1), (0.0, 3.0, 0.5), (2.0, -0.7, 1e6, 0.3)])
def test_a_curve_is_monotone_from_0_to_1_and_straight_if_all_increments_are_equal(
    coefficients: tuple[float, ...],
) -> None:
    name = f"curve{len(coefficients)}"
    p = torch.linspace(0, 1, 101, dtype=torch.float64).view(1, 1, 101, 1)
    curve = _curve(name, coefficients, p)
    assert curve[0] == pytest.approx(0, abs=1e-12)
    assert curve[-1] == pytest.approx(1, abs=1e-9)
    assert (np.diff(curve) >= -1e-9).all()
    straight = _curve(name, (1.0,) * len(coefficients), p)
    np.testing.assert_allclose(straight, np.linspace(0, 1, 101), atol=1e-12)


def _curve(name: str, coefficients: tuple[float, ...], p: Tensor) -> np.ndarray:
    from lossevo.expression.codegen import HELPERS, generate
    from lossevo.expression.trees import COEFFICIENT, Node

    root = Node(name, (Node("p"), *(Node(COEFFICIENT, value=i) for i in range(len(coefficients)))))
    code = generate(root)
    space = {"p": p, "c": torch.tensor(coefficients, dtype=p.dtype), "torch": torch, **HELPERS}
    exec("\n".join(code.lines), space)
    return np.asarray(space[code.result].flatten())


def test_a_curve_s_first_increment_is_one() -> None:
    """With one coefficient the curve is 2 β x (1 - x) + x², β = 1 / (1 + b)."""
    x = torch.linspace(0, 1, 11, dtype=torch.float64).view(1, 1, 11, 1)
    expected = 2 * x * (1 - x) / 4 + x * x
    np.testing.assert_allclose(_curve("curve1", (3.0,), x), np.asarray(expected.flatten()), atol=1e-12)


def test_every_spatial_primitive_keeps_the_kind() -> None:
    spatial = [
        name for name, primitive in PRIMITIVES.items() if primitive.source and primitive.source is primitive.target
    ]
    assert spatial == ["avg_pool", "gaussian", "max_pool", "min_pool", "morphological_gradient"]
