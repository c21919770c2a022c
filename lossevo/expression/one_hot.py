"""What is known of a one-hot target: y is 0 or 1.

So ``y² = y``, ``y · (1 - y) = 0`` and ``(1 - y)^k = 1 - y``, and a factor y makes every other y beside it 1. This is
algebra of plain numbers. The language keeps the base of a power above 1e-4, so there ``0^0.1`` is 0.4: who uses what
comes out here has to measure whether it is the same loss. With soft targets none of it holds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Final

from lossevo.expression.terms import LINEAR
from lossevo.expression.trees import COEFFICIENT, CONSTANT, MAX_CONSTANT, ExpressionError, Node, constant

_ON_NUMBERS: Final[Mapping[str, Callable[..., float]]] = MappingProxyType(
    {
        "add": lambda a, b: a + b,
        "sub": lambda a, b: a - b,
        "mul": lambda a, b: a * b,
        "div": lambda a, b: a / b,
        "neg": lambda a: -a,
        "pow": lambda a, b: _power(a, b),
        "sqrt": math.sqrt,
        "square": lambda a: a * a,
        "abs": abs,
        "min": min,
        "max": max,
        "tanh": math.tanh,
    }
)
_TRUE: Final = Node("y")
_OTHER: Final = Node("sub", (constant(1), _TRUE))
_OF_ZERO: Final = LINEAR | {"neg", "square", "sqrt", "abs", "tanh"}
"""What of 0 is 0."""


def with_one_hot_target(root: Node, coefficients: Sequence[float]) -> Node:
    """The tree made shorter by what is known of y; the same tree if nothing is. Slots keep their numbers."""
    try:
        return _Rewriting(coefficients).of(root)
    except ExpressionError:  # what is left somewhere has another kind than the operation around it takes
        return root


class _Rewriting:
    def __init__(self, coefficients: Sequence[float]) -> None:
        self._coefficients = coefficients

    def of(self, node: Node) -> Node:
        if not node.children:
            return node
        children = [self.of(child) for child in node.children]
        if node.name in ("mul", "div"):
            children = self._beside_each_other(node.name, children)
        return self._as_target(self._made(node, children))

    def _beside_each_other(self, name: str, factors: list[Node]) -> list[Node]:
        """The operands of a product or quotient, each with the y that the other one's factors leave it."""
        first, second = factors
        if (known := _truth(first)) is not None:
            return [first, self._where(second, known)]
        if name == "mul" and (known := _truth(second)) is not None:
            return [self._where(first, known), second]
        return factors

    def _where(self, node: Node, y: int) -> Node:
        """A factor where the target is known; within reductions it is not, they see all voxels."""
        if node == _TRUE:
            return constant(y)
        if node.primitive is None or not node.primitive.elementwise:
            return node
        return self._made(node, [self._where(child, y) for child in node.children])

    def _made(self, node: Node, children: list[Node]) -> Node:
        """The node with these children; where they are its own it stays as it is written."""
        return node if tuple(children) == node.children else self._shortened(node.name, children)

    def _shortened(self, name: str, children: list[Node]) -> Node:
        """The node, or something shorter that is equal."""
        numbers = [self._number(child) for child in children]
        known = [number for number in numbers if number is not None]
        if len(known) == len(numbers) and (found := _integer(name, known)) is not None:
            return constant(found)
        first, last = numbers[0], numbers[-1]
        match name:
            case "add" | "sub" if last == 0:
                return children[0]
            case "add" if first == 0:
                return children[1]
            case "sub" if first == 0:
                return Node("neg", (children[1],))
            case "mul" | "div" if first == 0:
                return constant(0)
            case "mul" if last == 0:
                return constant(0)
            case "mul" | "div" | "pow" if last == 1:
                return children[0]
            case "mul" if first == 1:
                return children[1]
            case _ if name in _OF_ZERO and first == 0:
                return constant(0)
        return Node(name, tuple(children))

    def _number(self, node: Node) -> float | None:
        if node.name == CONSTANT:
            return float(node.value)
        return self._coefficients[node.value] if node.name == COEFFICIENT else None

    def _as_target(self, node: Node) -> Node:
        """A function of y alone that is 0 and 1 where y is, or where 1 - y is, is that."""
        if node.size == 1 or node == _OTHER or _TRUE not in node.walk():
            return node
        if (values := self._values(node)) is not None:
            if values == (0, 1):
                return _TRUE
            if values == (1, 0):
                return _OTHER
            if values[0] == values[1] and values[0].is_integer() and abs(values[0]) <= MAX_CONSTANT:
                return constant(int(values[0]))
        return node

    def _values(self, node: Node) -> tuple[float, float] | None:
        """Where y is 0, and where it is 1; None if it depends on anything else, or not on y."""
        if node == _TRUE:
            return 0.0, 1.0
        if (number := self._number(node)) is not None:
            return number, number
        if node.name not in _ON_NUMBERS:
            return None
        values = [self._values(child) for child in node.children]
        if None in values:
            return None
        try:
            zero, one = (float(_ON_NUMBERS[node.name](*(pair[side] for pair in values if pair))) for side in (0, 1))
        except (ArithmeticError, ValueError):
            return None
        return (zero, one) if math.isfinite(zero) and math.isfinite(one) else None


def _truth(node: Node) -> int | None:
    """1 if the node has a factor y, 0 if it has a factor 1 - y; where such a factor is 0 the node is."""
    if node == _TRUE:
        return 1
    if node == _OTHER:
        return 0
    match node.name:
        case "neg" | "div":
            return _truth(node.children[0])
        case "mul":
            first = _truth(node.children[0])
            return _truth(node.children[1]) if first is None else first
    return None


def _power(base: float, exponent: float) -> float:
    """Of 0 to a power that is not positive nothing is known."""
    if base == 0 and exponent <= 0:
        raise ZeroDivisionError
    return math.pow(base, exponent)


def _integer(name: str, numbers: Sequence[float]) -> int | None:
    """The result of an operation on numbers, if it is an integer of the language."""
    if name not in _ON_NUMBERS:
        return None
    try:
        result = float(_ON_NUMBERS[name](*numbers))
    except (ArithmeticError, ValueError):
        return None
    return int(result) if result.is_integer() and abs(result) <= MAX_CONSTANT else None
