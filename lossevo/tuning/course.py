"""The course of one tuning: which values are tried next, which trainings go on, which values are confirmed.

Optuna's TPE sampler (Bergstra et al. 2011) proposes values, and asynchronous successive halving (ASHA; Li et al., MLSys
2020) ends trainings early: at each rung a training goes on if its utility reaches that of the upper half there.

Values are proposed in waves. What a wave is asked and told depends on the waves before it alone. So the course is the
same whatever the number of workers, and in whatever order trainings end. A course is resumed by telling it again what
is on record.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal

import numpy as np

from lossevo.experiment.candidate import standard_error
from lossevo.training import Trial
from lossevo.training.seeds import tuning_confirmation_seed, tuning_seed
from lossevo.tuning.problem import Problem
from lossevo.tuning.settings import TuningSettings
from lossevo.tuning.space import told

if TYPE_CHECKING:
    import optuna

REDUCTION: Final = 2
"""ASHA's η: the best 1/η go on from a rung."""
_MAX_SAMPLER_SEED: Final = 2**32 - 1
State = Literal["open", "stopped", "failed", "ended", "lost"]


def quiet_study(
    direction: Literal["minimize", "maximize"], sampler: optuna.samplers.BaseSampler | None = None
) -> optuna.Study:
    """A new study in memory, of which Optuna's log says nothing; what else Optuna logs is left alone."""
    import optuna

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        return optuna.create_study(direction=direction, sampler=sampler)
    finally:
        optuna.logging.set_verbosity(before)


@dataclass(slots=True)
class Attempt:
    """Values that are tried in one training.

    Attributes:
        number: from 0; 0 has the untuned values.
        values: by name.
        seed: of the training.
        confirms: the number of the attempt whose values are confirmed; None while values are searched.
        utilities: step -> utility, at the rungs reached.
        losses: how often its worker was lost.
        state: ``open``; ``stopped`` at a rung; ``failed`` with the worst utility; ``ended`` after all its steps;
            ``lost`` by its machine, so without a score.
    """

    number: int
    values: dict[str, float]
    seed: int
    confirms: int | None = None
    utilities: dict[int, float] = field(default_factory=dict)
    losses: int = 0
    state: State = "open"

    def __str__(self) -> str:
        return told(self.values)

    @property
    def utility(self) -> float:
        """At the last rung reached; nan if there is none."""
        return self.utilities[max(self.utilities)] if self.utilities else math.nan


@dataclass(frozen=True, slots=True)
class Confirmed:
    """Values and their utilities with fresh ``seeds``: those of the trainings that were not lost."""

    number: int
    values: Mapping[str, float]
    utilities: tuple[float, ...]
    seeds: tuple[int, ...]

    def __str__(self) -> str:
        return told(self.values)

    @property
    def mean(self) -> float:
        """Of the utilities."""
        return statistics.fmean(self.utilities)

    @property
    def standard_error(self) -> float:
        """Of the mean; nan with one seed."""
        return standard_error([*self.utilities])


