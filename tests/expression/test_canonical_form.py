"""The canonical form and the hash: one identity for all ways to write an expression, and never one for two."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lossevo.expression import Expression, Node, canonical, compile_expression, constant
from tests.expression.interpreter import gradients, random_inputs
from tests.expression.strategies import expressions, tame_coefficient
from tests.timing import quickest

DICE = "1 - foreground_mean(2 * sum(p * y) / sum(p + y))"


def _canonical_text(formula: str) -> str:
    return str(canonical(Expression.parse(formula)))


# What it changes


@pytest.mark.parametrize(
    ("formula", "form"),
    [
        ("class_mean(sum(y * p))", "class_mean(sum(p * y))"),
        ("class_mean(sum(y + p * d))", "class_mean(sum(d * p + y))"),
        ("class_mean(sum(max(1, p - y)))", "class_mean(sum(max(p - y, 1)))"),
        ("class_mean(sum(1 * p))", "class_mean(sum(p))"),
        ("class_mean(sum(p * 1))", "class_mean(sum(p))"),
        ("class_mean(sum(0 + p))", "class_mean(sum(p))"),
        ("class_mean(sum(p - 0) / 1)", "class_mean(sum(p))"),
        ("class_mean(sum(--p))", "class_mean(sum(p))"),
        ("class_mean(sum(---p))", "class_mean(sum(-p))"),
        ("class_mean(sum(p * (3 - 2)))", "class_mean(sum(p))"),
        ("class_mean(sum(p * (y * -(-1))))", "class_mean(sum(p * y))"),
        ("2 * 3 - square(-4) + max(1, 2) - abs(-5)", "-13"),
        ("1 * 2.5", "2.5"),
    ],
)
def test_forms(formula: str, form: str) -> None:
    assert _canonical_text(formula) == form


@pytest.mark.parametrize(
    "formula",
    [
        "class_mean(sum(p - y))",
        "class_mean(sum(0 - p))",
        "class_mean(sum(p * 0))",
        "class_mean(sum(1 / p))",
        "class_mean(sum(1 - p))",
        "class_mean(sum(0.0 + p))",
        "class_mean(sum(1.0 * p))",
        "class_mean(sum(p ^ 1))",
        "1 / 3",
        "4 / 2",
        "square(1000)",
        "1.5 * 2.5",
        "-(2.5)",
        "abs(-0.5)",
    ],
)
def test_what_is_not_exactly_equal_or_is_tunable_stays(formula: str) -> None:
    assert _canonical_text(formula) == formula


@given(expressions())
def test_it_is_idempotent(expression: Expression) -> None:
    assert canonical(canonical(expression)) == canonical(expression)


@given(expressions(coefficients=tame_coefficient))
def test_it_preserves_value_and_gradient(expression: Expression) -> None:
    inputs = random_inputs((2, 3, 3, 2))
    variables = [inputs["p"], inputs["logp"]]
    results = []
    for each in (expression, canonical(expression)):
        result = compile_expression(each)(inputs, torch.tensor(each.coefficients, dtype=torch.float64))
        value = torch.as_tensor(result, dtype=torch.float64)
        results.append((value.detach(), torch.stack(gradients(value, variables))))
    (value, gradient), (other_value, other_gradient) = results
    assert torch.equal(value.nan_to_num(), other_value.nan_to_num())
    # Contributions to the gradient are added in another order.
    scale = float(gradient.nan_to_num().abs().max())
    torch.testing.assert_close(other_gradient, gradient, rtol=1e-12, atol=1e-12 * (1 + scale), equal_nan=True)


# What it makes equal


def _rewritten(node: Node, draw: st.DrawFn) -> Node:
    """``node`` written in another way, by the rules that hold exactly."""
    children = tuple(_rewritten(child, draw) for child in node.children)
    if node.primitive is not None and node.primitive.commutative and draw(st.booleans()):
        children = children[::-1]
    same = Node(node.name, children, node.value)
    match draw(st.integers(0, 20)):
        case 0:
            return Node("neg", (Node("neg", (same,)),))
        case 1:
            return Node("mul", (constant(1), same))
        case 2:
            return Node("add", (same, constant(0)))
        case 3:
            return Node("sub", (same, constant(0)))
        case 4:
            return Node("div", (same, Node("sub", (constant(3), constant(2)))))
    return same


@st.composite
def _pairs(draw: st.DrawFn) -> tuple[Expression, Expression]:
    expression = draw(expressions())
    return expression, Expression.of(_rewritten(expression.root, draw), expression.coefficients)


@given(_pairs())
def test_however_it_is_written_an_expression_has_one_form_and_one_hash(pair: tuple[Expression, Expression]) -> None:
    first, second = pair
    assert canonical(first) == canonical(second)
    assert first.hash == second.hash


def test_coefficients_move_with_their_operands() -> None:
    expression = canonical(Expression.parse("0.25 * class_mean(sum(p)) + 0.5 * class_sum(sum(y) - mean(y))"))
    assert str(expression) == "class_sum(sum(y) - mean(y)) * 0.5 + class_mean(sum(p)) * 0.25"
    assert expression.coefficients == (0.5, 0.25)


def test_operands_that_differ_in_coefficients_only_are_sorted_by_them() -> None:
    first = Expression.parse("class_mean(max(0.25 * sum(p), 0.5 * sum(p))) + min(3.0, 2.0)")
    second = Expression.parse("min(2.0, 3.0) + class_mean(max(0.5 * sum(p), 0.25 * sum(p)))")
    assert canonical(first) == canonical(second)
    assert first.hash == second.hash


# What it tells apart


def test_the_hash_tells_coefficients_and_structures_apart() -> None:
    formulas = [
        "0.3 * class_mean(sum(p)) + 0.7 * class_mean(sum(y))",
        "0.7 * class_mean(sum(p)) + 0.3 * class_mean(sum(y))",
        "0.3 * class_mean(sum(p)) + 0.7000000000000001 * class_mean(sum(y))",
        "0.3 * class_mean(sum(p)) - 0.7 * class_mean(sum(y))",
        "0.3 * class_mean(sum(p)) + 0.7 * class_sum(sum(y))",
        "class_mean(sum(p)) + 0.7 * class_mean(sum(y))",
        "1 * class_mean(sum(p))",
        "1.0 * class_mean(sum(p))",
        "class_mean(sum(p)) ^ 1",
        "class_mean(sum(p - y))",
        "class_mean(sum(y - p))",
    ]
    assert len({Expression.parse(formula).hash for formula in formulas}) == len(formulas)


@given(expressions(), expressions())
def test_equal_hashes_mean_equal_forms(first: Expression, second: Expression) -> None:
    assert (first.hash == second.hash) == (canonical(first) == canonical(second))


def test_the_hash_is_always_the_same() -> None:
    """Ledgers keep it: another value here means that resumed runs know none of their candidates."""
    assert Expression.parse(DICE).hash == "c8e4d60035600b657361d070d75946633dbea2d5c4ea3552d41982ad5acc4dd7"


def test_the_largest_tree_is_made_canonical_at_once() -> None:
    root = Node("p")
    for _ in range(8):
        root = Node("add", (root, Node("neg", (root,))))
    expression = Expression(Node("class_mean", (Node("mean", (root,)),)))
    assert quickest(lambda: canonical(expression)) < 0.5
