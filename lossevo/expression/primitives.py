"""The one table of the loss language: every terminal and every primitive is defined here and nowhere else.

Three kinds of value exist, ordered by how they broadcast: a ``SCALAR`` is one number, a ``REGION`` holds one number per image and
class, shape (B, C) or (1, C) when it was reduced over the whole batch, and a ``VOXEL`` map has shape (B, C, *spatial).

Elementwise primitives take any kinds and return the largest of them. Reductions go down one floor: ``VOXEL -> REGION -> SCALAR``.
A loss is an expression of kind ``SCALAR``. All primitives are total: their PyTorch form (:mod:`lossevo.expression.safe_math`) is
finite, with a finite gradient, on every finite input that does not overflow.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from types import MappingProxyType


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


@dataclass(frozen=True, slots=True)
class Primitive:
    """An operation of the language.

    ``source`` and ``target`` are the kinds of a reduction; both are None for an elementwise primitive. ``torch``, ``symbol`` and
    ``latex`` are templates of the PyTorch, Unicode and LaTeX form with the operands as ``{0}``, ``{1}``. ``precedence`` says how tightly
    the *text* form binds; 9 is a function call. ``weight`` is what a node adds to the complexity of an expression.
    """

    name: str
    arity: int
    torch: str
    text: str
    symbol: str
    latex: str
    meaning: str
    precedence: int = 9
    commutative: bool = False
    source: Kind | None = None
    target: Kind | None = None
    weight: float = 1.0

    @property
    def elementwise(self) -> bool:
        """Whether the primitive works element by element and broadcasts."""
        return self.source is None


DISTANCE_SCALE_MM = 20.0
"""The signed distance map enters an expression as ``clamp(distance / 20 mm, -1, 1)``: about the half-width of a vertebral body."""

_TERMINALS = (
    Terminal("p", "p", "p", 0.0, 1.0, "predicted probability (softmax)"),
    Terminal("y", "y", "y", 0.0, 1.0, "target, one-hot"),
    Terminal("logp", "log p", r"\log p", -104.0, 0.0, "log-probability, from log-softmax"),
    Terminal("d", "d", "d", -1.0, 1.0, "signed distance to the target's boundary, negative inside, in units of 20 mm"),
)


def _infix(name: str, sign: str, symbol: str, latex: str, precedence: int, meaning: str, torch: str, commutative: bool) -> Primitive:
    return Primitive(name, 2, torch, f"{{0}} {sign} {{1}}", f"{{0}} {symbol} {{1}}", latex, meaning, precedence, commutative)


def _function(name: str, arity: int, torch: str, latex: str, meaning: str, symbol: str | None = None, commutative: bool = False) -> Primitive:
    call = f"{name}({', '.join(f'{{{i}}}' for i in range(arity))})"
    return Primitive(name, arity, torch, call, symbol or call, latex, meaning, commutative=commutative)


def _reduction(name: str, source: Kind, torch: str, symbol: str, latex: str, meaning: str) -> Primitive:
    target = Kind(source - 1)
    return Primitive(name, 1, torch, f"{name}({{0}})", symbol, latex, meaning, source=source, target=target)


_PRIMITIVES = (
    _infix("add", "+", "+", "{0} + {1}", 1, "sum of two values", "{0} + {1}", True),
    _infix("sub", "-", "−", "{0} - {1}", 1, "difference", "{0} - {1}", False),
    _infix("mul", "*", "·", r"{0} \, {1}", 2, "product", "{0} * {1}", True),
    _infix("div", "/", "/", r"\frac{{{0}}}{{{1}}}", 2, "quotient; |denominator| at least 1e-4", "safe_divide({0}, {1})", False),
    Primitive("neg", 1, "-{0}", "-{0}", "−{0}", "-{0}", "negative", 3),
    Primitive(
        "pow", 2, "safe_power({0}, {1})", "{0} ^ {1}", "{0}^{1}", "{{{0}}}^{{{1}}}", "power; base at least 1e-4", precedence=4
    ),
    _function("log", 1, "safe_log({0})", r"\log\left({0}\right)", "natural logarithm; argument at least 1e-4"),
    _function("exp", 1, "safe_exp({0})", r"\exp\left({0}\right)", "exponential; argument at most 20"),
    _function("sqrt", 1, "safe_sqrt({0})", r"\sqrt{{{0}}}", "square root; argument at least 1e-4", "√({0})"),
    _function("square", 1, "{0} * {0}", r"\left({0}\right)^2", "square", "({0})²"),
    _function("abs", 1, "{0}.abs()", r"\left|{0}\right|", "absolute value", "|{0}|"),
    _function("tanh", 1, "{0}.tanh()", r"\tanh\left({0}\right)", "hyperbolic tangent"),
    _function("sigmoid", 1, "{0}.sigmoid()", r"\sigma\left({0}\right)", "logistic function", "σ({0})"),
    _function("min", 2, "minimum({0}, {1})", r"\min\left({0}, {1}\right)", "smaller of two", commutative=True),
    _function("max", 2, "maximum({0}, {1})", r"\max\left({0}, {1}\right)", "larger of two", commutative=True),
    _reduction("sum", Kind.VOXEL, "{0}.sum(spatial)", "Σ[{0}]", r"\sum_{{i}}\left[{0}\right]", "sum over the voxels of each image"),
    _reduction("mean", Kind.VOXEL, "{0}.mean(spatial)", "μ[{0}]", r"\mu_{{i}}\left[{0}\right]", "mean over the voxels of each image"),
    _reduction(
        "batch_sum",
        Kind.VOXEL,
        "{0}.sum((0, *spatial)).unsqueeze(0)",
        "Σᴮ[{0}]",
        r"\sum_{{b,i}}\left[{0}\right]",
        "sum over all voxels of the batch",
    ),
    _reduction(
        "batch_mean",
        Kind.VOXEL,
        "{0}.mean((0, *spatial)).unsqueeze(0)",
        "μᴮ[{0}]",
        r"\mu_{{b,i}}\left[{0}\right]",
        "mean over all voxels of the batch",
    ),
    _reduction("class_mean", Kind.REGION, "{0}.mean()", "μᶜ[{0}]", r"\mu_{{c}}\left[{0}\right]", "mean over images and classes"),
    _reduction("class_sum", Kind.REGION, "{0}.sum(1).mean()", "Σᶜ[{0}]", r"\sum_{{c}}\left[{0}\right]", "sum over classes, mean over images"),
    _reduction(
        "foreground_mean",
        Kind.REGION,
        "{0}[:, 1:].mean()",
        "μᶠ[{0}]",
        r"\mu_{{c>0}}\left[{0}\right]",
        "mean over images and foreground classes",
    ),
)

TERMINALS: Mapping[str, Terminal] = MappingProxyType({terminal.name: terminal for terminal in _TERMINALS})
PRIMITIVES: Mapping[str, Primitive] = MappingProxyType({primitive.name: primitive for primitive in _PRIMITIVES})
