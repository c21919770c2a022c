"""The horizon of a search that states none: the length at which nnU-Net's loss has flattened on this cohort."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from lossevo.errors import LossevoError
from lossevo.experiment.scoring import Scoring
from lossevo.search.plan import Plan
from lossevo.search.space import SearchSpace

REFERENCE: Final = "dice_ce"
SEEDS: Final = 3
FLAT: Final = 0.01
"""A gain by twice the steps that is less than this part of the objective's range: the shorter training was enough."""
MOST_DOUBLINGS: Final = 5
"""A horizon is at most so many times twice the shortest training."""

Measure = Callable[[int, int | None], Sequence[float]]
"""Utilities of the reference, one for each seed, after so many steps; the trainings continue those of the other length
if one is given.
"""


@dataclass(frozen=True, slots=True)
class Flattening:
    """What the reference scored after how many steps, and from where on more steps bring little."""

    scores: Mapping[int, float]
    steps: int
    flat: bool

    def told(self, scoring: Scoring) -> str:
        """In a sentence."""
        course = ", ".join(f"{scoring.told(score)} after {steps}" for steps, score in self.scores.items())
        if self.flat:
            return f"{REFERENCE} gains little beyond {self.steps} steps: {course}"
        return f"{REFERENCE} still gains at {self.steps} steps, the longest that are tried: {course}"


def find_flattening(measure: Measure, shortest: int, *, unit: float) -> Flattening:
    """Train the reference twice as long again and again, until that brings less than :data:`FLAT` · ``unit``."""
    scores = {shortest: statistics.fmean(measure(shortest, None))}
    steps = shortest
    for _ in range(MOST_DOUBLINGS):
        longer = 2 * steps
        scores[longer] = statistics.fmean(measure(longer, steps))
        if scores[longer] - scores[steps] < FLAT * unit:
            return Flattening(scores, steps, flat=True)
        steps = longer
    return Flattening(scores, steps, flat=False)


def affordable(space: SearchSpace, shortest: int, steps: int) -> int:
    """The horizon up to ``steps``, halved as often as the budget demands: half of it is to find losses."""
    while steps > shortest:
        try:
            plan = Plan.of_space(space, shortest=shortest, horizon=steps)
        except LossevoError:
            pass
        else:
            if plan.confirmation <= plan.selection:
                break
        steps //= 2
    return steps
