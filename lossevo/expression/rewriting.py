"""Simplification of expression graphs, one operation at a time, as they are built.

Rules hold up to rounding; none turns a sum of small numbers into a difference of large ones. They serve three ends:

- nothing is computed that is known (``0 · x``, ``x - x``, a sum over what does not vary);
- factors with few numbers (per class, per image) are gathered, so that work is done on few numbers, and products of
  maps are shared by loss and gradient;
- with labels, what is multiplied by the one-hot target is computed at the true class alone: ``one_hot(s)`` is s at the
  true class and 0 elsewhere, with one number s per voxel.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Final

from lossevo.expression.values import Extent, Value

_LINEAR: Final = frozenset(
    {"sum", "mean", "batch_sum", "batch_mean", "over_images", "over_classes", "class_mean", "class_sum"}
    | {"foreground_mean", "across_classes", "total", "by_class"}
)
_GIVES: Final = MappingProxyType(
    {
        **dict.fromkeys(("sum", "mean", "by_class"), Extent.REGION),
        **dict.fromkeys(("batch_sum", "batch_mean", "over_images"), Extent.CLASS),
    }
)


def simpler(operation: str, operands: Sequence[Value]) -> Value | None:
    """A value equal to ``operation`` on ``operands`` that is cheaper, or None if none is known."""
    if operation in _LINEAR and (found := _linear(operation, operands[0])) is not None:
        return found
    return _RULES[operation](*operands) if operation in _RULES else None


def at_true(x: Value) -> Value:
    """``x`` at the true class of each voxel; what it is made of first, since Python's stack is less deep than trees."""
    pending = [x]
    while pending:
        value = pending[-1]
        if value.operation in _ELEMENTWISE:
            unknown = [operand for operand in value.operands if not value.graph.knows("at_true", operand)]
            if unknown:
                pending += unknown
                continue
        value("at_true")
        pending.pop()
    return x("at_true")


def _at_true(x: Value) -> Value | None:
    if x.extent in (Extent.SCALAR, Extent.PIXEL):
        return x
    if x.extent.low:
        return x("lookup")
    if x.operation == "one_hot":
        return x.operands[0]
    if x.operation == "plus_true":
        return at_true(x.operands[0]) + x.operands[1]
    if x.operation in _ELEMENTWISE:
        return x.graph.apply(x.operation, *(at_true(operand) for operand in x.operands))
    return None


_ELEMENTWISE: Final = frozenset(
    {"add", "sub", "mul", "div", "neg", "power", "log", "exp", "sqrt", "abs", "sign", "tanh", "sigmoid", "minimum"}
    | {"shifted", "softplus", "maximum", "below", "floor", "ceiling", "at_least", "at_most", "guard"}
)


def _truth(x: Value) -> Value | None:
    """The s of ``x = one_hot(s)``, also where a factor of few numbers stands beside it."""
    if x.operation == "one_hot":
        return x.operands[0]
    product = _low_factor(x)
    if product is not None and product[0].operation == "one_hot":
        return product[0].operands[0] * at_true(product[1])
    return None


def split(x: Value) -> tuple[Value, Value]:
    """``x = dense + one_hot(s)`` as dense and s; of what has nothing of the true class alone, s is 0."""
    zero = x.graph.number(0)
    if (truth := _truth(x)) is not None:
        return zero, truth
    if x.operation == "plus_true":
        return x.operands[0], x.operands[1]
    if x.operation in ("add", "sub"):
        a, b = x.operands
        if (truth := _truth(b)) is not None:
            return a, truth if x.operation == "add" else -truth
        if (truth := _truth(a)) is not None:
            return b if x.operation == "add" else -b, truth
    return x, zero


def _low_factor(x: Value) -> tuple[Value, Value] | None:
    """``x = v · k`` with k of fewer numbers than v, if it is such a product."""
    if x.operation == "mul":
        a, b = x.operands
        for v, k in ((a, b), (b, a)):
            if k.extent.low and k.extent < v.extent:
                return v, k
    return None


def _add(a: Value, b: Value) -> Value | None:
    if b.number == 0:
        return a
    if b.operation == "neg":
        return a - b.operands[0]
    if a.operation == "neg":
        return b - a.operands[0]
    if a is b:
        return 2 * a
    return _with_truths(a, b, minus=False) or _with_like_terms(a, b)


def _with_like_terms(a: Value, b: Value) -> Value | None:
    """``v k + v l`` as ``v (k + l)``, also where ``v k`` is one term of two."""
    for x, y in ((a, b), (b, a)):
        if (product := _low_factor(y)) is None or product[0].extent.low:
            continue
        v, k = product
        for term, others in (
            (x, ()),
            *(((x.operands[i], (x.operands[1 - i],)) for i in (0, 1)) if x.operation == "add" else ()),
        ):
            like = _low_factor(term)
            if like is not None and like[0] is v:
                return sum(others, start=v * (like[1] + k))
    return None


