"""k-fold cross-validation of losses in a folder: made once, resumed as often as needed.

::

    comparison.json      configuration: the losses themselves, task, cohort, folds, seeds
    folds.json           who is tested in which fold, who is only trained on, content hashes
    splits_final.json    the same folds in cases, for nnU-Net; not of an external test
    ledger.sqlite        every training and its outcome, written before it is used
    cases.csv            one row per loss, training, test case and class; complete up to the last training in order
    fraction_cases.csv   the same of trainings with a part of the training subjects, if there are any
    earlier.json         the comparisons that tested the same subjects before
    summary.csv, comparisons.csv, summary.json, table.md       the report, when all trainings are done
    pairs.csv, ranks.csv                                       all pairs of losses, and their ranks; likewise
    challenger.csv, claims_reloaded.csv                        scores for other tools; likewise
    structures.csv       scores of each class alone, if there are several; likewise
    fractions.csv        how losses fare with a part of the training subjects; likewise
    speed.csv, curves.csv                                      how fast losses train, with several checkpoints; likewise
    trajectories.csv     what moved in losses that adapt, if there are any; likewise (their figures: lossevo.report)
    tuning/              of losses that are tuned inside each fold (:mod:`lossevo.comparison.tuned`)

Every loss is trained with the same folds, initial weights, batches and steps. Of a fold's test subjects nothing is
trained on in that fold, nothing is chosen on them (the last step counts), and no compared search has seen them
(:mod:`lossevo.comparison.leakage`).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Self

from lossevo.cluster import Executor, Status, WorkerSpec
from lossevo.comparison.collected import Collected
from lossevo.comparison.configuration import ComparisonConfig, read_config
from lossevo.comparison.contenders import Contender
from lossevo.comparison.earlier import EARLIER_FILE, FOLDS_FILE, find_looks, read_earlier, record_look
from lossevo.comparison.foreign_losses import check_foreign, require_named, with_foreign
from lossevo.comparison.fractions import WHOLE, training_parts
from lossevo.comparison.leakage import FoldPlan
from lossevo.comparison.outputs import write_outputs
from lossevo.comparison.preparation import Preparation, measured_cases
from lossevo.comparison.protocol import Protocol
from lossevo.comparison.report import Report, make_report
from lossevo.comparison.run_settings import require_unchanged
from lossevo.comparison.scores import CaseScore, case_scores
from lossevo.comparison.tuned import TunedLosses, courses, make_folder, tune_in_folds
from lossevo.data import splits_json
from lossevo.errors import LossevoError
from lossevo.experiment import Ledger
from lossevo.experiment.events import Event, Listener, Progress
from lossevo.experiment.folder import locked, new_folder, read_json, write_json, write_text
from lossevo.experiment.kinds import COMPARISON
from lossevo.experiment.study import PrepareProgress
from lossevo.experiment.trainings import TRAINING_WORKER, OrderedTrainings
from lossevo.losses import LossModule
from lossevo.metrics import MetricWarning
from lossevo.training import DEFAULT_PATCH_CACHE_BYTES, Fidelity, Measurement, Split, TrainingData, Trial
from lossevo.training.reference import ReferenceCase
from lossevo.training.seeds import comparison_seed
from lossevo.tuning import Workers

_FOLDS, _LEDGER = FOLDS_FILE, "ledger.sqlite"


@dataclass(frozen=True, slots=True)
class PlannedTraining:
    """A training to do; ``fold`` counts from 1, ``seed`` is the repetition's, ``fraction`` of the training subjects."""

    contender: Contender
    fold: int
    seed: int
    trial: Trial
    fraction: float = WHOLE
    external: bool = False

    @property
    def place(self) -> str:
        """Which fold it is, if there are folds."""
        return "external test" if self.external else f"fold {self.fold}"

    @property
    def phase(self) -> str:
        """Where in the comparison it stands."""
        return f"{self.place}{self._part}"

    def __str__(self) -> str:
        return f"{self.contender.name}, {self.place}, seed {self.seed}{self._part}"

    @property
    def _part(self) -> str:
        return f", fraction {self.fraction:g}" if self.fraction < WHOLE else ""


