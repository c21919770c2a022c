"""DEAP trees over a search space, and the way between them and expressions.

For every elementwise primitive of the language a DEAP primitive stands for each combination of operand kinds
(``mul_VR``: a VOXEL map times a REGION value), so DEAP's type system sees the broadcasting.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from deap import gp

from lossevo.expression import COEFFICIENT, CONSTANT, PRIMITIVES, TERMINALS, Expression, Kind, Node, constant
from lossevo.expression.parser import parse
from lossevo.search.space import SearchSpace

_PLACE = "y"
"""Stands in a template for the tree; a template names no terminal itself."""


class Voxel:
    """DEAP type of a VOXEL value."""


class Region:
    """DEAP type of a REGION value."""


class Scalar:
    """DEAP type of a SCALAR value."""


TYPE = {Kind.VOXEL: Voxel, Kind.REGION: Region, Kind.SCALAR: Scalar}
LETTER = {kind: letter for letter, kind in zip("SRV", Kind, strict=True)}


class Leaf(gp.Terminal):  # type: ignore[misc]
    """A leaf that carries its own value: a terminal's name, an integer, or a coefficient (float)."""

    def __init__(self, value: str | int | float, kind: Kind) -> None:
        super().__init__(value, isinstance(value, str), TYPE[kind])
        self.name = str(value)
        self.value = value


def primitive_set(space: SearchSpace) -> gp.PrimitiveSetTyped:
    """The space as a DEAP primitive set: typed primitives and leaves."""
    root = Voxel if space.root == "voxel" else Scalar
    pset = gp.PrimitiveSetTyped(space.name, [], root)
    for name in space.primitives:
        primitive = PRIMITIVES[name]
        if primitive.source is not None and primitive.target is not None:
            pset.addPrimitive(_undefined, [TYPE[primitive.source]], TYPE[primitive.target], name=name)
            continue
        for operands in itertools.product(_kinds(space), repeat=primitive.arity - primitive.parameters):
            kinds = (*operands, *[Kind.SCALAR] * primitive.parameters)
            suffix = "".join(LETTER[kind] for kind in kinds)
            pset.addPrimitive(_undefined, [TYPE[kind] for kind in kinds], TYPE[max(kinds)], name=f"{name}_{suffix}")
    leaves = [Leaf(name, TERMINALS[name].kind) for name in space.terminals]
    leaves += [Leaf(value, number_kind(space)) for value in space.constants]
    if space.coefficients:
        leaves.append(Leaf(1.0, number_kind(space)))
    for leaf in leaves:
        pset._add(leaf)
    return pset


def _undefined(*_: Any) -> Any:
    """DEAP wants a function for each primitive, but never calls it: lossevo generates code itself."""
    raise AssertionError("primitives are compiled by lossevo.expression.codegen")


def word(primitive: Any) -> str:
    """The language's name of a typed primitive: ``mul`` for ``mul_VR``."""
    name: str = primitive.name
    return name if name in PRIMITIVES else name.rpartition("_")[0]


def _kinds(space: SearchSpace) -> tuple[Kind, ...]:
    return (Kind.VOXEL,) if space.root == "voxel" else tuple(Kind)


def number_kind(space: SearchSpace) -> Kind:
    """Voxel-wise trees (GLO) know one type only, so their numbers are of it too."""
    return Kind.VOXEL if space.root == "voxel" else Kind.SCALAR


def to_node(tree: Sequence[Any]) -> tuple[Node, list[float]]:
    """The language's tree of a DEAP tree, coefficient slots in prefix order, and their values."""
    values: list[float] = []
    position = iter(tree)

    def build() -> Node:
        item = next(position)
        if isinstance(item, Leaf):
            if isinstance(item.value, str):
                return Node(item.value)
            if isinstance(item.value, int):
                return constant(item.value)
            values.append(item.value)
            return Node(COEFFICIENT, value=len(values) - 1)
        return Node(word(item), tuple(build() for _ in range(item.arity)))

    return build(), values


class Trees:
    """The trees of one search space.

    Attributes:
        pset: typed primitives and leaves.
        root_type: of every tree.
        number_kind: the kind that numbers have.
    """

    def __init__(self, space: SearchSpace) -> None:
        self.space = space
        self.pset = primitive_set(space)
        self.root_type = Voxel if space.root == "voxel" else Scalar
        self.number_kind = number_kind(space)
        self._wrap = None if space.wrap is None else parse(space.wrap.format(_PLACE))[0]

    def to_expression(self, tree: Sequence[Any]) -> Expression:
        """The loss that a tree stands for, wrapped as the space says.

        Raises:
            ExpressionError: the tree exceeds the language's limits, or is one number where a voxel map is needed.
        """
        root, values = to_node(tree)
        if self._wrap is None:
            return Expression(root, tuple(values))
        return Expression.of(_wrapped(self._wrap, root), values)

    def to_tree(self, expression: Expression) -> gp.PrimitiveTree | None:
        """The DEAP tree of an expression; None where it is not wrapped as the space says, or has a word that the space
        lacks.
        """
        root = expression.root if self._wrap is None else _unwrapped(self._wrap, expression.root)
        items: list[Any] = []

        def visit(node: Node) -> bool:
            if node.name == CONSTANT:
                items.append(Leaf(node.value, self.number_kind))
            elif node.name == COEFFICIENT:
                items.append(Leaf(float(expression.coefficients[node.value]), self.number_kind))
            elif node.name in TERMINALS:
                if node.name not in self.space.terminals:
                    return False
                items.append(Leaf(node.name, node.kind))
            else:
                found = self.pset.mapping.get(node.name + self._suffix(node))
                if found is None:
                    return False
                items.append(found)
            return all(visit(child) for child in node.children)

        return gp.PrimitiveTree(items) if root is not None and visit(root) else None

    def _suffix(self, node: Node) -> str:
        """What a typed primitive's name has behind the word."""
        if not PRIMITIVES[node.name].elementwise:
            return ""
        kinds = [max(child.kind, self.number_kind) if self._wrap is not None else child.kind for child in node.children]
        return "_" + "".join(LETTER[kind] for kind in kinds)


def _wrapped(template: Node, inner: Node) -> Node:
    """The template with its place, a ``y``, taken by a tree."""
    if template.name == _PLACE:
        return inner
    return Node(template.name, tuple(_wrapped(child, inner) for child in template.children), template.value)


def _unwrapped(template: Node, whole: Node) -> Node | None:
    """The tree that takes the template's place in ``whole``; None if that is not the template."""
    if template.name == _PLACE:
        return whole
    if (template.name, template.value, len(template.children)) != (whole.name, whole.value, len(whole.children)):
        return None
    inner = None
    for mine, theirs in zip(template.children, whole.children, strict=True):
        if not any(node.name == _PLACE for node in mine.walk()):
            if mine != theirs:
                return None
        elif (inner := _unwrapped(mine, theirs)) is None:
            return None
    return inner
