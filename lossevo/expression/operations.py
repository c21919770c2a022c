"""The operations of expression graphs: PyTorch form, derivative, and what they give on numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from lossevo.expression.primitives import EPSILON
from lossevo.expression.values import Extent, Value

Derivative = Callable[..., tuple["Value | None", ...]]
"""``derivative(g, r, *operands)``: what each operand receives if the result r receives g; None for nothing."""


@dataclass(frozen=True, slots=True)
class Operation:
    """An operation of a graph.

    ``torch`` is its PyTorch form with operands as ``{0}``, ``{1}``; ``inplace`` the same, written into the memory of
    the first. ``on_numbers`` folds numbers. An operation works element by element unless it ``gives`` a fixed extent;
    it then ``takes`` operands of the extents named, where nothing is named of any. What an operand receives need not
    be summed over what it was broadcast to.
    """

    torch: str
    derivative: Derivative | None = None
    inplace: str = ""
    on_numbers: Callable[..., float] | None = None
    commutative: bool = False
    gives: Extent | None = None
    takes: tuple[Extent, ...] = ()


def _nothing(g: Value, r: Value, *operands: Value) -> tuple[Value | None, ...]:
    return (None,) * len(operands)


def _from_classes(g: Value, r: Value, x: Value) -> tuple[Value]:
    return (g / x.count(Extent.SCALAR),)


def _from_sum_of_classes(g: Value, r: Value, x: Value) -> tuple[Value]:
    return (g / x.count(Extent.CLASS),)


def _from_foreground(g: Value, r: Value, x: Value) -> tuple[Value]:
    foreground = (x.graph.size("classes") - 1) * x.count(Extent.CLASS)
    return (x.graph.foreground() * (g / foreground),)


def _from_lookup(g: Value, r: Value, x: Value) -> tuple[Value]:
    by_class = g("by_class")
    return (by_class("over_images") if x.extent is Extent.CLASS else by_class,)


OPERATIONS: Mapping[str, Operation] = MappingProxyType(
    {
        "add": Operation("{0} + {1}", lambda g, r, a, b: (g, g), "{0}.add_({1})", lambda a, b: a + b, True),
        "sub": Operation("{0} - {1}", lambda g, r, a, b: (g, -g), "{0}.sub_({1})", lambda a, b: a - b),
        "mul": Operation("{0} * {1}", lambda g, r, a, b: (g * b, g * a), "{0}.mul_({1})", lambda a, b: a * b, True),
        "div": Operation("{0} / {1}", lambda g, r, a, b: (g / b, -(g * r / b)), "{0}.div_({1})", lambda a, b: a / b),
        "neg": Operation("-{0}", lambda g, r, a: (-g,), "{0}.neg_()", lambda a: -a),
        # a > 0, so that r/a is a^(b-1) without a second power.
        "power": Operation(
            "{0} ** {1}", lambda g, r, a, b: (g * b * (r / a), g * r * a("log")), "{0}.pow_({1})", lambda a, b: a**b
        ),
        "log": Operation("{0}.log()", lambda g, r, a: (g / a,), "{0}.log_()", math.log),
        "exp": Operation("{0}.exp()", lambda g, r, a: (g * r,), "{0}.exp_()", math.exp),
        "sqrt": Operation("{0}.sqrt()", lambda g, r, a: (g / (2 * r),), "{0}.sqrt_()", math.sqrt),
        "abs": Operation("{0}.abs()", lambda g, r, a: (g * a("sign"),), "{0}.abs_()", abs),
        "sign": Operation("{0}.sign()", _nothing, "{0}.sign_()", lambda a: math.copysign(1, a) if a else 0.0),
        "tanh": Operation("{0}.tanh()", lambda g, r, a: (g * (1 - r * r),), "{0}.tanh_()", math.tanh),
        "sigmoid": Operation(
            "{0}.sigmoid()", lambda g, r, a: (g * r * (1 - r),), "{0}.sigmoid_()", lambda a: (1 + math.tanh(a / 2)) / 2
        ),
        # Beyond 40 it is the argument itself in double precision too.
        "softplus": Operation(
            "torch.nn.functional.softplus({0}, 1, 40)",
            lambda g, r, a: (g * a("sigmoid"),),
            "",
            lambda a: max(a, 0.0) + math.log1p(math.exp(-abs(a))),
        ),
        "minimum": Operation(
            "torch.minimum({0}, {1})",
            lambda g, r, a, b: (g * a("below", b), g * b("below", a)),
            "torch.minimum({0}, {1}, out={0})",
            min,
            True,
        ),
        "maximum": Operation(
            "torch.maximum({0}, {1})",
            lambda g, r, a, b: (g * b("below", a), g * a("below", b)),
            "torch.maximum({0}, {1}, out={0})",
            max,
            True,
        ),
        # 1 where a < b, 1/2 where a = b.
        "below": Operation("(({0} < {1}).type_as({0}) + ({0} <= {1}).type_as({0})) / 2", _nothing),
        "floor": Operation(
            "{0}.clamp(min={1})", lambda g, r, a, b: (g * a("at_least", b), None), "{0}.clamp_(min={1})", max
        ),
        "ceiling": Operation(
            "{0}.clamp(max={1})", lambda g, r, a, b: (g * a("at_most", b), None), "{0}.clamp_(max={1})", min
        ),
        "at_least": Operation("({0} >= {1}).type_as({0})", _nothing, "{0}.ge_({1})", lambda a, b: float(a >= b)),
        "at_most": Operation("({0} <= {1}).type_as({0})", _nothing, "{0}.le_({1})", lambda a, b: float(a <= b)),
        "guard": Operation(
            "guard({0})",
            lambda g, r, a: (g * a("abs")("at_least", EPSILON),),
            "guarded({0}, {0})",
            lambda a: min(a, -EPSILON) if a < 0 else max(a, EPSILON),
        ),
        # Neighbourhoods. The means are symmetric operators: a voxel gives to a neighbour what it gets from it.
        "avg_pool": Operation("avg_pool({0})", lambda g, r, x: (g("avg_pool"),)),
        "gaussian": Operation("gaussian({0})", lambda g, r, x: (g("gaussian"),)),
        "max_pool": Operation("max_pool({0})", lambda g, r, x: (g("max_pool_gradient", x),)),
        "max_pool_gradient": Operation("max_pool_gradient({0}, {1})", _nothing),
        # Reductions of the language.
        "sum": Operation("{0}.sum(spatial)", lambda g, r, x: (g,), gives=Extent.REGION),
        "mean": Operation("{0}.mean(spatial)", lambda g, r, x: (g / x.count(Extent.REGION),), gives=Extent.REGION),
        "batch_sum": Operation("{0}.sum((0, *spatial)).unsqueeze(0)", lambda g, r, x: (g,), gives=Extent.CLASS),
        "batch_mean": Operation(
            "{0}.mean((0, *spatial)).unsqueeze(0)", lambda g, r, x: (g / x.count(Extent.CLASS),), gives=Extent.CLASS
        ),
        "class_mean": Operation("{0}.mean()", _from_classes, gives=Extent.SCALAR),
        "class_sum": Operation("{0}.sum(1).mean()", _from_sum_of_classes, gives=Extent.SCALAR),
        "foreground_mean": Operation("{0}[:, 1:].mean()", _from_foreground, gives=Extent.SCALAR),
        # The parts of those that look for the largest: where it is, and it itself where any number would do.
        "top_weights": Operation("top_weights({0})", _nothing),
        "batch_top_weights": Operation("top_weights({0}, batch=True)", _nothing),
        "max_weights": Operation("max_weights({0})", _nothing),
        "largest": Operation("{0}.detach().amax(spatial)", _nothing, gives=Extent.REGION),
        "batch_largest": Operation("{0}.detach().amax((0, *spatial)).unsqueeze(0)", _nothing, gives=Extent.CLASS),
        "shifted": Operation("{0} - {1}", lambda g, r, x, largest: (g, -g), "{0}.sub_({1})"),
        # As many numbers as a map has.
        "spread": Operation(
            "{0}.expand_as({1})",
            lambda g, r, x, like: (g, None),
            gives=Extent.VOXEL,
            takes=(Extent.VOXEL, Extent.VOXEL),
        ),
        # From the margin to the logits.
        "margin_gradient": Operation("margin_gradient({0}, logits)", _nothing, gives=Extent.VOXEL),
        # What broadcasting does, backwards.
        "over_images": Operation("{0}.sum(0, keepdim=True)", lambda g, r, x: (g,), gives=Extent.CLASS),
        "over_classes": Operation("{0}.sum()", lambda g, r, x: (g,), gives=Extent.SCALAR),
        "total": Operation("{0}.sum()", lambda g, r, x: (g,), gives=Extent.SCALAR),
        "across_classes": Operation("{0}.sum(1, keepdim=True)", lambda g, r, x: (g,), gives=Extent.PIXEL),
        "across_regions": Operation(
            "{0}.sum(1).reshape(-1, 1, *[1 for _ in spatial])", lambda g, r, x: (g,), gives=Extent.PIXEL
        ),
        # Labels: what is true of a voxel's class alone.
        "one_hot": Operation(
            "one_hot({0}, labels, torch.empty_like(logits))",
            lambda g, r, s: (g("at_true"),),
            gives=Extent.VOXEL,
            takes=(Extent.PIXEL,),
        ),
        "at_true": Operation("{0}.gather(1, labels)", lambda g, r, x: (g("one_hot"),), gives=Extent.PIXEL),
        "plus_true": Operation(
            "plus_true({0}, {1}, labels)",
            lambda g, r, x, s: (g, g("at_true")),
            "plus_true_({0}, {1}, labels)",
            gives=Extent.VOXEL,
            takes=(Extent.VOXEL, Extent.PIXEL),
        ),
        "by_class": Operation(
            "by_class({0}, bins, logits)", lambda g, r, s: (g("lookup"),), gives=Extent.REGION, takes=(Extent.PIXEL,)
        ),
        "lookup": Operation("lookup({0}, bins, labels)", _from_lookup, gives=Extent.PIXEL),
    }
)