@dataclass(frozen=True, slots=True)
class Comparison:
    """A comparison folder with its data in memory, ready to run.

    ``tuned`` are the losses as they were tuned inside the folds; empty before, and where nothing is tuned.
    """

    folder: Path
    config: ComparisonConfig
    plan: FoldPlan
    data: TrainingData
    cases: tuple[ReferenceCase, ...]
    tuned: TunedLosses = field(default_factory=dict)

    @classmethod
    def create(
        cls,
        folder: Path,
        config: ComparisonConfig,
        *,
        cohort_of_runs: bool = False,
        patch_cache_bytes: int = DEFAULT_PATCH_CACHE_BYTES,
        progress: PrepareProgress | None = None,
        loss_modules: Sequence[LossModule] = (),
    ) -> Self:
        """Read the cohort, draw the folds and make the folder; nothing is left of it if anything is wrong.

        ``cohort_of_runs`` says that nobody named the cohort: it is that of the runs, and must be what it was.
        ``patch_cache_bytes`` is what patches and volumes may take in memory; results do not depend on it.
        ``loss_modules`` is code of the user's that contenders name. **It runs.**

        Raises:
            LossevoError: the folder is in use, the cohort is no cohort, too few subjects for the folds, leakage that
                is not allowed, or a loss that is not lossevo's and does not do what a loss does.
        """
        with new_folder(folder, made_by=COMPARISON.command, configuration=COMPARISON.file):
            looks = find_looks(folder, config.registry)
            prepared = Preparation.of(config, progress)
            config = prepared.config
            if cohort_of_runs or any(contender.parts for contender in config.contenders):
                require_unchanged(
                    config.contenders,
                    prepared.trained.subject_hashes,
                    labels=config.labels,
                    spacing_mm=config.spacing_mm,
                )
            data = prepared.training_data(patch_cache_bytes)
            data = with_foreign(data, config.contenders, require_named(folder, config.contenders, loss_modules))
            check_foreign(data)
            plan = prepared.plan(data)
            cases = measured_cases(data)
            courses(config, plan, data)  # what is wrong with a tuning is said before anything is trained
            prepared.warn(plan, cases)
            Ledger(folder / _LEDGER, create=True).close()
            make_folder(folder, config)
            document = {**asdict(plan), "hashes": dict(prepared.hashes), "cohorts": prepared.fingerprints}
            write_json(folder / _FOLDS, {**document, "task_fingerprint": data.fingerprint})
            if config.test_cohort is None:
                write_text(folder / "splits_final.json", splits_json(plan.test, prepared.subject_of_case))
            write_json(folder / "preprocessing.json", prepared.recipe)
            earlier = record_look(folder, config, plan, prepared.hashes, looks)
            write_json(folder / EARLIER_FILE, {"earlier": [look.model_dump(mode="json") for look in earlier]})
            write_json(folder / COMPARISON.file, config.model_dump(mode="json"))  # last: it makes it a comparison's
        return cls(folder, config, plan, data, cases)

    @classmethod
    def open(
        cls,
        folder: Path,
        *,
        patch_cache_bytes: int = DEFAULT_PATCH_CACHE_BYTES,
        progress: PrepareProgress | None = None,
        loss_modules: Sequence[LossModule] = (),
    ) -> Self:
        """Open a comparison folder to go on with it. ``loss_modules`` is the code of the user's that it runs.

        Raises:
            LossevoError: not a comparison folder, damaged, the cohort is no longer what it was, or the code is not
                named or not what it was.
        """
        config = read_config(folder)
        named = require_named(folder, config.contenders, loss_modules)
        recorded = read_json(folder / _FOLDS)
        prepared = Preparation.of(config, progress)
        data = with_foreign(prepared.training_data(patch_cache_bytes), config.contenders, named)
        if data.fingerprint != recorded.get("task_fingerprint"):
            known = recorded.get("cohorts") or {}
            changed = [place for place, found in prepared.fingerprints.items() if known.get(place) != found]
            raise LossevoError(
                f"{folder}: the cohort ({', '.join(changed or prepared.fingerprints)}) or lossevo's training recipe "
                "has changed since this comparison began, so its results cannot be continued; restore the cohort or "
                "start a new comparison"
            )
        return cls(folder, config, prepared.plan(data), data, measured_cases(data))

    @property
    def unscored(self) -> tuple[str, ...]:
        """The tested subjects whose labels are empty: they have no score, whatever the loss."""
        return tuple(sorted({*self.plan.tested}.difference(case.subject for case in self.cases if case.classes)))

    @property
    def schedule(self) -> tuple[PlannedTraining, ...]:
        """All trainings in order: by seed, then fold, then loss, so that an interrupted comparison has whole pairs.

        Those with a part of the training subjects come when all others have been done, the largest part first.
        """
        config = self.config
        parts = [training_parts(self.plan, fold, config.fractions, config.seed) for fold in range(config.folds)]
        return tuple(
            PlannedTraining(
                contender,
                fold=fold + 1,
                seed=config.seed + repetition,
                trial=Trial(
                    self._of_fold(contender, fold).spec,
                    Fidelity(
                        config.task.budget_steps,
                        _training_seed(config, repetition, fold),
                        Split(parts[fold][fraction], self.plan.test[fold]),
                    ),
                    self.data.fingerprint,
                    config.metrics,
                    config.grid,
                    self._of_fold(contender, fold).learning_rate,
                ),
                fraction=fraction,
                external=config.test_cohort is not None,
            )
            for fraction in (WHOLE, *config.fractions)
            for repetition in range(config.seeds)
            for fold in range(config.folds)
            for contender in config.contenders
        )

    def _of_fold(self, contender: Contender, fold: int) -> Contender:
        """The loss that is trained in a fold, counted from 0."""
        return self.tuned.get((contender.name, fold)) or contender.of_fold(fold)

    def run(
        self,
        executor: Callable[[WorkerSpec], Executor],
        *,
        tuners: Workers | None = None,
        listener: Listener = lambda event: None,
    ) -> Report:
        """Tune if that is asked for, train, or go on with either, and evaluate; writes all outputs.

        ``executor`` makes the executor for a worker spec, and ``tuners`` are the workers of a tuning; a finished
        comparison needs none.

        Raises:
            LossevoError: another process works on this folder, the ledger does not fit, or a file cannot be written.
        """
        with locked(self.folder), warnings.catch_warnings():
            warnings.simplefilter("ignore", MetricWarning)  # of tolerances it was warned when the folder was made
            tuned = tune_in_folds(self.folder, self.config, self.plan, self.data, workers=tuners, listener=listener)
            return replace(self, tuned=tuned)._run(executor, listener)

    def _run(self, executor: Callable[[WorkerSpec], Executor], listener: Listener) -> Report:
        spec = WorkerSpec(TRAINING_WORKER, self.data)
        with Ledger(self.folder / _LEDGER) as ledger:
            trainings = OrderedTrainings(ledger, lambda: executor(spec), self.config.task.step_limit_s)
            try:
                found = self._train(trainings, listener)
            finally:
                trainings.close()
            report = make_report(
                found.scores,
                self.config.contenders,
                self.plan,
                self._protocol(),
                found.failures,
                found.trajectories,
                found.curves,
                found.parts,
            )
            write_outputs(self.folder, found, report)
        return report

    def _train(self, trainings: OrderedTrainings, listener: Listener) -> Collected:
        schedule = self.schedule
        found = Collected(self.config.measured, self.config.fractions)
        done = 0

        def tell(kind: str, message: str) -> None:
            per_hour = trainings.per_hour
            progress = Progress(
                phase="comparison",
                done=done,
                total=len(schedule),
                failed=found.failed,
                per_hour=per_hour,
                busy_share=trainings.busy_share,
                workers=trainings.workers,
                eta_s=3600 * (len(schedule) - recorded - trainings.computed) / per_hour if per_hour > 0 else None,
            )
            listener(Event(kind, message, progress))

        recorded = sum(record.outcome is not None for record in trainings.ledger.records())
        trainings.arrived = lambda outcome: tell("arrived", "")
        literature = [contender for contender in self.config.contenders if contender.literature is not None]
        calibrating = literature or self.config.contenders
        for planned in schedule:
            trainings.submit(
                planned.trial,
                phase=planned.phase,
                candidate=planned.contender.name,
                calibrating=planned.contender in calibrating,
            )
        for planned in schedule:
            taken = trainings.take()
            measurement = taken.measurement
            done += 1
            found.add(
                self._scores(planned, taken.outcome.status, measurement),
                measurement,
                taken.problem,
                training=(planned.contender.name, planned.fold, planned.seed),
                fraction=planned.fraction,
            )
            message = taken.problem
            if measurement is not None:
                message = ", ".join(
                    f"{metric.name} {measurement.mean(metric.name):.4f} {metric.unit}".rstrip()
                    for metric in self.config.measured
                )
            if not taken.replayed:
                found.write(self.folder, planned.fraction)
            tell("replayed" if taken.replayed else "training", f"{planned}: {message}")
        return found

    def _scores(self, planned: PlannedTraining, status: Status, measurement: Measurement | None) -> list[CaseScore]:
        tested = set(planned.trial.fidelity.split.validate)
        return case_scores(
            status,
            measurement,
            [case for case in self.cases if case.subject in tested],
            self.data.class_names,
            self.config.measured,
            loss=planned.contender.name,
            fold=planned.fold,
            seed=planned.seed,
            training_seed=planned.trial.fidelity.seed,
            leaked=self.plan.leaked.get(planned.contender.name, ()),
        )

    def _protocol(self) -> Protocol:
        config = self.config
        trained_on, cohort = config.cohort_names
        return Protocol(
            cohort=cohort,
            class_names=self.data.class_names,
            spacing_mm=self.data.volumes[0].spacing_mm,
            grid=config.grid,
            folds=config.folds,
            steps=config.task.budget_steps,
            seeds=config.seeds,
            seed=config.seed,
            tested=self.plan.tested,
            train_only=self.plan.train_only,
            metrics=config.measured,
            ropes=config.ropes,
            unscored=self.unscored,
            departures=config.departures,
            registry=config.registry,
            tuning=config.tuning,
            earlier=read_earlier(self.folder),
            fractions=config.fractions,
            trained_on=trained_on if config.test_cohort else None,
            left_out=self.plan.left_out,
        )


def _training_seed(config: ComparisonConfig, repetition: int, fold: int) -> int:
    """Each fold has its own initial weights, the same for all losses: one lucky draw must not colour every fold."""
    return comparison_seed(config.seed, config.folds * repetition + fold)
