"""What a search maximises: one metric, or a weighted sum of several."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from lossevo.errors import LossevoError, shown
from lossevo.metrics.aggregate import mean_over_cases
from lossevo.metrics.field_of_view import FieldOfView
from lossevo.metrics.metric import Direction, Metric, parse_metric

LARGEST_WEIGHT, SMALLEST_WEIGHT = 1e6, 1e-6

_MINUS = re.compile(r"(?<!@)-")  # nsd@-2mm is a matter of its tolerance
_WEIGHT = re.compile(r"\d+\.?\d*|\.\d+", re.ASCII)
_EXAMPLE = "write it as 'dice', 'nsd@2mm' or '0.5*dice+0.5*nsd@2mm'"


@dataclass(frozen=True)
class Objective:
    """One metric, or a weighted sum of several, that turns values into a utility: larger is always better.

    The utility is Σ weight · value over metrics where higher is better, less Σ weight · value over those where lower is
    better. So ``hd95`` has the utility -hd95, and ``dice+0.01*hd95`` has dice - 0.01 · hd95. Weights are above 0.

    Attributes:
        terms: (weight, metric), in the order in which they were given. A metric alone has weight 1.
    """

    terms: tuple[tuple[float, Metric], ...]

    @classmethod
    def parse(cls, text: str) -> Objective:
        """An objective from its name, as ``dice``, ``hd95`` or ``0.5*dice+0.5*nsd@2mm``.

        Raises:
            LossevoError: a term is neither a metric nor ``weight*metric``. A weight is not from 0.000001 to 1000000, or
                a metric alone has another than 1. A metric appears twice, or is a volume error.
        """
        if _MINUS.search(text):
            raise LossevoError(
                f"objective {shown(text)} has a minus sign; join terms by '+': "
                "a metric where lower is better is subtracted anyway, as in 'dice+0.01*hd95'"
            )
        terms = tuple(_term(term, text) for term in text.split("+"))
        names = [metric.name for _, metric in terms]
        for _, metric in terms:
            if names.count(metric.name) > 1:
                raise LossevoError(f"objective {shown(text)} has {metric.name} twice; add up its weights")
            if not metric.is_bounded:
                raise LossevoError(
                    f"objective {shown(text)}: {metric.name} cannot be one, for it knows the size of a structure "
                    f"and not its place; {_EXAMPLE}"
                )
        if len(terms) == 1 and terms[0][0] != 1:
            raise LossevoError(f"objective {shown(text)} is one metric with a weight; write '{names[0]}'")
        return cls(terms)

    @property
    def name(self) -> str:
        """As it is parsed: ``0.5*dice+0.5*nsd@2mm``; equal objectives have equal names."""
        return "+".join(
            metric.name if weight == 1 else f"{_plain(weight)}*{metric.name}" for weight, metric in self.terms
        )

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """The metrics that must be measured."""
        return tuple(metric for _, metric in self.terms)

    @property
    def unit(self) -> str:
        """The unit that all metrics share; empty if they share none."""
        units = {metric.unit for metric in self.metrics}
        return units.pop() if len(units) == 1 else ""

    @property
    def title(self) -> str:
        """The heading of its values: ``Dice``, ``hd95 (mm)``."""
        name = "Dice" if self.name == "dice" else self.name
        return f"{name} ({self.unit})" if self.unit else name

    @property
    def direction(self) -> Direction:
        """Whether higher or lower :meth:`displayed` values are better."""
        return "lower" if self._is_shown_negated else "higher"

    def utility(self, values: Mapping[str, float | None]) -> float | None:
        """Utility of one class of one case; None where the reference lacks the class.

        Args:
            values: metric name → value, as :func:`~lossevo.metrics.evaluate` returns it of a class.

        Raises:
            KeyError: a metric of this objective was not measured.
        """
        measured = [(weight, metric, values[metric.name]) for weight, metric in self.terms]
        found = [_signed(weight, metric) * value for weight, metric, value in measured if value is not None]
        return sum(found) if len(found) == len(measured) else None

    def mean_utility(self, cases: Iterable[Iterable[Mapping[str, float | None]]]) -> float:
        """Mean utility over classes within each case, then over cases.

        Args:
            cases: the values of each class, for each case.

        Raises:
            ValueError: no case has a class that its reference has.
        """
        return mean_over_cases([self.utility(values) for values in case] for case in cases)

    def worst(self, view: FieldOfView) -> float:
        """Utility of a class that the prediction lacks, and of a failed training, on an image; none is smaller."""
        return sum(_signed(weight, metric) * metric.worst_value(view, 0.0) for weight, metric in self.terms)

    @property
    def best(self) -> float:
        """Utility of a perfect prediction; none is larger."""
        return sum(weight for weight, metric in self.terms if metric.direction == "higher")

    def displayed(self, utility: float) -> float:
        """A utility as people read it, in :attr:`unit`: of a metric alone, that metric's value."""
        return 0.0 - utility if self._is_shown_negated else utility

    @property
    def _is_shown_negated(self) -> bool:
        return len(self.terms) == 1 and self.metrics[0].direction == "lower"


def _plain(weight: float) -> str:
    """Twelve digits without an exponent, which has a sign of its own."""
    return np.format_float_positional(weight, precision=12, fractional=False, trim="-")


def _signed(weight: float, metric: Metric) -> float:
    return weight if metric.direction == "higher" else -weight


def _term(term: str, text: str) -> tuple[float, Metric]:
    """Weight and metric of ``0.5*dice`` or ``dice``."""
    head, times, tail = (part.strip() for part in term.partition("*"))
    weight, name = (head, tail) if times else ("1", head)
    if not name or "*" in name:
        raise LossevoError(f"objective {shown(text)} has a term {shown(term)}; {_EXAMPLE}")
    number = float(weight) if _WEIGHT.fullmatch(weight) else None
    if number is None or not SMALLEST_WEIGHT <= number <= LARGEST_WEIGHT:
        raise LossevoError(
            f"objective {shown(text)} has weight {shown(weight)}, expected a number from "
            f"{SMALLEST_WEIGHT:f} to {LARGEST_WEIGHT:.0f}; {_EXAMPLE}"
        )
    return number, parse_metric(name)
