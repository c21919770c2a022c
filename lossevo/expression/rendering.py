"""Expressions for people and for files: text, Unicode, LaTeX, and a drawing of the tree."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from lossevo.expression.primitives import ATOM, PRIMITIVES, TERMINALS, Primitive
from lossevo.expression.trees import COEFFICIENT, CONSTANT, Expression, Node

_PRODUCT = PRIMITIVES["mul"].precedence
_SIGN = PRIMITIVES["neg"].precedence
_POWER = PRIMITIVES["pow"].precedence
_OPEN_LOGARITHM = "log p"
"""How a product or quotient must not begin in print: ``log p · y`` could be the logarithm of ``p · y``."""


@dataclass(frozen=True)
class _Style:
    template: Literal["text", "symbol", "latex"]
    number: Callable[[float], str]
    leaf: Callable[[str], str]
    brackets: str = "({})"


def text(expression: Expression) -> str:
    """The text form; ``Expression.parse`` reads it back exactly."""
    return _render(expression.root, _TEXT, lambda slot: repr(expression.coefficients[slot]))[0]


def structure_text(root: Node) -> str:
    """The text form with coefficients named by their slots: c0, c1, …"""
    return _render(root, _TEXT, lambda slot: f"c{slot}")[0]


def unicode(expression: Expression) -> str:
    """The formula on one line for a terminal, coefficients rounded to four digits.

    Σ sum, μ mean; index ᴮ over the batch, ᶜ over classes, ᶠ over foreground classes.
    """
    return unicode_part(expression.root, expression.coefficients)


def unicode_part(node: Node, coefficients: Sequence[float]) -> str:
    """As :func:`unicode`, of a part of an expression that has these coefficients."""
    return _render(node, _UNICODE, lambda slot: _short(coefficients[slot]))[0]


def legend(expression: Expression) -> Iterator[tuple[str, str]]:
    """Symbol and meaning of what the Unicode formula uses, except the plainest arithmetic."""
    used = {node.name for node in expression.root.walk()}
    for terminal in TERMINALS.values():
        if terminal.name in used:
            yield terminal.symbol, terminal.meaning
    for primitive in PRIMITIVES.values():
        if primitive.name in used - {"add", "sub", "mul", "neg"}:
            yield primitive.symbol.format(*"abcde"), primitive.meaning


def latex(expression: Expression) -> str:
    """The formula in LaTeX (math mode), coefficients rounded to four digits.

    i runs over voxels, b over images, c over classes; that the result is the mean over images is left out.
    """
    return _render(expression.root, _LATEX, lambda slot: _latex_number(expression.coefficients[slot]))[0]


def _short(value: float) -> str:
    return f"{value:.4g}".replace("-", "−")


def _latex_number(value: float) -> str:
    mantissa, _, exponent = f"{value:.4g}".partition("e")
    return rf"{mantissa} \cdot 10^{{{int(exponent)}}}" if exponent else mantissa


_TEXT = _Style("text", repr, str)
_UNICODE = _Style("symbol", _short, lambda name: TERMINALS[name].symbol)
_LATEX = _Style("latex", _latex_number, lambda name: TERMINALS[name].latex, brackets=r"\left({}\right)")


def _render(node: Node, style: _Style, coefficient: Callable[[int], str]) -> tuple[str, int]:
    """The node in ``style``, and how tightly it binds."""
    if node.name in (CONSTANT, COEFFICIENT):
        number = coefficient(node.value) if node.name == COEFFICIENT else style.number(node.value)
        if r"\cdot" in number:
            return number, _PRODUCT
        return number, _SIGN if _is_negative(number) else ATOM
    if node.primitive is None:
        leaf = style.leaf(node.name)
        return leaf, ATOM - 1 if leaf.endswith(_OPEN_LOGARITHM) else ATOM
    needed, binding = _precedence(node.primitive, style)
    operands = []
    for index, child in enumerate(node.children):
        operand, operand_binding = _render(child, style, coefficient)
        bare = operand_binding >= needed[index] and not _misread(node, index, operand, style)
        operands.append(operand if bare else style.brackets.format(operand))
    template: str = getattr(node.primitive, style.template)
    return template.format(*operands), binding


def _precedence(primitive: Primitive, style: _Style) -> tuple[tuple[int, ...], int]:
    """How tightly each operand must bind to stand without brackets, and how tightly the whole binds."""
    match style.template, primitive.name:
        case "symbol" | "latex", "square":
            return (ATOM,), _POWER
        case "latex", "div":
            return (0, 0), ATOM - 1
        case "latex", "pow":
            return (ATOM, 0), _POWER
    return primitive.operand_precedence, primitive.precedence


def _misread(node: Node, index: int, operand: str, style: _Style) -> bool:
    """Whether an operand would be misread without brackets although it binds tightly enough."""
    if node.name == "neg" and node.children[0].name in (CONSTANT, COEFFICIENT):
        return True  # "-2" is read as the number
    if style is _TEXT or node.name not in ("add", "sub", "mul", "div", "neg"):
        return False
    if node.name == "div" and style is _LATEX:
        return False
    if node.name == "neg" or index == 1:
        return _is_negative(operand)
    return node.name in ("mul", "div") and operand.endswith(_OPEN_LOGARITHM)


def _is_negative(operand: str) -> bool:
    return operand[0] in "-−"


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