class Course:
    """One tuning from its first proposal to the values that are kept.

    Attributes:
        problem: what is tuned.
        settings: how.
        attempts: all that were asked for, by number.
    """

    def __init__(self, problem: Problem, settings: TuningSettings) -> None:
        import optuna

        self.problem, self.settings = problem, settings
        self.rungs = problem.rungs
        self.attempts: list[Attempt] = []
        self._finalists: tuple[int, ...] | None = None
        self._distributions: dict[str, optuna.distributions.BaseDistribution] = {
            d.name: optuna.distributions.FloatDistribution(d.low, d.high, log=d.by_logarithm)
            for d in problem.space.dimensions
        }
        seed = tuning_seed(problem.seed, problem.place) % _MAX_SAMPLER_SEED
        self._study = quiet_study("maximize", optuna.samplers.TPESampler(seed=seed))
        self._asked: list[optuna.Trial] = []
        self._told = 0

    # Asking

    def ask(self) -> Attempt | None:
        """The next values to train with; None before others have ended, or at the end."""
        if len(self.attempts) < self.settings.trials:
            return self._ask_for_values()
        if any(attempt.state == "open" for attempt in self._tried):
            return None
        if self._finalists is None:
            self._finalists = self._best_tried()
        done = len(self.attempts) - self.settings.trials
        if done == len(self._finalists) * self.settings.seeds:
            return None
        repetition, place = divmod(done, len(self._finalists))
        confirmed = self.attempts[self._finalists[place]]
        number = self.problem.place * self.settings.seeds + repetition
        seed = tuning_confirmation_seed(self.problem.seed, number)
        return self._new(confirmed.values, seed, confirms=confirmed.number)

    def _ask_for_values(self) -> Attempt | None:
        number, window = len(self.attempts), self.settings.window
        if number % window == 0:
            if any(attempt.state == "open" for attempt in self.attempts):
                return None
            self._tell_sampler()
        space = self.problem.space
        if number == 0:
            self._study.enqueue_trial(space.start)
        proposed = self._study.ask(self._distributions)
        self._asked.append(proposed)
        values = space.start if number == 0 else space.rounded(proposed.params)
        return self._new(values, tuning_seed(self.problem.seed, self.problem.place), confirms=None)

    def _new(self, values: Mapping[str, float], seed: int, *, confirms: int | None) -> Attempt:
        attempt = Attempt(len(self.attempts), dict(values), seed, confirms)
        self.attempts.append(attempt)
        return attempt

    def _tell_sampler(self) -> None:
        """What came of the waves before, in the order of the proposals."""
        import optuna

        states = optuna.trial.TrialState
        for proposed, attempt in zip(self._asked[self._told :], self.attempts[self._told :], strict=True):
            if attempt.state == "lost":
                self._study.tell(proposed, state=states.FAIL)
                continue
            for step, utility in attempt.utilities.items():
                proposed.report(utility, step)
            if attempt.state == "stopped":
                self._study.tell(proposed, state=states.PRUNED)
            else:
                self._study.tell(proposed, attempt.utility)
        self._told = len(self._asked)

    # Being told

    def rungs_left(self, attempt: Attempt) -> tuple[int, ...]:
        """The steps at which the training is still to be validated."""
        reached = max(attempt.utilities, default=0)
        rungs = self.rungs if attempt.confirms is None else self.rungs[-1:]
        return tuple(step for step in rungs if step > reached) if attempt.state == "open" else ()

    def trial(self, attempt: Attempt, step: int) -> Trial:
        """The training of an attempt up to a rung."""
        return self.problem.trial(attempt.values, attempt.seed, step)

    def tell(self, attempt: Attempt, step: int, utility: float, *, failed: bool = False) -> bool:
        """What a training came to at a rung; returns whether it goes on."""
        attempt.utilities[step] = utility
        if failed:
            attempt.state = "failed"
        elif step == self.rungs[-1]:
            attempt.state = "ended"
        elif not self._goes_on(attempt, step):
            attempt.state = "stopped"
        return attempt.state == "open"

    def lose(self, attempt: Attempt) -> None:
        """A training's machines failed it again and again: it has no score."""
        attempt.state = "lost"

    def _goes_on(self, attempt: Attempt, step: int) -> bool:
        wave = attempt.number - attempt.number % self.settings.window
        others = [other.utilities[step] for other in self.attempts[:wave] if step in other.utilities]
        if not others:
            return True
        return attempt.utilities[step] >= float(np.percentile(others, 100 * (1 - 1 / REDUCTION)))

    # What came of it

    @property
    def _tried(self) -> list[Attempt]:
        return self.attempts[: self.settings.trials]

    def _best_tried(self) -> tuple[int, ...]:
        """The untuned values, and the best others whose trainings ended."""
        ended = sorted((a for a in self._tried[1:] if a.state == "ended"), key=lambda a: (-a.utility, a.number))
        first: dict[tuple[float, ...], int] = {}
        for attempt in ended:
            first.setdefault(tuple(attempt.values.values()), attempt.number)
        first.pop(tuple(self.attempts[0].values.values()), None)
        return (0, *list(first.values())[: self.settings.finalists])

    @property
    def total(self) -> int:
        """Trainings in all, as far as is known: those of the confirmation are counted in full before it begins."""
        finalists = 1 + self.settings.finalists if self._finalists is None else len(self._finalists)
        return self.settings.trials + finalists * self.settings.seeds

    @property
    def closed(self) -> int:
        """Trainings that are over."""
        return sum(attempt.state != "open" for attempt in self.attempts)

    @property
    def finished(self) -> bool:
        """Whether there is nothing left to train."""
        return self._finalists is not None and self.closed == len(self.attempts) == self.total

    def confirmed(self) -> tuple[Confirmed, ...]:
        """The finalists with their utilities by fresh seeds, best first, those with lost trainings last; those without
        a score are left out.
        """
        found = []
        for number in self._finalists or ():
            scored = [a for a in self.attempts if a.confirms == number and a.state in ("ended", "failed")]
            if scored:
                utilities, seeds = tuple(a.utility for a in scored), tuple(a.seed for a in scored)
                found.append(Confirmed(number, self.attempts[number].values, utilities, seeds))
        # One good training where others were lost is luck.
        return tuple(sorted(found, key=lambda entry: (-len(entry.seeds), -entry.mean, entry.number)))

    def by_rank(self) -> Iterator[Attempt]:
        """What was tried, best first: by the steps reached, then by utility."""
        scored = [attempt for attempt in self._tried if attempt.utilities]
        return iter(sorted(scored, key=lambda a: (a.state == "failed", -max(a.utilities), -a.utility, a.number)))
