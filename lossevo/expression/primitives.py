"""The one table of the loss language: every terminal and every primitive is defined here and nowhere else.

Three kinds of value exist, ordered by how they broadcast: a ``SCALAR`` is one number, a ``REGION`` holds one number per
image and class, shape (B, C) or (1, C) when it was reduced over the whole batch, and a ``VOXEL`` map has shape (B, C,
*spatial).

Elementwise primitives take any kinds and return the largest of them. Reductions go down one floor: ``VOXEL -> REGION ->
SCALAR``. A loss is an expression of kind ``SCALAR``. All primitives are total: what they are made of
(:mod:`lossevo.expression.graph`) is finite, with a finite gradient, on every finite input that does not overflow.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from types import MappingProxyType

from lossevo.expression.safe_math import EPSILON
from lossevo.expression.values import Value

ATOM = 9
"""The precedence of what never needs brackets: a leaf, a function call."""


Build = Callable[..., Value]
"""Makes a primitive of the operations of a graph, from the values of its operands."""


class Kind(IntEnum):
    """What a value is; the order is the order of broadcasting."""

    SCALAR = 0
    REGION = 1
    VOXEL = 2


@dataclass(frozen=True, slots=True)
class Terminal:
    """An input of the loss: a VOXEL map that the call convention provides.

    ``minimum`` and ``maximum`` are the range of its values; ``latex`` and ``symbol`` its LaTeX and Unicode form.
    """

    name: str
    symbol: str
    latex: str
    minimum: float
    maximum: float
    meaning: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Primitive:
    """An operation of the language.

    ``source`` and ``target`` are the kinds of a reduction; both are None for an elementwise primitive. ``build`` makes
    it of the operations of a graph, which carry PyTorch form and derivative. ``text``, ``symbol`` and ``latex`` are
    templates of the text, Unicode and LaTeX form with the operands as ``{0}``, ``{1}``. ``precedence`` says how tightly
    the text form binds, ``operand_precedence`` how tightly each operand must bind to stand in it without brackets:
    parser and renderer read both. ``weight`` is what a node adds to the complexity of an expression.
    """

    name: str
    arity: int
    build: Build
    text: str
    symbol: str
    latex: str
    meaning: str
    precedence: int
    operand_precedence: tuple[int, ...]
    commutative: bool = False
    source: Kind | None = None
    target: Kind | None = None
    weight: float = 1.0

    @property
    def elementwise(self) -> bool:
        """Whether the primitive works element by element and broadcasts."""
        return self.source is None


DISTANCE_SCALE_MM = 20.0
"""The signed distance map enters an expression as ``clamp(distance / 20 mm, -1, 1)``: half a vertebral body's width."""

MAX_EXPONENT = 20.0
"""exp takes no larger argument."""

_TERMINALS = (
    Terminal("p", "p", "p", 0.0, 1.0, "predicted probability (softmax)"),
    Terminal("y", "y", "y", 0.0, 1.0, "target, one-hot"),
    Terminal("logp", "log p", r"\log p", -math.inf, 0.0, "log-probability, from log-softmax"),
    Terminal("d", "d", "d", -1.0, 1.0, "signed distance to the target's boundary, negative inside, in units of 20 mm"),
)


def _infix(name: str, sign: str, precedence: int, build: Build, symbol: str, latex: str, meaning: str) -> Primitive:
    """An operator that associates to the left."""
    return Primitive(
        name=name,
        arity=2,
        build=build,
        text=f"{{0}} {sign} {{1}}",
        symbol=f"{{0}} {symbol} {{1}}",
        latex=latex,
        meaning=meaning,
        precedence=precedence,
        operand_precedence=(precedence, precedence + 1),
        commutative=sign in "+*",
    )


def _function(
    name: str,
    arity: int,
    build: Build,
    latex: str,
    meaning: str,
    *,
    symbol: str | None = None,
    commutative: bool = False,
) -> Primitive:
    call = f"{name}({', '.join(f'{{{i}}}' for i in range(arity))})"
    return Primitive(
        name=name,
        arity=arity,
        build=build,
        text=call,
        symbol=symbol or call,
        latex=latex,
        meaning=meaning,
        precedence=ATOM,
        operand_precedence=(0,) * arity,
        commutative=commutative,
    )


