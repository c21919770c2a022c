"""Interval arithmetic: between which bounds every value of an expression graph stays, whatever the images are.

Bounds hold for the arithmetic of float32 and float64, not only for real numbers: they are rounded outward. Rounding is
monotone, so a bound that is a float32 stays what it is: 1 - p is not negative.

The rules are a table of their own, with the operations of :mod:`lossevo.expression.operations` as keys: a row there has
up to three functions already, and half of the rules need what an interval is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from lossevo.errors import LossevoError
from lossevo.expression.codegen import lower
from lossevo.expression.graph import Graph
from lossevo.expression.primitives import EPSILON, TERMINALS
from lossevo.expression.rewriting import at_true
from lossevo.expression.trees import Expression
from lossevo.expression.values import Value

_ROUNDING: Final = 2.0**-22
"""Of one operation in float32, relative, with room for functions that are not rounded correctly."""
_ROUNDING_OF_SUMS: Final = 2.0**-16
"""Of PyTorch's sums, which add in blocks."""
_NEIGHBOURHOOD: Final = 27.0
"""How many voxels one can be the largest of."""
_TINY: Final = 2.0**-126
"""The smallest normal float32: what is smaller may be taken for 0."""


@dataclass(frozen=True, slots=True)
class Interval:
    """The numbers from ``low`` to ``high`` whose magnitude is at least ``least``.

    ``least`` is what lets a guarded denominator have either sign and still be divided by.
    """

    low: float
    high: float
    least: float = 0.0

    def __post_init__(self) -> None:
        if math.isnan(self.low) or math.isnan(self.high):
            object.__setattr__(self, "low", -math.inf)
            object.__setattr__(self, "high", math.inf)
        if self.least < self.low or self.least < -self.high:
            object.__setattr__(self, "least", max(self.low, -self.high))

    @property
    def magnitude(self) -> float:
        """The largest absolute value."""
        return max(abs(self.low), abs(self.high))

    def __contains__(self, number: float) -> bool:
        return self.low <= number <= self.high and abs(number) >= self.least

    def __and__(self, other: Interval) -> Interval:
        """What is in both."""
        return Interval(max(self.low, other.low), min(self.high, other.high), max(self.least, other.least))

    def __add__(self, other: Interval) -> Interval:
        return _rounded(self.low + other.low, self.high + other.high)

    def __sub__(self, other: Interval) -> Interval:
        return self + -other

    def __neg__(self) -> Interval:
        return Interval(-self.high, -self.low, self.least)

    def __mul__(self, other: Interval) -> Interval:
        return _rounded(*_range(_times, self, other), least=_times(self.least, other.least))

    def __truediv__(self, other: Interval) -> Interval:
        if other.magnitude == 0:
            return Interval(-math.inf, math.inf)
        low = -_inverse(max(-other.high, other.least)) if other.low < 0 else _inverse(other.high)
        high = _inverse(max(other.low, other.least)) if other.high > 0 else -_inverse(-other.low)
        return self * Interval(low, high, _inverse(other.magnitude))

    def __pow__(self, other: Interval) -> Interval:
        """Of a positive number: it is monotone in base and exponent, so that its extremes are at their bounds."""
        return _outward(*_range(_power, self, other))

    def square(self) -> Interval:
        """The product with itself, never negative."""
        return _rounded(_times(self.least, self.least), _times(self.magnitude, self.magnitude))

    def with_zero(self) -> Interval:
        """The least interval that holds these numbers and 0."""
        return Interval(min(self.low, 0.0), max(self.high, 0.0))

    def summed(self, count: Interval) -> Interval:
        """The sum of as many numbers of this interval as ``count`` says."""
        total = self * count
        return _outward(total.low, total.high, rounding=_ROUNDING_OF_SUMS)

    def through(self, function: Callable[[float], float]) -> Interval:
        """The values of an increasing function."""
        return _outward(function(self.low), function(self.high))


