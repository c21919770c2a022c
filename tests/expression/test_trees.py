"""Trees and expressions: kinds, limits, identity, and the JSON document."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import json
import math
import pickle
import re
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lossevo.expression import PRIMITIVES, TERMINALS, Expression, ExpressionError, Kind, Node, constant, renumber
from lossevo.expression.parser import parse
from lossevo.expression.trees import FORMAT, MAX_DEPTH, MAX_NODES
from tests.expression.strategies import any_coefficient, expressions

DICE = "1 - foreground_mean(2 * sum(p * y) / sum(p + y))"

# Nodes


@pytest.mark.parametrize(
    ("formula", "kind"),
    [
        ("p", Kind.VOXEL),
        ("2", Kind.SCALAR),
        ("2.5", Kind.SCALAR),
        ("p * 2", Kind.VOXEL),
        ("sum(p)", Kind.REGION),
        ("batch_mean(p)", Kind.REGION),
        ("sum(p) * 2", Kind.REGION),
        ("p - mean(p)", Kind.VOXEL),
        ("class_sum(sum(p))", Kind.SCALAR),
        ("max(class_mean(mean(p)), 1)", Kind.SCALAR),
        ("class_mean(mean(p)) * sum(p)", Kind.REGION),
    ],
)
def test_a_value_is_of_the_largest_kind_of_its_operands_and_reductions_go_down_one(formula: str, kind: Kind) -> None:
    assert parse(formula)[0].kind is kind


def test_a_node_knows_its_size_and_depth() -> None:
    root, _ = parse("1 - foreground_mean(sum(p))")
    assert (root.size, root.depth) == (5, 4)
    assert [node.name for node in root.walk()] == ["sub", "constant", "foreground_mean", "sum", "p"]


@pytest.mark.parametrize(
    ("name", "children", "message"),
    [
        ("summ", (Node("p"),), "unknown name 'summ' (did you mean 'sum'?)"),
        ("sum", (), "sum takes 1 operand(s), not 0"),
        ("add", (Node("p"),), "add takes 2 operand(s), not 1"),
        ("p", (Node("p"),), "p takes 0 operand(s), not 1"),
        ("constant", (Node("p"),), "constant takes 0 operand(s), not 1"),
        ("sum", (constant(1),), "sum reduces a voxel value, but is given a scalar one"),
        ("class_mean", (Node("p"),), "class_mean reduces a region value, but is given a voxel one"),
    ],
)
def test_a_tree_that_exists_is_well_typed(name: str, children: tuple[Node, ...], message: str) -> None:
    with pytest.raises(ExpressionError, match=re.escape(message)):
        Node(name, children)


def test_integers_are_small() -> None:
    assert constant(-1000).value == -1000
    for value in (1001, -1001, 10**30):
        with pytest.raises(ExpressionError, match="too large"):
            constant(value)
        with pytest.raises(ExpressionError, match="too large"):
            Node("constant", value=value)


def test_depth_and_size_are_limited() -> None:
    deep = wide = Node("p")
    for _ in range(MAX_DEPTH - 1):
        deep = Node("abs", (deep,))
    with pytest.raises(ExpressionError, match="depth 65; at most 1024 nodes and depth 64"):
        Node("abs", (deep,))
    while 2 * wide.size + 1 <= MAX_NODES:
        wide = Node("add", (wide, wide))
    with pytest.raises(ExpressionError, match="2047 nodes"):
        Node("add", (wide, wide))


def test_nodes_are_immutable_and_equal_by_value() -> None:
    first, second = parse("p * (y + 2.0)")[0], parse("p * (y + 3.0)")[0]
    assert first == second
    assert hash(first) == hash(second)
    assert first != parse("(y + 2.0) * p")[0]
    assert first != parse("p * (y + 2)")[0]
    with pytest.raises(dataclasses.FrozenInstanceError):
        first.name = "add"  # type: ignore[misc]


@given(expressions())
def test_copies_and_pickles_are_equal(expression: Expression) -> None:
    for twin in (copy.copy(expression), copy.deepcopy(expression), pickle.loads(pickle.dumps(expression))):
        assert twin == expression
        assert hash(twin) == hash(expression)
        assert twin.root.kind is Kind.SCALAR
        assert twin.hash == expression.hash


def test_identity_is_the_same_in_every_process() -> None:
    """Python's hashes of strings are not, so the hash of a node must not travel when it is pickled."""
    expression = Expression.parse(DICE)
    program = (
        "import pickle, sys; from lossevo.expression import Expression;"
        f"own = Expression.parse({DICE!r}); sent = pickle.loads(bytes.fromhex({pickle.dumps(expression).hex()!r}));"
        "print({own.root: own.hash}[sent.root])"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program], env={"PYTHONHASHSEED": seed}, stdout=subprocess.PIPE, text=True
        )
        for seed in ("1", "2")
    ]
    assert [process.communicate()[0].strip() for process in processes] == [expression.hash] * 2


