"""k-fold cross-validation of losses in a folder: made once, resumed as often as needed.

::

    comparison.json      configuration: the losses themselves, task, cohort, folds, seeds
    folds.json           who is tested in which fold, who is only trained on, content hashes
    splits_final.json    the same folds in cases, for nnU-Net
    ledger.sqlite        every training and its outcome, written before it is used
    cases.csv            one row per loss, training, test case and class; complete up to the last training in order
    earlier.json         the comparisons that tested the same subjects before
    summary.csv, comparisons.csv, summary.json, table.md       the report, when all trainings are done
    pairs.csv, ranks.csv                                       all pairs of losses, and their ranks; likewise
    challenger.csv, claims_reloaded.csv                        scores for other tools; likewise
    structures.csv       scores of each class alone, if there are several; likewise
    speed.csv, curves.csv                                      how fast losses train, with several checkpoints; likewise
    trajectories.csv     what moved in losses that adapt, if there are any; likewise (their figures: lossevo.report)

Every loss is trained with the same folds, initial weights, batches and steps. Of a fold's test subjects nothing is
trained on in that fold, nothing is chosen on them (the last step counts), and no compared search has seen them
(:mod:`lossevo.comparison.leakage`).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from lossevo.cluster import Executor, Status, WorkerSpec
from lossevo.comparison import result_files
from lossevo.comparison.configuration import ComparisonConfig, read_config
from lossevo.comparison.contenders import Contender
from lossevo.comparison.earlier import EARLIER_FILE, FOLDS_FILE, find_looks, read_earlier, record_look
from lossevo.comparison.foreign_losses import check_foreign, require_named, with_foreign
from lossevo.comparison.leakage import FoldPlan, plan_folds
from lossevo.comparison.nested import folds_of
from lossevo.comparison.notes import Failures
from lossevo.comparison.protocol import Protocol
from lossevo.comparison.provenance import named
from lossevo.comparison.report import Report, make_report
from lossevo.comparison.run_settings import require_unchanged
from lossevo.comparison.score_tables import challenger_csv, claims_reloaded_csv
from lossevo.comparison.scores import CaseScore, case_scores, to_csv
from lossevo.comparison.speed import LearningCurve, curves_csv, speed_csv
from lossevo.comparison.structures import structures_csv
from lossevo.comparison.tables import markdown
from lossevo.comparison.trajectories import LossTrajectory, trajectories_csv
from lossevo.data import (
    Cohort,
    PreparedCohort,
    default_cache,
    prepare,
    splits_json,
    stated_folds,
    subjects_of_folds,
)
from lossevo.errors import LossevoError
from lossevo.experiment import Ledger
from lossevo.experiment.events import Event, Listener, Progress
from lossevo.experiment.folder import locked, new_folder, read_json, write_json, write_text
from lossevo.experiment.kinds import COMPARISON
from lossevo.experiment.study import PrepareProgress
from lossevo.experiment.trainings import TRAINING_WORKER, OrderedTrainings
from lossevo.losses import LossModule
from lossevo.metrics import MetricWarning, fine_tolerances
from lossevo.training import (
    DEFAULT_PATCH_CACHE_BYTES,
    Fidelity,
    Measurement,
    Split,
    TrainingData,
    Trial,
    make_training_data,
)
from lossevo.training.reference import ReferenceCase, missing_classes, reference_cases
from lossevo.training.seeds import comparison_seed

_FOLDS, _LEDGER = FOLDS_FILE, "ledger.sqlite"


@dataclass(frozen=True, slots=True)
class PlannedTraining:
    """A training to do; ``fold`` counts from 1, ``seed`` is the repetition's."""

    contender: Contender
    fold: int
    seed: int
    trial: Trial

    def __str__(self) -> str:
        return f"{self.contender.name}, fold {self.fold}, seed {self.seed}"


