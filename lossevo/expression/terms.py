"""The terms of a loss: what its gradient is a sum of, and the loss without each."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from lossevo.expression.primitives import TERMINALS
from lossevo.expression.trees import Expression, ExpressionError, Node

Put = Callable[[Node | None], Node | None]
"""The whole tree with something, or nothing, in the place of a term; None if nothing is left of it."""

_PREDICTED = frozenset({"p", "logp", "m"})
LINEAR = frozenset(
    {
        *("neg", "avg_pool", "gaussian", "sum", "mean", "batch_sum", "batch_mean"),
        *("target_mean", "complement_mean", "batch_target_mean", "batch_complement_mean"),
        *("class_mean", "class_sum", "foreground_mean", "present_mean", "frequency_mean"),
    }
)


def without_each_term(expression: Expression) -> list[tuple[Node, Expression]]:
    """Each term that has a gradient, as a tree with the slots of ``expression``, and the expression without it.

    Terms are what sums and differences join, also below operations that are linear, and below factors and divisors
    without any input: ``class_mean(mean(2.0 * (a - b)))`` has the terms a and b. Nothing that is nonlinear is opened.
    What is left must have a gradient, too, and be a loss; of equal ones there is the first. So a loss that is a single
    term has none.
    """
    found: dict[str, tuple[Node, Expression]] = {}
    for term, put in _terms(expression.root, lambda rest: rest):
        try:
            rest = put(None)
            shorter = None if rest is None else Expression.of(rest, expression.coefficients)
        except ExpressionError:  # what is left has another kind than the operation around it takes
            continue
        if shorter is not None and _is_predicted(term) and _is_predicted(shorter.root):
            found.setdefault(shorter.hash, (term, shorter))
    return list(found.values())


def _terms(node: Node, put: Put) -> Iterator[tuple[Node, Put]]:
    """The terms below a node, each with what takes its place in the whole."""
    match node.name, node.children:
        case ("add" | "sub") as name, (first, second):
            alone = second if name == "add" else Node("neg", (second,))
            yield from _terms(first, lambda rest: put(alone if rest is None else Node(name, (rest, second))))
            yield from _terms(second, lambda rest: put(first if rest is None else Node(name, (first, rest))))
        case "mul", (scale, operand) if not _has_input(scale):
            yield from _terms(operand, lambda rest: put(None if rest is None else Node("mul", (scale, rest))))
        case ("mul" | "div") as name, (operand, scale) if not _has_input(scale):
            yield from _terms(operand, lambda rest: put(None if rest is None else Node(name, (rest, scale))))
        case name, (operand,) if name in LINEAR and not _looks_at_the_whole(node):
            yield from _terms(operand, lambda rest: put(None if rest is None else Node(name, (rest,))))
        case _:
            yield node, put


def _looks_at_the_whole(node: Node) -> bool:
    """Whether the node weighs all its terms by something that depends on how all of them are reduced: without one of
    them, the others would weigh another thing.
    """
    return node.name == "present_mean" and any(below.name.startswith("batch_") for below in node.walk())


def _has_input(node: Node) -> bool:
    return any(below.name in TERMINALS for below in node.walk())


def _is_predicted(node: Node) -> bool:
    return any(below.name in _PREDICTED for below in node.walk())
