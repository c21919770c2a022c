"""Expressions for people and for files: text, Unicode, LaTeX, and a drawing of the tree."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from lossevo.expression.primitives import PRIMITIVES, TERMINALS
from lossevo.expression.tree import COEFFICIENT, CONSTANT, Expression, Node

_ATOM = 9
_SIGN = PRIMITIVES["neg"].precedence


@dataclass(frozen=True)
class _Style:
    template: Literal["text", "symbol", "latex"]
    number: Callable[[float], str]
    leaf: Callable[[str], str]
    brackets: str


def _latex_number(value: float) -> str:
    mantissa, _, exponent = f"{value:.4g}".partition("e")
    return rf"{mantissa}\cdot 10^{{{int(exponent)}}}" if exponent else mantissa


def _short(value: float) -> str:
    return f"{value:.4g}".replace("-", "−")


_TEXT = _Style("text", repr, str, "({})")
_UNICODE = _Style("symbol", _short, lambda name: TERMINALS[name].symbol, "({})")
_LATEX = _Style("latex", _latex_number, lambda name: TERMINALS[name].latex, r"\left({}\right)")


def text(expression: Expression) -> str:
    """The text form; ``Expression.parse`` reads it back exactly."""
    return _render(expression.root, _TEXT, lambda slot: repr(expression.coefficients[slot]))[0]


def structure_text(root: Node) -> str:
    """The text form with coefficients named by their slots: c0, c1, …"""
    return _render(root, _TEXT, lambda slot: f"c{slot}")[0]


def unicode(expression: Expression) -> str:
    """The formula on one line for a terminal. Σ sum, μ mean; index ᴮ over the batch, ᶜ over classes, ᶠ over foreground classes."""
    return _render(expression.root, _UNICODE, lambda slot: _short(expression.coefficients[slot]))[0]


def latex(expression: Expression) -> str:
    """The formula in LaTeX (math mode); i runs over voxels, b over images, c over classes."""
    return _render(expression.root, _LATEX, lambda slot: _latex_number(expression.coefficients[slot]))[0]


def _render(node: Node, style: _Style, coefficient: Callable[[int], str]) -> tuple[str, int]:
    """The node in ``style`` and how tightly it binds."""
    if node.name in (CONSTANT, COEFFICIENT):
        number = coefficient(node.value) if node.name == COEFFICIENT else style.number(node.value)
        return number, _SIGN if number[0] in "-−" else _ATOM
    if node.primitive is None:
        leaf = style.leaf(node.name)
        return leaf, _ATOM if " " not in leaf else _ATOM - 1
    template: str = getattr(node.primitive, style.template)
    precedence = node.primitive.precedence
    floors = _operand_floors(node.name, precedence, fraction=r"\frac" in template, raised=style.template == "latex")
    operands = []
    for child, floor in zip(node.children, floors, strict=True):
        operand, binding = _render(child, style, coefficient)
        # "-2" would be read as the number, so the negative of a number keeps its brackets.
        bare_number = node.name == "neg" and child.name in (CONSTANT, COEFFICIENT)
        operands.append(style.brackets.format(operand) if binding < floor or bare_number else operand)
    return template.format(*operands), _ATOM if r"\frac" in template else precedence


def _operand_floors(name: str, precedence: int, *, fraction: bool, raised: bool) -> tuple[int, ...]:
    """How tightly each operand must bind to stand without brackets."""
    if precedence == _ATOM or fraction:
        return (0, 0)[: PRIMITIVES[name].arity]
    if name == "neg":
        return (precedence,)
    if name == "pow":
        return (_ATOM, 0 if raised else _SIGN)
    return (precedence, precedence + 1)


def tree(expression: Expression) -> str:
    """The tree drawn with box characters, one node a line, coefficients with slot and value."""
    lines: list[str] = []

    def label(node: Node) -> str:
        if node.name == CONSTANT:
            return str(node.value)
        if node.name == COEFFICIENT:
            return f"c{node.value} = {expression.coefficients[node.value]:.6g}"
        return f"{node.name}  ({node.kind.name.lower()})" if node.children else node.name

    def visit(node: Node, first: str, rest: str) -> None:
        lines.append(first + label(node))
        for index, child in enumerate(node.children):
            last = index == len(node.children) - 1
            visit(child, rest + ("└─ " if last else "├─ "), rest + ("   " if last else "│  "))

    visit(expression.root, "", "")
    return "\n".join(lines)
