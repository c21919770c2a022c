"""Interval arithmetic: bounds that hold, and that are close enough to be of use."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import product
from typing import get_args

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from lossevo.errors import LossevoError
from lossevo.expression import PRIMITIVES, Expression, Kind, Node
from lossevo.expression.codegen import _function, _Writer, lower
from lossevo.expression.dangers import FLOAT16_MAX, FLOAT32_MAX, PROTECTED, Danger, DangerKind, dangers, is_safe
from lossevo.expression.differentiation import gradient_of_logits
from lossevo.expression.graph import Graph, reachable
from lossevo.expression.intervals import RULES, Interval, Limits, Ranges, interval
from lossevo.expression.neighbourhoods import margin
from lossevo.expression.operations import OPERATIONS
from lossevo.expression.values import Value
from lossevo.losses import expressible_names, expression_of
from tests.expression.strategies import expressions, signatures, tame_coefficient

TAME = expressions(coefficients=tame_coefficient, constants=st.integers(-3, 3))
EVERYTHING = settings(
    max_examples=60, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)
SHAPES = [(2, 3, 2, 3), (1, 2, 2, 2, 2), (3, 5, 1, 4), (2, 4, 1, 2, 3)]
"""Few and many classes, in 2D and 3D; an axis may be one voxel long."""

shapes = st.sampled_from(SHAPES)


def limits_of(shape: tuple[int, ...]) -> Limits:
    return Limits(voxels=math.prod(shape[2:]), classes=shape[1], images=shape[0])


def images(logits: Tensor, labels: Tensor, d: Tensor, y: Tensor | None = None, t: float = 0.3) -> dict[str, Tensor]:
    logp = logits.log_softmax(1)
    return {
        "logits": logits,
        "labels": labels,
        "y": torch.zeros_like(logits).scatter_(1, labels, 1.0) if y is None else y,
        "d": d,
        "logp": logp,
        "p": logp.exp(),
        "m": margin(logits),
        "t": torch.tensor(t, dtype=logits.dtype),
    }


def extreme_images(shape: tuple[int, ...], dtype: torch.dtype) -> Iterator[dict[str, Tensor]]:
    """Certain everywhere, right and wrong, or undecided; empty, full and one-voxel targets; 20 mm inside and outside;
    the first and the last step.
    """
    batch, classes = shape[:2]
    empty = torch.zeros((batch, 1, *shape[2:]), dtype=torch.int64)
    one_voxel = empty.clone()
    one_voxel.view(-1)[0] = 1
    generator = torch.Generator().manual_seed(0)
    signs = torch.rand(shape, generator=generator).round() * 2 - 1
    confident = (torch.full(shape, -1.0).index_fill(1, torch.tensor(favourite), 1.0) for favourite in range(2))
    targets = (empty, empty + classes - 1, one_voxel)
    for logits, labels, sign in product((signs, *confident, 0 * signs), targets, (-1.0, 1.0)):
        yield images(50 * logits.to(dtype), labels, torch.full(shape, sign, dtype=dtype), t=(sign + 1) / 2)


def random_images(shape: tuple[int, ...], dtype: torch.dtype) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    logits = 3 * torch.randn(shape, generator=generator, dtype=dtype)
    labels = torch.randint(0, shape[1], (shape[0], 1, *shape[2:]), generator=generator)
    return images(logits, labels, 2 * torch.rand(shape, generator=generator, dtype=dtype) - 1)


def soft_images(shape: tuple[int, ...], dtype: torch.dtype) -> Iterator[dict[str, Tensor]]:
    """Targets of probabilities: from raters who disagree, the same for all classes, nearly certain."""
    generator = torch.Generator().manual_seed(2)
    labels = torch.zeros((shape[0], 1, *shape[2:]), dtype=torch.int64)
    for scale, certainty in product((3.0, 50.0), (0.0, 1.0, 20.0)):
        logits = scale * torch.randn(shape, generator=generator, dtype=dtype).clamp(-1, 1)
        y = (certainty * torch.randn(shape, generator=generator, dtype=dtype)).softmax(1)
        yield images(logits, labels, 2 * torch.rand(shape, generator=generator, dtype=dtype) - 1, y)


def computing(expression: Expression, values: list[Value]) -> Callable[[dict[str, Tensor]], list[Tensor]]:
    """A function for all values of a graph: generated code."""
    function = _function(_Writer(values, like="logits", frugal=False).code())

    def computed(example: dict[str, Tensor]) -> list[Tensor]:
        dtype = example["logits"].dtype
        found = function(example, torch.tensor(expression.coefficients, dtype=dtype))
        return [torch.as_tensor(x, dtype=dtype) for x in (found if isinstance(found, tuple) else (found,))]

    return computed


def with_gradient(expression: Expression, *, hard: bool) -> list[Value]:
    loss = lower(expression.root, Graph(hard=hard))
    return [loss, gradient_of_logits(loss)]


def known_of_soft_targets(expression: Expression, graph: Graph, limits: Limits) -> dict[Value, Interval]:
    """What is known of the values of nodes with a soft target, for the same in another graph."""
    soft, ranges = Graph(), Ranges(expression.coefficients, limits)
    return {lower(node, graph): ranges[lower(node, soft)] for node in expression.root.walk()}


REDUCED = {Kind.SCALAR: "", Kind.REGION: "class_mean(", Kind.VOXEL: "class_mean(mean("}
"""What brackets make a number of a value."""

# The bounds hold.


def test_every_operation_has_a_rule() -> None:
    assert RULES.keys() == OPERATIONS.keys()


def assert_all_within(expression: Expression, shape: tuple[int, ...], *, hard: bool) -> None:
    limits = limits_of(shape)
    values = reachable(with_gradient(expression, hard=hard))
    ranges = Ranges(expression.coefficients, limits, known_of_soft_targets(expression, values[0].graph, limits))
    bounds = [ranges[value] for value in values]
    computed = computing(expression, values)
    for dtype in (torch.float64, torch.float32):
        soft = [] if hard else list(soft_images(shape, dtype))[::3]
        for example in (random_images(shape, dtype), *list(extreme_images(shape, dtype))[::5], *soft):
            infinite: set[Value] = set()
            for value, bound, found in zip(values, bounds, computed(example), strict=True):
                # What is infinite in float32, or made of that, is a matter of the next test.
                if not infinite.isdisjoint(value.operands) or not found.isfinite().all():
                    infinite.add(value)
                    continue
                inside = (found >= bound.low) & (found <= bound.high) & (found.abs() >= bound.least)
                assert inside.all(), (value.operation, bound, found[~inside])


@pytest.mark.parametrize("hard", [False, True], ids=["y", "labels"])
@EVERYTHING
@given(expression=TAME, shape=shapes)
def test_every_value_is_in_its_interval(expression: Expression, shape: tuple[int, ...], hard: bool) -> None:
    assert_all_within(expression, shape, hard=hard)


@pytest.mark.parametrize("name", PRIMITIVES)
@settings(EVERYTHING, max_examples=4)
@given(data=st.data())
def test_every_value_of_every_primitive_is_in_its_interval(name: str, data: st.DataObject) -> None:
    """Of operands from anywhere, so that no primitive is left out by chance."""
    kinds, kind = data.draw(st.sampled_from(list(signatures(PRIMITIVES[name]))))
    operands = []
    for wanted in kinds:
        tame = expressions(kind=wanted, max_depth=2, coefficients=tame_coefficient, constants=st.integers(-3, 3))
        operands.append(str(data.draw(tame)).removeprefix(REDUCED[wanted]).removesuffix(")" * wanted))
    formula = f"{REDUCED[kind]}{name}({', '.join(operands)}){')' * kind}"
    assert_all_within(Expression.parse(formula), data.draw(shapes), hard=data.draw(st.booleans()))


@pytest.mark.parametrize("hard", [False, True], ids=["y", "labels"])
@pytest.mark.parametrize("name", expressible_names())
def test_every_value_of_the_losses_of_the_literature_is_in_its_interval(name: str, hard: bool) -> None:
    assert_all_within(expression_of(name), SHAPES[0], hard=hard)


@EVERYTHING
@given(expression=TAME, shape=shapes)
def test_what_is_safe_is_finite(expression: Expression, shape: tuple[int, ...]) -> None:
    """Everything on the way to value and gradient, in float32, on the worst of images."""
    if is_safe(expression, limits=limits_of(shape)):
        for hard in (False, True):
            computed = computing(expression, reachable(with_gradient(expression, hard=hard)))
            for example in extreme_images(shape, torch.float32):
                assert all(found.isfinite().all() for found in computed(example))


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
        # A curve begins and ends where its operand is cut off: that is what it means.
        if primitive.elementwise and not primitive.parameters and primitive.name not in ("min", "max"):
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
    assert f": {node} (from {low:.4g} to " in danger.explanation


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


@pytest.mark.parametrize("kind", get_args(DangerKind))
def test_every_kind_of_danger_is_explained(kind: DangerKind) -> None:
    explanation = Danger(kind, "sum(p)", -math.inf, 0.0).explanation
    assert "sum(p) (from -inf to 0)" in explanation
    assert explanation.endswith(".")


@pytest.mark.parametrize("wrong", [{"voxels": 0}, {"classes": 1}, {"images": 0}, {"logit": math.inf}])
def test_impossible_limits(wrong: dict[str, float]) -> None:
    with pytest.raises(LossevoError, match="at least 1 voxel"):
        Limits(**wrong)
