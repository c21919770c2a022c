"""The run folder of a search: what was asked, who was trained on, every outcome, the hall of fame. Made once, resumed
as often as needed.

::

    run.json             configuration: search space, task, cohort, seed; the course of the search depends on it alone
    ledger.sqlite        every training and its outcome
    hall_of_fame.json    the ranking, and hall_of_fame.csv
    horizon.sqlite       of --horizon auto: the trainings that found it
    findings.json        in the end: noise, agreement of lengths, overtuning
    states               where trainings stand that may be continued; gone in the end
    learning_rates.json  winner and best hand-crafted loss at other learning rates; learning_rates.sqlite: trainings
    audit.json           what became of rejected candidates, if it was asked for; audit.sqlite: their trainings

and what :mod:`lossevo.experiment.study` describes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from lossevo.cluster import Executor, WorkerSpec
from lossevo.configuration_file import checked, updated
from lossevo.errors import LossevoError, ResumableError
from lossevo.experiment import hall_of_fame, study
from lossevo.experiment.events import Event, Listener
from lossevo.experiment.folder import locked, write_json
from lossevo.experiment.kinds import SEARCH, read_document
from lossevo.experiment.ledger import Ledger
from lossevo.experiment.states import States
from lossevo.experiment.study import PrepareProgress, Study, Subjects
from lossevo.experiment.trainings import TRAINING_WORKER, OrderedTrainings
from lossevo.search import audit
from lossevo.search.engine import Search
from lossevo.search.findings import FILE as FINDINGS_FILE
from lossevo.search.horizon import find_horizon
from lossevo.search.learning_rates import FILE as RATES_FILE
from lossevo.search.learning_rates import WANTED as RATES_WANTED
from lossevo.search.learning_rates import Sweeping
from lossevo.search.plan import Plan, lengths
from lossevo.search.problem import Problem
from lossevo.search.progress import SearchProgress
from lossevo.search.space import SearchSpace
from lossevo.search.strategies.program import Program
from lossevo.search.surrogate import Probes
from lossevo.training import DEFAULT_PATCH_CACHE_BYTES, TrainingData
from lossevo.training.threads import one_thread

_IN_THE_END = (FINDINGS_FILE, audit.FILE, RATES_FILE)
"""Files that a search writes when it has ended."""


class RunConfig(Study):
    """Everything that the course of a search depends on.

    A horizon ``auto`` is found by the first trainings, and takes its place.
    """

    format: Literal["lossevo.run/3"] = "lossevo.run/3"
    space: SearchSpace
    horizon: Annotated[int, Field(ge=1)] | Literal["auto"] | None = None

    @model_validator(mode="after")
    def _not_beyond(self) -> Self:
        if isinstance(self.horizon, int) and self.horizon < self.task.budget_steps:
            raise ValueError(
                f"horizon is {self.horizon} steps, but the shortest training has {self.task.budget_steps}; give at "
                "least as many, or a lower --steps"
            )
        return self

    @property
    def lengths(self) -> tuple[int, ...]:
        """Of trainings in steps, the shortest first; losses are ranked at the last.

        Of a horizon that is not known yet the shortest alone.
        """
        return lengths(
            self.task.budget_steps, self.horizon if isinstance(self.horizon, int) else self.task.budget_steps
        )

    @property
    def plan(self) -> Plan:
        """How the budget is shared out."""
        return Plan.of_space(self.space, shortest=self.lengths[0], horizon=self.lengths[-1])


@dataclass(frozen=True, slots=True)
class Run:
    """A run folder with its data in memory, ready to search."""

    folder: Path
    config: RunConfig
    subjects: Subjects
    data: TrainingData

    @classmethod
    def create(
        cls,
        folder: Path,
        config: RunConfig,
        *,
        patch_cache_bytes: int = DEFAULT_PATCH_CACHE_BYTES,
        progress: PrepareProgress | None = None,
    ) -> Self:
        """Read and split the cohort and make the folder; nothing is written if anything is wrong.

        ``patch_cache_bytes`` is what patches and volumes may take in memory; the search does not depend on it.

        Raises:
            LossevoError: the folder is in use, the cohort is no cohort, too small to be split, or a part of it has no
                foreground.
        """
        config.plan  # noqa: B018 - raises on a budget that is too small, before the cohort is read
        subjects, data = study.create_folder(
            folder, config, kind=SEARCH, patch_cache_bytes=patch_cache_bytes, progress=progress
        )
        return cls(folder, config, subjects, data)

    @classmethod
    def open(
        cls,
        folder: Path,
        *,
        patch_cache_bytes: int = DEFAULT_PATCH_CACHE_BYTES,
        progress: PrepareProgress | None = None,
    ) -> Self:
        """Open a run folder to go on with it.

        Raises:
            LossevoError: not a run folder, damaged, or the cohort is no longer what it was.
        """
        config = read_config(folder)
        subjects, data = study.open_folder(folder, config, patch_cache_bytes=patch_cache_bytes, progress=progress)
        return cls(folder, config, subjects, data)

    def search(
        self,
        executor: Callable[[WorkerSpec], Executor],
        *,
        listener: Listener = lambda event: None,
        audited: int | None = None,
        program: Program | None = None,
        learning_rates: Sequence[float] | None = None,
    ) -> list[hall_of_fame.Entry]:
        """Search, or go on searching; returns the hall of fame. ``executor`` makes the executor for a worker spec.

        In the end ``audited`` of the candidates that the screening rejected are trained (:mod:`lossevo.search.audit`),
        by default as many as when the run was last asked for it. A ``program`` proposes losses beside the strategy.
        The winner and the best hand-crafted loss are trained at ``learning_rates``, if any are given now or were the
        last time (:mod:`lossevo.search.learning_rates`).

        Raises:
            LossevoError: another process works on this folder, or the ledger does not fit.
        """
        spec = WorkerSpec(TRAINING_WORKER, self.data)
        workers = cache(lambda: executor(spec))
        # The screening works on tiny tensors beside workers that keep all cores busy.
        with one_thread(), locked(self.folder):
            if read_config(self.folder).model_dump(mode="json") != self.config.model_dump(mode="json"):
                raise ResumableError(f"{self.folder / SEARCH.file}: another process has changed it meanwhile")
            with Ledger(self.folder / "ledger.sqlite") as ledger:
                if audited is not None:
                    ledger.record_fact(audit.WANTED, audited)
                if learning_rates is not None:
                    ledger.record_text(RATES_WANTED, json.dumps([*learning_rates]))
            try:
                run = self._with_horizon(workers, listener) if self.config.horizon == "auto" else self
                return run._search(workers, listener, program)
            finally:
                if workers.cache_info().currsize:
                    workers().close()

    def _search(
        self, workers: Callable[[], Executor], listener: Listener, program: Program | None
    ) -> list[hall_of_fame.Entry]:
        config, probes = self.config, cache(self._probes)
        with Ledger(self.folder / "ledger.sqlite") as ledger:
            search = Search(
                space=config.space,
                problem=self._problem(),
                seed=config.seed,
                ledger=ledger,
                trainings=self._trainings(ledger, workers),
                listener=listener,
                changed=lambda entries: hall_of_fame.write(entries, self.folder),
                features=lambda expression: probes().features(expression),
                program=program,
            )
            entries = search.run()
            search.findings().write(self.folder)
            if wanted := int(ledger.fact(audit.WANTED) or 0):
                self._audit(search, wanted, workers, listener)
            if rates := ledger.text(RATES_WANTED):
                self._sweep(search, entries, json.loads(rates), workers, listener)
            return entries

    def _sweep(
        self,
        search: Search,
        entries: Sequence[hall_of_fame.Entry],
        rates: Sequence[float],
        workers: Callable[[], Executor],
        listener: Listener,
    ) -> None:
        listener(Event("phase", f"learning rates: {', '.join(f'{rate:g}' for rate in rates)}", search.progress()))
        Sweeping(
            self.folder,
            search.problem,
            self.config.seed,
            self.config.space.budget.confirmation_seeds,
            search.trainings.step_limit_s,
        ).run(entries, rates, workers, lambda line: listener(Event("training", line, search.progress())))

    def _audit(self, search: Search, count: int, workers: Callable[[], Executor], listener: Listener) -> None:
        listener(Event("phase", f"audit: {count} rejected candidates", search.progress()))
        audit.Auditing(
            self.folder,
            search.problem,
            self.config.seed,
            search.rejects,
            search.archive,
            search.trainings.step_limit_s,
        ).run(count, workers, lambda line: listener(Event("training", line, search.progress())))

    def _trainings(self, ledger: Ledger, workers: Callable[[], Executor]) -> OrderedTrainings:
        states = States(self.folder / "states")
        return OrderedTrainings(ledger, workers, self.config.task.step_limit_s, states=states)

    def _with_horizon(self, workers: Callable[[], Executor], listener: Listener) -> Run:
        """The run with its horizon found, on record."""
        config, path, problem = self.config, self.folder / "horizon.sqlite", self._problem()
        with Ledger(path, create=not path.exists()) as ledger:
            trainings = self._trainings(ledger, workers)

            def told(kind: str, message: str, steps: int) -> None:
                progress = SearchProgress.before_the_search(trainings, steps // problem.shortest)
                listener(Event(kind, message, progress))

            horizon = find_horizon(problem, config.space, config.seed, trainings, told)
        known = config.model_copy(update={"horizon": horizon})
        write_json(self.folder / SEARCH.file, known.model_dump(mode="json"))
        return replace(self, config=known)

    def _problem(self) -> Problem:
        config = self.config
        return Problem(
            self.subjects.split,
            len(self.data.class_names),
            config.lengths,
            self.data.fingerprint,
            study.scoring_of(config, self.subjects, self.data),
            continues=config.task.schedule == "constant",
        )

    def _probes(self) -> Probes:
        """The probe states of the training subjects."""
        volumes = [volume for volume in self.data.volumes if volume.subject in self.subjects.train]
        return Probes.of(volumes, len(self.data.class_names), seed=self.config.seed)


def give_budget(folder: Path, trainings: int) -> None:
    """Let a search, finished or not, go on to so many trainings in all. All that it did counts.

    Raises:
        LossevoError: fewer than the search has, another process works on the folder, or it is no search's.
    """
    read_config(folder)  # before anything is written there
    with locked(folder):
        config = read_config(folder)
        budget = config.space.budget
        if trainings == budget.trainings:
            return
        if trainings < budget.trainings:
            raise LossevoError(
                f"--budget is {trainings}, but {folder} was begun with {budget.trainings} trainings; give at least as "
                "many"
            )
        space = updated(config.space, "--budget", budget=updated(budget, "--budget", trainings=trainings))
        larger = config.model_copy(update={"space": space})
        larger.plan  # noqa: B018 - raises on a budget that is too small
        write_json(folder / SEARCH.file, larger.model_dump(mode="json"))
        for name in _IN_THE_END:  # they say nothing of what comes now, and are made anew
            (folder / name).unlink(missing_ok=True)


def read_config(folder: Path) -> RunConfig:
    """The configuration of a search's run folder.

    Raises:
        LossevoError: not such a folder, damaged, or of a newer lossevo.
    """
    return checked(RunConfig, read_document(folder, SEARCH), str(folder / SEARCH.file))
