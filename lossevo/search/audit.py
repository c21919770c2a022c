"""An audit of the screening: some of what it rejected is trained all the same.

While a search runs, a sample of what each numeric check rejects is kept beside its record: those whose hash, mixed with
the run's seed, is smallest. So it depends neither on the order nor on how often a run was resumed. After the
confirmation the audit trains as many as are asked for, in a ledger of its own: the course of the search knows nothing
of it.
"""

from __future__ import annotations

import hashlib
import json
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from lossevo.cluster import Executor
from lossevo.configuration_file import checked
from lossevo.experiment.archive import Archive
from lossevo.experiment.folder import read_json, write_json
from lossevo.experiment.ledger import MAY_BRANCH, Ledger
from lossevo.experiment.ledger_values import Place
from lossevo.experiment.trainings import OrderedTrainings
from lossevo.expression import Expression
from lossevo.losses.definitions import spec_of
from lossevo.search.problem import Problem
from lossevo.search.screening import Check
from lossevo.training.seeds import audit_seed

AUDITED = (Check.FINITE, Check.FLAT, Check.EQUIVALENT, Check.DESCENT)
KEPT = 32
"""So many of what each check rejected are kept."""
LEDGER = "audit.sqlite"
FILE = "audit.json"
WANTED = "audit_screening"
"""The fact that says how many are trained."""
_REJECTS = "rejects"


@dataclass(frozen=True, slots=True)
class Reject:
    """What a check rejected."""

    check: Check
    expression: Expression


class Rejects:
    """A sample of what each numeric check of a search rejected; ``seed`` is the search's."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._kept: dict[Check, dict[str, Expression]] = {check: {} for check in AUDITED}
        self._changed = False

    def see(self, check: Check, expression: Expression | None) -> None:
        """Know of a rejection."""
        if check not in self._kept or expression is None:
            return
        kept, place = self._kept[check], self._place(expression)
        if place in kept or (len(kept) == KEPT and place > max(kept)):
            return
        kept[place] = expression
        if len(kept) > KEPT:
            del kept[max(kept)]
        self._changed = True

    def _place(self, expression: Expression) -> str:
        return hashlib.sha256(f"{self._seed}/{expression.hash}".encode()).hexdigest()

    def __len__(self) -> int:
        return sum(len(kept) for kept in self._kept.values())

    def drawn(self, count: int) -> list[Reject]:
        """So many, of each check in turn; fewer if fewer are kept."""
        ordered = [
            [Reject(check, expression) for _, expression in sorted(kept.items(), key=lambda item: item[0])]
            for check, kept in self._kept.items()
        ]
        turns = (reject for turn in zip_longest(*ordered) for reject in turn if reject is not None)
        return [*turns][:count]

    def keep(self, ledger: Ledger) -> None:
        """Write the sample into a ledger if it has changed."""
        if self._changed:
            kept = {check.value: [loss.to_json() for loss in kept.values()] for check, kept in self._kept.items()}
            ledger.record_text(_REJECTS, json.dumps(kept))
            self._changed = False

    def restore(self, ledger: Ledger) -> None:
        """Know what the ledger holds.

        Raises:
            LossevoError: it holds something else.
        """
        text = ledger.text(_REJECTS)
        if text is None:
            return
        document = Place(ledger.path, "texts", _REJECTS).document(text)
        for check in AUDITED:
            for loss in document.get(check.value, []):
                self.see(check, Expression.from_json(loss))
        self._changed = False


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Audited(_Model):
    """A rejected candidate that was trained; without a score where the training failed."""

    check: Check
    formula: str
    score: float | None
    in_top_half: bool


class Audit(_Model):
    """What became of rejected candidates.

    ``median`` is the score above which the better half of the search's candidates lies, after ``steps`` steps.
    """

    format: Literal["lossevo.audit/1"] = "lossevo.audit/1"
    asked: int
    steps: int
    median: float
    candidates: tuple[Audited, ...]

    def of(self, check: Check) -> list[Audited]:
        """What a check rejected."""
        return [candidate for candidate in self.candidates if candidate.check is check]


@dataclass(frozen=True, slots=True)
class Auditing:
    """What an audit needs of a finished search: what it optimises for, its seed, and the scores to compare with."""

    folder: Path
    problem: Problem
    seed: int
    rejects: Rejects
    archive: Archive
    step_limit_s: float | None

    def run(self, count: int, executor: Callable[[], Executor], told: Callable[[str], None]) -> None:
        """Train so many rejected candidates, or take their scores from the audit's ledger, and write ``audit.json``.

        ``told`` is called with a line for each.
        """
        rejects, steps = self.rejects.drawn(count), self.problem.shortest
        utilities = [candidate.mean(steps) for candidate in self.archive.trained(steps)]
        path = self.folder / LEDGER
        with Ledger(path, create=not path.exists()) as ledger:
            # A search that was given more budget may have rejected others since.
            ledger.record_fact(MAY_BRANCH, 1)
            trainings = OrderedTrainings(ledger, executor, self.step_limit_s)
            median = statistics.median(utilities)
            found = self._trained(rejects, trainings, median, told)
        shown = self.problem.scoring.objective.displayed(median)
        audit = Audit(asked=count, steps=steps, median=shown, candidates=tuple(found))
        write_json(self.folder / FILE, audit.model_dump(mode="json"))

    def _trained(
        self, rejects: Sequence[Reject], trainings: OrderedTrainings, median: float, told: Callable[[str], None]
    ) -> list[Audited]:
        for number, reject in enumerate(rejects):
            trial = self.problem.trial(spec_of(reject.expression), self.problem.shortest, audit_seed(self.seed, number))
            trainings.request(trial, phase="audit", candidate=reject.expression.hash[:8])
        trainings.send()
        displayed = self.problem.scoring.objective.displayed
        found = []
        for reject in rejects:
            taken = trainings.take()
            utility = self.problem.scoring.utility(taken.measurement)
            score = displayed(utility) if taken.measurement is not None else None
            found.append(
                Audited(check=reject.check, formula=str(reject.expression), score=score, in_top_half=utility > median)
            )
            result = self.problem.scoring.told(utility) if taken.measurement is not None else taken.problem
            told(f"{reject.expression.hash[:8]} {result}  rejected as {reject.check}")
        return found


def read_audit(folder: Path) -> Audit | None:
    """The audit of a run folder; None if it has none.

    Raises:
        LossevoError: the file is damaged.
    """
    path = folder / FILE
    return checked(Audit, read_json(path), str(path)) if path.is_file() else None