def _down(bound: float, rounding: float = _ROUNDING) -> float:
    if abs(bound) < _TINY:
        return -_TINY if bound < 0 else 0.0
    return bound - abs(bound) * rounding if math.isfinite(bound) else bound


def _outward(low: float, high: float, *, least: float = 0.0, rounding: float = _ROUNDING) -> Interval:
    return Interval(_down(low, rounding), -_down(-high, rounding), _down(least, rounding))


def _rounded(low: float, high: float, *, least: float = 0.0) -> Interval:
    """Of an operation that is rounded correctly, so that bounds that are floats need not be moved."""
    return Interval(low if _is_float32(low) else _down(low), high if _is_float32(high) else -_down(-high), _down(least))


def _is_float32(number: float) -> bool:
    if number in (0.0, 1.0):  # most are
        return True
    mantissa, exponent = math.frexp(number)
    return not math.isnan(number) and exponent > -126 and (math.isinf(number) or math.ldexp(mantissa, 24).is_integer())


def _range(function: Callable[[float, float], float], a: Interval, b: Interval) -> tuple[float, float]:
    corners = [function(x, y) for x in (a.low, a.high) for y in (b.low, b.high)]
    return min(corners), max(corners)


def _times(a: float, b: float) -> float:
    # An infinite bound stands for arbitrarily large numbers, and 0 times any of them is 0.
    return a * b if a and b else 0.0


def _inverse(a: float) -> float:
    return 1 / a if a else math.inf


def _power(a: float, b: float) -> float:
    try:
        return float(a**b)
    except OverflowError:
        return math.inf


def _guard(a: float) -> float:
    return min(a, -EPSILON) if a < 0 else max(a, EPSILON)


def _at_least(a: Interval, b: Interval) -> Interval:
    return Interval(float(a.low >= b.high), float(a.high >= b.low))


def _exp(a: float) -> float:
    return math.exp(a) if a < 700 else math.inf


def _sigmoid(a: float) -> float:
    return 1 / (1 + _exp(-a))


def _sign(a: float) -> float:
    return math.copysign(1.0, a) if a else 0.0


_BETWEEN_0_AND_1: Final = Interval(0.0, 1.0)

SUMS: Final = frozenset(
    {"sum", "batch_sum", "over_images", "over_classes", "total", "across_classes", "across_regions", "class_sum"}
)
MEANS: Final = frozenset({"mean", "batch_mean", "class_mean", "foreground_mean"})
POOLS: Final = MappingProxyType({"avg_pool": 27.0, "gaussian": 64.0})
"""Means over neighbourhoods, and how many numbers they add up on the way."""
_COMPARABLE: Final = MEANS | {"sum", "batch_sum", "over_images", "class_sum", "by_class"}
"""Reductions of which each result has as many summands as any other of operands of one extent."""

