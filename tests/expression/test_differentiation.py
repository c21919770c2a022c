"""The gradient that is generated with the loss: that of autograd, for labels and for soft targets."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from lossevo.expression import Expression, compile_expression, compile_with_gradient
from lossevo.expression.codegen import generate_with_gradient
from lossevo.expression.dangers import is_safe
from lossevo.expression.differentiation import gradients
from lossevo.expression.graph import Graph
from lossevo.expression.intervals import Limits
from lossevo.expression.neighbourhoods import margin
from lossevo.expression.values import Extent
from lossevo.losses import expressible_names, expression_of
from tests.expression.strategies import expressions, tame_coefficient

CLASSES = 3


def inputs(shape=(2, CLASSES, 3, 4), *, soft: bool = False, saturated: bool = False) -> dict[str, Tensor]:
    """Logits and what follows from them; y and labels are the same target unless it is soft."""
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(shape, generator=generator, dtype=torch.float64)
    if saturated:
        logits = 30 * logits.sign()
    labels = torch.randint(0, shape[1], (shape[0], 1, *shape[2:]), generator=generator)
    if shape[0] > 1 and shape[1] > 2:  # class 1 is in each image, the last one not in the first
        labels[0][labels[0] == shape[1] - 1] = 0
        labels.flatten(1)[:, 0] = 1
    y = torch.zeros(shape, dtype=torch.float64).scatter_(1, labels, 1.0)
    if soft:
        y = 0.8 * y + 0.2 / shape[1]
    d = 2 * torch.rand(shape, generator=generator, dtype=torch.float64) - 1
    logits.requires_grad_()
    logp = logits.log_softmax(1)
    t = torch.tensor(0.3, dtype=torch.float64)
    return {
        "logits": logits,
        "labels": labels,
        "y": y,
        "d": d,
        "logp": logp,
        "p": logp.exp(),
        "m": margin(logits),
        "t": t,
    }


def by_autograd(expression: Expression, given: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    coefficients = torch.tensor(expression.coefficients, dtype=torch.float64)
    value = torch.as_tensor(compile_expression(expression)(given, coefficients), dtype=torch.float64)
    logits = given["logits"]
    if not value.requires_grad:
        return value, torch.zeros_like(logits)
    return value.detach(), torch.autograd.grad(value, logits, retain_graph=True)[0]


@torch.no_grad()
def generated(expression: Expression, given: dict[str, Tensor], *, hard: bool) -> tuple[Tensor, Tensor]:
    coefficients = torch.tensor(expression.coefficients, dtype=torch.float64)
    without = {"y"} if hard else {"labels"}
    fixed = {name: tensor.detach() for name, tensor in given.items() if name not in without}
    before = {name: tensor.clone() for name, tensor in fixed.items()}
    value, gradient = compile_with_gradient(expression, hard=hard)(fixed, coefficients)
    assert all(torch.equal(fixed[name], before[name]) for name in fixed), "an input was written to"
    gradient = torch.as_tensor(gradient, dtype=torch.float64).expand_as(given["logits"])
    return torch.as_tensor(value, dtype=torch.float64), gradient


def assert_same(expression: Expression, given: dict[str, Tensor], *, hard: bool) -> None:
    value, gradient = by_autograd(expression, given)
    scale = float(gradient.abs().max())
    if not (value.isfinite() and gradient.isfinite().all()) or scale > 1e6 or abs(float(value)) > 1e9:
        return
    found, found_gradient = generated(expression, given, hard=hard)
    torch.testing.assert_close(found, value, rtol=1e-7, atol=1e-7 * max(1, abs(float(value))))
    torch.testing.assert_close(found_gradient, gradient, rtol=1e-6, atol=1e-7 * max(scale, 1e-3))


@pytest.mark.parametrize("hard", [False, True], ids=["y", "labels"])
@settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(expression=expressions(coefficients=tame_coefficient, constants=st.integers(-3, 3)))
def test_random_expressions(expression: Expression, hard: bool) -> None:
    # A value that overflows on the way may leave a finite loss, and a gradient that is none.
    if is_safe(expression, limits=Limits(voxels=12, classes=CLASSES, images=2)):
        assert_same(expression, inputs(), hard=hard)


@pytest.mark.parametrize("saturated", [False, True], ids=["", "saturated"])
@pytest.mark.parametrize("name", expressible_names())
@pytest.mark.parametrize("shape", [(1, 2, 5, 3), (2, 4, 2, 3, 4)], ids=["2D", "3D"])
def test_the_losses_of_the_literature(name: str, shape: tuple[int, ...], saturated: bool) -> None:
    expression = expression_of(name)
    given = inputs(shape, saturated=saturated)
    for hard in (False, True):
        assert_same(expression, given, hard=hard)
    assert_same(expression, inputs(shape, soft=True), hard=False)


@pytest.mark.parametrize(
    "formula",
    [
        "class_mean(mean((1 - p) ^ 2.5 * y * logp))",
        "foreground_mean(batch_sum(p * y) / batch_sum(p + y))",
        "class_mean(sum(y * p / sum(p)) / (1 + batch_mean(p)))",
        "class_sum(mean(abs(y - p) ^ 1.5 / (0.1 + class_mean(mean(p)))))",
        "class_mean(mean(max(p, y) - min(y, p * 2.0)))",
        "class_mean(mean(y) * mean(p)) ^ 2",
        "class_sum(batch_mean(y * d)) * class_mean(mean(tanh(p * d) + sigmoid(logp) - exp(p)))",
        "class_mean(sqrt(mean(square(y * p))) + log(sum(y / p)))",
        "class_mean(mean(-y * (p - y) / (y + p)))",
        "class_mean(square(sum(p)) / (sum(y) - 3.0))",
        "-class_mean(mean(y * y * logp)) + class_mean(batch_mean(y * 1.5))",
        "class_mean(batch_mean(max(-y, (logp + y) * sum(p))))",
        # What is per image as it is written stays so, though with labels y (1 - y) is 0.
        "present_mean(complement_mean(y * logp) + batch_mean(y * (-logp) ^ 1.5))",
        "present_mean(target_mean(y * p * (1 - y)) + batch_mean(y * (1 - p) ^ 2.5 * logp))",
        "present_mean((complement_mean(y * p) + 1) * batch_mean(square(p - y)))",
        "present_mean(batch_mean(square(p - y)) * batch_complement_mean(y * p + 1) + f)",
        "sqrt(class_sum(sum(y))) * class_mean(mean(p)) / log(class_sum(batch_sum(y)) + 2)",
    ],
)
def test_every_rule_of_the_one_hot_target(formula: str) -> None:
    for example in (inputs(), inputs((1, 2, 2, 3, 2)), inputs(saturated=True)):
        for hard in (False, True):
            assert_same(Expression.parse(formula), example, hard=hard)


def test_with_labels_only_the_true_class_is_computed() -> None:
    """Focal loss: the power, which costs most, is taken of one number per voxel, and y is never made."""
    code = generate_with_gradient(expression_of("focal").root, hard=True)
    assert "y" not in code.inputs
    assert code.lines[0].startswith("v0 = torch.gather(p, 1, labels")
    assert "logp" not in code.inputs
    assert not any("one_hot" in line for line in code.lines)
    assert sum("pow" in line for line in code.lines) == 1


def test_cross_entropy_is_as_simple_as_it_can_be() -> None:
    """p - y, times -1/|Ω|."""
    code = generate_with_gradient(expression_of("cross_entropy").root, hard=True)
    maps = [line for line in code.lines if "map_like" in line or "plus_true" in line]
    assert len(maps) == 2


def test_what_is_not_differentiated_has_no_gradient() -> None:
    graph = Graph()
    p, y = graph.input("p"), graph.input("y")
    loss = (p * y)("mean")("class_mean")
    assert gradients(loss, [graph.input("logp")])[0].number == 0
    by_p, by_y = gradients(loss, [p, y])
    assert by_p.operation == by_y.operation == "mul"


@pytest.mark.parametrize("formula", ["square({0})", "({0}) ^ 2", "abs({0}) - square({0})"])
def test_what_is_shared_is_visited_once(formula: str) -> None:
    """Fifty squares of squares are a graph of fifty values, and of 2⁵⁰ ways through it."""
    inner = "p"
    for _ in range(50 if formula.count("{0}") == 1 else 7):
        inner = formula.format(inner)
    expression = Expression.parse(f"class_mean(mean(y * {inner}))")
    for hard in (False, True):
        assert len(generate_with_gradient(expression.root, hard=hard).lines) < 1000
    assert isinstance(is_safe(expression), bool)


def test_equal_values_are_one() -> None:
    graph = Graph()
    p, y = graph.input("p"), graph.input("y")
    assert p * y is y * p
    assert (p - y) + y is not p
    negative = -p
    assert p + 0 is p * 1 is p / 1 is -negative is p
    assert (p * 0).number == (p - p).number == 0
    assert (2 * p)("sum") is p("sum") * 2
    assert (p("sum") * y)("mean") is y("mean") * p("sum")
    assert graph.number(3)("sum").extent is Extent.SCALAR


def test_hard_targets_are_numbers_per_voxel() -> None:
    graph = Graph(hard=True)
    p, y = graph.input("p"), graph.input("y")
    assert (y * y) is y
    assert (y * p)("across_classes").extent is Extent.PIXEL
    assert (y * p)("sum").operation == "by_class"
    assert (p + y).operation == "plus_true"
    assert p("across_classes").number == 1


@pytest.mark.parametrize("inner", ["p - y", "p + y", "1 - y", "p * (1 - y)", "y * p - d"])
@pytest.mark.parametrize("squares", [2, 8, 30])
def test_products_with_the_target_do_not_multiply(inner: str, squares: int) -> None:
    """What is added at the true class is one number per voxel, however often it is multiplied out."""
    formula = inner
    for _ in range(squares):
        formula = f"square({formula})"
    expression = Expression.parse(f"class_mean(mean({formula}))")
    for hard in (False, True):
        assert len(generate_with_gradient(expression.root, hard=hard).lines) < 60 * squares
    if squares < 8:
        for hard in (False, True):
            assert_same(expression, inputs(), hard=hard)


def test_what_is_added_nowhere_is_not_added() -> None:
    code = generate_with_gradient(Expression.parse("class_mean(mean(square(square(1 - y) * p)))").root, hard=True)
    assert not any("0.0, labels" in line for line in code.lines)
