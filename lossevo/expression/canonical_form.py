"""Canonical form: expressions that differ only in how they are written become equal.

Operands of commutative primitives are sorted; ``-(-x)``, ``1·x``, ``x/1``, ``0+x`` and ``x-0`` become ``x``; operations
on integers whose result is an integer always (not quotients and powers) are carried out. These rewrites hold exactly in
floating point. What is equal only by algebra (``3L + 5`` trains like ``L``) is left to the gradient fingerprint of
:mod:`lossevo.search.screening`.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence

from lossevo.expression.trees import COEFFICIENT, CONSTANT, MAX_CONSTANT, Expression, Node

_NEUTRAL: Mapping[str, int] = {"add": 0, "sub": 0, "mul": 1, "div": 1}
"""The integer that leaves the left operand unchanged when it is the right one."""

_ON_INTEGERS: Mapping[str, Callable[..., int]] = {
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "neg": operator.neg,
    "abs": operator.abs,
    "square": lambda x: x * x,
    "min": min,
    "max": max,
}


def canonical(expression: Expression) -> Expression:
    """The canonical form of an expression; that of a canonical expression is itself."""
    return Expression.of(_canonical(expression.root, expression.coefficients), expression.coefficients)


def _canonical(node: Node, values: Sequence[float]) -> Node:
    if not node.children:
        return node
    children = [_canonical(child, values) for child in node.children]
    if node.primitive is not None and node.primitive.commutative:
        children.sort(key=lambda child: _order(child, values))
    return _simplified(Node(node.name, tuple(children)))


def _order(node: Node, values: Sequence[float]) -> tuple[bool, int, str]:
    """Sorts integers last and larger operands first, whatever the numbers of coefficient slots are."""
    return node.name == CONSTANT, -node.size, _signature(node, values)


def _signature(node: Node, values: Sequence[float]) -> str:
    if node.name == COEFFICIENT:
        return repr(values[node.value])
    if node.name == CONSTANT:
        return str(node.value)
    return f"{node.name}({','.join(_signature(child, values) for child in node.children)})"


def _simplified(node: Node) -> Node:
    """One step on a node whose children are canonical."""
    left, right = node.children[0], node.children[-1]
    if node.name in _ON_INTEGERS and all(child.name == CONSTANT for child in node.children):
        result = _ON_INTEGERS[node.name](*(child.value for child in node.children))
        return Node(CONSTANT, value=result) if abs(result) <= MAX_CONSTANT else node
    if node.name == "neg" and left.name == "neg":
        return left.children[0]
    if right.name == CONSTANT and right.value == _NEUTRAL.get(node.name):
        return left
    return node