RULES: Mapping[str, Callable[..., Interval]] = MappingProxyType(
    {
        "add": lambda a, b: a + b,
        "sub": lambda a, b: a - b,
        "mul": lambda a, b: a * b,
        "div": lambda a, b: a / b,
        "neg": lambda a: -a,
        "power": lambda a, b: a**b,
        "log": lambda a: a.through(lambda x: math.log(x) if x > 0 else -math.inf),
        "exp": lambda a: a.through(_exp),
        "sqrt": lambda a: a.through(lambda x: math.sqrt(max(x, 0.0))),
        "abs": lambda a: Interval(a.least, a.magnitude),
        "sign": lambda a: Interval(_sign(a.low), _sign(a.high)),
        "tanh": lambda a: a.through(math.tanh) & Interval(-1.0, 1.0),
        "sigmoid": lambda a: a.through(_sigmoid) & _BETWEEN_0_AND_1,
        "softplus": lambda a: a.through(lambda x: max(x, 0.0) + math.log1p(math.exp(-abs(x)))),
        "minimum": lambda a, b: Interval(min(a.low, b.low), min(a.high, b.high)),
        "maximum": lambda a, b: Interval(max(a.low, b.low), max(a.high, b.high)),
        "below": lambda a, b: Interval(float(a.high < b.low), float(a.low <= b.high)),
        "floor": lambda a, b: _rounded(max(a.low, b.low), max(a.high, b.high)),
        "ceiling": lambda a, b: _rounded(min(a.low, b.low), min(a.high, b.high)),
        "at_least": _at_least,
        "at_most": lambda a, b: _at_least(b, a),
        "guard": lambda a: _rounded(_guard(a.low), _guard(a.high), least=max(a.least, EPSILON)),
        # Neighbourhoods, and where the largest is.
        **dict.fromkeys(POOLS, lambda x: _outward(x.low, x.high, rounding=_ROUNDING_OF_SUMS)),
        **dict.fromkeys(("max_pool", "largest", "batch_largest"), lambda x: x),
        "max_pool_gradient": lambda g, x: g.with_zero().summed(Interval(0.0, _NEIGHBOURHOOD)),
        "margin_gradient": lambda g, n: g - g.with_zero().summed(n),
        **dict.fromkeys(("top_weights", "batch_top_weights", "max_weights"), lambda x: _BETWEEN_0_AND_1),
        "shifted": lambda x, largest: _rounded(min(x.low - largest.high, 0.0), 0.0),
        "spread": lambda x, like: x,
        # Reductions: the operand, and of how many of its numbers each number of the result is made.
        **dict.fromkeys(SUMS, Interval.summed),
        **dict.fromkeys(MEANS, lambda x, n: _outward(x.low, x.high, rounding=_ROUNDING_OF_SUMS)),
        "by_class": lambda s, n: s.with_zero().summed(n),
        "one_hot": lambda s: s.with_zero(),
        "at_true": lambda x: x,
        "plus_true": lambda x, s: x + s.with_zero(),
        "lookup": lambda x: x,
    }
)
"""For every operation the interval of its result, from those of its operands."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What images and networks are taken to be at most.

    Args:
        voxels: of one image.
        classes: including the background.
        images: of one batch.
        logit: magnitude of a logit.

    Raises:
        LossevoError: fewer than one voxel or image, or than two classes; a negative logit.
    """

    voxels: int = 256**3
    classes: int = 128
    images: int = 16
    logit: float = 50.0

    def __post_init__(self) -> None:
        if self.voxels < 1 or self.classes < 2 or self.images < 1 or not 0 <= self.logit < math.inf:
            raise LossevoError(
                f"{self} is not possible: expected at least 1 voxel, 2 classes and 1 image, and a finite logit"
            )

    def size(self, name: str) -> Interval:
        """The number of ``images``, ``classes`` or ``voxels``."""
        return Interval(2.0 if name == "classes" else 1.0, float(getattr(self, name)))

    def terminal(self, name: str) -> Interval:
        """The range of an input; those of log p and of the margin follow from the logits'."""
        terminal = TERMINALS[name]
        largest = -_outward(-2 * self.logit - math.log(self.classes), 0.0).low
        return Interval(max(terminal.minimum, -largest), min(terminal.maximum, largest))


