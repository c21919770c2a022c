"""Generated code: equal to the meaning of the language, each shared sub-expression computed once, coefficients free."""

from __future__ import annotations

import ast
import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from lossevo.expression import (
    INPUTS,
    PRIMITIVES,
    TERMINALS,
    Expression,
    Kind,
    Node,
    compile_expression,
    constant,
    generate,
)
from lossevo.expression.codegen import HELPERS, lower
from lossevo.expression.graph import Graph, reachable
from lossevo.expression.parser import parse
from lossevo.expression.trees import MAX_DEPTH, MAX_NODES
from tests.expression.interpreter import MEANINGS, NearJump, gradients, interpret, random_inputs
from tests.expression.strategies import expressions, signatures, tame_coefficient

SHAPES = [(1, 2, 4, 3), (2, 3, 3, 2), (2, 2, 2, 3, 2), (1, 3, 2, 2, 3)]


def _evaluate(expression: Expression, inputs: Mapping[str, Tensor]) -> Tensor:
    like = next(iter(inputs.values()))
    result = compile_expression(expression)(inputs, torch.tensor(expression.coefficients, dtype=like.dtype))
    return torch.as_tensor(result, dtype=like.dtype)


# Meaning


def test_the_reference_knows_every_primitive() -> None:
    assert MEANINGS.keys() == PRIMITIVES.keys()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", PRIMITIVES)
def test_every_primitive_means_what_is_documented(name: str, shape: tuple[int, ...]) -> None:
    primitive = PRIMITIVES[name]
    operands = {
        Kind.VOXEL: ("p - 0.3", "d * logp"),
        Kind.REGION: ("mean(p) - 0.3", "batch_mean(p * d)"),
        Kind.SCALAR: ("class_mean(mean(p)) - 0.3", "-1.5", "2.0", "class_mean(f)", "0.7"),
    }
    to_scalar = {Kind.VOXEL: "class_mean(mean({}))", Kind.REGION: "class_mean({})", Kind.SCALAR: "{}"}
    for kinds, _ in signatures(primitive):
        chosen = [operands[kind][index] for index, kind in enumerate(kinds)]
        formula = f"{name}({', '.join(chosen)})"
        expression = Expression.parse(to_scalar[parse(formula)[0].kind].format(formula))
        _assert_equal_to_reference(expression, shape)


def _assert_equal_to_reference(expression: Expression, shape: tuple[int, ...]) -> None:
    inputs = random_inputs(shape)
    coefficients = torch.tensor(expression.coefficients, dtype=torch.float64, requires_grad=True)
    expected = interpret(expression, inputs, coefficients)
    found = torch.as_tensor(compile_expression(expression)(inputs, coefficients), dtype=torch.float64)
    assert found.shape == ()
    if not bool(expected.isfinite()):
        # 0 · x is 0 and x - x is 0 here, whatever x is.
        return
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-12)
    # Two equal coefficients can meet in a minimum, where operands share the gradient, but numbers take none.
    has_ties = any(node.name in ("min", "max") for node in expression.root.walk())
    variables = [inputs["p"], inputs["logp"], *([] if has_ties else [coefficients])]
    pairs = zip(gradients(found, variables), gradients(expected, variables), strict=True)
    for found_gradient, gradient in pairs:
        # Shared results gather their gradient in another order; what they gather may cancel.
        known = gradient.isfinite()
        scale = float(gradient[known].abs().max()) if bool(known.any()) else 0.0
        # What is huge is so by a power or an exponential, which amplify the rounding of their operands as much.
        if scale < 1e8:
            torch.testing.assert_close(found_gradient[known], gradient[known], rtol=1e-9, atol=1e-9 * (1 + scale))


@pytest.mark.parametrize("shape", SHAPES)
@given(expression=expressions(coefficients=tame_coefficient, constants=st.integers(-3, 3)))
def test_random_expressions_equal_the_reference(shape: tuple[int, ...], expression: Expression) -> None:
    try:
        _assert_equal_to_reference(expression, shape)
    except NearJump:
        assume(False)


# Sharing


