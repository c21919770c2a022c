"""What can be tuned of a loss: its bounded parameters as numbers, and the scale on which each is searched."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from lossevo.losses.catalogue import from_spec, parameters
from lossevo.losses.expressions import expression_parameters, expression_takes
from lossevo.losses.learnable import LEARNABLE, Learnable, Range

if TYPE_CHECKING:
    from torch import nn

_EQUAL_WEIGHTS = 0.5


@dataclass(frozen=True, slots=True)
class Dimension:
    """A number that is tuned, from ``low`` to ``high``; ``start`` is what it is untuned.

    Attributes:
        by_logarithm: whether its logarithm is searched evenly, not itself.
        partner: the parameter that holds what it leaves of ``total``; empty if there is none.
    """

    name: str
    low: float
    high: float
    start: float
    by_logarithm: bool = False
    partner: str = ""
    total: float = 1.0

    def rounded(self, value: float) -> float:
        """The value in four significant digits, as it is used, told and written."""
        return min(max(float(f"{value:.4g}"), self.low), self.high)


def dimensions(spec: Mapping[str, Any]) -> tuple[Dimension, ...]:
    """The parameters of a loss that are in :data:`~lossevo.losses.learnable.LEARNABLE`; none of an expression."""
    items = LEARNABLE.get(spec.get("name", ""), ())
    if not items:
        return ()
    loss = from_spec(spec)
    return tuple(dimension for item in items if (dimension := _of_parameter(loss, item)))


def expression_dimensions(name: str) -> tuple[Dimension, ...]:
    """Those of the parameters of a hand-crafted loss that its expression can have.

    Raises:
        LossevoError: ``name`` has no expression.
    """
    takes = expression_takes(name)
    found = dimensions({"name": name, "parameters": expression_parameters(name)})
    return tuple(dimension for dimension in found if dimension.name in takes)


def expression_flags(name: str) -> dict[str, bool]:
    """Those parameters of a hand-crafted loss that are true or false and that its expression can have, as published.

    Raises:
        LossevoError: ``name`` has no expression.
    """
    published = parameters(name)
    return {key: published[key] for key in expression_takes(name) if isinstance(published[key], bool)}


def placed(dimensions: Iterable[Dimension], values: Mapping[str, float]) -> dict[str, float]:
    """What the loss is made with: those of the values that are not its own, each with its partner."""
    chosen: dict[str, float] = {}
    for dimension in dimensions:
        value = values[dimension.name]
        if value != dimension.start:
            chosen[dimension.name] = value
            if dimension.partner:
                chosen[dimension.partner] = float(f"{dimension.total - value:.6g}")
    return chosen


def _of_parameter(loss: nn.Module, item: Learnable) -> Dimension | None:
    """A positive parameter whose bounds lie on both sides of 1 is searched by its logarithm.

    A weight α of foreground that is not given weighs all classes alike, as 0.5 does but for the scale of its loss. In a
    sum of losses that scale matters, so there it is not tuned: None.
    """
    place = item.value_places[0]
    if attrgetter(place)(loss) is None:
        return None if "." in place else Dimension(item.name, item.low, item.high, _EQUAL_WEIGHTS)
    found = Range.at(loss, item)
    both_sides = 0 < found.low < 1 < found.high and not found.rest_places
    return Dimension(found.name, found.low, found.high, found.start, both_sides, found.partner, found.total)
