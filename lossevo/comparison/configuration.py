"""The configuration of a comparison: everything that its result depends on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, model_validator

from lossevo.comparison.contenders import Contender
from lossevo.comparison.fractions import parse_fractions
from lossevo.comparison.leakage import TestOn
from lossevo.comparison.ropes import parse_ropes
from lossevo.comparison.run_settings import departures, setting_of_runs
from lossevo.configuration_file import checked, updated
from lossevo.data import MERGED, CaseFold, LabelScheme, read_splits
from lossevo.errors import LossevoError
from lossevo.experiment import CohortSource
from lossevo.experiment.kinds import COMPARISON, read_document
from lossevo.metrics import Metric, parse_metrics
from lossevo.training import TaskSettings
from lossevo.training.seeds import COMPARISON_SEEDS, MAX_RUN_SEED
from lossevo.training.trial import MeasuredOn
from lossevo.tuning.settings import TuningSettings

DEFAULT_FOLDS = 3
DEFAULT_METRICS = "dice,nsd@2mm,hd95"


class ComparisonConfig(BaseModel):
    """Everything that the result of a comparison depends on; see :func:`configure`.

    ``metrics`` are names of metrics, the main one first; ``ropes`` has one for each. ``fractions`` of the training
    subjects, the largest first, are trained with besides all of them. With a ``test_cohort`` losses are trained on all
    of ``cohort``, and tested on that one: there is one fold.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    format: Literal["lossevo.comparison/3"] = "lossevo.comparison/3"
    contenders: tuple[Contender, ...]
    cohort: CohortSource
    labels: LabelScheme = MERGED
    spacing_mm: tuple[float, float, float] | None = None
    task: TaskSettings
    folds: int
    seeds: int
    seed: int
    test_on: TestOn = "untouched"
    allow_leakage: bool = False
    splits: tuple[CaseFold, ...] | Literal["cohort"] | None = None
    metrics: tuple[str, ...]
    ropes: dict[str, NonNegativeFloat]
    grid: MeasuredOn = "original"
    registry: Path | None = None
    tuning: TuningSettings | None = None
    fractions: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = ()
    test_cohort: CohortSource | None = None

    @property
    def tuned_parts(self) -> tuple[str, ...]:
        """What of each loss is tuned."""
        return self.tuning.what if self.tuning else ()

    @property
    def tested_cohort(self) -> CohortSource:
        """The cohort whose subjects are tested."""
        return self.test_cohort or self.cohort

    @property
    def cohort_names(self) -> tuple[str, str]:
        """What the cohort that is trained on and that which is tested are called: mostly the same one."""
        sources = (self.cohort, self.tested_cohort)
        trained, tested = (source.path.name if source.path else str(source) for source in sources)
        return (
            (trained, tested) if self.test_cohort is None or trained != tested else (str(sources[0]), str(sources[1]))
        )

    @property
    def cohort_title(self) -> str:
        """The cohort in short; of an external test ``TRAINED → TESTED``."""
        if self.test_cohort is not None:
            return " → ".join(self.cohort_names)
        return self.cohort.path.name if self.cohort.path else "phantom"

    @model_validator(mode="after")
    def _has_metrics(self) -> Self:
        try:
            names = tuple(metric.name for metric in self.measured)
        except LossevoError as problem:
            raise ValueError(str(problem)) from None
        if names != self.metrics or self.ropes.keys() != {*names}:
            raise ValueError(f"metrics and ropes are not those of {', '.join(names)}")
        return self

    @property
    def measured(self) -> tuple[Metric, ...]:
        """What is measured, the main metric first."""
        return parse_metrics(self.metrics)

    @property
    def departures(self) -> tuple[str, ...]:
        """What the comparison does otherwise than the searches that its losses come from, a sentence each."""
        return departures(
            self.contenders, cohort=self.cohort, labels=self.labels, spacing_mm=self.spacing_mm, task=self.task
        )


