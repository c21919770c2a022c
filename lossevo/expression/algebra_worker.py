"""Expressions and SymPy: shorter ways to write a loss.

``python -m lossevo.expression.algebra_worker`` reads the JSON of an expression and writes ``{"candidates": [...]}``,
the shortest first, for :func:`lossevo.expression.algebra.simplified` to choose from.

SymPy knows numbers, arithmetic, powers, logarithms and exponentials. Whatever else the language has is a symbol to it,
and what stands below is simplified by itself, from the leaves up. Of linear reductions it is told that numbers and
values of lower kind come out of them, and that sums may be split and joined.

Protected arithmetic is not SymPy's: ``p / p`` is 1 but where p is below 1e-4. *Boldly* it is taken for what it
protects, which may be wrong, and is for the caller to check; *cautiously* quotients, powers, roots, logarithms and
exponentials are symbols, too.
"""

from __future__ import annotations

import json
import math
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import reduce
from itertools import product
from types import MappingProxyType
from typing import Any, Final

import sympy

from lossevo.expression.primitives import EPSILON, PRIMITIVES, TERMINALS, Kind
from lossevo.expression.trees import (
    COEFFICIENT,
    CONSTANT,
    MAX_COEFFICIENT,
    MAX_CONSTANT,
    Expression,
    ExpressionError,
    Node,
    constant,
)

MEANS: Final = frozenset({"mean", "batch_mean", "class_mean", "foreground_mean"})
"""Linear reductions that leave what does not vary as it is."""
LINEAR: Final = MEANS | {
    *("sum", "batch_sum", "class_sum", "present_mean", "frequency_mean"),
    *("target_mean", "complement_mean", "batch_target_mean", "batch_complement_mean"),
}
_OVER_BATCH: Final = frozenset(name for name in LINEAR if name.startswith("batch_"))

_ARITHMETIC: Mapping[str, Callable[..., Any]] = MappingProxyType(
    {
        "add": lambda a, b: a + b,
        "sub": lambda a, b: a - b,
        "mul": lambda a, b: a * b,
        "neg": lambda a: -a,
        "square": lambda a: a**2,
    }
)
_PROTECTED: Mapping[str, Callable[..., Any]] = MappingProxyType(
    {
        "div": lambda a, b: a / b,
        "pow": lambda a, b: a**b,
        "sqrt": sympy.sqrt,
        "log": sympy.log,
        "exp": sympy.exp,
    }
)
_MOST_BYTES: Final = 4 * 2**30
_MANY_OPERATIONS: Final = 200
"""Of a formula with more, SymPy is not asked for what takes it minutes."""

Measure = tuple[float, int]


def measure(root: Node) -> Measure:
    """How long a tree is: its complexity, and of trees that are equally complex the number of terminals."""
    nodes = list(root.walk())
    complexity = sum(node.primitive.weight if node.primitive else 1.0 for node in nodes)
    return complexity, sum(node.name in TERMINALS for node in nodes)


def candidates(expression: Expression) -> list[Expression]:
    """Shorter ways to write an expression, the shortest first; not all may be equal to it."""
    found: dict[Expression, Measure] = {}
    for bold, split in product((True, False), (False, True)):
        algebra = Algebra(bold=bold, split=split)
        candidate = algebra.expression(algebra.simplest(algebra.read(expression)))
        found.setdefault(candidate, measure(candidate.root))
    length = measure(expression.root)
    return sorted((c for c in found if found[c] < length), key=found.__getitem__)


