"""Hypothesis strategies of the loss language: random well-typed trees of every kind.

Used by the tests of other rooms too: ``from tests.expression.strategies import expressions``.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from itertools import product

from hypothesis import strategies as st

from lossevo.expression import COEFFICIENT, PRIMITIVES, TERMINALS, Expression, Kind, Node, Primitive, constant
from lossevo.expression.trees import MAX_COEFFICIENT, MAX_CONSTANT

any_coefficient = st.floats(-MAX_COEFFICIENT, MAX_COEFFICIENT)
tame_coefficient = st.floats(0.1, 10.0) | st.floats(-10.0, -0.1)
"""Coefficients with which an expression seldom overflows."""

any_constant = st.integers(-2, 3) | st.integers(-MAX_CONSTANT, MAX_CONSTANT)


def signatures(primitive: Primitive) -> Iterator[tuple[tuple[Kind, ...], Kind]]:
    """Every combination of operand kinds that a primitive takes, and the kind that it gives."""
    if primitive.source is not None and primitive.target is not None:
        yield (primitive.source,), primitive.target
        return
    operands = primitive.arity - primitive.parameters
    for kinds in product(Kind, repeat=operands):
        yield (*kinds, *[Kind.SCALAR] * primitive.parameters), max(kinds)


@st.composite
def expressions(
    draw: st.DrawFn,
    *,
    kind: Kind = Kind.SCALAR,
    max_depth: int = 6,
    coefficients: st.SearchStrategy[float] = any_coefficient,
    constants: st.SearchStrategy[int] = any_constant,
    exclude: Collection[str] = (),
) -> Expression:
    """A random expression: a tree of ``kind``, reduced to a SCALAR if it is of another; sub-trees may repeat.

    ``exclude`` names primitives and terminals that must not occur.
    """
    elementwise: dict[Kind, list[tuple[str, tuple[Kind, ...]]]] = {result: [] for result in Kind}
    reductions: dict[Kind, list[tuple[str, tuple[Kind, ...]]]] = {result: [] for result in Kind}
    for primitive in PRIMITIVES.values():
        for kinds, result in signatures(primitive):
            if primitive.name not in exclude:
                reduces = primitive.source is not primitive.target
                (reductions if reduces else elementwise)[result].append((primitive.name, kinds))
    terminals = {
        kind: [name for name, terminal in TERMINALS.items() if terminal.kind is kind and name not in exclude]
        for kind in Kind
    }
    values: list[float] = []
    drawn: dict[Kind, list[Node]] = {result: [] for result in Kind}

    def leaf(wanted: Kind) -> Node:
        if wanted is Kind.VOXEL:
            return Node(draw(st.sampled_from(terminals[wanted])))
        if terminals[wanted] and draw(st.integers(0, 3)) == 0:
            return Node(draw(st.sampled_from(terminals[wanted])))
        if wanted is Kind.REGION:
            name, _ = draw(st.sampled_from(reductions[Kind.REGION]))
            return Node(name, (leaf(Kind.VOXEL),))
        if draw(st.booleans()):
            return constant(draw(constants))
        values.append(draw(coefficients))
        return Node(COEFFICIENT, value=len(values) - 1)

    def tree(wanted: Kind, depth: int) -> Node:
        choice = draw(st.integers(0, 9)) if depth > 0 else 0
        repeatable = [node for node in drawn[wanted] if node.depth <= depth] if choice == 9 else []
        if choice == 0 or (choice == 1 and wanted is Kind.SCALAR):
            return leaf(wanted)
        if repeatable:
            return draw(st.sampled_from(repeatable))
        options = reductions if choice < 6 and reductions[wanted] else elementwise
        name, kinds = draw(st.sampled_from(options[wanted]))
        node = Node(name, tuple(tree(operand, depth - 1) for operand in kinds))
        drawn[wanted].append(node)
        return node

    root = tree(kind, max_depth)
    if kind is Kind.VOXEL:
        root = Node("mean", (root,))
    if kind is not Kind.SCALAR:
        root = Node("class_mean", (root,))
    return Expression.of(root, values)
