"""Interval arithmetic: bounds that hold, and that are close enough to be of use."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import product

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from lossevo.errors import LossevoError
from lossevo.expression import PRIMITIVES, Expression, Kind, Node, compile_with_gradient
from lossevo.expression.codegen import _function, _Writer, lower
from lossevo.expression.dangers import FLOAT16_MAX, FLOAT32_MAX, PROTECTED, dangers, is_safe
from lossevo.expression.differentiation import gradient_of_logits
from lossevo.expression.graph import Graph, reachable
from lossevo.expression.intervals import RULES, Interval, Limits, Ranges, interval
from lossevo.expression.operations import OPERATIONS
from lossevo.expression.values import Value
from lossevo.losses import expressible_names, expression_of
from tests.expression.strategies import expressions, tame_coefficient

TAME = expressions(coefficients=tame_coefficient, constants=st.integers(-3, 3))
EVERYTHING = settings(
    max_examples=150, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)
SHAPE = (2, 3, 2, 3)
LIMITS = Limits(voxels=6, classes=3, images=2)


def images(logits: Tensor, labels: Tensor, d: Tensor) -> dict[str, Tensor]:
    logp = logits.log_softmax(1)
    y = torch.zeros_like(logits).scatter_(1, labels, 1.0)
    return {"logits": logits, "labels": labels, "y": y, "d": d, "logp": logp, "p": logp.exp()}


def extreme_images(dtype: torch.dtype) -> Iterator[dict[str, Tensor]]:
    """Certain everywhere, right and wrong; of targets empty, full and of one voxel; a distance of ±20 mm."""
    empty = torch.zeros((SHAPE[0], 1, *SHAPE[2:]), dtype=torch.int64)
    one_voxel = empty.clone()
    one_voxel[0, 0, 0, 0] = 1
    generator = torch.Generator().manual_seed(0)
    signs = torch.rand(SHAPE, generator=generator).round() * 2 - 1
    confident = (torch.full(SHAPE, -1.0).index_fill(1, torch.tensor(favourite), 1.0) for favourite in range(SHAPE[1]))
    for logits, labels, d in product((signs, *confident), (empty, empty + 1, one_voxel), (-1.0, 1.0)):
        yield images(50 * logits.to(dtype), labels, torch.full(SHAPE, d, dtype=dtype))


def random_images(dtype: torch.dtype) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    logits = 3 * torch.randn(SHAPE, generator=generator, dtype=dtype)
    labels = torch.randint(0, SHAPE[1], (SHAPE[0], 1, *SHAPE[2:]), generator=generator)
    return images(logits, labels, 2 * torch.rand(SHAPE, generator=generator, dtype=dtype) - 1)


def computed(expression: Expression, values: list[Value], example: dict[str, Tensor]) -> list[Tensor]:
    """All values of a graph, by generated code."""
    function = _function(_Writer(values, like="logits", frugal=False).code())
    dtype = example["logits"].dtype
    found = function(example, torch.tensor(expression.coefficients, dtype=dtype))
    return [torch.as_tensor(x, dtype=dtype) for x in (found if isinstance(found, tuple) else (found,))]


def with_gradient(expression: Expression, *, hard: bool) -> list[Value]:
    loss = lower(expression.root, Graph(hard=hard))
    return [loss, gradient_of_logits(loss)]


def known_of_soft_targets(expression: Expression, graph: Graph) -> dict[Value, Interval]:
    """What is known of the values of nodes with a soft target, for the same in another graph."""
    soft, ranges = Graph(), Ranges(expression.coefficients, LIMITS)
    return {lower(node, graph): ranges[lower(node, soft)] for node in expression.root.walk()}


# The bounds hold.


def test_every_operation_has_a_rule() -> None:
    assert RULES.keys() == OPERATIONS.keys()


def assert_all_within(expression: Expression, *, hard: bool) -> None:
    values = reachable(with_gradient(expression, hard=hard))
    ranges = Ranges(expression.coefficients, LIMITS, known_of_soft_targets(expression, values[0].graph))
    bounds = [ranges[value] for value in values]
    for dtype in (torch.float64, torch.float32):
        for example in (random_images(dtype), *list(extreme_images(dtype))[::5]):
            for value, bound, found in zip(values, bounds, computed(expression, values, example), strict=True):
                # What is infinite in float32 or made of it is a matter of the next test.
                finite = found[found.isfinite()].double()
                inside = (finite >= bound.low) & (finite <= bound.high) & (finite.abs() >= bound.least)
                assert inside.all(), (value.operation, bound, finite[~inside])


@pytest.mark.parametrize("hard", [False, True], ids=["y", "labels"])
@EVERYTHING
@given(expression=TAME)
def test_every_value_is_in_its_interval(expression: Expression, hard: bool) -> None:
    assert_all_within(expression, hard=hard)


@pytest.mark.parametrize("hard", [False, True], ids=["y", "labels"])
@pytest.mark.parametrize("name", expressible_names())
def test_every_value_of_the_losses_of_the_literature_is_in_its_interval(name: str, hard: bool) -> None:
    assert_all_within(expression_of(name), hard=hard)


@EVERYTHING
@given(expression=TAME)
def test_what_is_safe_is_finite(expression: Expression) -> None:
    """Value and gradient and everything on the way, in float32, on the worst of images."""
    if is_safe(expression, limits=LIMITS):
        for hard, example in product((False, True), extreme_images(torch.float32)):
            values = reachable(with_gradient(expression, hard=hard))
            assert all(found.isfinite().all() for found in computed(expression, values, example))
            coefficients = torch.tensor(expression.coefficients, dtype=torch.float32)
            for found in compile_with_gradient(expression, hard=hard)(example, coefficients):
                assert torch.as_tensor(found).isfinite().all()


def test_most_expressions_are_safe() -> None:
    """The property above is not empty, and the bounds are of use."""
    judged: list[bool] = []

    @settings(EVERYTHING)
    @given(expression=TAME)
    def judge(expression: Expression) -> None:
        judged.append(is_safe(expression))

    judge()
    assert 0.6 < sum(judged) / len(judged) < 1


# The bounds are close.


@pytest.mark.parametrize(
    ("formula", "low", "high"),
    [
        ("class_mean(mean(p))", 0, 1),
        ("class_mean(mean(p - y))", -1, 1),
        ("class_mean(mean(square(p - y)))", 0, 1),
        ("class_mean(mean((p - y) * (p - y)))", 0, 1),
        ("class_mean(mean(tanh(p) * d))", -math.tanh(1), math.tanh(1)),
        ("class_mean(sum(p * y))", 0, 1000),
        ("class_mean(sum(p * y) / sum(p))", 0, 1),
        ("foreground_mean(sum(p * y) / (sum(p * y) + 0.3 * sum(p * (1 - y)) + 0.7 * sum((1 - p) * y)))", 0, 1),
        ("1 - foreground_mean(2 * sum(p * y) / sum(p + y))", -1, 1),
        ("class_mean(mean(y / p))", 0, 1e4),
        ("class_mean(mean(log(p)))", math.log(1e-4), 0),
        ("class_mean(mean(exp(1000 * p)))", 1, math.exp(20)),
        ("class_mean(mean((p + 1) ^ d))", 0.5, 2),
        ("class_mean(mean(max(d, 0) + min(d, 0)))", -1, 1),
        ("class_mean(mean(logp))", -100 - math.log(4), 0),
    ],
)
def test_known_ranges(formula: str, low: float, high: float) -> None:
    found = interval(Expression.parse(formula), Limits(voxels=1000, classes=4, images=2))
    assert (found.low, found.high) == pytest.approx((low, high), rel=1e-4, abs=1e-4)
    assert found.low <= low <= high <= found.high


def test_a_guarded_denominator_of_either_sign_has_a_bounded_reciprocal() -> None:
    guarded = RULES["guard"](Interval(-1.0, 2.0))
    assert 0.0 not in guarded
    assert (Interval(1.0, 1.0) / guarded).magnitude == pytest.approx(1e4)
    assert (Interval(1.0, 1.0) / Interval(0.0, 2.0)).high == math.inf


@pytest.mark.parametrize("name", expressible_names())
def test_the_losses_of_the_literature_are_safe_in_float32(name: str) -> None:
    assert is_safe(expression_of(name), limits=Limits(voxels=256**3))


# What is in danger.


def test_every_protected_primitive_is_known() -> None:
    graph = Graph()
    protecting = {"floor", "ceiling", "guard"}
    found = set()
    for primitive in PRIMITIVES.values():
        inputs = [graph.input(name) for name in ("p", "d")[: primitive.arity]]
        if primitive.elementwise and primitive.name not in ("min", "max"):
            built = primitive.build(*inputs)
            found |= {primitive.name} & {primitive.name for x in reachable([built]) if x.operation in protecting}
    assert found == PROTECTED.keys()


@pytest.mark.parametrize(
    ("formula", "kind", "node", "low", "high"),
    [
        ("class_mean(sum(p * y) / sum(p + y))", "division", "sum(p + y)", 0, 2 * 256**3),
        ("class_mean(mean(y / (p - 0.5)))", "division", "p - c0", -0.5, 0.5),
        ("class_mean(mean(log(p)))", "logarithm", "p", 0, 1),
        ("class_mean(mean(sqrt(p - y)))", "root", "p - y", -1, 1),
        ("class_mean(mean((1 - p) ^ 2))", "power", "1 - p", 0, 1),
        ("class_mean(mean(exp(30 * d)))", "exponential", "30 * d", -30, 30),
    ],
)
def test_where_protection_acts(formula: str, kind: str, node: str, low: float, high: float) -> None:
    (danger,) = dangers(Expression.parse(formula))
    assert (danger.kind, danger.node) == (kind, node)
    assert (danger.low, danger.high) == pytest.approx((low, high), rel=1e-4)
    assert str(danger).startswith(f"{kind}: {node} may be from ")


@pytest.mark.parametrize(
    "formula",
    [
        "class_mean(sum(p * y) / (sum(p + y) + 1))",
        "class_mean(mean(y / (d + 1.5)))",
        "class_mean(mean(log(p + 0.01)))",
        "class_mean(mean(sqrt(square(p - y) + 0.01)))",
        "class_mean(mean(exp(19 * d)))",
        "class_mean(mean(y / 3))",
    ],
)
def test_where_it_cannot_act_there_is_no_danger(formula: str) -> None:
    assert dangers(Expression.parse(formula)) == ()


def test_overflow_is_reported_where_it_begins() -> None:
    found = dangers(Expression.parse("1 + square(class_mean(mean(exp(20 * p) ^ 5.0)))"))
    (overflow,) = [danger for danger in found if danger.kind == "overflow"]
    assert overflow.node == "exp(20 * p) ^ c0"
    assert overflow.high == pytest.approx(math.exp(100), rel=1e-3)


def test_a_gradient_may_overflow_where_the_value_does_not() -> None:
    formula = "class_mean(1 / sum(p)) " + "* class_mean(1 / sum(p)) " * 8
    found = [danger for danger in dangers(Expression.parse(formula)) if "overflow" in danger.kind]
    assert {danger.kind for danger in found} == {"gradient overflow"}


def test_in_float16_a_sum_over_an_image_overflows() -> None:
    dice = Expression.parse("class_mean(mean(p * y))")
    assert not is_safe(dice, dtype_max=FLOAT16_MAX)
    assert is_safe(dice, dtype_max=FLOAT16_MAX, limits=Limits(voxels=8**3, classes=3, images=2))
    assert is_safe(dice, dtype_max=FLOAT32_MAX)


def test_an_expression_of_numbers_that_overflows() -> None:
    root = Node("pow", (Node("constant", value=1000), Node("constant", value=1000)))
    assert root.kind is Kind.SCALAR
    assert not is_safe(Expression(root))


@pytest.mark.parametrize("wrong", [{"voxels": 0}, {"classes": 1}, {"images": 0}, {"logit": math.inf}])
def test_impossible_limits(wrong: dict[str, float]) -> None:
    with pytest.raises(LossevoError, match="at least 1 voxel"):
        Limits(**wrong)
