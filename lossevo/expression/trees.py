"""Trees of the loss language and the :class:`Expression` they make: immutable, typed, with numbered coefficients."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from lossevo.errors import LossevoError, nearest, shown
from lossevo.expression.primitives import PRIMITIVES, TERMINALS, Kind, Primitive

MAX_DEPTH = 64
MAX_NODES = 1024
MAX_CONSTANT = 1000
MAX_COEFFICIENT = 1e12
FORMAT = "lossevo.expression/1"

CONSTANT = "constant"
COEFFICIENT = "coefficient"
LEAVES = frozenset({CONSTANT, COEFFICIENT, *TERMINALS})


class ExpressionError(LossevoError):
    """A text, a JSON document or a tree that is not an expression of the loss language."""


@dataclass(frozen=True, slots=True)
class Node:
    """A node of a tree.

    ``name`` is a primitive, a terminal, ``"constant"`` (then ``value`` is its integer) or ``"coefficient"`` (then
    ``value`` is the number of its slot). Two nodes are equal when the trees below them are.

    Raises:
        ExpressionError: an unknown name, operands of the wrong number or kind, too large an integer or tree.
    """

    name: str
    children: tuple[Node, ...] = ()
    value: int = 0
    kind: Kind = field(init=False, compare=False, repr=False)
    size: int = field(init=False, compare=False, repr=False)
    depth: int = field(init=False, compare=False, repr=False)
    _hash: int = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        if self.name == CONSTANT and abs(self.value) > MAX_CONSTANT:
            raise ExpressionError(
                f"integer {self.value} is too large: at most ±{MAX_CONSTANT}"
                f" (write {self.value}.0 for a tunable coefficient)"
            )
        object.__setattr__(self, "kind", self._infer_kind())
        object.__setattr__(self, "size", 1 + sum(child.size for child in self.children))
        object.__setattr__(self, "depth", 1 + max((child.depth for child in self.children), default=0))
        object.__setattr__(self, "_hash", hash((self.name, self.value, tuple(child._hash for child in self.children))))
        if self.depth > MAX_DEPTH or self.size > MAX_NODES:
            raise ExpressionError(
                f"expression too large: {self.size} nodes, depth {self.depth};"
                f" at most {MAX_NODES} nodes and depth {MAX_DEPTH} are allowed"
            )

    def __hash__(self) -> int:
        return self._hash

    def __reduce__(self) -> tuple[type[Node], tuple[str, tuple[Node, ...], int]]:
        # Built anew when unpickled: hashes of strings, and so of nodes, differ from process to process.
        return Node, (self.name, self.children, self.value)

    def _infer_kind(self) -> Kind:
        primitive = PRIMITIVES.get(self.name)
        if primitive is None and self.name not in LEAVES:
            raise ExpressionError(f"unknown name {self.name!r}{nearest(self.name, (*TERMINALS, *PRIMITIVES))}")
        arity = primitive.arity if primitive else 0
        if len(self.children) != arity:
            raise ExpressionError(f"{self.name} takes {arity} operand(s), not {len(self.children)}")
        if primitive is None:
            return TERMINALS[self.name].kind if self.name in TERMINALS else Kind.SCALAR
        if primitive.source is None or primitive.target is None:
            for parameter in self.children[arity - primitive.parameters :]:
                if parameter.kind is not Kind.SCALAR:
                    raise ExpressionError(
                        f"{self.name} takes scalar values after its first operand,"
                        f" but is given a {parameter.kind.name.lower()} one"
                    )
            return max(child.kind for child in self.children)
        (child,) = self.children
        if child.kind is not primitive.source:
            works = "works on" if primitive.source is primitive.target else "reduces"
            raise ExpressionError(
                f"{self.name} {works} a {primitive.source.name.lower()} value,"
                f" but is given a {child.kind.name.lower()} one"
            )
        return primitive.target

    @property
    def primitive(self) -> Primitive | None:
        """The table entry of an inner node; None for a leaf."""
        return PRIMITIVES.get(self.name)

    def walk(self) -> Iterator[Node]:
        """Every node below and including this one, in prefix order."""
        yield self
        for child in self.children:
            yield from child.walk()


def constant(value: int) -> Node:
    """The integer ``value`` as a node."""
    return Node(CONSTANT, value=value)


def renumber(root: Node) -> tuple[Node, tuple[int, ...]]:
    """The tree with its coefficient slots numbered 0, 1, … in prefix order, and for each new slot the old number."""
    old: list[int] = []

    def visit(node: Node) -> Node:
        if node.name == COEFFICIENT:
            old.append(node.value)
            return Node(COEFFICIENT, value=len(old) - 1)
        return Node(node.name, tuple(visit(child) for child in node.children), node.value) if node.children else node

    return visit(root), tuple(old)


@dataclass(frozen=True)
class Expression:
    """A loss as a formula: a structure of kind SCALAR, and the values of its coefficient slots.

    Every slot occurs once and slots are numbered in prefix order, so structure and coefficients can be cached, counted
    and tuned apart. In text an integer is a constant and a number with a decimal point is a coefficient:
    ``1 - foreground_mean(2.0 * sum(p * y) / sum(p + y))``.

    Raises:
        ExpressionError: the tree is not of kind SCALAR, slots are not 0 … n-1 in order, or a coefficient is not finite
            or beyond ±1e12.
    """

    root: Node
    coefficients: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.root.kind is not Kind.SCALAR:
            kind = self.root.kind.name.lower()
            raise ExpressionError(
                f"a loss must be one number, but this expression is a {kind} value; reduce it, e.g. class_mean(mean(…))"
            )
        try:
            # Adding 0.0 turns -0.0 into 0.0: equal expressions have the same text and hash.
            object.__setattr__(self, "coefficients", tuple(float(value) + 0.0 for value in self.coefficients))
        except OverflowError:
            raise ExpressionError(f"a coefficient is too large: its magnitude is at most {MAX_COEFFICIENT:g}") from None
        slots = [node.value for node in self.root.walk() if node.name == COEFFICIENT]
        if slots != list(range(len(self.coefficients))):
            raise ExpressionError(
                f"coefficient slots must be c0, c1, … in order, {len(self.coefficients)} in all; found {slots[:20]}"
            )
        for slot, value in enumerate(self.coefficients):
            if not math.isfinite(value) or abs(value) > MAX_COEFFICIENT:
                raise ExpressionError(
                    f"coefficient c{slot} is {value}; expected a finite number of magnitude at most {MAX_COEFFICIENT:g}"
                )

    @classmethod
    def parse(cls, text: str) -> Expression:
        """Read the text form; the inverse of ``str``. Nothing is evaluated.

        Raises:
            ExpressionError: with the position and what was expected.
        """
        from lossevo.expression.parser import parse

        root, coefficients = parse(text)
        return cls(root, coefficients)

    @classmethod
    def of(cls, root: Node, values: Sequence[float]) -> Expression:
        """An expression from a tree whose slots are numbered in any way; slot ``s`` has the value ``values[s]``."""
        numbered, old = renumber(root)
        return cls(numbered, tuple(values[slot] for slot in old))

    @classmethod
    def from_json(cls, document: object) -> Expression:
        """The inverse of :meth:`to_json`.

        Raises:
            ExpressionError: not such a document, or of a newer format.
        """
        from lossevo.expression.parser import parse

        if not isinstance(document, Mapping) or document.get("format") != FORMAT:
            found = document.get("format") if isinstance(document, Mapping) else type(document).__name__
            raise ExpressionError(f"not an expression of format {FORMAT!r}: found {shown(found)}")
        structure, coefficients = document.get("structure"), document.get("coefficients")
        if not isinstance(structure, str) or not isinstance(coefficients, list):
            raise ExpressionError(
                'an expression document needs "structure" (text) and "coefficients" (a list of numbers)'
            )
        for value in coefficients:
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise ExpressionError(f"coefficients must be numbers, found {shown(value)}")
        root, written = parse(structure, slots=len(coefficients))
        if written:
            raise ExpressionError(
                "the structure of an expression document names its coefficients c0, c1, …;"
                f" found the number {written[0]!r}"
            )
        return cls(root, tuple(coefficients))

    def to_json(self) -> dict[str, Any]:
        """Plain data: the structure with slots c0, c1, … as text, and the coefficients as a list."""
        from lossevo.expression.rendering import structure_text

        return {"format": FORMAT, "structure": structure_text(self.root), "coefficients": list(self.coefficients)}

    def with_coefficients(self, coefficients: Sequence[float]) -> Expression:
        """The same structure with other coefficients."""
        return replace(self, coefficients=tuple(coefficients))

    def __str__(self) -> str:
        from lossevo.expression.rendering import text

        return text(self)

    @cached_property
    def terminals(self) -> frozenset[str]:
        """Names of the inputs that the expression uses."""
        return frozenset(node.name for node in self.root.walk() if node.name in TERMINALS)

    @cached_property
    def inputs(self) -> frozenset[str]:
        """Names of what the expression is computed from: graph inputs such as ``p`` and ``y``."""
        from lossevo.expression.codegen import lower
        from lossevo.expression.graph import Graph, reachable

        return frozenset(str(x.detail) for x in reachable([lower(self.root, Graph())]) if x.operation == "input")

    @cached_property
    def complexity(self) -> float:
        """Sum of the weights of all nodes; a leaf weighs 1."""
        return sum(node.primitive.weight if node.primitive else 1.0 for node in self.root.walk())

    @cached_property
    def hash(self) -> str:
        """Identity of the candidate: SHA-256 (hex) of the canonical structure and its coefficients."""
        from lossevo.expression.canonical_form import canonical

        return hashlib.sha256(json.dumps(canonical(self).to_json(), sort_keys=True).encode()).hexdigest()