class Algebra:
    """Trees to SymPy and back.

    Args:
        bold: give protected arithmetic to SymPy, too.
        split: reduce sums term by term.
    """

    def __init__(self, *, bold: bool, split: bool = False) -> None:
        self.bold = bold
        self.split = split
        self._values: list[float] = []
        self._symbols: dict[Node, Any] = {}
        self._nodes: dict[Any, Node] = {}
        self._order: dict[Any, int] = {}
        self._coefficients: dict[Any, Any] = {}
        self._simplest: dict[Node, Node] = {}
        self._shortest_of: dict[Any, Node] = {}

    # Numbers: equal ones are one node; coefficients that happen to be integers are integers.

    def read(self, expression: Expression) -> Node:
        """The tree of an expression, with coefficients as they are counted here."""

        def visit(node: Node) -> Node:
            if node.name == COEFFICIENT:
                return self._number(expression.coefficients[node.value])
            return Node(node.name, tuple(map(visit, node.children)), node.value)

        return visit(expression.root)

    def expression(self, root: Node) -> Expression:
        """The inverse of :meth:`read`."""
        return Expression.of(root, self._values)

    def _number(self, value: float) -> Node:
        if value.is_integer() and abs(value) <= MAX_CONSTANT:
            return constant(int(value))
        if not abs(value) <= MAX_COEFFICIENT:
            raise ExpressionError(f"{value} cannot be a coefficient")
        if value not in self._values:
            self._values.append(value)
        return Node(COEFFICIENT, value=self._values.index(value))

    # Trees to SymPy.

    def translated(self, node: Node) -> Any:
        """The tree in SymPy."""
        if node.name == CONSTANT:
            return sympy.Integer(node.value)
        if node.name in _ARITHMETIC or (self.bold and node.name in _PROTECTED):
            return (_ARITHMETIC.get(node.name) or _PROTECTED[node.name])(*map(self.translated, node.children))
        if node.name == "div":
            numerator, denominator = node.children[0], self.simplest(node.children[1])
            if abs(self._value(denominator)) >= EPSILON:
                return self.translated(numerator) / self.translated(denominator)
            return self.translated(numerator) * self._symbol(Node("div", (constant(1), denominator)))
        if node.name in LINEAR:
            return self._reduced(node.name, node.children[0])
        return self._symbol(self._rebuilt(node))

    def _value(self, node: Node) -> float:
        """Of a number; else not a number."""
        if node.name == COEFFICIENT:
            return self._values[node.value]
        return node.value if node.name == CONSTANT else math.nan

    def _symbol(self, node: Node) -> Any:
        if node not in self._symbols:
            low, high = -math.inf, math.inf
            if node.name in TERMINALS:
                low, high = TERMINALS[node.name].minimum, TERMINALS[node.name].maximum
            elif node.name == COEFFICIENT:
                low = high = self._values[node.value]
            known = {"nonnegative": True} if low >= 0 else {"nonpositive": True} if high <= 0 else {}
            if node.name == COEFFICIENT:
                known["nonzero"] = True
            # Zeros before the number: SymPy sorts by name.
            symbol = sympy.Symbol(f"x{len(self._symbols):04}", real=True, **known)
            self._symbols[node], self._nodes[symbol], self._order[symbol] = symbol, node, len(self._order)
            if node.name == COEFFICIENT:
                self._coefficients[symbol] = sympy.Rational(repr(self._values[node.value]))
        return self._symbols[node]

    def _rebuilt(self, node: Node) -> Node:
        """The node with its operands simplified, unless it does not take them then."""
        try:
            return Node(node.name, tuple(map(self.simplest, node.children)), node.value)
        except ExpressionError:
            return node

    def _reduced(self, name: str, operand: Node) -> Any:
        """A linear reduction."""
        try:
            return self._reduced_formula(name, self.translated(self.simplest(operand)))
        except ExpressionError:
            return self._symbol(Node(name, (operand,)))

    def _reduced_formula(self, name: str, operand: Any) -> Any:
        """A linear reduction of what SymPy knows, term by term or whole; factors of lower kind come out.

        Raises:
            ExpressionError: the language has no such reduction, as with the sum of a number.
        """
        terms = sympy.Add.make_args(sympy.expand(operand)) if self.split else (sympy.factor_terms(operand),)
        result = sympy.Integer(0)
        for term in terms:
            varying = [symbol for symbol in term.free_symbols if not self._comes_out(self._nodes[symbol], name)]
            outside, inside = term.as_independent(*varying, as_Add=False)
            if varying:
                result += outside * self._symbol(Node(name, (self._shortest(inside),)))
            elif name in MEANS or term == 0:
                result += term
            else:
                raise ExpressionError(f"{name} of what does not vary")
        return result

    def _comes_out(self, node: Node, name: str) -> bool:
        """Whether a factor is the same for all that a reduction adds up."""
        source = PRIMITIVES[name].source
        if source is None or node.kind >= source:
            return False
        return name not in _OVER_BATCH or node.kind is Kind.SCALAR or _one_for_batch(node)

    # What is shortest.

    def simplest(self, node: Node) -> Node:
        """The shortest form of a tree that is found; itself if none is shorter."""
        if not node.children:
            return node
        if node not in self._simplest:
            rebuilt = self._rebuilt(node)
            try:
                found = self._shortest(self.translated(node))
            except ExpressionError:
                found = rebuilt
            # Of two that are as long, what need not be changed stays as it was written.
            self._simplest[node] = min((rebuilt, found) if rebuilt == node else (found, rebuilt), key=measure)
        return self._simplest[node]

    def _shortest(self, formula: Any) -> Node:
        if formula not in self._shortest_of:
            self._shortest_of[formula] = self._find_shortest(formula)
        return self._shortest_of[formula]

    def _find_shortest(self, formula: Any) -> Node:
        written = [node for form in self._forms(formula) if (node := self._written(form)) is not None]
        if not written:
            raise ExpressionError(f"{formula} cannot be written")
        return min(written, key=measure)

    def _forms(self, formula: Any) -> Iterator[Any]:
        """The formula in the ways in which SymPy can write it, each also with its reductions joined."""
        for form in dict.fromkeys(self._ways(formula)):
            yield form
            if (joined := self._joined(form)) != form:
                yield joined

    def _ways(self, formula: Any) -> Iterator[Any]:
        yield formula
        if not formula.has(sympy.Add) or formula.count_ops() > _MANY_OPERATIONS:
            return
        expanded = sympy.expand(formula)
        yield from (expanded, sympy.factor_terms(formula), sympy.factor_terms(expanded))
        for way in (formula, expanded):
            yield self._collected(way)
        yield sympy.powsimp(formula)
        yield sympy.factor(formula)
        if self.bold:
            yield sympy.cancel(formula)

    def _collected(self, formula: Any) -> Any:
        """Common factors of some terms taken out of them, the one that most have first."""
        if formula.args:
            formula = formula.func(*map(self._collected, formula.args))
        if not formula.is_Add:
            return formula
        shared: dict[Any, list[Any]] = {}
        for term in formula.args:
            for factor in sympy.Mul.make_args(term):
                if not factor.is_Number:
                    shared.setdefault(factor, []).append(term)
        common = max(shared, key=lambda factor: (len(shared[factor]), factor.count_ops(), str(factor)), default=None)
        if common is None or len(shared[common]) < 2:
            return formula
        inside = self._collected(sympy.Add(*(term / common for term in shared[common])))
        rest = self._collected(sympy.Add(*(term for term in formula.args if term not in shared[common])))
        return common * inside + rest

    def _joined(self, formula: Any) -> Any:
        """``2 sum(p) - sum(y)`` as ``sum(2 p - y)``."""
        if formula.args:
            formula = formula.func(*map(self._joined, formula.args))
        if not formula.is_Add:
            return formula
        groups: dict[str, list[tuple[Any, Any]]] = {}
        for term in formula.args:
            number, factor = self._parted(term)
            node = self._nodes.get(factor)
            if node is not None and node.name in LINEAR:
                groups.setdefault(node.name, []).append((term, number * self.translated(node.children[0])))
        for name, members in groups.items():
            if len(members) > 1:
                number, inside = self._parted(sympy.factor_terms(sympy.Add(*(inner for _, inner in members))))
                try:
                    reduced = number * self._symbol(Node(name, (self._shortest(inside),)))
                except ExpressionError:
                    continue
                formula = formula - sympy.Add(*(term for term, _ in members)) + reduced
        return formula

    # SymPy to trees.

    def _written(self, formula: Any) -> Node | None:
        try:
            return self.tree(formula)
        except (ExpressionError, TypeError, ValueError, OverflowError):
            return None  # infinite, complex, or not in the language

    def tree(self, formula: Any) -> Node:
        """The tree of what SymPy has written.

        Raises:
            ExpressionError: the language has no such thing.
        """
        if formula in self._nodes:
            return self._nodes[formula]
        if self._is_number(formula):
            return self._tree_of_number(formula)
        if formula.is_Add:
            return self._tree_of_sum(formula)
        if formula.is_Mul:
            return self._tree_of_product(formula)
        if isinstance(formula, sympy.exp):
            return Node("exp", (self.tree(formula.exp),))
        if formula.is_Pow:
            return self._tree_of_power(*formula.as_base_exp())
        for name, function in (("log", sympy.log), ("abs", sympy.Abs)):
            if isinstance(formula, function) and len(formula.args) == 1:
                return Node(name, (self.tree(formula.args[0]),))
        raise ExpressionError(f"{formula.func} is not in the language")

    def _is_number(self, formula: Any) -> bool:
        return bool(formula.free_symbols <= self._coefficients.keys())

    def _parted(self, term: Any) -> tuple[Any, Any]:
        """The number in a product, an integer if it comes out as one, and the other factors."""
        numbers: list[Any] = []
        others: list[Any] = []
        for factor in sympy.Mul.make_args(term):
            (numbers if self._is_number(factor) else others).append(factor)
        return self._folded(sympy.Mul(*numbers)), sympy.Mul(*others)

    def _exact(self, number: Any) -> Any:
        return number.xreplace(self._coefficients)

    def _folded(self, number: Any) -> Any:
        exact = self._exact(number)
        return exact if exact.is_Integer and abs(exact) <= MAX_CONSTANT else number

    def _tree_of_number(self, number: Any) -> Node:
        exact = self._exact(number)
        if number.is_Rational and max(abs(exact.p), exact.q) <= MAX_CONSTANT:
            return constant(int(exact.p)) if exact.q == 1 else Node("div", (constant(int(exact.p)), constant(exact.q)))
        return self._number(float(exact))

    def _tree_of_sum(self, formula: Any) -> Node:
        """Terms in the order of the original, but what the sum begins with is not negative if it can be helped."""
        numbers = [term for term in formula.args if self._is_number(term)]
        terms = sorted((term for term in formula.args if term not in numbers), key=self._place)
        number = self._folded(sympy.Add(*numbers))
        if number != 0:
            terms.insert(0 if self._exact(number) > 0 else len(terms), number)
        terms.sort(key=lambda term: term is not next((t for t in terms if not self._negative(t)), None))
        root = self.tree(terms[0]) if terms else constant(0)
        for term in terms[1:]:
            negative = self._negative(term)
            root = Node("sub" if negative else "add", (root, self.tree(-term if negative else term)))
        return root

    def _negative(self, term: Any) -> bool:
        return bool(self._exact(self._parted(term)[0]) < 0)

    def _place(self, term: Any) -> tuple[int, str]:
        """Where a term stands: where its first symbol stood."""
        symbols = term.free_symbols - self._coefficients.keys()
        return min((self._order[symbol] for symbol in symbols), default=0), str(term)

    def _tree_of_product(self, formula: Any) -> Node:
        number, rest = self._parted(formula)
        if number == 0:
            return constant(0)
        above, below = [], []
        for factor in sorted(sympy.Mul.make_args(rest), key=self._place):
            node = self._nodes.get(factor)
            if node is not None and node.name == "div" and node.children[0] == constant(1):
                below.append(node.children[1])
            elif factor.is_Pow and factor.exp.could_extract_minus_sign() and not isinstance(factor, sympy.exp):
                below.append(self.tree(1 / factor))
            else:
                above.append(self.tree(factor))
        negative = number == -1 and bool(above)
        if number.is_Rational and max(abs(number.p), number.q) <= MAX_CONSTANT:
            if abs(number.p) != 1 or not above:
                above.insert(0, constant(int(number.p)))
            elif number.p == -1:
                negative = True
            if number.q != 1:
                below.append(constant(int(number.q)))
        else:
            above.insert(0, self._tree_of_number(number))
        root = _chained("div", (_chained("mul", above), *below))
        return Node("neg", (root,)) if negative else root

    def _tree_of_power(self, base: Any, exponent: Any) -> Node:
        if exponent.could_extract_minus_sign():
            return Node("div", (constant(1), self.tree(base**-exponent)))
        if exponent == sympy.Rational(1, 2):
            return Node("sqrt", (self.tree(base),))
        if exponent == 2:
            return Node("square", (self.tree(base),))
        if exponent.is_Integer and not self.bold:  # the base may be negative
            half = Node("square", (self._tree_of_power(base, exponent // 2) if exponent > 3 else self.tree(base),))
            return half if exponent % 2 == 0 else Node("mul", (self.tree(base), half))
        return Node("pow", (self.tree(base), self.tree(exponent)))


def _one_for_batch(node: Node) -> bool:
    """Whether a value of kind REGION is the same for all images."""
    if node.kind is Kind.SCALAR or node.name in _OVER_BATCH:
        return True
    return (
        node.primitive is not None
        and node.primitive.elementwise
        and all(_one_for_batch(child) for child in node.children)
    )


def _chained(name: str, operands: Iterable[Node]) -> Node:
    return reduce(lambda left, right: Node(name, (left, right)), operands)


def main() -> None:
    """The process: an expression in, shorter ones out; its argument says after how many seconds it ends at the latest,
    because who should kill it may have been killed. Its memory is limited, too.
    """
    if sys.platform != "win32":
        import resource

        signal.alarm(int(sys.argv[1]) + 1)
        _, most = resource.getrlimit(resource.RLIMIT_AS)
        allowed = _MOST_BYTES if most == resource.RLIM_INFINITY else min(_MOST_BYTES, most)
        resource.setrlimit(resource.RLIMIT_AS, (allowed, most))
    expression = Expression.from_json(json.load(sys.stdin))
    json.dump({"candidates": [candidate.to_json() for candidate in candidates(expression)]}, sys.stdout)


if __name__ == "__main__":
    main()
