"""Text to tree: a recursive-descent parser for formulas that may come from strangers.

Grammar, loosest first; all infix operators but ``^`` associate to the left::

    sum     = product (("+" | "-") product)*
    product = sign (("*" | "/") sign)*
    sign    = "-" sign | power
    power   = atom ("^" sign)?
    atom    = number | name | name "(" sum ("," sum)* ")" | "(" sum ")"

An integer is a constant, a number with a point or an exponent a coefficient. Length, depth and size are limited, nothing is evaluated.
"""

from __future__ import annotations

import re

from lossevo.errors import nearest
from lossevo.expression.primitives import PRIMITIVES, TERMINALS
from lossevo.expression.tree import COEFFICIENT, CONSTANT, MAX_DEPTH, ExpressionError, Node, constant

MAX_LENGTH = 20_000
MAX_NUMBER_LENGTH = 40

_TOKEN = re.compile(r"[ \t\r\n]*(?:(?P<number>[0-9]+\.?[0-9]*(?:[eE][+-]?[0-9]+)?|\.[0-9]+(?:[eE][+-]?[0-9]+)?)|(?P<name>[A-Za-z_][A-Za-z_0-9]*)|(?P<sign>[-+*/^(),]))")
_SLOT = re.compile(r"c(0|[1-9][0-9]{0,3})")
_SUM = {"+": "add", "-": "sub"}
_PRODUCT = {"*": "mul", "/": "div"}
# Each nested parenthesis costs the parser several Python frames but may add no node, so nesting has a limit of its own.
_MAX_NESTING = 2 * MAX_DEPTH


def parse(text: str, *, slots: int | None = None) -> tuple[Node, tuple[float, ...]]:
    """Read a formula into a tree and the coefficients written in it.

    With ``slots`` given, ``c0`` … ``c{slots-1}`` name coefficients whose values are kept elsewhere.

    Raises:
        ExpressionError: with the position and what was expected there.
    """
    if not isinstance(text, str):
        raise ExpressionError(f"a formula must be text, found {type(text).__name__}")
    if len(text) > MAX_LENGTH:
        raise ExpressionError(f"formula of {len(text)} characters; at most {MAX_LENGTH} are allowed")
    parser = _Parser(text, slots)
    root = parser.sum(0)
    parser.expect_end()
    return root, tuple(parser.coefficients)


class _Parser:
    def __init__(self, text: str, slots: int | None) -> None:
        self.text = text
        self.slots = slots
        self.coefficients: list[float] = []
        self.position = 0
        self.advance()

    def advance(self) -> None:
        """Read the next token into ``group`` (number, name, sign or end) and ``token``."""
        match = _TOKEN.match(self.text, self.position)
        if match is None:
            rest = self.text[self.position :].lstrip()
            if rest:
                self.start = len(self.text) - len(rest)
                raise self.error(f"cannot read {rest[:10]!r}")
            self.group, self.token, self.start = "end", "", len(self.text)
            return
        self.group = match.lastgroup or "end"
        self.token = match[self.group]
        self.start = match.start(self.group)
        self.position = match.end()

    def error(self, problem: str) -> ExpressionError:
        shown = self.text if len(self.text) <= 60 else self.text[max(0, self.start - 30) : self.start + 30]
        return ExpressionError(f"formula, position {self.start + 1}: {problem} (in {shown!r})")

    def node(self, name: str, *children: Node) -> Node:
        try:
            return Node(name, children)
        except ExpressionError as problem:
            raise self.error(str(problem)) from None

    def expect(self, sign: str) -> None:
        if self.token != sign:
            raise self.error(f"expected {sign!r}, found {self.token or 'the end'!r}")
        self.advance()

    def expect_end(self) -> None:
        if self.group != "end":
            raise self.error(f"expected an operator or the end, found {self.token!r}")

    def sum(self, nesting: int) -> Node:
        if nesting > _MAX_NESTING:
            raise self.error(f"nested more than {_MAX_NESTING} deep")
        left = self.product(nesting)
        while self.token in _SUM:
            name = _SUM[self.token]
            self.advance()
            left = self.node(name, left, self.product(nesting))
        return left

    def product(self, nesting: int) -> Node:
        left = self.sign(nesting)
        while self.token in _PRODUCT:
            name = _PRODUCT[self.token]
            self.advance()
            left = self.node(name, left, self.sign(nesting))
        return left

    def sign(self, nesting: int) -> Node:
        if self.token != "-":
            return self.power(nesting)
        if nesting > _MAX_NESTING:
            raise self.error(f"nested more than {_MAX_NESTING} deep")
        self.advance()
        if self.group == "number":
            return self.signed_number(nesting)
        return self.node("neg", self.sign(nesting + 1))

    def signed_number(self, nesting: int) -> Node:
        """A minus directly before a number belongs to the number, unless a power follows: ``-2.0 ^ x`` is ``-(2.0 ^ x)``."""
        before = len(self.coefficients)
        operand = self.power(nesting)
        if operand.name == CONSTANT and operand.value > 0:
            return constant(-operand.value)
        if operand.name == COEFFICIENT and len(self.coefficients) > before:
            self.coefficients[-1] = -self.coefficients[-1]
            return operand
        return self.node("neg", operand)

    def power(self, nesting: int) -> Node:
        base = self.atom(nesting)
        if self.token != "^":
            return base
        self.advance()
        return self.node("pow", base, self.sign(nesting + 1))

    def atom(self, nesting: int) -> Node:
        if self.group == "number":
            return self.number()
        if self.group == "name":
            return self.name(nesting)
        if self.token == "(":
            self.advance()
            inner = self.sum(nesting + 1)
            self.expect(")")
            return inner
        raise self.error(f"expected a number, a name or '(', found {self.token or 'the end'!r}")

    def number(self) -> Node:
        token = self.token
        if len(token) > MAX_NUMBER_LENGTH:
            raise self.error(f"a number of {len(token)} characters; at most {MAX_NUMBER_LENGTH} are allowed")
        try:
            node = constant(int(token)) if token.isdigit() else Node(COEFFICIENT, value=len(self.coefficients))
        except ExpressionError as problem:
            raise self.error(str(problem)) from None
        if node.name == COEFFICIENT:
            self.coefficients.append(float(token))
        self.advance()
        return node

    def name(self, nesting: int) -> Node:
        name = self.token
        slot = _SLOT.fullmatch(name)
        if slot and self.slots is not None and int(slot[1]) < self.slots:
            self.advance()
            return Node(COEFFICIENT, value=int(slot[1]))
        if name in TERMINALS:
            self.advance()
            return Node(name)
        if name not in PRIMITIVES:
            known = (*TERMINALS, *PRIMITIVES)
            raise self.error(f"unknown name {name!r}{nearest(name, known)}; known: {', '.join(known)}")
        self.advance()
        self.expect("(")
        operands = [self.sum(nesting + 1)]
        while self.token == ",":
            self.advance()
            operands.append(self.sum(nesting + 1))
        self.expect(")")
        return self.node(name, *operands)
