"""The one table of the loss language: every terminal and every primitive is defined here and nowhere else.

Three kinds of value exist, ordered by how they broadcast: a ``SCALAR`` is one number, a ``REGION`` holds one number per
image and class, shape (B, C) or (1, C) when it was reduced over the whole batch, and a ``VOXEL`` map has shape (B, C,
*spatial).

Elementwise primitives take any kinds and return the largest of them. Spatial primitives make a VOXEL map of another.
Reductions go down one floor: ``VOXEL -> REGION -> SCALAR``. A loss is an expression of kind ``SCALAR``. All primitives
are total: what they are made of (:mod:`lossevo.expression.graph`) is finite, with a finite gradient, on every finite
input that does not overflow.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from itertools import accumulate, pairwise
from types import MappingProxyType

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
    """What a loss is made from.

    ``minimum`` and ``maximum`` are the range of its values; ``latex`` and ``symbol`` its LaTeX and Unicode form.
    ``made_of`` names the input of the graph that it is, or that ``build`` makes it of.
    """

    name: str
    symbol: str
    latex: str
    minimum: float
    maximum: float
    meaning: str
    kind: Kind = Kind.VOXEL
    made_of: str = ""
    build: Callable[[Value], Value] = lambda given: given

    @property
    def input(self) -> str:
        """The name of the graph's input."""
        return self.made_of or self.name


@dataclass(frozen=True, slots=True, kw_only=True)
class Primitive:
    """An operation of the language.

    ``source`` and ``target`` are the kinds of a reduction, both VOXEL for a spatial primitive, and both None for an
    elementwise one, the last ``parameters`` of whose operands must be SCALAR. ``over_batch`` tells a reduction to one
    number for each class of the batch. ``build`` makes it of the operations of a graph, which carry PyTorch form and
    derivative; ``build_of_batch``, if it means something else of an operand reduced over the batch alone. ``text``,
    ``symbol`` and ``latex`` are templates of the text, Unicode and LaTeX form with the operands as ``{0}``, ``{1}``.
    ``precedence`` says how tightly the text form binds, ``operand_precedence`` how tightly each operand must bind to
    stand in it without brackets: parser and renderer read both. ``weight`` is what a node adds to the complexity of an
    expression.
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
    over_batch: bool = False
    build_of_batch: Build | None = None
    parameters: int = 0
    weight: float = 1.0

    @property
    def elementwise(self) -> bool:
        """Whether the primitive works element by element and broadcasts."""
        return self.source is None


DISTANCE_SCALE_MM = 20.0
"""The signed distance map enters an expression as ``clamp(distance / 20 mm, -1, 1)``: half a vertebral body's width."""

EPSILON = 1e-4
"""Denominators, and arguments of logarithms, roots and powers, are kept at least this far from 0."""

MAX_EXPONENT = 20.0
"""exp takes no larger argument."""

STEEPNESS = 10
"""The slope of a soft step's sigmoid."""

_TERMINALS = (
    Terminal("p", "p", "p", 0.0, 1.0, "predicted probability (softmax)"),
    Terminal("y", "y", "y", 0.0, 1.0, "target, one-hot"),
    Terminal("logp", "log p", r"\log p", -math.inf, 0.0, "log-probability, from log-softmax"),
    Terminal("d", "d", "d", -1.0, 1.0, "signed distance to the target's boundary, negative inside, in units of 20 mm"),
    Terminal("m", "m", "m", -math.inf, math.inf, "logit margin: the logit minus the largest of the other classes'"),
    Terminal(
        "f",
        "f",
        "f",
        0.0,
        1.0,
        "frequency of the class among the target's voxels in the batch",
        kind=Kind.REGION,
        made_of="y",
        build=lambda y: y("batch_mean"),
    ),
    Terminal("t", "t", "t", 0.0, 1.0, "progress of the training, from 0 to 1 in a hundred steps", kind=Kind.SCALAR),
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
    parameters: int = 0,
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
        parameters=parameters,
    )


