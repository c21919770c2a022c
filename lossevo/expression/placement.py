"""Where generated gradients put results: which operations can be told where to write, and what is known of values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from lossevo.expression.values import Value

WITH_MEMORY: Mapping[str, str] = MappingProxyType(
    {name: f"torch.{name}({{0}}, {{1}}, out={{out}})" for name in ("add", "sub", "mul", "div", "minimum", "maximum")}
    | {
        name: f"torch.{name}({{0}}, out={{out}})"
        for name in ("neg", "log", "exp", "sqrt", "abs", "sign", "tanh", "sigmoid")
    }
    | {
        "power": "torch.pow({0}, {1}, out={out})",
        "floor": "torch.clamp({0}, min={1}, out={out})",
        "ceiling": "torch.clamp({0}, max={1}, out={out})",
        "at_least": "torch.ge({0}, {1}, out={out})",
        "at_most": "torch.le({0}, {1}, out={out})",
        "below": "below({0}, {1}, {out})",
        "guard": "guarded({0}, {out})",
        "across_classes": "torch.sum({0}, 1, keepdim=True, out={out})",
        "at_true": "torch.gather({0}, 1, labels, out={out})",
        "one_hot": "one_hot({0}, labels, {out})",
        "plus_true": "plus_true_({out}.copy_({0}), {1}, labels)",
    }
)
"""Operations that can be told where to write. Comparisons then write numbers; to convert what is true or false takes
longer than most operations."""


def full(values: Sequence[Value]) -> set[Value]:
    """The maps that have their full size in memory, (B, C, *spatial) or (B, 1, *spatial), and not a shape that is
    broadcast to it.
    """
    found: set[Value] = set()
    for value in values:
        made_full = value.operation in ("input", "one_hot", "at_true", "lookup", "margin_gradient")
        if not value.extent.low and (made_full or not found.isdisjoint(value.operands)):
            found.add(value)
    return found


def non_negative(values: Sequence[Value]) -> set[Value]:
    """The values that are plainly never below 0, whatever the coefficients are."""
    found: set[Value] = set()
    for value in values:
        if not value.operands:
            known = value.detail in ("p", "y", "t") or value.operation in ("size", "foreground")
            known = known or (value.number is not None and value.number >= 0)
        elif value.operation == "mul" and value.operands[0] is value.operands[1]:
            known = True
        else:
            known = value.operation in _POSITIVE or (
                value.operation in _SIGN_KEEPING and found.issuperset(value.operands)
            )
        if known:
            found.add(value)
    return found


_POSITIVE = frozenset({"exp", "sqrt", "abs", "sigmoid", "softplus", "power", "at_least", "at_most", "below"})
"""Operations that never give less than 0; a power has a base above 0."""

_SIGN_KEEPING = frozenset(
    {"add", "mul", "div", "minimum", "maximum", "floor", "sum", "mean", "batch_sum", "batch_mean", "class_mean"}
    | {"class_sum", "foreground_mean", "over_images", "over_classes", "total", "across_classes", "one_hot", "at_true"}
    | {"plus_true", "by_class", "lookup", "avg_pool", "gaussian", "max_pool"}
)
"""Operations that give nothing below 0 if no operand is."""