@dataclass(frozen=True, slots=True)
class Comparison:
    """A comparison folder with its data in memory, ready to run."""

    folder: Path
    config: ComparisonConfig
    plan: FoldPlan
    data: TrainingData
    cases: tuple[ReferenceCase, ...]

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
            cohort = config.cohort.open(config.spacing_mm, config.labels)
            config = _with_folds(config, cohort)
            given = _given_folds(config, cohort)
            prepared = _prepare(config, cohort, progress)
            if cohort_of_runs or any(contender.parts for contender in config.contenders):
                require_unchanged(
                    config.contenders, prepared.subject_hashes, labels=config.labels, spacing_mm=config.spacing_mm
                )
            data = _training_data(config, prepared, patch_cache_bytes)
            data = with_foreign(data, config.contenders, require_named(folder, config.contenders, loss_modules))
            check_foreign(data)
            plan = _plan(config, given, prepared, data)
            comparison = cls(folder, config, plan, data, _reference(data))
            _warn_of_missing_classes(comparison)
            _warn_of_fine_tolerances(comparison)
            Ledger(folder / _LEDGER, create=True).close()
            document = {**asdict(comparison.plan), "hashes": dict(prepared.subject_hashes)}
            write_json(folder / _FOLDS, {**document, "task_fingerprint": comparison.data.fingerprint})
            write_text(folder / "splits_final.json", splits_json(comparison.plan.test, _subject_of_case(cohort)))
            write_json(folder / "preprocessing.json", prepared.recipe)
            earlier = record_look(folder, config, comparison.plan, prepared.subject_hashes, looks)
            write_json(folder / EARLIER_FILE, {"earlier": [look.model_dump(mode="json") for look in earlier]})
            write_json(folder / COMPARISON.file, config.model_dump(mode="json"))  # last: it makes it a comparison's
        return comparison

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
        recorded = read_json(folder / _FOLDS).get("task_fingerprint")
        cohort = config.cohort.open(config.spacing_mm, config.labels)
        given = _given_folds(config, cohort)
        prepared = _prepare(config, cohort, progress)
        data = with_foreign(_training_data(config, prepared, patch_cache_bytes), config.contenders, named)
        if data.fingerprint != recorded:
            raise LossevoError(
                f"{folder}: the cohort ({config.cohort}) or lossevo's training recipe has changed since this "
                "comparison began, so its results cannot be continued; restore the cohort or start a new comparison"
            )
        return cls(folder, config, _plan(config, given, prepared, data), data, _reference(data))

    @property
    def unscored(self) -> tuple[str, ...]:
        """The tested subjects whose labels are empty: they have no score, whatever the loss."""
        return tuple(sorted({*self.plan.tested}.difference(case.subject for case in self.cases if case.classes)))

    @property
    def schedule(self) -> tuple[PlannedTraining, ...]:
        """All trainings in order: by seed, then fold, then loss, so that an interrupted comparison has whole pairs."""
        config = self.config
        return tuple(
            PlannedTraining(
                contender,
                fold=fold + 1,
                seed=config.seed + repetition,
                trial=Trial(
                    contender.of_fold(fold).spec,
                    Fidelity(
                        config.task.budget_steps,
                        _training_seed(config, repetition, fold),
                        Split(self.plan.train(fold), self.plan.test[fold]),
                    ),
                    self.data.fingerprint,
                    config.metrics,
                    config.grid,
                ),
            )
            for repetition in range(config.seeds)
            for fold in range(config.folds)
            for contender in config.contenders
        )

    def run(self, executor: Callable[[WorkerSpec], Executor], *, listener: Listener = lambda event: None) -> Report:
        """Train, or go on training, and evaluate; writes all outputs.

        ``executor`` makes the executor for a worker spec; a finished comparison needs none.

        Raises:
            LossevoError: another process works on this folder, the ledger does not fit, or a file cannot be written.
        """
        spec = WorkerSpec(TRAINING_WORKER, self.data)
        with locked(self.folder), Ledger(self.folder / _LEDGER) as ledger, warnings.catch_warnings():
            warnings.simplefilter("ignore", MetricWarning)  # of tolerances it was warned when the folder was made
            trainings = OrderedTrainings(ledger, lambda: executor(spec), self.config.task.step_limit_s)
            try:
                scores, failures, trajectories, curves = self._train(trainings, listener)
            finally:
                trainings.close()
            report = make_report(
                scores, self.config.contenders, self.plan, self._protocol(), failures, trajectories, curves
            )
            self._write(scores, report, curves)
        return report

    def _train(
        self, trainings: OrderedTrainings, listener: Listener
    ) -> tuple[list[CaseScore], Failures, list[LossTrajectory], list[LearningCurve]]:
        schedule = self.schedule
        scores: list[CaseScore] = []
        failures: Failures = {}
        trajectories: list[LossTrajectory] = []
        curves: list[LearningCurve] = []
        done, table = 0, to_csv((), self.config.measured)

        def tell(kind: str, message: str) -> None:
            per_hour = trainings.per_hour
            progress = Progress(
                phase="comparison",
                done=done,
                total=len(schedule),
                failed=len(failures),
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
                phase=f"fold {planned.fold}",
                candidate=planned.contender.name,
                calibrating=planned.contender in calibrating,
            )
        for planned in schedule:
            taken = trainings.take()
            measurement = taken.measurement
            done += 1
            rows_of_training = self._scores(planned, taken.outcome.status, measurement)
            scores += rows_of_training
            table += to_csv(rows_of_training, self.config.measured, header=False)
            points = tuple((int(step), dice) for step, dice in measurement.validation_curve) if measurement else ()
            curves.append(LearningCurve(planned.contender.name, planned.fold, planned.seed, points))
            if measurement is None:
                message = taken.problem
                failures[planned.contender.name, planned.fold, planned.seed] = message
            else:
                message = ", ".join(
                    f"{metric.name} {measurement.mean(metric.name):.4f} {metric.unit}".rstrip()
                    for metric in self.config.measured
                )
                if rows := measurement.trajectory:
                    trajectories.append(LossTrajectory(planned.contender.name, planned.fold, planned.seed, tuple(rows)))
            if not taken.replayed:
                write_text(self.folder / "cases.csv", table)
            tell("replayed" if taken.replayed else "training", f"{planned}: {message}")
        return scores, failures, trajectories, curves

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
        return Protocol(
            cohort=config.cohort.path.name if config.cohort.path else str(config.cohort),
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
            earlier=read_earlier(self.folder),
        )

    def _write(self, scores: list[CaseScore], report: Report, curves: list[LearningCurve]) -> None:
        metrics = self.config.measured
        write_text(self.folder / "cases.csv", to_csv(scores, metrics))
        write_text(self.folder / "summary.csv", result_files.summary_csv(report))
        write_text(self.folder / "comparisons.csv", result_files.comparisons_csv(report))
        write_text(self.folder / "pairs.csv", result_files.pairs_csv(report))
        write_text(self.folder / "ranks.csv", result_files.ranks_csv(report))
        write_text(self.folder / "challenger.csv", challenger_csv(scores, report.protocol.cohort, metrics))
        write_text(self.folder / "claims_reloaded.csv", claims_reloaded_csv(scores, metrics))
        write_text(self.folder / "table.md", markdown(report))
        write_json(self.folder / "summary.json", result_files.to_document(report))
        if report.structures:
            write_text(self.folder / "structures.csv", structures_csv(report.structures))
        if report.speeds:
            write_text(self.folder / "speed.csv", speed_csv(report.speeds))
            write_text(self.folder / "curves.csv", curves_csv(curves))
        if report.trajectories:
            write_text(self.folder / "trajectories.csv", trajectories_csv(report.trajectories))