# Expressions


@given(expressions())
def test_slots_are_numbered_in_prefix_order(expression: Expression) -> None:
    slots = [node.value for node in expression.root.walk() if node.name == "coefficient"]
    assert slots == list(range(len(expression.coefficients)))


def test_renumbering_tells_the_old_slots() -> None:
    root, _ = parse("c2 * p + max(c0, c2)", slots=3)
    numbered, old = renumber(root)
    assert numbered == parse("c0 * p + max(c1, c2)", slots=3)[0]
    assert old == (2, 0, 2)
    expression = Expression.of(Node("class_mean", (Node("mean", (root,)),)), [0.5, 7.0, -3.0])
    assert expression.coefficients == (-3.0, 0.5, -3.0)


@pytest.mark.parametrize("slots", [(0,), (0, 0), (1, 0), (0, 2), (1, 2)])
def test_other_slots_than_the_numbered_ones_are_refused(slots: tuple[int, ...]) -> None:
    root = constant(1)
    for slot in reversed(slots):
        root = Node("add", (Node("coefficient", value=slot), root))
    with pytest.raises(ExpressionError, match=r"slots must be c0, c1, … in order, 2 in all; found"):
        Expression(root, (1.0, 2.0))


@pytest.mark.parametrize(
    "value", [math.nan, math.inf, -math.inf, 1.1e12, -1e300, pytest.param(10**400, id="huge integer")]
)
def test_coefficients_are_finite_and_not_huge(value: float) -> None:
    with pytest.raises(ExpressionError, match=r"coefficient .*magnitude .*at most 1e\+12"):
        Expression(Node("coefficient"), (value,))
    with pytest.raises(ExpressionError):
        Expression.parse(DICE).with_coefficients([value])


def test_coefficients_become_plain_floats() -> None:
    """So text, JSON and hash do not depend on the number type that an optimiser hands over."""
    import numpy as np

    for values in ([2], [np.float64(2)], np.array([2.0], dtype=np.float32), (True + True,)):
        expression = Expression(Node("coefficient"), values)  # type: ignore[arg-type]
        assert expression == Expression.parse("2.0")
        assert str(expression) == "2.0"
        assert type(expression.coefficients[0]) is float
    assert str(Expression.parse("-0.0")) == str(Expression.parse("0.0"))
    assert Expression.parse("-0.0").hash == Expression.parse("0.0").hash


def test_coefficients_can_be_exchanged() -> None:
    expression = Expression.parse("0.3 * class_mean(mean(p)) + 0.7")
    other = expression.with_coefficients([1, 2])
    assert str(other) == "1.0 * class_mean(mean(p)) + 2.0"
    assert other.root is expression.root
    with pytest.raises(ExpressionError, match="3 in all"):
        expression.with_coefficients([1, 2, 3])