class Ranges:
    """The intervals of a graph's values.

    Args:
        coefficients: of the expression.
        limits: what images and networks are at most.
        known: intervals found in another way.
    """

    def __init__(
        self, coefficients: Sequence[float], limits: Limits, known: Mapping[Value, Interval] = MappingProxyType({})
    ) -> None:
        self.coefficients = coefficients
        self.limits = limits
        self.known = known
        self._found: dict[Value, Interval] = {}
        self._at_most: dict[tuple[Value, Value], bool] = {}

    def __getitem__(self, result: Value) -> Interval:
        if result in self._found:
            return self._found[result]
        pending = [result]
        while pending:
            value = pending[-1]
            missing = [operand for operand in value.operands if operand not in self._found]
            if missing and value not in self._found:
                pending += missing
                continue
            if value not in self._found:
                found = self._made(value) if value.operands else self._leaf(value)
                self._found[value] = found & self.known[value] if value in self.known else found
            pending.pop()
        return self._found[result]

    def summands(self, value: Value) -> Interval | None:
        """How many numbers of its operand each number of a reduction is made of; None of another operation."""
        match value.operation:
            case "by_class":
                return self[value.graph.size("voxels")]
            case "class_sum" | "margin_gradient":
                return self[value.graph.size("classes")]
            case operation if operation in SUMS | MEANS:
                return self[value.operands[0].count(value.extent)]
        return None

    def largest(self, value: Value) -> Interval:
        """A value, or what its operation computes on the way where that is larger: a mean is a sum first."""
        if value.operation in POOLS:
            return self[value.operands[0]].summed(Interval(1.0, POOLS[value.operation]))
        if value.operation in MEANS | {"class_sum"}:
            (operand,) = value.operands
            return self[operand].summed(self[operand.count(value.extent)])
        return self[value]

    def _leaf(self, value: Value) -> Interval:
        match value.operation:
            case "number":
                return _rounded(float(value.detail), float(value.detail))
            case "coefficient":
                number = self.coefficients[int(value.detail)]
                return _rounded(number, number)
            case "input":
                return self.limits.terminal(str(value.detail))
            case "size":
                return self.limits.size(str(value.detail))
        return _BETWEEN_0_AND_1  # the foreground's mask

    def _made(self, value: Value) -> Interval:
        """By the operation's rule, or better where operands are related."""
        operands = [self[operand] for operand in value.operands]
        if (count := self.summands(value)) is not None:
            operands.append(count)
        found = RULES[value.operation](*operands)
        if value.operation == "mul" and value.operands[0] is value.operands[1]:
            return operands[0].square()
        if value.operation == "div":
            a, b = value.operands
            if a.operation == "power" and a.operands[0] is b:
                return found & operands[1] ** (self[a.operands[1]] - Interval(1.0, 1.0))
            if self._is_at_most(a, b):
                return found & _outward(0.0, 1.0, rounding=_ROUNDING_OF_SUMS)
        return found

    def _is_at_most(self, a: Value, b: Value, depth: int = 24) -> bool:
        """Whether 0 <= a <= b can be seen at once: a product with a number from 0 to 1, a summand, sums of such."""
        if depth and (a, b) not in self._at_most:
            self._at_most[a, b] = self[a].low >= 0 <= self[b].low and (
                a is b or self[a].high <= self[b].low or self._is_part(a, b, depth - 1)
            )
        return self._at_most.get((a, b), False)

    def _is_part(self, a: Value, b: Value, depth: int) -> bool:
        match b.operation, b.operands:
            case "guard" | "lookup", (x,) if self._is_at_most(a, x, depth):
                return True
            case "add", (x, y) if self[x].low >= 0 <= self[y].low:
                if self._is_at_most(a, x, depth) or self._is_at_most(a, y, depth):
                    return True
            case "plus_true", (x, s) if self[s].low >= 0 and self._is_at_most(a, x, depth):
                return True
        match a.operation, a.operands:
            case "mul", (x, y):
                return (self[y].high <= 1 and self._is_at_most(x, b, depth)) or (
                    self[x].high <= 1 and self._is_at_most(y, b, depth)
                )
            case "by_class", (s,) if b.operation == "sum":
                return self._is_at_most(s, at_true(b.operands[0]), depth)
            case operation, (x,) if operation in _COMPARABLE and operation == b.operation:
                return x.extent is b.operands[0].extent and self._is_at_most(x, b.operands[0], depth)
        return False


def interval(expression: Expression, limits: Limits = Limits()) -> Interval:
    """Between which bounds the expression's value stays.

    >>> from lossevo.expression import Expression
    >>> interval(Expression.parse("class_mean(mean(square(p - y)))")).low
    0.0
    """
    return Ranges(expression.coefficients, limits)[lower(expression.root, Graph())]
