"""Is it only a learning rate? The best evolved and the best hand-crafted loss at several learning rates.

A loss that is another one times a factor, or with a term weighted more, may lead at the task's rate and nowhere else.
After the confirmation both are trained at each rate, with the seeds of the confirmation, in a ledger of their own: the
course of the search knows nothing of it. The lead is that of means at the rates that are best for each, chosen on the
same trainings.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from lossevo.cluster import Executor
from lossevo.configuration_file import checked
from lossevo.experiment.folder import read_json, write_json
from lossevo.experiment.hall_of_fame import Entry
from lossevo.experiment.ledger import MAY_BRANCH, Ledger
from lossevo.experiment.trainings import OrderedTrainings
from lossevo.search.problem import Problem
from lossevo.training.seeds import confirmation_seed

LEDGER = "learning_rates.sqlite"
FILE = "learning_rates.json"
WANTED = "learning_rates"
"""The text that says which rates are tried."""


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class AtRate(_Model):
    """The utilities of a loss at a learning rate, one for each seed."""

    rate: float
    utilities: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Over seeds."""
        return statistics.fmean(self.utilities)


class Swept(_Model):
    """A loss at all rates."""

    id: str
    name: str
    rates: tuple[AtRate, ...]

    @property
    def best(self) -> AtRate:
        """The rate with the largest mean; of equals the first."""
        return max(self.rates, key=lambda at: at.mean)


class Sweep(_Model):
    """The best evolved and the best hand-crafted loss at the same rates, after ``steps`` steps."""

    format: Literal["lossevo.learning-rates/1"] = "lossevo.learning-rates/1"
    steps: int
    evolved: Swept
    hand_crafted: Swept

    @property
    def lead(self) -> tuple[float, float]:
        """Of the evolved loss, each at its best rate, and its standard error, paired by seed; nan of one seed."""
        pairs = zip(self.evolved.best.utilities, self.hand_crafted.best.utilities, strict=True)
        differences = [ours - theirs for ours, theirs in pairs]
        error = statistics.stdev(differences) / math.sqrt(len(differences)) if len(differences) > 1 else math.nan
        return statistics.fmean(differences), error

    def texts(self, unit: str, displayed: Callable[[float], float]) -> list[str]:
        """In sentences; ``displayed`` makes a utility what people read."""
        unit = f" {unit}" if unit else ""
        told = []
        for loss in (self.evolved, self.hand_crafted):
            course = ", ".join(f"{displayed(at.mean):.4f}{unit} at {at.rate:g}" for at in loss.rates)
            told.append(f"Learning rates, {self.steps} steps, {len(loss.best.utilities)} seeds: {loss.name} {course}.")
        lead, error = self.lead
        verdict = (
            "the lead vanishes there"
            if lead <= 0
            else "the lead is within two standard errors there"
            if not lead > 2 * error
            else "the lead is not the learning rate's"
        )
        known = "" if math.isnan(error) else f" ± {error:.4f}"
        told.append(f"Each at its best rate, the evolved loss leads by {lead:+.4f}{known}{unit} (SE): {verdict}.")
        return told


@dataclass(frozen=True, slots=True)
class Sweeping:
    """What a sweep needs of a finished search: what it optimises for, its seed, and how many seeds confirm."""

    folder: Path
    problem: Problem
    seed: int
    seeds: int
    step_limit_s: float | None

    def run(
        self,
        entries: Sequence[Entry],
        rates: Sequence[float],
        executor: Callable[[], Executor],
        told: Callable[[str], None],
    ) -> None:
        """Train the best confirmed of both kinds at each rate, or take what is on record, and write the result.

        Nothing is done if one kind has none that is confirmed.
        """
        scoring = self.problem.scoring
        confirmed = [entry for entry in entries if entry.confirmed]
        evolved = next((entry for entry in confirmed if not entry.literature), None)
        known = next((entry for entry in confirmed if entry.literature), None)
        if evolved is None or known is None:
            told("no evolved or no hand-crafted loss is confirmed, so there is nothing to compare at other rates")
            return
        path = self.folder / LEDGER
        with Ledger(path, create=not path.exists()) as ledger:
            ledger.record_fact(MAY_BRANCH, 1)  # a search that was given more budget may have another winner
            trainings = OrderedTrainings(ledger, executor, self.step_limit_s)
            asked = [*product((evolved, known), rates, range(self.seeds))]
            for entry, rate, number in asked:
                seed = confirmation_seed(self.seed, number)
                trial = self.problem.trial(entry.loss, self.problem.horizon, seed, learning_rate=rate)
                trainings.request(trial, phase="learning rates", candidate=entry.id)
            trainings.send()
            found: dict[tuple[str, float], list[float]] = {}
            for entry, rate, _ in asked:
                utility = scoring.utility(trainings.take().measurement)
                found.setdefault((entry.id, rate), []).append(utility)
                told(f"{entry.id} {scoring.told(utility)} at a learning rate of {rate:g}")

        def swept(entry: Entry, name: str) -> Swept:
            at = tuple(AtRate(rate=rate, utilities=tuple(found[entry.id, rate])) for rate in rates)
            return Swept(id=entry.id, name=name, rates=at)

        sweep = Sweep(
            steps=self.problem.horizon,
            evolved=swept(evolved, evolved.id),
            hand_crafted=swept(known, str(known.literature)),
        )
        write_json(self.folder / FILE, sweep.model_dump(mode="json"))


def read_sweep(folder: Path) -> Sweep | None:
    """That of a run folder; None if it has none.

    Raises:
        LossevoError: the file is damaged.
    """
    path = folder / FILE
    return checked(Sweep, read_json(path), str(path)) if path.is_file() else None
