"""Protected arithmetic: the plain operation away from the clamp, and finite everywhere, gradient included."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import product

import pytest
import torch
from torch import Tensor

from lossevo.expression import COEFFICIENT, Expression, Node, compile_expression, safe_math
from lossevo.expression.primitives import EPSILON


def primitive(name: str, arity: int) -> Callable[..., Tensor]:
    """A primitive as a function of tensors: its code on coefficients, which may have any shape."""
    root = Node(name, tuple(Node(COEFFICIENT, value=slot) for slot in range(arity)))
    function = compile_expression(Expression(root, (1.0,) * arity))

    def call(*operands: Tensor) -> Tensor:
        value = function({}, operands)
        assert isinstance(value, Tensor)
        return value

    call.__name__ = name
    return call


LOG, EXP, SQRT = (primitive(name, 1) for name in ("log", "exp", "sqrt"))
DIVIDE, POWER, MINIMUM, MAXIMUM = (primitive(name, 2) for name in ("div", "pow", "min", "max"))
PLAIN: dict[Callable[..., Tensor], Callable[..., Tensor]] = {
    LOG: torch.log,
    EXP: torch.exp,
    SQRT: torch.sqrt,
    DIVIDE: torch.div,
    POWER: torch.pow,
    MINIMUM: torch.minimum,
    MAXIMUM: torch.maximum,
}
UNARY = [LOG, EXP, SQRT]
BINARY = [DIVIDE, POWER, MINIMUM, MAXIMUM]


def _extremes(dtype: torch.dtype, huge: float) -> list[float]:
    """Zero, the smallest numbers there are, the clamps and their neighbours, and ±``huge``."""
    limits = torch.finfo(dtype)
    positive = [limits.tiny / 4, limits.tiny, 1e-20, EPSILON, EPSILON * (1 - 1e-3), 1e-2, 1.0, 19.99, 20.0, 20.01, huge]
    return [0.0, -0.0, *positive, *(-x for x in positive)]


def _value_and_gradients(function: Callable[..., Tensor], *operands: Tensor) -> list[Tensor]:
    operands = tuple(operand.clone().requires_grad_() for operand in operands)
    value = torch.as_tensor(function(*operands)).expand_as(operands[0])
    if not value.requires_grad:
        return [value, torch.zeros_like(value)]
    return [value.detach(), *torch.autograd.grad(value.sum(), operands)]


def test_guard_is_all_that_is_protected_by_a_function_of_our_own() -> None:
    own = {name for name, item in vars(safe_math).items() if callable(item) and item.__module__ == safe_math.__name__}
    assert own == {"guard"}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("function", UNARY)
def test_one_operand_is_finite_everywhere(function: Callable[..., Tensor], dtype: torch.dtype) -> None:
    x = torch.tensor([*_extremes(dtype, torch.finfo(dtype).max)], dtype=dtype)
    for result in _value_and_gradients(function, x):
        assert result.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("function", BINARY)
def test_two_operands_are_finite_everywhere(function: Callable[..., Tensor], dtype: torch.dtype) -> None:
    """A quotient and a power of huge numbers do overflow, so theirs are moderate."""
    largest = torch.finfo(dtype).max
    left, right = {DIVIDE: (largest * 1e-9, largest), POWER: (1e3, 8.0)}.get(function, (largest, largest))
    pairs = list(product(_extremes(dtype, left), _extremes(dtype, right)))
    if function is POWER:
        pairs = [(base, exponent) for base, exponent in pairs if abs(exponent) <= 8]
    a, b = torch.tensor(pairs, dtype=dtype).unbind(1)
    for result in _value_and_gradients(function, a, b):
        assert result.isfinite().all()


@pytest.mark.parametrize("function", [*UNARY, *BINARY])
def test_away_from_the_clamp_it_is_the_plain_operation(function: Callable[..., Tensor]) -> None:
    generator = torch.Generator().manual_seed(1)
    operands = [torch.rand(200, generator=generator, dtype=torch.float64) * 5 + 1e-3 for _ in range(2)]
    operands = operands[: 2 if function in BINARY else 1]
    for found, expected in zip(
        _value_and_gradients(function, *operands), _value_and_gradients(PLAIN[function], *operands), strict=True
    ):
        assert torch.equal(found, expected)


@pytest.mark.parametrize("function", [*UNARY, *BINARY])
def test_gradient_equals_finite_differences(function: Callable[..., Tensor]) -> None:
    x = torch.tensor([-3.0, -0.7, 0.2, 1.5, 2.9, 18.0], dtype=torch.float64, requires_grad=True)
    y = torch.tensor([0.4, -1.5, -0.2, 2.0, 3.1, -0.6], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(function, (x, y) if function in BINARY else (x,))
    assert torch.autograd.gradgradcheck(function, (x, y) if function in BINARY else (x,))


@pytest.mark.parametrize("name", ["div", "pow", "min", "max"])
@pytest.mark.parametrize("number", [-2, 0, 1, 2, 3])
def test_either_operand_may_be_a_number(name: str, number: int) -> None:
    x = torch.tensor([-3.0, -1e-5, 0.0, 2e-5, 0.25, 7.0], dtype=torch.float64)
    slot, constant = Node(COEFFICIENT, value=0), Node("constant", value=number)
    for operands in ((slot, constant), (constant, slot)):
        with_number = compile_expression(Expression(Node(name, operands), (1.0,)))
        like = torch.full_like(x, number)
        tensors = (x, like) if operands[0] is slot else (like, x)
        found, gradient = _value_and_gradients(lambda t, f=with_number: f({}, [t]), x)
        expected, *gradients = _value_and_gradients(primitive(name, 2), *tensors)
        away_from_ties = x != number
        wanted = gradients[0 if operands[0] is slot else 1]
        torch.testing.assert_close(found.to(expected.dtype), expected, rtol=1e-14, atol=0)
        torch.testing.assert_close(
            gradient[away_from_ties].to(wanted.dtype), wanted[away_from_ties], rtol=1e-12, atol=1e-300
        )


def test_division_keeps_the_denominators_sign() -> None:
    denominator = torch.tensor([1e-5, -1e-5, 0.0, -0.0, 2e-4, -2e-4], dtype=torch.float64)
    expected = torch.tensor([1e4, -1e4, 1e4, 1e4, 5e3, -5e3], dtype=torch.float64)
    torch.testing.assert_close(DIVIDE(torch.ones(6, dtype=torch.float64), denominator), expected)


@pytest.mark.parametrize(
    ("function", "x", "value"),
    [
        (LOG, -1.0, math.log(EPSILON)),
        (LOG, 0.0, math.log(EPSILON)),
        (SQRT, -1.0, math.sqrt(EPSILON)),
        (EXP, 1e30, math.exp(20)),
        (lambda x: POWER(x, torch.tensor(0.5)), -1.0, math.sqrt(EPSILON)),
        (lambda x: POWER(x, torch.tensor(0.5)), 0.0, math.sqrt(EPSILON)),
        (lambda x: DIVIDE(torch.tensor(1.0), x), 0.0, 1 / EPSILON),
        (lambda x: DIVIDE(torch.tensor(1.0), x), -1e-9, -1 / EPSILON),
    ],
)
def test_where_the_clamp_acts_the_value_stands_and_the_gradient_is_zero(
    function: Callable[..., Tensor], x: float, value: float
) -> None:
    found, gradient = _value_and_gradients(function, torch.tensor(x, dtype=torch.float64))
    assert float(found) == pytest.approx(value)
    assert float(gradient) == 0


def test_what_is_not_a_number_is_not_hidden() -> None:
    nan = torch.tensor([math.nan])
    for function in UNARY:
        assert function(nan).isnan().all()
    for function in BINARY:
        assert function(nan, torch.ones(1)).isnan().all()
        if function is not POWER:
            assert function(torch.ones(1), nan).isnan().all()
        assert POWER(torch.full((1,), 2.0), nan).isnan().all()
