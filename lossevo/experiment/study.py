"""What a run folder is about, whoever works in it: cohort, classes, training task and the parts of its subjects.

::

    run.json             configuration; holds at least what :class:`Study` does
    subjects.json        whom the run trains on, validates on, and never touches, with content hashes
    preprocessing.json   how each case was prepared: spacing, box, percentiles
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from lossevo.configuration_file import checked
from lossevo.data import (
    MERGED,
    SEPARATE,
    Cohort,
    Fold,
    LabelScheme,
    PreparedCohort,
    SubjectSplit,
    default_cache,
    phantom_cohort,
    prepare,
    read_cohort,
    relabel,
    split_inside_fold,
    split_subjects,
)
from lossevo.errors import LossevoError, shown
from lossevo.experiment.folder import locked, new_folder, read_json, write_json
from lossevo.experiment.kinds import RUN_FILE, Kind, read_run_document
from lossevo.experiment.ledger import MAY_BRANCH, Ledger
from lossevo.experiment.scoring import DEFAULT_OBJECTIVE, Scoring
from lossevo.metrics import Objective, fine_tolerances
from lossevo.training import Split, TaskSettings, TrainingData, make_training_data
from lossevo.training.reference import missing_classes, reference_cases
from lossevo.training.seeds import MAX_RUN_SEED

PrepareProgress = Callable[[int, int, str], None]


class CohortSource(BaseModel):
    """Where the cohort comes from: a data set, its format detected if None, or the embedded phantom of so many
    cases.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    path: Path | None = None
    format: str | None = None
    phantom_cases: int = 24
    phantom_seed: int = 0

    def open(self, spacing_mm: tuple[float, float, float] | None = None, labels: LabelScheme = SEPARATE) -> Cohort:
        """The cohort with the classes of ``labels``; a phantom is drawn at ``spacing_mm`` at once.

        Raises:
            LossevoError: the path is no cohort, or ``labels`` does not fit it.
        """
        if self.path is not None:
            return read_cohort(self.path, format=self.format, labels=labels)
        cases, seed = self.phantom_cases, self.phantom_seed
        if spacing_mm is None:
            return relabel(phantom_cohort(cases=cases, seed=seed), labels)
        return relabel(phantom_cohort(cases=cases, seed=seed, spacing_mm=spacing_mm), labels)

    def __str__(self) -> str:
        return str(self.path) if self.path else f"embedded phantom, {self.phantom_cases} cases"


def _objective(text: str) -> str:
    """The name of an objective, as it is always written."""
    try:
        return Objective.parse(text).name
    except LossevoError as problem:
        raise ValueError(str(problem)) from None