def configure(
    contenders: Sequence[Contender],
    cohort: CohortSource,
    *,
    steps: int | None = None,
    folds: int | None = None,
    seeds: int = 1,
    seed: int = 0,
    test_on: TestOn = "untouched",
    allow_leakage: bool = False,
    labels: LabelScheme | None = None,
    spacing_mm: tuple[float, float, float] | None = None,
    task: TaskSettings | None = None,
    splits: Path | Literal["cohort"] | None = None,
    metrics: str | Iterable[str] = DEFAULT_METRICS,
    rope: str | None = None,
    grid: MeasuredOn = "original",
    checkpoints: int = 1,
    registry: Path | None = None,
    tuning: TuningSettings | None = None,
    train_fraction: str | None = None,
    test_cohort: CohortSource | None = None,
) -> ComparisonConfig:
    """The configuration of a comparison. ``folds`` not given are 3, or those of nested searches. ``steps`` not given
    are twice those of ``task``, the trainings of a search.

    ``labels``, ``spacing_mm`` and ``task`` not given are those of the runs that the evolved losses come from, else
    merged labels, the automatic spacing and the default task. Steps, and validation at the last step alone, come on
    top of the task. ``splits`` takes the place of ``folds``: nnU-Net's ``splits_final.json``, or ``"cohort"`` for the
    folds that the data set itself states. ``metrics`` are measured, and the first is the main one: it orders the losses
    and chooses the reference. ``grid`` is the one that they are measured on: each image's own, or that of the working
    spacing. ``checkpoints`` is how often a training is validated, at evenly spaced steps: several tell how fast losses
    train. ``rope`` states the largest differences without practical relevance
    (:func:`~lossevo.comparison.ropes.parse_ropes`). ``registry`` is a file that counts how often subjects were looked
    at (:mod:`lossevo.comparison.earlier`). ``tuning`` says how each loss is tuned inside each fold
    (:mod:`lossevo.comparison.tuned`); None: not at all. ``train_fraction`` names fractions of the training subjects to
    train with, too (:func:`~lossevo.comparison.fractions.parse_fractions`). ``test_cohort`` is tested with losses that
    are trained on all of ``cohort``, without folds (:mod:`lossevo.comparison.external`).

    Raises:
        LossevoError: a number out of range, no such metric, a metric twice, runs that disagree about labels, spacing or
            task, no such splits, or a test cohort that is the cohort itself, or given with folds.
    """
    if test_cohort is None:
        folds, least_folds = _fold_count(contenders, folds, splits), 2
    else:
        _require_no_folds(contenders, cohort, test_cohort, folds, splits)
        folds = least_folds = 1
    given = read_splits(splits) if isinstance(splits, Path) else splits
    task = task or setting_of_runs(contenders, "task", steps) or TaskSettings()
    steps = 2 * task.budget_steps if steps is None else steps
    for option, value, least in (
        ("steps", steps, 1),
        ("folds", folds, least_folds),
        ("seeds", seeds, 1),
        ("seed", seed, 0),
        ("checkpoints", checkpoints, 1),
    ):
        if value < least:
            raise LossevoError(f"--{option} is {value}; give at least {least}")
    try:
        measured = parse_metrics(metrics)
    except LossevoError as problem:
        raise LossevoError(f"--metrics: {problem}") from None
    if seed > MAX_RUN_SEED:
        raise LossevoError(f"--seed is {seed}; give at most {MAX_RUN_SEED}")
    folds = len(given) if isinstance(given, tuple) else folds
    if folds * seeds > COMPARISON_SEEDS:
        raise LossevoError(
            f"{folds} folds with {seeds} seeds are {folds * seeds} trainings of each loss; give at most "
            f"{COMPARISON_SEEDS}"
        )
    return ComparisonConfig(
        contenders=tuple(contenders),
        # As seen from anywhere: a comparison may be resumed from another working directory.
        cohort=cohort.model_copy(update={"path": cohort.path.resolve()}) if cohort.path else cohort,
        labels=labels or setting_of_runs(contenders, "labels") or MERGED,
        spacing_mm=spacing_mm or setting_of_runs(contenders, "spacing_mm"),
        task=updated(task, "--steps", budget_steps=steps, validations=checkpoints),
        folds=folds,
        seeds=seeds,
        seed=seed,
        test_on=test_on,
        allow_leakage=allow_leakage,
        splits=given,
        metrics=tuple(metric.name for metric in measured),
        ropes=parse_ropes(rope, measured),
        grid=grid,
        registry=registry.absolute() if registry else None,
        tuning=tuning,
        fractions=parse_fractions(train_fraction) if train_fraction is not None else (),
        test_cohort=test_cohort,
    )


def _fold_count(contenders: Sequence[Contender], folds: int | None, splits: object) -> int:
    """How many folds there are."""
    whole = next((contender for contender in contenders if contender.parts), None)
    if whole is None:
        return DEFAULT_FOLDS if folds is None else folds
    size = len(whole.parts)
    if splits is not None or folds not in (None, size):
        option = f"--folds {folds}" if splits is None else f"--splits {splits}"
        raise LossevoError(f"{whole.name}: the {size} folds are those of its searches; leave {option} out")
    return size


def _require_no_folds(
    contenders: Sequence[Contender],
    cohort: CohortSource,
    test_cohort: CohortSource,
    folds: int | None,
    splits: object,
) -> None:
    if folds is not None or splits is not None:
        option = f"--folds is {folds}" if folds is not None else f"--splits is {splits}"
        raise LossevoError(
            f"{option}, but --test-on {test_cohort} trains once on the whole of {cohort}, without folds; leave one of "
            "them out"
        )
    if whole := next((contender for contender in contenders if contender.parts), None):
        raise LossevoError(
            f"{whole.name}: its {len(whole.parts)} losses were found inside folds, but --test-on {test_cohort} has "
            "none; give one run"
        )
    if cohort.path is not None and test_cohort.path is not None and cohort.path.resolve() == test_cohort.path.resolve():
        raise LossevoError(
            f"--test-on {test_cohort} is the cohort that is trained on; name another, or leave --test-on out to test "
            "it by cross-validation"
        )


def read_config(folder: Path) -> ComparisonConfig:
    """The configuration of a comparison folder.

    Raises:
        LossevoError: not a comparison folder, damaged, or of another version of lossevo.
    """
    return checked(ComparisonConfig, read_document(folder, COMPARISON), str(folder / COMPARISON.file))
