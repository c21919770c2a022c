"""Simplification by measurement: drop what does not change the gradient.

Evolved trees carry dead weight: terms without gradient (``… + 1``), factors that cancel, operands that a maximum
never takes. Algebra finds only part of it and may change the domain of protected arithmetic. Here a node is replaced
by one of its operands, or of theirs, wherever the gradient fingerprints of :mod:`lossevo.search.screening` stay the
same, on small objects and on saturated noise, that is, wherever the loss goes on training alike. What is trained,
recorded and exported is the simplified expression.
"""

from __future__ import annotations

from collections.abc import Callable

from lossevo.expression import COEFFICIENT, Expression, Node


def simplify(expression: Expression, fingerprint: Callable[[Expression], str]) -> Expression:
    """The smallest expression reached by replacing nodes by their operands without changing the fingerprint; greedy,
    top down.
    """
    wanted = fingerprint(expression)
    current = expression
    place = 0
    while place < current.root.size:
        for smaller in _hoisted(current, place):
            if fingerprint(smaller) == wanted:
                current = smaller
                break
        else:
            place += 1
    return current


def effective_slots(expression: Expression, fingerprint: Callable[[Expression], str]) -> list[int]:
    """The coefficient slots that matter: those whose value, made half as large again, changes the fingerprint."""
    wanted = fingerprint(expression)
    coefficients = expression.coefficients
    return [
        slot
        for slot, value in enumerate(coefficients)
        if fingerprint(
            expression.with_coefficients([*coefficients[:slot], 1.5 * value or 0.5, *coefficients[slot + 1 :]])
        )
        != wanted
    ]


def _hoisted(expression: Expression, place: int) -> list[Expression]:
    """The expressions in which node ``place`` (prefix order) is replaced by one of its operands, or by one of theirs
    (``1 - (1 - x)`` shrinks by both at once or not at all), of the same kind.
    """
    node = next(node for index, node in enumerate(expression.root.walk()) if index == place)
    below = [*node.children, *(grandchild for child in node.children for grandchild in child.children)]
    return [
        Expression.of(_replaced(expression.root, place, descendant), expression.coefficients)
        for descendant in below
        if descendant.kind is node.kind and descendant.name != COEFFICIENT
    ]


def _replaced(root: Node, place: int, replacement: Node) -> Node:
    """The tree with the node at ``place`` (prefix order) replaced."""
    if place == 0:
        return replacement
    children, start = [], 1
    for child in root.children:
        inside = start <= place < start + child.size
        children.append(_replaced(child, place - start, replacement) if inside else child)
        start += child.size
    return Node(root.name, tuple(children), root.value)