class Study(BaseModel):
    """What trainings of a run are trainings of."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    task: TaskSettings
    cohort: CohortSource
    labels: LabelScheme = MERGED
    spacing_mm: tuple[float, float, float] | None = None
    seed: int = Field(0, ge=0, le=MAX_RUN_SEED)
    objective: Annotated[str, AfterValidator(_objective)] = DEFAULT_OBJECTIVE
    fold: Fold | None = None

    def split(self, subjects: Iterable[str]) -> SubjectSplit:
        """Whom the run trains on, validates on and never touches: the test subjects of its fold, else a third.

        Raises:
            LossevoError: there are too few subjects.
        """
        if self.fold is None:
            return split_subjects(subjects, seed=self.seed)
        return split_inside_fold(subjects, self.fold, seed=self.seed)

    def prepare(self, progress: PrepareProgress | None = None) -> PreparedCohort:
        """Read and prepare the cohort.

        Raises:
            LossevoError: it is no cohort.
        """
        return prepare(
            self.cohort.open(self.spacing_mm, self.labels),
            spacing_mm=self.spacing_mm,
            settings=self.task.preprocessing,
            cache=default_cache(),
            progress=progress,
        )


@dataclass(frozen=True, slots=True)
class Subjects:
    """Who a search trained on, validated on, and never touched; ``hashes`` recognises a subject in a renamed copy of
    the cohort.
    """

    train: tuple[str, ...]
    validation: tuple[str, ...]
    untouched: tuple[str, ...]
    hashes: Mapping[str, str]

    @property
    def split(self) -> Split:
        """Whom the run trains and validates on."""
        return Split(self.train, self.validation)

    @classmethod
    def of(cls, split: SubjectSplit, prepared: PreparedCohort) -> Self:
        """The split of a prepared cohort."""
        return cls(split.train, split.validation, split.untouched, dict(prepared.subject_hashes))

    @classmethod
    def read(cls, folder: Path) -> Self:
        """From a run folder.

        Raises:
            LossevoError: not there or damaged.
        """
        document = read_json(folder / "subjects.json")
        parts = {field: document.get(field) for field in ("train", "validation", "untouched", "hashes")}
        try:
            return TypeAdapter(cls).validate_python(parts)
        except ValidationError as error:
            problem = error.errors(include_url=False)[0]
            where = ".".join(map(str, problem["loc"]))
            raise LossevoError(
                f"{folder / 'subjects.json'}: damaged ({where}: {problem['msg']}, found {shown(problem['input'])});"
                " without it leakage cannot be ruled out"
            ) from None


def create_folder(
    folder: Path,
    study: Study,
    *,
    kind: Kind,
    patch_cache_bytes: int,
    progress: PrepareProgress | None,
    least_trained: int = 1,
) -> tuple[Subjects, TrainingData]:
    """Read and split the cohort and make a run folder; nothing is left of it if anything is wrong.

    Raises:
        LossevoError: the folder is in use, the cohort is no cohort, too small to be split, or a part of it has no
            foreground.
    """
    with new_folder(folder, made_by=kind.command, configuration=kind.file):
        prepared = study.prepare(progress)
        split = study.split(volume.subject for volume in prepared.volumes)
        if len(split.train) < least_trained:
            raise LossevoError(
                f"{study.cohort}: {len(prepared.volumes)} cases leave {len(split.train)} subject to train on, but "
                f"'lossevo {kind.command}' needs at least {least_trained}; add cases"
            )
        _require_labels(study, split, prepared)
        if fine := fine_tolerances(Objective.parse(study.objective).metrics, prepared.spacing_mm):
            warnings.warn(fine, stacklevel=3)
        data = make_training_data(prepared, study.task, patch_cache_bytes=patch_cache_bytes)
        chosen = Subjects.of(split, prepared)
        Ledger(folder / "ledger.sqlite", create=True).close()
        write_json(folder / "subjects.json", {**asdict(chosen), "task_fingerprint": data.fingerprint})
        write_json(folder / "preprocessing.json", prepared.recipe)
        write_json(folder / kind.file, study.model_dump(mode="json"))  # last: it makes the folder a run's
    return chosen, data


def _require_labels(study: Study, split: SubjectSplit, prepared: PreparedCohort) -> None:
    """Refuse a split of which a part has no label at all; warn of a class that a part lacks."""
    cases, foreground = reference_cases(prepared.volumes), prepared.class_names[1:]
    for part, subjects, consequence in (
        ("train", split.train, "no network can learn it"),
        ("validate", split.validation, "no score tells how well it is found"),
    ):
        missing = missing_classes(cases, subjects, prepared.class_names)
        if missing == foreground:
            raise LossevoError(
                f"{study.cohort}: none of the subjects to {part} on ({', '.join(subjects)}) has a labelled voxel; "
                "another seed draws others"
            )
        if missing:
            warnings.warn(
                f"none of the subjects to {part} on has {', '.join(missing)}: {consequence}; another seed draws others",
                stacklevel=4,
            )


def open_folder(
    folder: Path, study: Study, *, patch_cache_bytes: int, progress: PrepareProgress | None
) -> tuple[Subjects, TrainingData]:
    """Open a run folder to go on with it.

    Raises:
        LossevoError: damaged, or the cohort is no longer what it was.
    """
    subjects = Subjects.read(folder)
    data = make_training_data(study.prepare(progress), study.task, patch_cache_bytes=patch_cache_bytes)
    recorded = read_json(folder / "subjects.json").get("task_fingerprint")
    if data.fingerprint != recorded:
        raise LossevoError(
            f"{folder}: the cohort ({study.cohort}) or lossevo's training recipe has changed since this run "
            "began, so it cannot go on; restore the cohort or start a new run"
        )
    return subjects, data


def scoring_of(study: Study, subjects: Subjects, data: TrainingData) -> Scoring:
    """How the trainings of a run are scored."""
    return Scoring.of(study.objective, (volume for volume in data.volumes if volume.subject in subjects.validation))


def retry_failures(folder: Path) -> int:
    """Let the trainings of a folder that failed be done again, whichever of its ledgers they are in; returns how many.

    Trainings that diverged are not among them: their loss did.

    Raises:
        LossevoError: another process works on the folder, or it has no ledger.
    """
    forgotten = 0
    with locked(folder):
        for path in (folder / "ledger.sqlite", *_further_ledgers(folder)):
            with Ledger(path) as ledger:
                forgotten += ledger.forget_failures()
        if forgotten:  # what follows from a tuning may change with it
            with Ledger(folder / "ledger.sqlite") as ledger:
                ledger.record_fact(MAY_BRANCH, 1.0)
    return forgotten


def _further_ledgers(folder: Path) -> list[Path]:
    """Of a tuning in the folder, and of what a search does before and after its course."""
    beside = [path for path in sorted(folder.glob("*.sqlite")) if path.name != "ledger.sqlite"]
    return [path for path in (folder / "tuning" / "ledger.sqlite", *beside) if path.is_file()]


def read_study(folder: Path) -> Study:
    """What the run in a folder is about, be it a search or something else.

    Raises:
        LossevoError: not a run folder, or damaged.
    """
    document = read_run_document(folder)
    stated = {key: document[key] for key in Study.model_fields if key in document}
    return checked(Study, stated, str(folder / RUN_FILE))
