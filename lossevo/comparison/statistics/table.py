"""The scores of all losses as one table of utilities: losses by subjects, larger is better."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

TIE_DECIMALS = 9
"""Values are rounded to this before they are compared: equal values that were averaged in another way are ties."""

Array = NDArray[np.float64]
Scores = Mapping[str, Mapping[str, float]]
"""Loss → subject → value of a metric."""


@dataclass(frozen=True, slots=True, eq=False)
class ScoreTable:
    """``utilities`` (losses, subjects): the metric where higher is better, else minus the metric."""

    losses: tuple[str, ...]
    subjects: tuple[str, ...]
    utilities: Array

    @property
    def by_mean(self) -> list[int]:
        """The losses, as places in ``losses``, the best mean first; ties stay in their order."""
        return sorted(range(len(self.losses)), key=lambda place: -round(self.utilities[place].mean(), TIE_DECIMALS))


def score_table(scores: Scores, *, higher_is_better: bool = True) -> ScoreTable:
    """The table of ``scores``: losses in their order, subjects sorted.

    Raises:
        ValueError: no loss or subject, losses with different subjects, or a value that is no finite number.
    """
    if not scores:
        raise ValueError("no loss has a score")
    first, subjects = next(iter(scores)), sorted(next(iter(scores.values())))
    if not subjects:
        raise ValueError("no subject has a defined score")
    for loss, values in scores.items():
        if alone := sorted(values.keys() ^ set(subjects)):
            raise ValueError(
                f"only one of the two losses has a score of subject {alone[0]} ({first}, {loss}); give both the same "
                "subjects"
            )
        require_finite(values, loss)
    sign = 1.0 if higher_is_better else -1.0
    utilities = sign * np.array([[values[subject] for subject in subjects] for values in scores.values()])
    return ScoreTable(tuple(scores), tuple(subjects), utilities)


def require_finite(values: Mapping[str, float], loss: str = "the loss") -> None:
    """Refuse what no mean can be taken of.

    Raises:
        ValueError: a value is NaN or infinite.
    """
    for subject, value in values.items():
        if not math.isfinite(value):
            raise ValueError(f"{loss}, subject {subject}: the score is {value}; give a finite number")
