"""Expression graphs: what a tree is lowered to for differentiation and code generation.

A graph holds every distinct value once: common sub-expressions are shared as they are built, and simplified
(:mod:`lossevo.expression.rewriting`). Its operations (:mod:`lossevo.expression.operations`) are plain arithmetic; what
protects a primitive of the language is an operation of its own with a derivative of its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

from lossevo.expression.operations import OPERATIONS
from lossevo.expression.rewriting import simpler
from lossevo.expression.values import Extent, Value


class Graph:
    """Makes values; equal ones are one.

    Args:
        hard: the target is labels, so that y is 1 at the true class alone: what is multiplied by it is computed there
            alone, a C-th of the work.
    """

    def __init__(self, *, hard: bool = False) -> None:
        self.hard = hard
        self._known: dict[tuple[object, ...], Value] = {}
        # What an operation became, simplified: rules that descend into operands would else visit what is shared once
        # for every way to it, of which ten squares of squares have a thousand.
        self._made: dict[tuple[object, ...], Value] = {}

    def number(self, value: float) -> Value:
        """A number; 0 has no sign."""
        return self._shared("number", (), Extent.SCALAR, float(value) + 0.0)

    def coefficient(self, slot: int) -> Value:
        """A coefficient of the expression."""
        return self._shared("coefficient", (), Extent.SCALAR, slot)

    def input(self, name: str) -> Value:
        """What generated code is given: a map of a terminal's name, or the progress ``t``, a number."""
        if name == "y" and self.hard:
            return self.apply("one_hot", 1)
        return self._shared("input", (), Extent.SCALAR if name == "t" else Extent.VOXEL, name)

    def size(self, name: str) -> Value:
        """The number of ``images``, ``classes``, or ``voxels`` of an image."""
        return self._shared("size", (), Extent.SCALAR, name)

    def foreground(self) -> Value:
        """1 for each class but the first."""
        return self._shared("foreground", (), Extent.CLASS, "")

    def apply(self, operation: str, *given: Value | float) -> Value:
        """``operation`` on the operands, simplified."""
        operands = [x if isinstance(x, Value) else self.number(x) for x in given]
        key = (operation, *(x.index for x in operands))
        if key not in self._made:
            self._made[key] = self._simplified(operation, operands)
        return self._made[key]

    def knows(self, operation: str, *operands: Value) -> bool:
        """Whether :meth:`apply` was asked for this before."""
        return (operation, *(x.index for x in operands)) in self._made

    def _simplified(self, operation: str, operands: list[Value]) -> Value:
        known = OPERATIONS[operation]
        numbers = [x.number for x in operands]
        if known.on_numbers is not None and None not in numbers:
            return self.number(_on_numbers(known.on_numbers, numbers))
        if known.commutative:
            # Numbers last, otherwise in the order in which they were made.
            operands.sort(key=lambda x: (x.number is not None, x.index))
        if (rewritten := simpler(operation, operands)) is not None:
            return rewritten
        extent = known.gives if known.gives is not None else Extent.of(x.extent for x in operands)
        return self._shared(operation, tuple(operands), extent, "")

    def _shared(self, operation: str, operands: tuple[Value, ...], extent: Extent, detail: str | int | float) -> Value:
        key = (operation, detail, *(x.index for x in operands))
        if key not in self._known:
            self._known[key] = Value(self, operation, operands, extent, len(self._known), detail)
        return self._known[key]


def reachable(results: Iterable[Value]) -> list[Value]:
    """All that the results are made of, operands first."""
    found: set[Value] = set()
    pending = list(results)
    while pending:
        value = pending.pop()
        if value not in found:
            found.add(value)
            pending.extend(value.operands)
    return sorted(found, key=lambda value: value.index)


def _on_numbers(function: Callable[..., float], numbers: list[float | None]) -> float:
    try:
        return float(function(*numbers))
    except OverflowError:
        return math.inf
