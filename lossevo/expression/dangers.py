"""What can go wrong in the arithmetic of an expression, proved from the ranges of its inputs before it is ever run.

Nothing becomes infinite or not a number where a primitive is protected; but where the protection acts, the gradient is
0 and a quotient may be ten thousand times its numerator. What is not protected is overflow.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal

from lossevo.expression.codegen import lower_with_gradient
from lossevo.expression.graph import reachable
from lossevo.expression.intervals import Interval, Limits, Ranges
from lossevo.expression.primitives import EPSILON, MAX_EXPONENT
from lossevo.expression.rendering import structure_text
from lossevo.expression.trees import Expression, Node
from lossevo.expression.values import Value

FLOAT16_MAX: Final = 65504.0
FLOAT32_MAX: Final = (2 - 2.0**-23) * 2.0**127

DangerKind = Literal["division", "logarithm", "root", "power", "exponential", "overflow", "gradient overflow"]


@dataclass(frozen=True, slots=True)
class Danger:
    """A value that may leave the range in which arithmetic is plain.

    ``node`` is the text of the value, with coefficients named by their slots; one that only the gradient has is written
    in the operations of the graph. It may be anywhere from ``low`` to ``high``. The kinds ``division``, ``logarithm``,
    ``root``, ``power`` and ``exponential`` name an operand that can come to where its primitive is protected;
    ``overflow`` a value that is too large for the floating-point format, although what it is made of is not;
    ``gradient overflow`` the same of a value that is computed for the gradient alone.
    """

    kind: DangerKind
    node: str
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.kind}: {self.node} may be from {self.low + 0.0:.4g} to {self.high + 0.0:.4g}"

    @property
    def explanation(self) -> str:
        """The danger and what it leads to, in a sentence for people."""
        return _EXPLANATIONS[self.kind].format(f"{self.node} (from {self.low + 0.0:.4g} to {self.high + 0.0:.4g})")


_EXPLANATIONS: Mapping[DangerKind, str] = MappingProxyType(
    {
        "division": "A denominator may come to 0: {0}. Within 1e-4 of 0 it counts as 1e-4, and has no gradient.",
        "logarithm": "The argument of a logarithm may come to 0: {0}. Below 1e-4 it counts as 1e-4, without gradient.",
        "root": "The argument of a root may come to 0: {0}. Below 1e-4 it counts as 1e-4, without gradient.",
        "power": "The base of a power may come to 0: {0}. Below 1e-4 it counts as 1e-4, without gradient.",
        "exponential": "The argument of an exponential may be large: {0}. Above 20 it counts as 20, without gradient.",
        "overflow": "A value may be too large for the floating-point format: {0}.",
        "gradient overflow": "A value that the gradient needs may be too large for the floating-point format: {0}.",
    }
)


PROTECTED: Mapping[str, tuple[DangerKind, Interval]] = MappingProxyType(
    {
        "div": ("division", Interval(-math.inf, math.inf, EPSILON)),
        "log": ("logarithm", Interval(EPSILON, math.inf)),
        "sqrt": ("root", Interval(EPSILON, math.inf)),
        "pow": ("power", Interval(EPSILON, math.inf)),
        "exp": ("exponential", Interval(-math.inf, MAX_EXPONENT)),
    }
)
"""For every protected primitive the kind of its danger, and where its operand (of ``div`` the second, else the first)
is free of it."""


def dangers(
    expression: Expression,
    *,
    dtype_max: float = FLOAT32_MAX,
    limits: Limits = Limits(),  # noqa: B008 (it is immutable)
) -> tuple[Danger, ...]:
    """Every danger in the value of ``expression`` and in its gradient with respect to the logits.

    Both ways are looked at in which they are computed, with a target of labels and with one of probabilities. What is
    reported may be impossible, since operands of an operation are taken for unrelated (but for a few cases in which
    they are plainly not); what is not reported cannot happen.

    Args:
        expression: the loss.
        dtype_max: the largest number of the floating-point format that the loss is computed in.
        limits: what images and networks are at most.
    """
    written = list(dict.fromkeys(expression.root.walk()))
    found: list[Danger] = []
    for hard, (values, gradient, ranges) in enumerate(_computed(expression, limits)):
        if not hard:
            found += _protections({node: ranges[values[node]] for node in written})
        texts = {values[node]: node for node in reversed(written)}
        for kind, value, bounds in _overflows(values[expression.root], gradient, ranges, dtype_max):
            text = structure_text(texts[value]) if value in texts else _formula(value)
            found.append(Danger(kind, text, bounds.low, bounds.high))
    return tuple({(danger.kind, danger.node): danger for danger in reversed(found)}.values())[::-1]


def is_safe(
    expression: Expression,
    *,
    dtype_max: float = FLOAT32_MAX,
    limits: Limits = Limits(),  # noqa: B008 (it is immutable)
) -> bool:
    """Whether no value that is computed for the loss or its gradient can overflow."""
    return not any(
        True
        for values, gradient, ranges in _computed(expression, limits)
        for _ in _overflows(values[expression.root], gradient, ranges, dtype_max)
    )


def _computed(expression: Expression, limits: Limits) -> Iterator[tuple[Mapping[Node, Value], Value, Ranges]]:
    """The values of all nodes, the gradient, and their ranges, with a target of probabilities and with labels."""
    known: dict[Node, Interval] = {}
    for hard in (False, True):
        values, gradient = lower_with_gradient(expression.root, hard=hard)
        # The value of a node is the same in both, whichever way shows more of it.
        ranges = Ranges(expression.coefficients, limits, {values[node]: found for node, found in known.items()})
        known = {node: ranges[value] for node, value in values.items()}
        yield values, gradient, ranges


def _protections(ranges: Mapping[Node, Interval]) -> Iterator[Danger]:
    for node in ranges:
        if node.name in PROTECTED:
            kind, free = PROTECTED[node.name]
            operand = node.children[1 if node.name == "div" else 0]
            found = ranges[operand]
            if not (free.low <= found.low and found.high <= free.high and free.least <= found.least):
                yield Danger(kind, structure_text(operand), found.low, found.high)


def _overflows(
    loss: Value, gradient: Value, ranges: Ranges, dtype_max: float
) -> Iterator[tuple[DangerKind, Value, Interval]]:
    """Where it begins: what is made of an infinite value is not reported."""
    of_loss = frozenset(reachable([loss]))
    too_large: set[Value] = set()
    for value in reachable([loss, gradient]):
        found = ranges.largest(value)
        if found.magnitude > dtype_max:
            too_large.add(value)
            if too_large.isdisjoint(value.operands):
                yield "overflow" if value in of_loss else "gradient overflow", value, found


_INFIX: Final = MappingProxyType({"add": "+", "sub": "-", "mul": "*", "div": "/", "power": "^"})


def _formula(value: Value, depth: int = 4) -> str:
    """The text of a value of a graph, as far as ``depth`` operations."""
    if not value.operands:
        name = f"c{value.detail}" if value.operation == "coefficient" else str(value.detail or value.operation)
        return f"{value.number:g}" if value.number is not None else name
    operands = [_formula(operand, depth - 1) if depth else "…" for operand in value.operands]
    if value.operation in _INFIX:
        return f"({operands[0]} {_INFIX[value.operation]} {operands[1]})"
    return f"{value.operation}({', '.join(operands)})"