def test_terminals_and_complexity() -> None:
    expression = Expression.parse(DICE)
    assert expression.terminals == {"p", "y"}
    assert expression.complexity == expression.root.size == 14
    assert Expression.parse("2.0").terminals == frozenset()


def test_a_voxel_or_region_value_is_no_loss() -> None:
    with pytest.raises(ExpressionError, match="must be one number, but this expression is a voxel value; reduce it"):
        Expression(Node("p"))


# JSON


@given(expressions())
def test_json_is_read_back_exactly(expression: Expression) -> None:
    assert Expression.from_json(expression.to_json()) == expression
    assert Expression.from_json(json.loads(json.dumps(expression.to_json(), allow_nan=False))) == expression


def test_json_keeps_structure_and_coefficients_apart() -> None:
    assert Expression.parse("1 - 0.3 * class_mean(mean(p)) ^ -2.5").to_json() == {
        "format": "lossevo.expression/1",
        "structure": "1 - c0 * class_mean(mean(p)) ^ c1",
        "coefficients": [0.3, -2.5],
    }


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (None, "not an expression of format 'lossevo.expression/1': found 'NoneType'"),
        ([], "found 'list'"),
        ({}, "found None"),
        ({"format": "lossevo.expression/2"}, "found 'lossevo.expression/2'"),
        ({"format": FORMAT}, 'needs "structure" (text) and "coefficients" (a list of numbers)'),
        ({"format": FORMAT, "structure": "1", "coefficients": {}}, "needs"),
        ({"format": FORMAT, "structure": 1, "coefficients": []}, "needs"),
        ({"format": FORMAT, "structure": "c0", "coefficients": ["1"]}, "must be numbers, found '1'"),
        ({"format": FORMAT, "structure": "c0", "coefficients": [True]}, "must be numbers, found True"),
        ({"format": FORMAT, "structure": "c0", "coefficients": [None]}, "must be numbers, found None"),
        ({"format": FORMAT, "structure": "c0", "coefficients": [math.nan]}, "expected a finite number"),
        ({"format": FORMAT, "structure": "c0", "coefficients": [10**400]}, "too large"),
        ({"format": FORMAT, "structure": "c0", "coefficients": []}, "unknown name 'c0'"),
        ({"format": FORMAT, "structure": "c0 + c1", "coefficients": [1.0]}, "position 6: unknown name 'c1'"),
        ({"format": FORMAT, "structure": "1", "coefficients": [1.0]}, "1 in all; found []"),
        ({"format": FORMAT, "structure": "c0 + c0", "coefficients": [1.0]}, "found [0, 0]"),
        ({"format": FORMAT, "structure": "c0 + 1.5", "coefficients": [1.0]}, "found the number 1.5"),
        ({"format": FORMAT, "structure": "p", "coefficients": []}, "must be one number"),
    ],
)
def test_other_documents_are_refused_with_the_reason(document: object, message: str) -> None:
    with pytest.raises(ExpressionError, match=re.escape(message)):
        Expression.from_json(document)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)
_STRUCTURE = st.sampled_from(["c0", "c0 + c1", "c1 + c0", "class_mean(mean(p * c0))", "1", "1.5", "c"]) | st.text()


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "format": st.just(FORMAT) | _JSON,
            "structure": _STRUCTURE | _JSON,
            "coefficients": st.lists(any_coefficient | st.integers() | st.floats()) | _JSON,
        },
    )
    | _JSON
)
def test_any_document_is_an_expression_or_an_error(document: object) -> None:
    with contextlib.suppress(ExpressionError):
        expression = Expression.from_json(document)
        assert Expression.from_json(expression.to_json()) == expression


def test_names_of_the_language_do_not_clash() -> None:
    names = [*TERMINALS, *PRIMITIVES, "constant", "coefficient"]
    assert len(names) == len(set(names))
    assert not [name for name in names if re.fullmatch(r"c\d+", name)]