def _sub(a: Value, b: Value) -> Value | None:
    if b.number == 0:
        return a
    if a.number == 0:
        return -b
    if b.operation == "neg":
        return a + b.operands[0]
    if a is b:
        return a.graph.number(0)
    return _with_truths(a, b, minus=True)


def _with_truths(a: Value, b: Value, *, minus: bool) -> Value | None:
    """``a ± b`` where one or both are one-hot."""
    s, t = _truth(a), _truth(b)
    if s is not None and t is not None:
        return (s - t if minus else s + t)("one_hot")
    if t is not None and a.extent is Extent.VOXEL:
        return a("plus_true", -t if minus else t)
    if s is not None and b.extent is Extent.VOXEL:
        return (-b if minus else b)("plus_true", s)
    return None


def _mul(a: Value, b: Value) -> Value | None:
    if b.number == 0:
        return b
    if b.number == 1:
        return a
    if b.number == -1:
        return -a
    for x, other in ((a, b), (b, a)):
        # The sign goes to the factor of few numbers.
        if x.operation == "neg" and other.extent.low and not x.extent.low:
            return x.operands[0] * -other
        if x.operation == "neg" and (other.extent.low or not x.extent.low):
            return -(x.operands[0] * other)
    for x, other in ((a, b), (b, a)):
        if x.extent >= other.extent and (product := _low_factor(x)) is not None:
            v, k = product
            return v * (k * other) if other.extent.low and other.extent < v.extent else (v * other) * k
    for x, other in ((a, b), (b, a)):
        if not other.extent.low:
            if x.operation == "one_hot":
                return (x.operands[0] * at_true(other))("one_hot")
            if x.operation == "plus_true":
                return (other * x.operands[0])("plus_true", at_true(other) * x.operands[1])
            if x.operation in ("add", "sub") and any(_truth(y) is not None for y in x.operands):
                return x.graph.apply(x.operation, *(other * y for y in x.operands))
    return None


def _div(a: Value, b: Value) -> Value | None:
    if b.number == 1 or a.number == 0:
        return a
    if a.operation == "neg":
        return -(a.operands[0] / b)
    if b.operation == "neg":
        return -(a / b.operands[0])
    if (product := _low_factor(a)) is not None:
        v, k = product
        return v * (k / b) if b.extent.low and b.extent < v.extent else (v / b) * k
    if a.operation == "one_hot" and not b.extent.low:
        return (a.operands[0] / at_true(b))("one_hot")
    return a * (1 / b) if b.extent.low and not a.extent.low and b.number is None else None


def _neg(a: Value) -> Value | None:
    if a.operation == "neg":
        return a.operands[0]
    if a.operation == "sub":
        return a.operands[1] - a.operands[0]
    if a.operation == "one_hot":
        return (-a.operands[0])("one_hot")
    if a.operation == "plus_true":
        return (-a.operands[0])("plus_true", -a.operands[1])
    if (product := _low_factor(a)) is not None and not product[0].extent.low:
        return product[0] * -product[1]
    return None


def _plus_true(x: Value, s: Value) -> Value | None:
    """All that is added at the true class at once: chains of it would double with every product."""
    if s.number == 0:
        return x
    if x.operation == "plus_true":
        return x.operands[0]("plus_true", x.operands[1] + s)
    truth = _truth(x)
    return None if truth is None else (truth + s)("one_hot")


def _power(a: Value, b: Value) -> Value | None:
    if b.number == 1:
        return a
    return a * a if b.number == 2 else None


def _linear(operation: str, x: Value) -> Value | None:
    """A linear reduction of a negative, or of a product with what it leaves alone."""
    if x.operation == "neg":
        return -x.operands[0](operation)
    if (product := _low_factor(x)) is not None and product[1].extent <= _GIVES.get(operation, Extent.SCALAR):
        return product[0](operation) * product[1]
    if x.operation == "div" and x.operands[1].extent <= _GIVES.get(operation, Extent.SCALAR):
        return x.operands[0](operation) / x.operands[1]
    return None


