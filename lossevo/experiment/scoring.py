"""What a run makes of a measurement: one number, the utility of its objective; larger is better."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Self

from lossevo.data.cohort import AnyVolume
from lossevo.metrics import Objective, mean_over_cases
from lossevo.training import Measurement
from lossevo.training.reference import reference_cases

DEFAULT_OBJECTIVE = "dice"


@dataclass(frozen=True, slots=True)
class Scoring:
    """An objective, and what a training scores that ended without a measurement.

    Attributes:
        objective: what is maximised.
        worst: utility of a failed training: the mean over the validation cases of what a prediction of nothing scores.
    """

    objective: Objective
    worst: float

    @classmethod
    def of(cls, objective: str, validated: Iterable[AnyVolume]) -> Self:
        """The scoring of trainings that are validated on these cases; those without a label do not count.

        Raises:
            LossevoError: it is no objective (:meth:`~lossevo.metrics.Objective.parse`).
            ValueError: no case has a label.
        """
        parsed = Objective.parse(objective)
        # As a mean utility is made: a training that predicts nothing scores this to the last bit.
        cases = reference_cases(validated)
        return cls(parsed, mean_over_cases([parsed.worst(case.view)] * len(case.classes) for case in cases))

    @property
    def metrics(self) -> tuple[str, ...]:
        """What each training has to measure: Dice, which curves show, and the metrics of the objective."""
        return tuple(dict.fromkeys((DEFAULT_OBJECTIVE, *(metric.name for metric in self.objective.metrics))))

    @property
    def range(self) -> float:
        """From the utility of a failed training to that of a perfect one: 1 for Dice. Settings are in parts of it."""
        return self.objective.best - self.worst

    def utility(self, measurement: Measurement | None) -> float:
        """Mean utility over the classes of each case, then over cases; the worst if there is none, or no number."""
        if measurement is None:
            return self.worst
        names = [metric.name for metric in self.objective.metrics]
        utility = self.objective.mean_utility(measurement.by_class(names))
        return utility if math.isfinite(utility) else self.worst

    def told(self, utility: float) -> str:
        """``dice 0.8123``, ``hd95 4.2100 mm``."""
        unit = f" {self.objective.unit}" if self.objective.unit else ""
        return f"{self.objective.name} {self.objective.displayed(utility):.4f}{unit}"


DICE: Final = Scoring(Objective.parse(DEFAULT_OBJECTIVE), worst=0.0)
"""Mean Dice, and 0 for a failed training."""
