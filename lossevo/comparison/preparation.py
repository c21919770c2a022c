"""What a comparison needs before anything is trained: cohorts prepared, whom each fold tests, the training data."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from lossevo.comparison.configuration import ComparisonConfig
from lossevo.comparison.external import ExternalTest, plan_external_test, require_same_task, warn_of_one_name
from lossevo.comparison.fractions import require_different_parts, warn_of_classes_out_of_parts
from lossevo.comparison.leakage import FoldPlan, plan_folds
from lossevo.comparison.nested import folds_of
from lossevo.comparison.provenance import named
from lossevo.data import Cohort, PreparedCohort, default_cache, prepare, stated_folds, subjects_of_folds
from lossevo.errors import LossevoError
from lossevo.experiment.study import PrepareProgress
from lossevo.metrics import MetricWarning, fine_tolerances
from lossevo.training import TrainingData, make_training_data
from lossevo.training.reference import ReferenceCase, missing_classes, reference_cases


@dataclass(frozen=True, slots=True)
class Preparation:
    """The cohort of a comparison, read and prepared.

    Attributes:
        config: with the cohort's own folds, if it asks for them.
        trained: the cohort, which is tested too unless there is another.
        subject_of_case: case id → subject, of all its cases.
        given: the subjects that each fold tests, if the folds are not to be drawn.
        external: the other cohort, if losses are tested on one.
    """

    config: ComparisonConfig
    trained: PreparedCohort
    subject_of_case: Mapping[str, str]
    given: tuple[tuple[str, ...], ...] | None
    external: ExternalTest | None = None

    @classmethod
    def of(cls, config: ComparisonConfig, progress: PrepareProgress | None = None) -> Self:
        """Read and prepare.

        Raises:
            LossevoError: the cohort is no cohort, the folds that are given do not fit it, or the cohort to test on does
                not.
        """
        cohort = config.cohort.open(config.spacing_mm, config.labels)
        config = _with_folds(config, cohort)
        subject_of_case = {case.case_id: case.subject for case in cohort.cases}
        given = _given_folds(config, subject_of_case)
        preprocessing = config.task.preprocessing
        test_source, other = config.test_cohort, None
        if test_source is not None:
            other = test_source.open(labels=config.labels)
            require_same_task(cohort, other, config.cohort, test_source, config.labels, preprocessing)
        cache = default_cache()
        trained = prepare(cohort, spacing_mm=config.spacing_mm, settings=preprocessing, cache=cache, progress=progress)
        if other is None:
            return cls(config, trained, subject_of_case, given)
        tested = prepare(other, spacing_mm=trained.spacing_mm, settings=preprocessing, cache=cache, progress=progress)
        return cls(config, trained, subject_of_case, given, ExternalTest.of(trained, tested))

    @property
    def hashes(self) -> Mapping[str, str]:
        """The content hashes of all subjects."""
        return self.external.hashes(self.trained) if self.external else self.trained.subject_hashes

    @property
    def fingerprints(self) -> dict[str, str]:
        """Of all that decides the voxels of each cohort, by its place."""
        found = {str(self.config.cohort): self.trained.fingerprint}
        return {**found, str(self.config.test_cohort): self.external.tested.fingerprint} if self.external else found

    @property
    def recipe(self) -> Mapping[str, Any]:
        """How each case was prepared."""
        if self.external is None:
            return self.trained.recipe
        return {**self.trained.recipe, "tested": self.external.tested.recipe}

    def training_data(self, patch_cache_bytes: int) -> TrainingData:
        """What workers need."""
        return make_training_data(
            self.trained,
            self.config.task,
            patch_cache_bytes=patch_cache_bytes,
            on_original_grid=self.config.grid == "original",
            tested=self.external.tested if self.external else None,
            prefix=self.external.prefix if self.external else "",
        )

    def plan(self, data: TrainingData) -> FoldPlan:
        """Who is tested in which fold.

        Raises:
            LossevoError: too few subjects, leakage that is not allowed, a fold without a labelled test subject, or
                fractions that are the same training subjects.
        """
        config = self.config
        plan = (
            self._external_plan()
            if self.external
            else plan_folds(
                config.contenders,
                self.hashes,
                cohort=config.cohort,
                folds=config.folds,
                seed=config.seed,
                test_on=config.test_on,
                allow_leakage=config.allow_leakage,
                given=self.given,
            )
        )
        labelled = {case.subject for case in reference_cases(data.volumes) if case.classes}
        for fold, subjects in enumerate(plan.test, start=1):
            if labelled.isdisjoint(subjects):
                where, advice = f"of fold {fold} ", "use fewer folds or another --seed"
                if self.external:
                    where, advice = (
                        f"of {config.test_cohort} ",
                        "test on a cohort with labels, or take a finer --spacing",
                    )
                raise LossevoError(
                    f"no test subject {where}({named(subjects)}) has a labelled voxel at this spacing, so it has no "
                    f"score; {advice}"
                )
        require_different_parts(plan, config.fractions, config.seed)
        return plan

    def _external_plan(self) -> FoldPlan:
        config, external = self.config, self.external
        assert external is not None
        return plan_external_test(
            config.contenders,
            self.trained.subject_hashes,
            external.tested.subject_hashes,
            prefix=external.prefix,
            source=config.cohort,
            test_source=config.tested_cohort,
            allow_leakage=config.allow_leakage,
        )

    def warn(self, plan: FoldPlan, cases: tuple[ReferenceCase, ...]) -> None:
        """Say before any training what will be missing in its results."""
        config, class_names = self.config, self.trained.class_names
        warn_of_missing_classes(plan, cases, class_names)
        warn_of_classes_out_of_parts(plan, config.fractions, config.seed, cases, class_names)
        warn_of_fine_tolerances(config, [case for case in cases if case.subject in plan.tested])
        if self.external:
            warn_of_one_name(self.trained, self.external.tested, config.cohort, config.tested_cohort)


def measured_cases(data: TrainingData) -> tuple[ReferenceCase, ...]:
    """All cases on the grid that predictions are measured on."""
    return reference_cases(data.volumes, data.originals)


def warn_of_missing_classes(
    plan: FoldPlan,
    cases: tuple[ReferenceCase, ...],
    class_names: tuple[str, ...],
) -> None:
    """Say before any training which classes cannot be scored, or not be learned."""
    if absent := missing_classes(cases, plan.tested, class_names):
        warnings.warn(
            f"no tested subject has {named(absent)}: there is no score of it, only false alarms", stacklevel=4
        )
    for fold, tested in enumerate(plan.test):
        unknown = {*missing_classes(cases, plan.train(fold), class_names)}
        if hopeless := unknown.difference(missing_classes(cases, tested, class_names)):
            folds = len(plan.test) > 1
            warnings.warn(
                f"{f'fold {fold + 1} tests' if folds else 'tested is'} {named(hopeless)}, which no subject that "
                f"{'it trains on' if folds else 'is trained on'} has: its score there says nothing of a loss; use "
                f"other {'folds' if folds else 'classes'}",
                stacklevel=4,
            )


def warn_of_fine_tolerances(config: ComparisonConfig, cases: Sequence[ReferenceCase]) -> None:
    """Say before any training which tolerances are below a quarter of the voxel size, where voxels are largest."""
    coarsest = max((case.view.spacing_mm for case in cases), key=min)
    if told := fine_tolerances(config.measured, coarsest):
        warnings.warn(told, MetricWarning, stacklevel=4)


def _with_folds(config: ComparisonConfig, cohort: Cohort) -> ComparisonConfig:
    """With the cohort's own folds in the configuration, if it asks for them: they must not change under a resume."""
    if config.splits != "cohort":
        return config
    folds = stated_folds({case.case_id: case.files.fold if case.files else None for case in cohort.cases})
    return config.model_copy(update={"splits": folds, "folds": len(folds)})


def _given_folds(config: ComparisonConfig, subject_of_case: Mapping[str, str]) -> tuple[tuple[str, ...], ...] | None:
    """The subjects that each fold tests, if the folds are not to be drawn."""
    if whole := next((contender for contender in config.contenders if contender.parts), None):
        return folds_of(whole)
    if not isinstance(config.splits, tuple):
        return None
    return subjects_of_folds(config.splits, subject_of_case, source="the given splits")