def _reduction(
    name: str,
    source: Kind,
    symbol: str,
    latex: str,
    meaning: str,
    build: Build | None = None,
    target: Kind | None = None,
    build_of_batch: Build | None = None,
) -> Primitive:
    return Primitive(
        name=name,
        arity=1,
        build=build or (lambda x: x(name)),
        text=f"{name}({{0}})",
        symbol=f"{symbol}[{{0}}]",
        latex=rf"{latex}\left[{{0}}\right]",
        meaning=meaning,
        precedence=ATOM,
        operand_precedence=(0,),
        source=source,
        target=Kind(source - 1) if target is None else target,
        over_batch=name.startswith("batch_"),
        build_of_batch=build_of_batch,
    )


def _spatial(name: str, symbol: str, latex: str, meaning: str, build: Build | None = None) -> Primitive:
    return _reduction(name, Kind.VOXEL, symbol, rf"\operatorname{{{{{latex}}}}}", meaning, build, Kind.VOXEL)


def _curve(coefficients: int) -> Primitive:
    """A curve with ``coefficients`` of them: a Bernstein polynomial, monotone because its control points are.

    f(x) = Σ_k β_k C(n, k) x^k (1 - x)^(n-k) with n one more than there are coefficients, β_0 = 0, and increments
    β_k - β_{k-1} in the ratio 1 : abs(c_0) : abs(c_1) … that sum to 1. That a loss should have monotone curves with
    parameters is Auto Seg-Loss's idea (Li et al., ICLR 2021).
    """

    def build(x: Value, *parameters: Value) -> Value:
        x = x("floor", 0)("ceiling", 1)
        increments = [x.graph.number(1), *(c("abs") for c in parameters)]
        total = increments[0]
        for increment in increments[1:]:
            total = total + increment
        control: list[Value] = [x.graph.number(0), *accumulate(increment / total for increment in increments)]
        degree = len(increments)
        # In powers of x: the k-th coefficient is C(n, k) Δ^k β_0, from the table of differences.
        powers: list[Value] = [control[0]]
        differences: list[Value] = control
        for power in range(1, degree + 1):
            differences = [b - a for a, b in pairwise(differences)]
            powers.append(differences[0] * float(math.comb(degree, power)))
        result = powers[-1]
        for coefficient in powers[-2::-1]:
            result = result * x + coefficient
        return result

    return _function(
        f"curve{coefficients}",
        1 + coefficients,
        build,
        rf"\operatorname{{{{curve}}}}\left({', '.join(f'{{{i}}}' for i in range(1 + coefficients))}\right)",
        f"monotone curve from (0, 0) to (1, 1) of the operand within [0, 1]; {coefficients + 1} increments in the ratio"
        f" 1 : {' : '.join(f'|{name}|' for name in 'bcde'[:coefficients])}",
        parameters=coefficients,
    )


def _masked_mean(mask: Callable[[Value], Value], over: str) -> Build:
    def build(x: Value) -> Value:
        inside = mask(x.graph.input("y"))
        return (x * inside)(over) / inside(over)("guard")

    return build


def _log_mean_exp(prefix: str) -> Build:
    """Shifted by the largest value, so that nothing overflows and the mean is never 0."""

    def build(x: Value) -> Value:
        largest = x(f"{prefix}largest")
        return x("shifted", largest)("exp")(f"{prefix}mean")("floor", 1e-30)("log") + largest

    return build


def _top_mean(prefix: str) -> Build:
    return lambda x: (x * x(f"{prefix}top_weights"))(f"{prefix}sum")


