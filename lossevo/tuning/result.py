"""What a tuning came to: the values that are kept, what they gain, and how much each value matters."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import scipy

from lossevo.errors import LossevoError
from lossevo.experiment.candidate import standard_error
from lossevo.experiment.scoring import Scoring
from lossevo.tuning.course import Attempt, Confirmed, Course, quiet_study

if TYPE_CHECKING:
    import optuna

_BEST_SHARE: Final = 0.25
"""Of the values tried: a parameter matters if the best of them differ from all in it."""

_LEAST_RANKED: Final = 3


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """How much a tuned value matters.

    Attributes:
        name: of the parameter, or ``learning_rate``.
        low: lower bound of the search.
        high: upper bound of the search.
        untuned: the value before.
        tuned: the value that is kept.
        importance: share of it in how the best quarter of the values tried differ from all (PED-ANOVA; Watanabe et al.,
            IJCAI 2023); all shares sum to 1. None if too few were tried.
        best: the least and the largest value in the best quarter; None if no training of the search has a score.
    """

    name: str
    low: float
    high: float
    untuned: float
    tuned: float
    importance: float | None
    best: tuple[float, float] | None


@dataclass(frozen=True, slots=True)
class TuningResult:
    """A tuned loss.

    Attributes:
        label: the loss's name, and the fold if there is one.
        name: of the loss.
        fold: inside which it was tuned, from 1; None: of none.
        scoring: of its trainings.
        spec: the loss with the values that are kept.
        learning_rate: with them; None: the task's.
        kept: those values, with their utilities by fresh seeds.
        untuned: the values before, likewise; None if all their trainings were lost.
        confirmed: all values that were confirmed, best first.
        sensitivities: one for each value that was tuned.
        rungs: step -> Kendall's τ between utilities there and at the end, of the first wave, which is never ended
            early; nan for fewer than three trainings.
        attempts: all trainings.
    """

    label: str
    name: str
    fold: int | None
    scoring: Scoring
    spec: Mapping[str, Any]
    learning_rate: float | None
    kept: Confirmed
    untuned: Confirmed | None
    confirmed: tuple[Confirmed, ...]
    sensitivities: tuple[Sensitivity, ...]
    rungs: Mapping[int, float]
    attempts: tuple[Attempt, ...]

    @classmethod
    def of(cls, course: Course) -> TuningResult:
        """That of a finished course.

        Raises:
            LossevoError: no training of it has a score.
        """
        problem, confirmed = course.problem, course.confirmed()
        if not confirmed:
            raise LossevoError(
                f"{problem.label}: all trainings that should confirm its values were lost; resume with --retry-failed"
            )
        kept = confirmed[0]
        spec, rate = problem.space.placed(kept.values)
        return cls(
            label=problem.label,
            name=problem.name,
            fold=problem.fold,
            scoring=problem.scoring,
            spec=spec,
            learning_rate=rate,
            kept=kept,
            untuned=next((entry for entry in confirmed if entry.number == 0), None),
            confirmed=confirmed,
            sensitivities=_sensitivities(course, kept),
            rungs=_agreement(course),
            attempts=tuple(course.attempts),
        )

    @property
    def gain(self) -> tuple[float, float] | None:
        """Mean and standard error, over seeds, of the utility with the values kept minus that without.

        None if the untuned values were kept, or the two have not scores of the same seeds.
        """
        if self.untuned is None or self.kept is self.untuned:
            return None
        if self.untuned.seeds != self.kept.seeds:
            return None
        gains = [new - old for new, old in zip(self.kept.utilities, self.untuned.utilities, strict=True)]
        return sum(gains) / len(gains), standard_error(gains)


def _sensitivities(course: Course, kept: Confirmed) -> tuple[Sensitivity, ...]:
    ranked = list(course.by_rank())
    shares = _importances(course, ranked)
    best = ranked[: max(1, round(_BEST_SHARE * len(ranked)))]
    return tuple(
        Sensitivity(
            name=d.name,
            low=d.low,
            high=d.high,
            untuned=d.start,
            tuned=kept.values[d.name],
            importance=shares.get(d.name),
            best=(min(a.values[d.name] for a in best), max(a.values[d.name] for a in best)) if best else None,
        )
        for d in course.problem.space.dimensions
    )


def _importances(course: Course, ranked: Sequence[Attempt]) -> dict[str, float]:
    """PED-ANOVA over the ranks: which training was ended early does not matter to it, only who is among the best."""
    dimensions = course.problem.space.dimensions
    if len(ranked) < 2 / _BEST_SHARE:
        return {}
    import optuna

    study = quiet_study("minimize")
    distributions: dict[str, optuna.distributions.BaseDistribution] = {
        d.name: optuna.distributions.FloatDistribution(d.low, d.high, log=d.by_logarithm) for d in dimensions
    }
    for rank, attempt in enumerate(ranked):
        study.add_trial(
            optuna.trial.create_trial(params=attempt.values, distributions=distributions, value=float(rank))
        )
    evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=_BEST_SHARE)
    return dict(optuna.importance.get_param_importances(study, evaluator=evaluator))


def _agreement(course: Course) -> dict[int, float]:
    wave = [a for a in course.attempts[: min(course.settings.window, course.settings.trials)] if a.state == "ended"]
    *rungs, last = course.rungs
    if len(wave) < _LEAST_RANKED:
        return dict.fromkeys(rungs, math.nan)
    end = [attempt.utilities[last] for attempt in wave]
    return {step: float(scipy.stats.kendalltau([a.utilities[step] for a in wave], end).statistic) for step in rungs}
