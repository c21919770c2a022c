"""The course of a meta-training, from the baselines to the confirmation of what was learned."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lossevo.cluster import Executor, Job, Status
from lossevo.csv_files import csv_text
from lossevo.errors import LossevoError
from lossevo.experiment import Entry, Subjects, hall_of_fame
from lossevo.experiment.candidate import Candidate
from lossevo.experiment.events import Event, Listener
from lossevo.experiment.folder import read_json, write_json, write_text
from lossevo.experiment.origin import Distilled, HandCrafted, MetaLearned
from lossevo.experiment.study import scoring_of
from lossevo.experiment.trainings import CALIBRATION_FACTOR, LEAST_LIMIT_S, OrderedTrainings
from lossevo.expression import Expression
from lossevo.losses import expression_of
from lossevo.losses.neural import LearnedLoss, LossNetwork
from lossevo.metalearning.checkpoint import Record, read_checkpoint, write_checkpoint
from lossevo.metalearning.distillation import distill, recommended
from lossevo.metalearning.learner import Learner
from lossevo.metalearning.progress import MetaProgress
from lossevo.metalearning.settings import MetaConfig
from lossevo.metalearning.tasks import MetaOutcome
from lossevo.training import Fidelity, TrainingData, Trial
from lossevo.training.seeds import meta_confirmation_seed, meta_evaluation_seed

TASK_LIMIT = "task_limit_s"
"""Name of the recorded fact: seconds that a task of an outer step may take."""
CHECKPOINT_EVERY = 5
"""Outer steps that a kill loses at most; they are done again with the same result."""
MOST_FAILURES = 10
"""Outer steps in a row in which no task succeeded, after which there is no hope."""
FEW_FAILURES = 3
"""Those before an evaluation after which it would tell nothing."""


@dataclass(slots=True)
class Workers:
    """One executor for tasks and trainings alike, made when it is first needed."""

    make: Callable[[], Executor]
    executor: Executor | None = None

    def get(self) -> Executor:
        """The executor."""
        if self.executor is None:
            self.executor = self.make()
        return self.executor

    def close(self) -> None:
        """Stop it, if it was ever made."""
        if self.executor is not None:
            self.executor.close()


class Course:
    """The course of a meta-training: baselines, outer steps with evaluations, distillation, confirmation."""

    def __init__(
        self,
        folder: Path,
        config: MetaConfig,
        subjects: Subjects,
        data: TrainingData,
        trainings: OrderedTrainings,
        workers: Workers,
        listener: Listener,
    ) -> None:
        self._folder = folder
        self._config = config
        self._subjects = subjects
        self._classes, self._study = len(data.class_names), data.fingerprint
        self._scoring = scoring_of(config, subjects, data)
        self._replayed = False
        self._settings = config.settings
        self._trainings = trainings
        self._task_limit_s = trainings.ledger.fact(TASK_LIMIT)
        self._workers = workers
        self._listener = listener
        length = config.task.budget_steps
        self._learner = Learner(self._settings, subjects.train, length, config.seed)
        self._records, self._evaluated = read_checkpoint(folder / "checkpoint.pt", self._learner)
        self._baselines = [Candidate(expression_of(name), HandCrafted(name)) for name in self._settings.baselines]
        self._learned: list[tuple[int, Candidate]] = []
        self._distilled: list[Candidate] = []
        self._failed = sum(record.failed for record in self._records)
        self._phase, self._done, self._total = "", 0, 0
        self._began: tuple[float, int] | None = None

    def run(self) -> list[Entry]:
        """Go the course, or on with it; returns the hall of fame.

        Raises:
            LossevoError: nothing but failures, or a file that does not fit or cannot be written.
        """
        self._begin("baselines", len(self._baselines) * self._settings.evaluation_seeds)
        self._train(self._baselines, self._evaluation_seeds, confirm=False)
        self._meta_train()
        self._distill()
        self._begin("confirmation", len(self._finalists()) * self._settings.confirmation_seeds)
        self._train(self._finalists(), self._confirmation_seeds, confirm=True)
        return self._entries()

    # Outer steps

    def _meta_train(self) -> None:
        settings, learner = self._settings, self._learner
        self._begin("meta-training", settings.outer_steps, done=learner.step)
        if self._records:
            # It may be older than the checkpoint.
            self._write_records()
        for step, network in self._evaluated:
            self._evaluate(step, network)
        while learner.step < settings.outer_steps:
            outcomes, problems = self._outer_step()
            learner.learn(outcomes)
            self._records.append(Record.of(learner.step, outcomes))
            self._done = learner.step
            due = learner.step % settings.evaluate_every == 0 or learner.step == settings.outer_steps
            self._refuse_hopeless(problems, due=due)
            if due:
                self._evaluated.append((learner.step, learner.learned))
            # Not amid failures: if they have another cause than the loss, a resumed run does these steps again.
            if due or (learner.step % CHECKPOINT_EVERY == 0 and any(outcomes)):
                self._save()
            self._tell("step", "; ".join(problems))
            if due:
                self._evaluate(learner.step, learner.learned)

    def _refuse_hopeless(self, problems: Sequence[str], *, due: bool) -> None:
        """Raise LossevoError if no task of too many outer steps, up to now, succeeded.

        Where an evaluation is due, three are too many if they are half of those since the one before, and one if none
        has succeeded ever: what it would be of has hardly been tried, or never worked.
        """
        succeeded = [record.step for record in self._records if record.failed < self._settings.tasks]
        failures = self._learner.step - max(succeeded, default=0)
        since = self._learner.step - max((step for step, _ in self._evaluated), default=0)
        if failures >= MOST_FAILURES or (due and 2 * failures >= since and (failures >= FEW_FAILURES or not succeeded)):
            raise LossevoError(
                f"{self._folder}: no task of the last {failures} outer steps succeeded "
                f"({problems[-1]}); if they diverge, give a new run a lower learning_rate, of the loss network or of "
                "the task"
            )

    def _outer_step(self) -> tuple[list[MetaOutcome | None], list[str]]:
        """The outcomes of the tasks, in their order; None for those that failed, and why they did."""
        executor = self._workers.get()
        tasks = self._learner.tasks()
        tickets = [executor.submit(Job(task.to_payload(), timeout_s=self._task_limit_s)) for task in tasks]
        arrived = dict(executor.completed())
        self._calibrate([outcome.seconds for outcome in arrived.values() if outcome.status is Status.DONE])
        outcomes: list[MetaOutcome | None] = []
        problems = []
        for ticket in tickets:
            outcome = arrived[ticket]
            if outcome.status is Status.DONE and outcome.value is not None:
                outcomes.append(MetaOutcome(**outcome.value))
            else:
                outcomes.append(None)
                problems.append(f"{outcome.status}: {outcome.error}")
        self._failed += len(problems)
        return outcomes, problems

    def _calibrate(self, seconds: Sequence[float]) -> None:
        """The limit of an outer step's tasks, as that of trainings: from those that have ended, and recorded."""
        limit_s = LEAST_LIMIT_S + CALIBRATION_FACTOR * max(seconds, default=0.0)
        if seconds and limit_s > (self._task_limit_s or 0.0):
            self._task_limit_s = limit_s
            self._trainings.ledger.record_fact(TASK_LIMIT, limit_s)

    def _save(self) -> None:
        write_checkpoint(self._folder / "checkpoint.pt", self._learner, self._records, self._evaluated)
        self._write_records()

    def _write_records(self) -> None:
        write_text(self._folder / "metalearning.csv", Record.csv(self._records))

    def _evaluate(self, step: int, network: LossNetwork) -> None:
        finalist = Candidate(network, MetaLearned(step), number=step)
        self._train([finalist], self._evaluation_seeds, confirm=False)
        self._learned.append((step, finalist))
        objective = self._scoring.objective
        columns = ("outer_step", "id", "seed", objective.name)
        rows = [
            dict(zip(columns, (step, finalist.id, seed, objective.displayed(score)), strict=True))
            for step, finalist in self._learned
            for seed, score in finalist.scores[finalist.longest].items()
        ]
        write_text(self._folder / "evaluations.csv", csv_text(columns, rows))
        self._write()
        kind = "replayed" if self._replayed else "evaluation"
        self._tell(kind, f"after {step} outer steps: validation {self._scoring.told(finalist.score)}")

    @property
    def _best(self) -> Candidate:
        """The learned loss of the best evaluation, the earliest of equals."""
        return max((finalist for _, finalist in self._learned), key=lambda finalist: finalist.score)

    # Distillation

    def _distill(self) -> None:
        best = self._best.definition
        assert isinstance(best, LossNetwork)
        file = self._folder / "distillation.json"
        document = _distilled_before(file, best)
        if document is None:
            document = self._distilled_document(best)
            write_json(file, document)
        chosen = [found for found in document["formulas"] if found["recommended"]]
        if not chosen:
            self._tell("phase", f"no formula: {document['problem']}")
            return
        origin = Distilled((self._best.id,), chosen[0]["agreement"])
        self._distilled = [Candidate(Expression.from_json(chosen[0]["expression"]), origin)]
        self._begin("evaluation of the distilled loss", self._settings.evaluation_seeds)
        self._train(self._distilled, self._evaluation_seeds, confirm=False)

    def _distilled_document(self, network: LossNetwork) -> dict[str, Any]:
        self._begin("distillation", self._settings.distillation_budget)
        document: dict[str, Any] = {"network": network.hash, "problem": "", "formulas": []}
        try:
            front = distill(
                LearnedLoss(network),
                classes=self._classes,
                seed=self._config.seed,
                budget=self._settings.distillation_budget,
                progress=self._tell_distillation,
            )
        except LossevoError as problem:
            return {**document, "problem": str(problem)}
        chosen = recommended(front)
        formulas = [
            {
                "formula": str(found.expression),
                "agreement": found.agreement,
                "cosines": dict(found.cosines),
                "scale": found.scale,
                "complexity": found.complexity,
                "failed_check": None if found.failed is None else found.failed.value,
                "recommended": found is chosen,
                "expression": found.expression.to_json(),
            }
            for found in front
        ]
        return {**document, "formulas": formulas}

    def _tell_distillation(self, done: int, total: int, agreement: float) -> None:
        self._done, self._total = done, total
        if done % max(1, total // 10) == 0:
            self._tell("step", f"agreement {agreement:.3f}")
        elif done % 10 == 0:
            self._tell("arrived", "")

    # Whole trainings

    def _finalists(self) -> list[Candidate]:
        """Those confirmed; a distilled loss that is one of the baselines is not trained twice."""
        unique = {finalist.definition.hash: finalist for finalist in (*self._distilled, *self._baselines, self._best)}
        return list(unique.values())

    @property
    def _evaluation_seeds(self) -> list[int]:
        return [meta_evaluation_seed(self._config.seed, number) for number in range(self._settings.evaluation_seeds)]

    @property
    def _confirmation_seeds(self) -> list[int]:
        return [
            meta_confirmation_seed(self._config.seed, number) for number in range(self._settings.confirmation_seeds)
        ]

    def _train(self, finalists: Sequence[Candidate], seeds: Sequence[int], *, confirm: bool) -> None:
        phase = "confirmation" if confirm else "evaluation"
        planned = [(finalist, seed) for seed in seeds for finalist in finalists]
        for finalist, seed in planned:
            fidelity = Fidelity(self._config.task.budget_steps, seed, self._subjects.split)
            trial = Trial(finalist.spec, fidelity, self._study, self._scoring.metrics)
            calibrating = finalist in self._baselines
            self._trainings.submit(trial, phase=phase, candidate=finalist.id, calibrating=calibrating)
        for finalist, seed in planned:
            taken = self._trainings.take()
            measurement = taken.measurement
            score = self._scoring.utility(measurement)
            self._replayed = taken.replayed
            finalist.record(self._config.task.budget_steps, seed, score, confirms=confirm)
            if self._phase != "meta-training":
                self._done += 1
                told = taken.problem if measurement is None else self._scoring.told(score)
                kind = "replayed" if taken.replayed else "training"
                self._tell(kind, f"{finalist.origin}, seed {seed}: {told}")
        if confirm:
            self._write()

    # What is told

    def _write(self) -> None:
        hall_of_fame.write(self._entries(), self._folder)

    def _entries(self) -> list[Entry]:
        learned = [self._best] if self._learned else []
        unique = {found.definition.hash: found for found in (*self._distilled, *self._baselines, *learned)}
        return hall_of_fame.rank(unique.values(), self._settings.confirmation_seeds, self._scoring.objective)

    def _begin(self, phase: str, total: int, *, done: int = 0) -> None:
        self._phase, self._done, self._total = phase, done, total
        self._began = (time.monotonic(), done)
        self._tell("phase", f"{phase}: {total - done} to go" if total > 1 else phase)

    def _tell(self, kind: str, message: str) -> None:
        latest = self._records[-1] if self._records else None
        executor, shown = self._workers.executor, self._scoring.objective.displayed
        progress = MetaProgress(
            phase=self._phase,
            done=self._done,
            total=self._total,
            failed=self._failed,
            before=latest.before if latest else math.nan,
            after=latest.after if latest else math.nan,
            best_score=shown(self._best.score) if self._learned else math.nan,
            best_baseline=shown(max((b.score for b in self._baselines if b.scores), default=math.nan)),
            per_hour=self._trainings.per_hour,
            busy_share=executor.busy_share() if executor else 0.0,
            workers=executor.workers if executor else 0,
            eta_s=self._eta_s(),
        )
        self._listener(Event(kind, message, progress))

    def _eta_s(self) -> float | None:
        """Of this phase alone."""
        if self._began is None or self._done <= self._began[1]:
            return None
        since, before = self._began
        return (time.monotonic() - since) / (self._done - before) * (self._total - self._done)


def _distilled_before(file: Path, network: LossNetwork) -> dict[str, Any] | None:
    """The document of an earlier distillation of the same network; None if there is none that can be read."""
    try:
        document = read_json(file)
    except LossevoError:
        return None
    is_whole = {*document} == {"network", "problem", "formulas"} and document["network"] == network.hash
    return document if is_whole else None
