"""What is tuned of a loss: the learning rate of its trainings, and its bounded parameters."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

from lossevo.errors import LossevoError, nearest
from lossevo.losses.tunable import Dimension, dimensions, placed

What = Literal["lr", "parameters"]
LEARNING_RATE: Final = "learning_rate"
RATE_FACTOR: Final = 10.0
"""Learning rates are tried from the task's divided by this to the task's times this."""

Bounds = Mapping[str, tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Space:
    """A loss, and what is tuned of it.

    Args:
        spec: the loss as taken by :func:`lossevo.losses.from_spec`.
        dimensions: what is tuned.
        own_rate: the learning rate of its trainings where that is not tuned; None: the task's.
    """

    spec: Mapping[str, Any]
    dimensions: tuple[Dimension, ...]
    own_rate: float | None = None

    @classmethod
    def of(
        cls,
        spec: Mapping[str, Any],
        what: Collection[What],
        *,
        learning_rate: float,
        bounds: Bounds,
        own_rate: float | None = None,
    ) -> Space:
        """The space of a loss: its learning rate around its own, else the task's ``learning_rate``, and the parameters
        in :data:`~lossevo.losses.learnable.LEARNABLE`. ``bounds`` are narrower ones by name; names that this loss has
        not are left to others.

        Raises:
            LossevoError: bounds beyond those of a parameter, or a loss whose own value lies outside its bounds.
        """
        found = []
        if "lr" in what:
            start = own_rate or learning_rate
            low, high = start / RATE_FACTOR, start * RATE_FACTOR
            found.append(Dimension(LEARNING_RATE, low, high, start, by_logarithm=True))
        if "parameters" in what:
            found += dimensions(spec)
        return cls(spec, tuple(_within(dimension, bounds, spec) for dimension in found), own_rate)

    @property
    def names(self) -> tuple[str, ...]:
        """What is tuned, in order."""
        return tuple(dimension.name for dimension in self.dimensions)

    @property
    def start(self) -> dict[str, float]:
        """The values that the loss has untuned, not rounded."""
        return {dimension.name: dimension.start for dimension in self.dimensions}

    def rounded(self, values: Mapping[str, float]) -> dict[str, float]:
        """Values in four significant digits."""
        return {dimension.name: dimension.rounded(values[dimension.name]) for dimension in self.dimensions}

    def placed(self, values: Mapping[str, float]) -> tuple[dict[str, Any], float | None]:
        """The loss with these values, and the learning rate if it is not the task's."""
        chosen = placed((found for found in self.dimensions if found.name != LEARNING_RATE), values)
        spec = dict(self.spec)
        if chosen:
            spec["parameters"] = {**spec.get("parameters", {}), **chosen}
        return spec, values.get(LEARNING_RATE, self.own_rate)


def require_known(bounds: Bounds, spaces: Collection[Space]) -> None:
    """Refuse bounds of what none of the losses has.

    Raises:
        LossevoError: as it says.
    """
    known = {name for space in spaces for name in space.names}
    for name in bounds:
        if name not in known:
            raise LossevoError(
                f"--bounds: {name} is not tuned{nearest(name, known)}; tuned are {', '.join(sorted(known))}"
            )


def told(values: Mapping[str, float]) -> str:
    """``learning rate 0.021, w_fp 0.31``."""
    return ", ".join(
        f"{'learning rate' if name == LEARNING_RATE else name} {value:g}" for name, value in values.items()
    )


def _within(dimension: Dimension, bounds: Bounds, spec: Mapping[str, Any]) -> Dimension:
    """The dimension with the bounds that were given for it, if any were."""
    name, loss = dimension.name, spec.get("name", "the loss")
    low, high = bounds.get(name, (dimension.low, dimension.high))
    least = 0.0 if name == LEARNING_RATE else dimension.low
    most = float("inf") if name == LEARNING_RATE else dimension.high
    if not least <= low < high <= most or (dimension.by_logarithm and low <= 0):
        allowed = "above 0" if name == LEARNING_RATE else f"within {least:g} to {most:g}"
        raise LossevoError(
            f"--bounds: {name} of {loss} from {low:g} to {high:g}; expected a lower and a higher bound {allowed}"
        )
    if not low <= dimension.start <= high:
        raise LossevoError(
            f"{name} of {loss} is {dimension.start:g}, outside the bounds {low:g} to {high:g} within which it is "
            "tuned; start it within them, or give others with --bounds"
        )
    return replace(dimension, low=low, high=high)
