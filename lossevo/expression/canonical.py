"""Canonical form: expressions that differ only in how they are written become equal.

Operands of commutative primitives are sorted; ``-(-x)``, ``1·x``, ``x/1``, ``0+x`` and ``x-0`` become ``x``; operations on integers are
carried out where the result is an integer. These rewrites hold exactly in floating point. What is equal only by algebra (``3L + 5`` trains
like ``L``) is left to the gradient fingerprint of :mod:`lossevo.search.screening`.
"""

from __future__ import annotations


from lossevo.expression.tree import COEFFICIENT, CONSTANT, MAX_CONSTANT, Expression, Node


def canonical(expression: Expression) -> Expression:
    """The canonical expression; canonical(canonical(e)) == canonical(e)."""
    root = _canonical(expression.root, expression.coefficients)
    return Expression.of(root, expression.coefficients)


def _canonical(node: Node, values: tuple[float, ...]) -> Node:
    if not node.children:
        return node
    children = tuple(_canonical(child, values) for child in node.children)
    if node.primitive is not None and node.primitive.commutative:
        children = tuple(sorted(children, key=lambda child: _key(child, values)))
    return _simplified(Node(node.name, children, node.value))


def _key(node: Node, values: tuple[float, ...]) -> tuple[int, str]:
    """An order that does not depend on how coefficient slots are numbered."""
    return -node.size, _signature(node, values)


def _signature(node: Node, values: tuple[float, ...]) -> str:
    if node.name == COEFFICIENT:
        return repr(values[node.value])
    if node.name == CONSTANT:
        return str(node.value)
    return node.name + "(" + ",".join(_signature(child, values) for child in node.children) + ")"


def _simplified(node: Node) -> Node:
    name, children = node.name, node.children
    integers = [child.value if child.name == CONSTANT else None for child in children]
    folded = _fold(name, integers)
    if folded is not None:
        return folded
    if name == "neg" and children[0].name == "neg":
        return children[0].children[0]
    if name in ("mul", "div") and integers[1] == 1:
        return children[0]
    if name in ("add", "sub") and integers[1] == 0:
        return children[0]
    return node


def _fold(name: str, integers: list[int | None]) -> Node | None:
    """The integer that an operation on integers gives, if it gives one."""
    known = [value for value in integers if value is not None]
    if not known or len(known) < len(integers):
        return None
    match name, known:
        case "add", [a, b]:
            value = a + b
        case "sub", [a, b]:
            value = a - b
        case "mul", [a, b]:
            value = a * b
        case "neg", [a]:
            value = -a
        case "abs", [a]:
            value = abs(a)
        case "square", [a]:
            value = a * a
        case _:
            return None
    return Node(CONSTANT, value=value) if abs(value) <= MAX_CONSTANT else None