def _present_mean(over: str) -> Build:
    def build(r: Value) -> Value:
        present = r.graph.input("y")(over)("at_least", 0.5) * r.graph.foreground()
        return (r * present)("class_sum") / present("class_sum")("guard")

    return build


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
    _function(
        "softplus",
        1,
        lambda a: a("softplus"),
        r"\log\left(1 + e^{{{0}}}\right)",
        "log(1 + exp(a)), a smooth max(a, 0)",
    ),
    _function(
        "greater",
        2,
        lambda a, b: ((a - b) * STEEPNESS)("sigmoid"),
        r"\sigma\left(10 \left({0} - {1}\right)\right)",
        "soft step, near 1 where a > b and near 0 where a < b: sigmoid of 10 (a - b)",
        symbol="[{0} > {1}]",
    ),
    _function("min", 2, lambda a, b: a("minimum", b), r"\min\left({0}, {1}\right)", "smaller of two", commutative=True),
    _function("max", 2, lambda a, b: a("maximum", b), r"\max\left({0}, {1}\right)", "larger of two", commutative=True),
    *(_curve(coefficients) for coefficients in range(1, 5)),
    _spatial(
        "avg_pool", "avg", "avg", "mean of the 3³ voxels around (3² in 2D); beyond the image is its nearest voxel"
    ),
    _spatial("gaussian", "gauss", "gauss", "the same, weighted 1:2:1 along each axis"),
    _spatial("max_pool", "max", "max", "largest of the 3³ voxels around: dilation"),
    _spatial("min_pool", "min", "min", "smallest of the 3³ voxels around: erosion", lambda x: -(-x)("max_pool")),
    _spatial(
        "morphological_gradient",
        "∇",
        r"grad",
        "largest minus smallest of the 3³ voxels around",
        lambda x: x("max_pool") + (-x)("max_pool"),
    ),
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
    *(
        primitive
        for prefix, mark, index, where in (
            ("", "", "i", "of each image"),
            ("batch_", "ᴮ", "b,i", "of the batch"),
        )
        for primitive in (
            _reduction(
                f"{prefix}target_mean",
                Kind.VOXEL,
                f"μ⁺{mark}",
                rf"\mu^{{{{+}}}}_{{{{{index}}}}}",
                f"mean over the target's voxels {where}, 0 without any",
                _masked_mean(lambda y: y, f"{prefix}sum"),
            ),
            _reduction(
                f"{prefix}complement_mean",
                Kind.VOXEL,
                f"μ⁻{mark}",
                rf"\mu^{{{{-}}}}_{{{{{index}}}}}",
                f"mean over the other voxels {where}, 0 without any",
                _masked_mean(lambda y: 1 - y, f"{prefix}sum"),
            ),
            _reduction(
                f"{prefix}topk_mean",
                Kind.VOXEL,
                f"μᵏ{mark}",
                rf"\mu^{{{{\mathrm{{{{top}}}}}}}}_{{{{{index}}}}}",
                f"mean of the largest tenth of the values {where}",
                _top_mean(prefix),
            ),
            _reduction(
                f"{prefix}log_mean_exp",
                Kind.VOXEL,
                f"lme{mark}",
                rf"\operatorname{{{{lme}}}}_{{{{{index}}}}}",
                f"logarithm of the mean of the exponentials {where}, a smooth maximum",
                _log_mean_exp(prefix),
            ),
        )
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
    _reduction(
        "present_mean",
        Kind.REGION,
        "μᵖ",
        r"\mu_{{c \in y}}",
        "mean over images and those foreground classes that each has (or that the batch has, where all reductions in it"
        " are over the batch); 0 without any",
        _present_mean("sum"),
        build_of_batch=_present_mean("batch_sum"),
    ),
    _reduction(
        "frequency_mean",
        Kind.REGION,
        "μʷ",
        r"\mu_{{c \sim f}}",
        "mean over classes weighted by their frequency f in the batch, and over images",
        lambda r: (r * r.graph.input("y")("batch_mean"))("class_sum"),
    ),
    _reduction(
        "class_max",
        Kind.REGION,
        "maxᶜ",
        r"\max_{{c}}",
        "largest over classes, mean over images",
        lambda r: (r * r("max_weights"))("class_sum"),
    ),
)

TERMINALS: Mapping[str, Terminal] = MappingProxyType({terminal.name: terminal for terminal in _TERMINALS})
PRIMITIVES: Mapping[str, Primitive] = MappingProxyType({primitive.name: primitive for primitive in _PRIMITIVES})