def _with_folds(config: ComparisonConfig, cohort: Cohort) -> ComparisonConfig:
    """With the cohort's own folds in the configuration, if it asks for them: they must not change under a resume."""
    if config.splits != "cohort":
        return config
    folds = stated_folds({case.case_id: case.files.fold if case.files else None for case in cohort.cases})
    return config.model_copy(update={"splits": folds, "folds": len(folds)})


def _given_folds(config: ComparisonConfig, cohort: Cohort) -> tuple[tuple[str, ...], ...] | None:
    """The subjects that each fold tests, if the folds are not to be drawn."""
    if whole := next((contender for contender in config.contenders if contender.parts), None):
        return folds_of(whole)
    if not isinstance(config.splits, tuple):
        return None
    return subjects_of_folds(config.splits, _subject_of_case(cohort), source="the given splits")


def _subject_of_case(cohort: Cohort) -> dict[str, str]:
    return {case.case_id: case.subject for case in cohort.cases}


def _prepare(config: ComparisonConfig, cohort: Cohort, progress: PrepareProgress | None) -> PreparedCohort:
    return prepare(
        cohort,
        spacing_mm=config.spacing_mm,
        settings=config.task.preprocessing,
        cache=default_cache(),
        progress=progress,
    )


def _training_data(config: ComparisonConfig, prepared: PreparedCohort, patch_cache_bytes: int) -> TrainingData:
    return make_training_data(
        prepared,
        config.task,
        patch_cache_bytes=patch_cache_bytes,
        on_original_grid=config.grid == "original",
    )