def _over_voxels(operation: str) -> Callable[[Value], Value | None]:
    def rule(x: Value) -> Value | None:
        if x.extent < Extent.PIXEL:
            return x * x.graph.size("voxels") if operation == "sum" else x
        if x.operation == "one_hot":
            by_class = x.operands[0]("by_class")
            return by_class if operation == "sum" else by_class / x.graph.size("voxels")
        if x.operation == "add" and all(part.operation == "input" and part.detail in ("p", "y") for part in x.operands):
            a, b = x.operands
            return a(operation) + b(operation)
        if x.operation == "plus_true" and (x.operands[1].number or 0) > 0 and x.operands[0].operation == "input":
            dense, truth = x.operands
            return dense(operation) + truth("one_hot")(operation)
        return None

    return rule


def _over_batch(operation: str) -> Callable[[Value], Value | None]:
    per_image = operation.removeprefix("batch_")

    def rule(x: Value) -> Value | None:
        rewritten = _over_voxels(per_image)(x)
        if rewritten is None:
            return None
        over_images = rewritten("over_images")
        return over_images if operation == "batch_sum" else over_images / x.graph.size("images")

    return rule


def _over_classes(operation: str) -> Callable[[Value], Value | None]:
    def rule(x: Value) -> Value | None:
        graph = x.graph
        if x.extent is Extent.SCALAR:
            return x * graph.size("classes") if operation == "class_sum" else x
        inner, rows = (x.operands[0], graph.number(1)) if x.operation == "over_images" else (x, graph.size("images"))
        if inner.operation == "by_class" and operation != "foreground_mean":
            total = inner.operands[0]("total") / rows
            return total if operation == "class_sum" else total / graph.size("classes")
        return None

    return rule


def _across_classes(x: Value) -> Value | None:
    if x.extent in (Extent.SCALAR, Extent.PIXEL):
        return x * x.graph.size("classes")
    if x.extent.low:
        return x("across_regions")
    if (truth := _truth(x)) is not None:
        return truth
    if x.operation == "plus_true":
        return x.operands[0]("across_classes") + x.operands[1]
    if x.operation == "input" and x.detail == "p":
        return x.graph.number(1)
    return None


def _if_constant(x: Value) -> Value | None:
    """What looks at neighbours, or for the largest voxel of an image, finds the same everywhere."""
    return x if x.extent < Extent.PIXEL else None


def _top_weights(x: Value) -> Value | None:
    return 1 / x.graph.size("voxels") if x.extent < Extent.PIXEL else None


def _over_images(operation: str, if_constant: Callable[[Value], Value]) -> Callable[[Value], Value | None]:
    """Of what may be the same everywhere in an image, but not in all images."""

    def rule(x: Value) -> Value | None:
        if x.extent <= Extent.CLASS:
            return if_constant(x)
        return x("spread", x.graph.input("p"))(operation) if x.extent is Extent.REGION else None

    return rule


def _by_class(s: Value) -> Value | None:
    """Of what is the same for all voxels; the number of voxels of a class is the sum of 1."""
    return s * s.graph.number(1)("by_class") if s.extent is Extent.SCALAR and s.number != 1 else None


_RULES: Mapping[str, Callable[..., Value | None]] = MappingProxyType(
    {
        "add": _add,
        "sub": _sub,
        "mul": _mul,
        "div": _div,
        "neg": _neg,
        "power": _power,
        "minimum": lambda a, b: a("ceiling", b) if b.number is not None else None,
        "maximum": lambda a, b: a("floor", b) if b.number is not None else None,
        "sum": _over_voxels("sum"),
        "mean": _over_voxels("mean"),
        "batch_sum": _over_batch("batch_sum"),
        "batch_mean": _over_batch("batch_mean"),
        "class_sum": _over_classes("class_sum"),
        "class_mean": _over_classes("class_mean"),
        "foreground_mean": _over_classes("foreground_mean"),
        "over_images": lambda x: x * x.graph.size("images") if x.extent < Extent.REGION else None,
        "over_classes": lambda x: x * x.graph.size("classes") if x.extent is Extent.SCALAR else None,
        "total": lambda x: x * (x.graph.size("images") * x.graph.size("voxels")) if x.extent.low else None,
        "across_classes": _across_classes,
        "by_class": _by_class,
        "plus_true": _plus_true,
        **dict.fromkeys(("avg_pool", "gaussian", "max_pool", "largest"), _if_constant),
        "batch_largest": _over_images("batch_largest", lambda x: x),
        "top_weights": _top_weights,
        "batch_top_weights": _over_images(
            "batch_top_weights", lambda x: 1 / (x.graph.size("voxels") * x.graph.size("images"))
        ),
        "shifted": lambda x, largest: x.graph.number(0) if x is largest else None,
        "max_weights": lambda r: 1 / r.graph.size("classes") if r.extent is Extent.SCALAR else None,
        "at_true": _at_true,
        "lookup": lambda x: x if x.extent is Extent.SCALAR else None,
    }
)
