"""The horizon of a search that states none: the length at which nnU-Net's loss has flattened on this cohort."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from lossevo.cluster import Status
from lossevo.errors import LossevoError, ResumableError
from lossevo.experiment.scoring import Scoring
from lossevo.experiment.trainings import OrderedTrainings
from lossevo.losses import expression_of
from lossevo.losses.definitions import spec_of
from lossevo.search.plan import HORIZON, Plan
from lossevo.search.problem import Problem
from lossevo.search.space import SearchSpace
from lossevo.training.seeds import reference_seed

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


def find_horizon(
    problem: Problem,
    space: SearchSpace,
    seed: int,
    trainings: OrderedTrainings,
    told: Callable[[str, str, int], None],
) -> int:
    """Train the reference on ``trainings`` until it has flattened; returns the horizon that the budget affords.

    ``told`` is called with a kind of event, a message, and the steps reached.

    Raises:
        ResumableError: a training of the reference failed.
    """
    scoring = problem.scoring

    def measure(steps: int, shorter: int | None) -> list[float]:
        for number in range(SEEDS):
            trial = problem.trial(
                spec_of(expression_of(REFERENCE)),
                steps,
                reference_seed(seed, number),
                continues=shorter if problem.continues else None,
            )
            keeps = problem.continues
            trainings.request(trial, phase=HORIZON, candidate=REFERENCE, calibrating=True, keeps=keeps)
        trainings.send()
        taken = [trainings.take() for _ in range(SEEDS)]
        for each in taken:
            if each.measurement is None:  # its worst score would look like a course that has flattened
                again = "go on with --retry-failed, or " if each.outcome.status is not Status.DIVERGED else ""
                raise ResumableError(
                    f"{trainings.ledger.path}: a training of {REFERENCE} that finds the horizon failed after at most "
                    f"{steps} steps ({each.problem}); {again}begin a run with --horizon STEPS"
                )
        utilities = [scoring.utility(each.measurement) for each in taken]
        told("training", f"{REFERENCE} {scoring.told(statistics.fmean(utilities))} after {steps} steps", steps)
        return utilities

    found = find_flattening(measure, problem.shortest, unit=scoring.range)
    trainings.clear_states()
    horizon = affordable(space, problem.shortest, found.steps)
    cut = "" if horizon == found.steps else f"; the budget is enough for a horizon of {horizon}"
    told("phase", f"{HORIZON}: {horizon} steps; {found.told(scoring)}{cut}", found.steps)
    return horizon