class _CountedCalls(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.calls[func.overloadpacket.__name__] += 1
        return func(*args, **(kwargs or {}))


def _calls(expression: Expression) -> Counter[str]:
    """How often which PyTorch operation runs in one forward pass."""
    inputs = random_inputs((2, 3, 4, 4))
    loss, coefficients = compile_expression(expression), torch.tensor(expression.coefficients)
    counted = _CountedCalls()
    with torch.no_grad(), counted:
        loss(inputs, coefficients)
    return counted.calls


def test_a_shared_sub_expression_is_computed_once() -> None:
    tversky = "sum(p * y) / (sum(p * y) + sum(p * (1 - y)) + sum((1 - p) * y))"
    calls = _calls(Expression.parse(f"1 - foreground_mean({tversky}) + class_mean({tversky} + sum(p * y))"))
    assert calls["mul"] == 3
    assert calls["sum"] == 3
    assert calls["div"] == 1


def test_a_region_value_is_given_spatial_dimensions_once() -> None:
    calls = _calls(Expression.parse("class_mean(mean(p * sum(y) + d * sum(y) + square(y - sum(y))))"))
    assert calls["sum"] == 1
    assert calls["view"] + calls["reshape"] + calls["_unsafe_view"] == 1


def test_a_tree_of_256_equal_leaves_needs_eight_products() -> None:
    root = Node("p")
    for _ in range(8):
        root = Node("mul", (root, root))
    expression = Expression(Node("class_mean", (Node("mean", (root,)),)))
    assert _calls(expression) == {"mul": 8, "mean": 2}
    assert len(generate(expression.root).lines) == 10


@given(expressions())
def test_there_is_one_line_for_each_distinct_operation(expression: Expression) -> None:
    code = generate(expression.root)
    values = [line.split(" = ", 1)[1] for line in code.lines]
    assert len(set(values)) == len(values)
    graph = reachable([lower(expression.root, Graph())])
    computed = [value for value in graph if value.operands or value.operation in ("size", "foreground")]
    assert len([value for value in values if ".reshape(" not in value]) == len(computed)


def test_shared_and_known_sub_expressions_cost_nothing() -> None:
    once = generate(Expression.parse("class_mean(mean(p * y))").root)
    for formula in (
        "class_mean(mean(p * y)) + class_mean(mean(y * p))",
        "class_mean(mean(p * y)) - 0 * class_mean(mean(exp(p)))",
        "class_mean(1 * mean(p * y + (p - p)))",
    ):
        assert len(generate(Expression.parse(formula).root).lines) <= len(once.lines) + 1


# Coefficients


def test_coefficients_are_read_never_written() -> None:
    expression = Expression.parse("0.123 * class_mean(mean(p)) + 0.456")
    code = generate(expression.root)
    assert not any("0.123" in line or "0.456" in line for line in code.lines)
    assert compile_expression(expression) is compile_expression(expression.with_coefficients([5, 6]))


def test_coefficients_receive_a_gradient() -> None:
    inputs = random_inputs((2, 3, 4, 4))
    loss = compile_expression(Expression.parse("1.5 * class_mean(mean(p ^ 0.5)) + square(2.0)"))
    coefficients = torch.tensor([1.5, 0.5, 2.0], dtype=torch.float64, requires_grad=True)
    fixed = {name: tensor.detach() for name, tensor in inputs.items()}
    assert torch.autograd.gradcheck(lambda c: torch.as_tensor(loss(fixed, c)), coefficients)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_result_has_the_type_of_the_inputs(dtype: torch.dtype) -> None:
    inputs = random_inputs((2, 3, 4, 4), dtype=dtype)
    for formula in ("2 - class_mean(mean(p / 3 + d))", "0.5 * foreground_mean(max(sum(y), 1))", "0.5"):
        expression = Expression.parse(formula)
        value = compile_expression(expression)(inputs, torch.tensor(expression.coefficients, dtype=dtype))
        assert isinstance(value, Tensor)
        assert value.dtype == dtype


# Constants


@pytest.mark.parametrize(
    ("formula", "value"),
    [
        ("2", 2.0),
        ("-2", -2.0),
        ("2 ^ 10", 1024.0),
        ("2 ^ -1", 0.5),
        ("-(3)", -3.0),
        ("1 / 3", 1 / 3),
        ("1 / 0", 1e4),
        ("1 / -0", 1e4),
        ("0 ^ 1", 1e-4),
        ("log(0)", math.log(1e-4)),
        ("log(exp(3))", 3.0),
        ("exp(100)", math.exp(20)),
        ("sqrt(-1)", 1e-2),
        ("square(-7) - abs(-2)", 47.0),
        ("tanh(1) + sigmoid(-1)", math.tanh(1) + 1 / (1 + math.e)),
        ("min(2, -3) * max(2, -3)", -6.0),
    ],
)
def test_constants_alone_are_a_number_known_when_compiling(formula: str, value: float) -> None:
    expression = Expression.parse(formula)
    code = generate(expression.root)
    assert code.lines == code.inputs == code.helpers == ()
    result = compile_expression(expression)({}, torch.tensor([]))
    assert isinstance(result, float)
    assert result == pytest.approx(value, rel=1e-14)


def test_constants_are_folded_inside_an_expression() -> None:
    code = generate(Expression.parse("class_mean(mean(p * (2 ^ 3 - sqrt(16)))) / (1 - 3)").root)
    assert code.lines == ("v0 = p.mean(spatial)", "v1 = v0.mean()", "v2 = v1 * 4.0", "v3 = v2 / (-2.0)")


@pytest.mark.parametrize(
    ("formula", "value"),
    [("1000 ^ 1000", math.inf), ("-(1000 ^ 1000)", -math.inf), ("1000 ^ 1000 - 1000 ^ 1000", math.nan)],
)
def test_constants_that_overflow_still_compile(formula: str, value: float) -> None:
    inputs = random_inputs((1, 2, 2, 2))
    found = _evaluate(Expression.parse(f"class_mean(mean(p)) * ({formula})"), inputs)
    torch.testing.assert_close(found, torch.tensor(value, dtype=torch.float64), equal_nan=True)


# The largest trees


@pytest.mark.parametrize("name", ["tanh", "neg", "square"])
def test_the_deepest_tree_compiles(name: str) -> None:
    root = Node("p")
    for _ in range(MAX_DEPTH - 3):
        root = Node(name, (root,))
    expression = Expression(Node("class_mean", (Node("mean", (root,)),)))
    assert expression.root.depth == MAX_DEPTH
    _assert_equal_to_reference(expression, (1, 2, 2, 2))


def test_the_largest_tree_compiles() -> None:
    terms = [Node("p"), *(Node("mul", (Node("coefficient", value=slot), Node("p"))) for slot in range(255))]
    while len(terms) > 1:
        terms = [Node("add", (left, right)) for left, right in zip(terms[::2], terms[1::2], strict=True)]
    expression = Expression(Node("class_sum", (Node("mean", (terms[0],)),)), tuple(map(float, range(255))))
    assert expression.root.size == MAX_NODES - 1
    value = _evaluate(expression, {"p": torch.full((1, 2, 2, 2), 0.5, dtype=torch.float64)})
    assert float(value) == 1 + sum(range(255))


# What an exporter relies on


@given(expressions())
def test_code_names_all_that_it_uses_and_no_more(expression: Expression) -> None:
    code = generate(expression.root)
    module = ast.parse("\n".join([*code.lines, code.result]))
    used: set[str] = set()
    assigned: set[str] = set()
    for node in ast.walk(module):
        if isinstance(node, ast.Name):
            (assigned if isinstance(node.ctx, ast.Store) else used).add(node.id)
    free = used - assigned - {"c", "float", "torch", "_"}
    assert free - {"spatial"} == {*code.inputs, *code.helpers}
    assert ("spatial" in free) == code.uses_spatial
    assert set(code.helpers) <= set(HELPERS)
    assert set(code.inputs) <= expression.inputs | {TERMINALS[name].input for name in expression.terminals}


def test_code_is_the_same_every_time() -> None:
    root = Expression.parse("1 - foreground_mean(2.0 * sum(p * y) / sum(p + y))").root
    assert generate(root).lines == (
        "v0 = p * y",
        "v1 = v0.sum(spatial)",
        "v2 = p.sum(spatial)",
        "v3 = y.sum(spatial)",
        "v4 = v2 + v3",
        "v5 = guard(v4)",
        "v6 = v1 / v5",
        "v7 = v6[:, 1:].mean()",
        "v8 = c[0] * v7",
        "v9 = 1.0 - v8",
    )


def test_inputs_keep_their_order() -> None:
    root = Expression.parse("class_mean(mean(d * logp * y * p * m * t))").root
    assert generate(root).inputs == INPUTS


def test_inputs_are_what_the_terminals_and_primitives_read() -> None:
    assert Expression.parse("present_mean(mean(p)) + class_mean(f)").inputs == {"p", "y"}
    assert Expression.parse("class_mean(target_mean(m)) * t").inputs == {"m", "t", "y"}
    assert Expression.parse("class_mean(mean(p - p))").inputs == frozenset()


def test_a_wide_constant_is_no_literal_of_the_text() -> None:
    assert generate(constant(-1000)).result == "(-1000.0)"
