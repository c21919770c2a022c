"""Simplification by measurement: drop what does not change the gradient.

Evolved trees carry dead weight: terms without gradient (``… + 1``), factors that cancel, operands that a maximum
never takes, terms that are 0 because labels are 0 or 1. Algebra finds only part of it and may change the domain of
protected arithmetic. Here a node is replaced by what is left of it with a one-hot target
(:mod:`lossevo.expression.one_hot`), by one of its operands, or by one of theirs, wherever the loss goes on training
alike (:mod:`lossevo.search.effect`). What is trained, recorded and exported is the simplified expression.

A search trains with labels, so what is known of them is used. With soft targets (label smoothing) the simplified loss
is what its formula says, which need not be what the formula before said.
"""

from __future__ import annotations

from collections.abc import Callable

from lossevo.expression import COEFFICIENT, Expression, Node
from lossevo.expression.one_hot import with_one_hot_target


def simplify(expression: Expression, same: Callable[[Expression], bool]) -> Expression:
    """The smallest expression reached by replacing nodes by less while it is the ``same``; greedy, top down."""
    current = expression
    place = 0
    while place < current.root.size:
        for smaller in _smaller(current, place):
            if same(smaller):
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


def _smaller(expression: Expression, place: int) -> list[Expression]:
    """The expressions in which less stands for node ``place`` (prefix order), the smallest first.

    That is what is left of it with a one-hot target, one of its operands or of theirs (``1 - (1 - x)`` shrinks by both
    at once or not at all), or the negative of what is subtracted; a number or a terminal that it is subtracted from
    stays, since ``1 - x`` reads better than ``-x``. All are of the node's kind.
    """
    node = next(node for index, node in enumerate(expression.root.walk()) if index == place)
    found = [*node.children, *(grandchild for child in node.children for grandchild in child.children)]
    if node.name == "sub" and node.children[0].children:
        found.append(Node("neg", (node.children[1],)))
    found.append(with_one_hot_target(node, expression.coefficients))
    return [
        Expression.of(_replaced(expression.root, place, less), expression.coefficients)
        for less in sorted(found, key=lambda less: less.size)
        if less.kind is node.kind and less.name != COEFFICIENT and less.size < node.size
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
