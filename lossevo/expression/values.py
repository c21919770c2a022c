"""The values of expression graphs: what each has one number for, and arithmetic that builds the graph."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lossevo.expression.graph import Graph


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