def _reference(data: TrainingData) -> tuple[ReferenceCase, ...]:
    """The cases on the grid that predictions are measured on."""
    return reference_cases(data.volumes, data.originals)


def _plan(
    config: ComparisonConfig,
    given: Sequence[Sequence[str]] | None,
    prepared: PreparedCohort,
    data: TrainingData,
) -> FoldPlan:
    plan = plan_folds(
        config.contenders,
        prepared.subject_hashes,
        cohort=config.cohort,
        folds=config.folds,
        seed=config.seed,
        test_on=config.test_on,
        allow_leakage=config.allow_leakage,
        given=given,
    )
    labelled = {case.subject for case in reference_cases(data.volumes) if case.classes}
    for fold, subjects in enumerate(plan.test, start=1):
        if labelled.isdisjoint(subjects):
            raise LossevoError(
                f"no test subject of fold {fold} ({named(subjects)}) has a labelled voxel at this spacing, so it "
                "has no score; use fewer folds or another --seed"
            )
    return plan


def _warn_of_missing_classes(comparison: Comparison) -> None:
    """Say before any training which classes cannot be scored, or not be learned."""
    plan, cases, class_names = comparison.plan, comparison.cases, comparison.data.class_names
    if absent := missing_classes(cases, plan.tested, class_names):
        warnings.warn(
            f"no tested subject has {named(absent)}: there is no score of it, only false alarms", stacklevel=3
        )
    for fold, tested in enumerate(plan.test):
        unknown = {*missing_classes(cases, plan.train(fold), class_names)}
        if hopeless := unknown.difference(missing_classes(cases, tested, class_names)):
            warnings.warn(
                f"fold {fold + 1} tests {named(hopeless)}, which no subject that it trains on has: its score there "
                "says nothing of a loss; use other folds",
                stacklevel=3,
            )


def _warn_of_fine_tolerances(comparison: Comparison) -> None:
    """Say before any training which tolerances are below a quarter of the voxel size, where voxels are largest."""
    coarsest = max((case.view.spacing_mm for case in comparison.cases), key=min)
    if told := fine_tolerances(comparison.config.measured, coarsest):
        warnings.warn(told, MetricWarning, stacklevel=3)


def _training_seed(config: ComparisonConfig, repetition: int, fold: int) -> int:
    """Each fold has its own initial weights, the same for all losses: one lucky draw must not colour every fold."""
    return comparison_seed(config.seed, config.folds * repetition + fold)
