"""Expression graphs: what a tree is lowered to for differentiation and code generation.

A graph holds every distinct value once: common sub-expressions are shared as they are built, and simplified
(:mod:`lossevo.expression.rewriting`). Its operations (:mod:`lossevo.expression.operations`) are plain arithmetic; what
protects a primitive of the language is an operation of its own with a derivative of its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import IntEnum


class Extent(IntEnum):
    """What a value has one number for."""

    SCALAR = 0
    """Nothing: shape ()."""
    CLASS = 1
    """Each class, over the whole batch: (1, C)."""
    REGION = 2
    """Each class of each image: (B, C)."""
    PIXEL = 3
    """Each voxel, for all classes: (B, 1, *spatial)."""
    VOXEL = 4
    """Each voxel of each class: (B, C, *spatial)."""

    @property
    def low(self) -> bool:
        """Whether there are only a few numbers."""
        return self <= Extent.REGION

    @classmethod
    def of(cls, extents: Iterable[Extent]) -> Extent:
        """That of an elementwise operation on values of these extents, which broadcast."""
        found = set(extents)
        largest = max(found)
        return cls.VOXEL if largest is cls.PIXEL and found & {cls.CLASS, cls.REGION} else largest


@dataclass(frozen=True, slots=True, eq=False)
class Value:
    """A value of a graph: an input, a number, or an operation on other values. Arithmetic on it builds the graph.

    ``detail`` is the name of an ``input`` or a ``size``, the slot of a ``coefficient``, or the value of a ``number``;
    ``index`` counts values in the order in which they were made, operands before what is made of them.
    """

    graph: Graph
    operation: str
    operands: tuple[Value, ...]
    extent: Extent
    index: int
    detail: str | int | float = ""

    @property
    def number(self) -> float | None:
        """The value, if it is a number."""
        return float(self.detail) if self.operation == "number" else None

    def __add__(self, other: Value | float) -> Value:
        return self.graph.apply("add", self, other)

    def __radd__(self, other: float) -> Value:
        return self.graph.apply("add", other, self)

    def __sub__(self, other: Value | float) -> Value:
        return self.graph.apply("sub", self, other)

    def __rsub__(self, other: float) -> Value:
        return self.graph.apply("sub", other, self)

    def __mul__(self, other: Value | float) -> Value:
        return self.graph.apply("mul", self, other)

    def __rmul__(self, other: float) -> Value:
        return self.graph.apply("mul", other, self)

    def __truediv__(self, other: Value | float) -> Value:
        return self.graph.apply("div", self, other)

    def __rtruediv__(self, other: float) -> Value:
        return self.graph.apply("div", other, self)

    def __neg__(self) -> Value:
        return self.graph.apply("neg", self)

    def __call__(self, operation: str, *others: Value | float) -> Value:
        """An operation with this value as its first operand: ``x("log")``, ``x("floor", 1e-4)``."""
        return self.graph.apply(operation, self, *others)

    def count(self, extent: Extent) -> Value:
        """How many numbers this value has for each one of ``extent``."""
        parts = {
            "classes": (Extent.CLASS, Extent.REGION, Extent.VOXEL),
            "images": (Extent.REGION, Extent.PIXEL, Extent.VOXEL),
            "voxels": (Extent.PIXEL, Extent.VOXEL),
        }
        count = self.graph.number(1)
        for name, holders in parts.items():
            if self.extent in holders and extent not in holders:
                count = count * self.graph.size(name)
        return count


class Graph:
    """Makes values; equal ones are one.

    Args:
        hard: the target is labels, so that y is 1 at the true class alone: what is multiplied by it is computed there
            alone, a C-th of the work.
    """

    def __init__(self, *, hard: bool = False) -> None:
        self.hard = hard
        self._known: dict[tuple[object, ...], Value] = {}

    def number(self, value: float) -> Value:
        """A number; 0 has no sign."""
        return self._shared("number", (), Extent.SCALAR, float(value) + 0.0)

    def coefficient(self, slot: int) -> Value:
        """A coefficient of the expression."""
        return self._shared("coefficient", (), Extent.SCALAR, slot)

    def input(self, name: str) -> Value:
        """A terminal of the language."""
        if name == "y" and self.hard:
            return self.apply("one_hot", 1)
        return self._shared("input", (), Extent.VOXEL, name)

    def size(self, name: str) -> Value:
        """The number of ``images``, ``classes``, or ``voxels`` of an image."""
        return self._shared("size", (), Extent.SCALAR, name)

    def foreground(self) -> Value:
        """1 for each class but the first."""
        return self._shared("foreground", (), Extent.CLASS, "")

    def apply(self, operation: str, *given: Value | float) -> Value:
        """``operation`` on the operands, simplified."""
        from lossevo.expression.operations import OPERATIONS
        from lossevo.expression.rewriting import simpler

        known = OPERATIONS[operation]
        operands = [x if isinstance(x, Value) else self.number(x) for x in given]
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
