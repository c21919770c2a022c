"""Text to tree: a parser for formulas that may come from strangers.

Operators bind as the table of primitives says, loosest first: ``+ -``, then ``* /``, then a leading ``-``, then ``^``;
``^`` associates to the right, the others to the left. An integer is a constant, a number with a point or an exponent a
coefficient, and a minus directly before a number belongs to it: ``-2.0`` is one coefficient, but ``-2.0 ^ p`` is
``-(2.0 ^ p)``. Length, depth and size are limited, nothing is evaluated.
"""

from __future__ import annotations

import re

from lossevo.errors import nearest, shown
from lossevo.expression.primitives import PRIMITIVES, TERMINALS
from lossevo.expression.trees import (
    COEFFICIENT,
    CONSTANT,
    MAX_COEFFICIENT,
    MAX_DEPTH,
    ExpressionError,
    Node,
    constant,
)

MAX_LENGTH = 20_000
MAX_NUMBER_LENGTH = 40

_TOKEN = re.compile(
    r"""\s*(?:
        (?P<number> (?:[0-9]+\.?[0-9]* | \.[0-9]+) (?:[eE][+-]?[0-9]+)? )
        | (?P<name> [A-Za-z_][A-Za-z_0-9]* )
        | (?P<sign> [-+*/^(),] )
    )""",
    re.VERBOSE,
)
_SLOT = re.compile(r"c(0|[1-9][0-9]{0,3})")
_INFIX = {"+": "add", "-": "sub", "*": "mul", "/": "div", "^": "pow"}
# Twice as deep as a tree, because brackets nest the text but add no node; far below Python's own limit on recursion.
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
    parser = _Parser(text, slots or 0)
    root = parser.expression()
    parser.expect_end()
    return root, tuple(parser.coefficients)


class _Parser:
    """Precedence climbing with one token of look-ahead.

    That is ``token``, of ``group`` number, name, sign or end, beginning at ``start``.
    """

    def __init__(self, text: str, slots: int) -> None:
        self.text = text
        self.slots = slots
        self.coefficients: list[float] = []
        self.position = 0
        self.advance()

    def advance(self) -> None:
        """Read the next token."""
        match = _TOKEN.match(self.text, self.position)
        if match is not None and match.lastgroup is not None:
            self.group, self.token = match.lastgroup, match[match.lastgroup]
            self.start, self.position = match.span(match.lastgroup)
            return
        rest = self.text[self.position :].lstrip()
        self.group, self.token, self.start = "end", "", len(self.text) - len(rest)
        if rest:
            raise self.error(f"cannot read {rest[:10]!r}")

    def error(self, problem: str, start: int | None = None) -> ExpressionError:
        """The error that ``problem`` lies at ``start``; without it, at the present token."""
        at = self.start if start is None else start
        shown = self.text if len(self.text) <= 60 else self.text[max(0, at - 30) : at + 30]
        return ExpressionError(f"formula, position {at + 1}: {problem} (in {shown!r})")

    @property
    def found(self) -> str:
        return shown(self.token) if self.token else "the end"

    def expect(self, sign: str) -> None:
        if self.token != sign:
            raise self.error(f"expected {sign!r}, found {self.found}")
        self.advance()

    def expect_end(self) -> None:
        if self.group != "end":
            raise self.error(f"expected an operator or the end, found {self.found}")

    def node(self, start: int, name: str, *children: Node, value: int = 0) -> Node:
        try:
            return Node(name, children, value)
        except ExpressionError as problem:
            raise self.error(str(problem), start) from None

    def expression(self, floor: int = 0, nesting: int = 0) -> Node:
        """An operand, and the operators after it that bind at least as tightly as ``floor``."""
        if nesting > _MAX_NESTING:
            raise self.error(f"nested more than {_MAX_NESTING} deep")
        left = self.operand(nesting + 1)
        while self.token in _INFIX:
            name, start = _INFIX[self.token], self.start
            if PRIMITIVES[name].precedence < floor:
                break
            self.advance()
            right = self.expression(PRIMITIVES[name].operand_precedence[1], nesting + 1)
            left = self.node(start, name, left, right)
        return left

    def operand(self, nesting: int) -> Node:
        """A number, a name, a call or a formula in brackets, or a minus and what it applies to."""
        if self.group == "number":
            return self.number()
        if self.group == "name":
            return self.name(nesting)
        if self.token == "(":
            self.advance()
            inner = self.expression(nesting=nesting)
            self.expect(")")
            return inner
        if self.token == "-":
            return self.negative(nesting)
        raise self.error(f"expected a number, a name or '(', found {self.found}")

    def negative(self, nesting: int) -> Node:
        start = self.start
        self.advance()
        before_number = self.group == "number"
        operand = self.expression(PRIMITIVES["neg"].operand_precedence[0], nesting)
        if before_number and operand.name == CONSTANT:
            return constant(-operand.value)
        if before_number and operand.name == COEFFICIENT:
            self.coefficients[-1] = -self.coefficients[-1]
            return operand
        return self.node(start, "neg", operand)

    def number(self) -> Node:
        start, token = self.start, self.token
        if len(token) > MAX_NUMBER_LENGTH:
            raise self.error(f"a number of {len(token)} characters; at most {MAX_NUMBER_LENGTH} are allowed")
        self.advance()
        if token.isdigit():
            return self.node(start, CONSTANT, value=int(token))
        if float(token) > MAX_COEFFICIENT:
            raise self.error(f"{token} is too large: at most {MAX_COEFFICIENT:g}", start)
        self.coefficients.append(float(token))
        return Node(COEFFICIENT, value=len(self.coefficients) - 1)

    def name(self, nesting: int) -> Node:
        start, name = self.start, self.token
        slot = _SLOT.fullmatch(name)
        if slot and int(slot[1]) < self.slots:
            self.advance()
            return Node(COEFFICIENT, value=int(slot[1]))
        if name in TERMINALS:
            self.advance()
            return Node(name)
        if name not in PRIMITIVES:
            hint = nearest(name, (*TERMINALS, *PRIMITIVES))
            raise self.error(f"unknown name {shown(name)}{hint}; docs/loss-language.md lists all")
        self.advance()
        self.expect("(")
        operands = [self.expression(nesting=nesting)]
        while self.token == ",":
            self.advance()
            operands.append(self.expression(nesting=nesting))
        self.expect(")")
        return self.node(start, name, *operands)
