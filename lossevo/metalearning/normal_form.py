"""Voxel-wise formulas as weighted sums: what genetic programming draws is brought to one form, and can be read.

A formula becomes ``foreground_mean(mean(t₁ ± c₂ t₂ ± c₃ t₃ …))``. Reductions move to the root. Factors come out of
products, squares and signs, so that every term has one; the first has none, since a positive factor does not change
how a loss trains; what does not depend on the voxel is dropped there, having no gradient. Like terms are joined. The
mean is that of a learned loss, over the foreground alone, whatever the reductions were.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from lossevo.expression import (
    COEFFICIENT,
    CONSTANT,
    Expression,
    ExpressionError,
    Kind,
    Node,
    compile_expression,
    constant,
)
from lossevo.expression.trees import MAX_CONSTANT

Number = int | float
"""An integer is a constant of the formula, a float a coefficient."""
Term = tuple[Number, Node | None]
"""A factor and the rest; None for 1."""


def normal_form(root: Node, values: Sequence[Number], *, weighted: bool = False) -> Expression | None:
    """The formula ``root``, whose slot ``s`` has the value ``values[s]``, in the form above.

    Args:
        root: of any kind; a region or scalar value is taken for the map that it is made of.
        values: of the coefficient slots; one that is an integer becomes a constant.
        weighted: every term but the first gets a coefficient, to be fitted, also where there is none.

    Returns:
        The expression; None if nothing in it depends on the voxel, or it exceeds the limits of the language.
    """
    try:
        return _Form(values).of(root, weighted)
    except (ExpressionError, OverflowError):
        return None


class _Form:
    def __init__(self, values: Sequence[Number]) -> None:
        self.values = list(values)

    def of(self, root: Node, weighted: bool) -> Expression | None:
        terms = [(weight, rest) for weight, rest in _joined(self.terms(root, 1)) if rest is not None]
        if not terms:
            return None
        # The first positive one leads, see summed.
        head = next((i for i, (weight, _) in enumerate(terms) if weight > 0), 0)
        terms[:] = [terms[head], *terms[:head], *terms[head + 1 :]]
        (first, rest), *others = terms
        sign = 1 if first > 0 else -1
        ratios = [(_ratio(weight, abs(first)), rest) for weight, rest in others]
        if weighted:
            ratios = [(float(weight), rest) for weight, rest in ratios]
        scaled: list[Term] = [(sign, rest), *ratios]
        inner = self.node(self.summed(scaled))
        if inner.kind is not Kind.VOXEL:
            return None
        return Expression.of(Node("foreground_mean", (Node("mean", (inner,)),)), self.values)

    def terms(self, node: Node, weight: Number) -> list[Term]:
        """The terms of ``weight · node``."""
        match node.name:
            case "add":
                return [term for child in node.children for term in self.terms(child, weight)]
            case "sub":
                first, second = node.children
                return self.terms(first, weight) + self.terms(second, -weight)
            case "neg":
                return self.terms(node.children[0], -weight)
        if _reduces(node):
            return self.terms(node.children[0], weight)
        factor, rest = self.factored(node)
        return [(weight * factor, rest)]

    def factored(self, node: Node) -> Term:
        """``node`` as a factor and the rest."""
        if node.name == CONSTANT:
            return node.value, None
        if node.name == COEFFICIENT:
            return self.values[node.value], None
        if not node.children:
            return 1, node
        if _reduces(node):
            return self.factored(node.children[0])
        if node.name in ("add", "sub", "neg"):
            return self.summed(self.terms(node, 1))
        parts = [self.factored(child) for child in node.children]
        match node.name, parts:
            case "mul", [(a, None), (b, rest)] | [(b, rest), (a, None)]:
                return a * b, rest
            case "mul", [(a, Node() as left), (b, Node() as right)]:
                return a * b, Node("mul", (left, right))
            case "square", [(a, Node() as rest)]:
                return a * a, Node("square", (rest,))
            case "abs", [(a, Node() as rest)]:
                return abs(a), Node("abs", (rest,))
        made = Node(node.name, tuple(self.node(part) for part in parts))
        if any(rest is not None for _, rest in parts):
            return 1, made
        known = Expression.of(made, self.values)
        return float(compile_expression(known)({}, torch.tensor(known.coefficients))), None

    def summed(self, terms: Sequence[Term]) -> Term:
        """A sum, led by a positive term; the negative of one if there is none."""
        terms = _joined(terms)
        if len(terms) < 2:
            return terms[0] if terms else (0, None)
        if all(weight < 0 for weight, _ in terms):
            negative = self.summed([(-weight, rest) for weight, rest in terms])
            return -1, self.node(negative)
        head = next(i for i, (weight, _) in enumerate(terms) if weight > 0)
        result = self.node(terms[head])
        for weight, rest in [*terms[:head], *terms[head + 1 :]]:
            result = Node("add" if weight > 0 else "sub", (result, self.node((abs(weight), rest))))
        return 1, result

    def node(self, term: Term) -> Node:
        """A term as a node."""
        weight, rest = term
        if rest is None:
            return self.number(weight)
        if isinstance(weight, int) and abs(weight) == 1:
            return rest if weight == 1 else Node("neg", (rest,))
        return Node("mul", (self.number(weight), rest))

    def number(self, value: Number) -> Node:
        if isinstance(value, int) and abs(value) <= MAX_CONSTANT:
            return constant(value)
        self.values.append(float(value))
        return Node(COEFFICIENT, value=len(self.values) - 1)


def _reduces(node: Node) -> bool:
    return node.primitive is not None and not node.primitive.elementwise


def _joined(terms: Sequence[Term]) -> list[Term]:
    """Like terms added up, and nothing left that is 0."""
    weights: dict[Node | None, Number] = {}
    for weight, rest in terms:
        weights[rest] = weights.get(rest, 0) + weight
    return [(weight, rest) for rest, weight in weights.items() if weight != 0]


def _ratio(weight: Number, to: Number) -> Number:
    if isinstance(weight, int) and isinstance(to, int) and weight % to == 0:
        return weight // to
    return weight / to