def _reduction(name: str, source: Kind, symbol: str, latex: str, meaning: str) -> Primitive:
    return Primitive(
        name=name,
        arity=1,
        build=lambda x: x(name),
        text=f"{name}({{0}})",
        symbol=f"{symbol}[{{0}}]",
        latex=rf"{latex}\left[{{0}}\right]",
        meaning=meaning,
        precedence=ATOM,
        operand_precedence=(0,),
        source=source,
        target=Kind(source - 1),
    )


_PRIMITIVES = (
    _infix("add", "+", 1, lambda a, b: a + b, "+", "{0} + {1}", "sum of two values"),
    _infix("sub", "-", 1, lambda a, b: a - b, "−", "{0} - {1}", "difference"),
    _infix("mul", "*", 2, lambda a, b: a * b, "·", r"{0} \cdot {1}", "product"),
    _infix(
        "div", "/", 2, lambda a, b: a / b("guard"), "/", r"\frac{{{0}}}{{{1}}}", "quotient; |denominator| at least 1e-4"
    ),
    Primitive(
        name="neg",
        arity=1,
        build=lambda a: -a,
        text="-{0}",
        symbol="−{0}",
        latex="-{0}",
        meaning="negative",
        precedence=3,
        operand_precedence=(3,),
    ),
    Primitive(
        name="pow",
        arity=2,
        build=lambda a, b: a("floor", EPSILON)("power", b),
        text="{0} ^ {1}",
        symbol="{0}^{1}",
        latex="{{{0}}}^{{{1}}}",
        meaning="power; base at least 1e-4",
        precedence=4,
        # Associates to the right, and the exponent may begin with a minus.
        operand_precedence=(ATOM, 3),
    ),
    _function(
        "log",
        1,
        lambda a: a("floor", EPSILON)("log"),
        r"\log\left({0}\right)",
        "natural logarithm; argument at least 1e-4",
    ),
    _function(
        "exp",
        1,
        lambda a: a("ceiling", MAX_EXPONENT)("exp"),
        r"\exp\left({0}\right)",
        "exponential; argument at most 20",
    ),
    _function(
        "sqrt",
        1,
        lambda a: a("floor", EPSILON)("sqrt"),
        r"\sqrt{{{0}}}",
        "square root; argument at least 1e-4",
        symbol="√({0})",
    ),
    _function("square", 1, lambda a: a * a, "{{{0}}}^{{2}}", "square", symbol="{0}²"),
    _function("abs", 1, lambda a: a("abs"), r"\left|{0}\right|", "absolute value", symbol="|{0}|"),
    _function("tanh", 1, lambda a: a("tanh"), r"\tanh\left({0}\right)", "hyperbolic tangent"),
    _function("sigmoid", 1, lambda a: a("sigmoid"), r"\sigma\left({0}\right)", "logistic function", symbol="σ({0})"),
    _function("min", 2, lambda a, b: a("minimum", b), r"\min\left({0}, {1}\right)", "smaller of two", commutative=True),
    _function("max", 2, lambda a, b: a("maximum", b), r"\max\left({0}, {1}\right)", "larger of two", commutative=True),
    _reduction("sum", Kind.VOXEL, "Σ", r"\sum_{{i}}", "sum over the voxels of each image"),
    _reduction("mean", Kind.VOXEL, "μ", r"\mu_{{i}}", "mean over the voxels of each image"),
    _reduction(
        "batch_sum",
        Kind.VOXEL,
        "Σᴮ",
        r"\sum_{{b,i}}",
        "sum over all voxels of the batch",
    ),
    _reduction(
        "batch_mean",
        Kind.VOXEL,
        "μᴮ",
        r"\mu_{{b,i}}",
        "mean over all voxels of the batch",
    ),
    _reduction("class_mean", Kind.REGION, "μᶜ", r"\mu_{{c}}", "mean over images and classes"),
    _reduction("class_sum", Kind.REGION, "Σᶜ", r"\sum_{{c}}", "sum over classes, mean over images"),
    _reduction(
        "foreground_mean",
        Kind.REGION,
        "μᶠ",
        r"\mu_{{c>0}}",
        "mean over images and foreground classes",
    ),
)

TERMINALS: Mapping[str, Terminal] = MappingProxyType({terminal.name: terminal for terminal in _TERMINALS})
PRIMITIVES: Mapping[str, Primitive] = MappingProxyType({primitive.name: primitive for primitive in _PRIMITIVES})
