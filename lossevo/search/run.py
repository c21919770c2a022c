"""A run folder: what was asked, who was trained on, every outcome, the hall of fame. Made once, resumed as often as
needed.

::

    run.json             configuration: search space, task, cohort, seed; the course of the search depends on it alone
    subjects.json        which subjects the search trains on, validates on, and never touches, with content hashes
    ledger.sqlite        every training and its outcome
    preprocessing.json   how each case was prepared: spacing, box, percentiles
    hall_of_fame.json    the ranking, and hall_of_fame.csv
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, Self

import torch
from pydantic import BaseModel, ConfigDict, ValidationError

from lossevo.cluster import Executor, WorkerSpec
from lossevo.data import (
    MERGED,
    SEPARATE,
    Cohort,
    LabelScheme,
    PreparedCohort,
    SubjectSplit,
    default_cache,
    phantom_cohort,
    prepare,
    read_cohort,
    relabel,
    split_subjects,
)
from lossevo.errors import LossevoError
from lossevo.search import hall_of_fame
from lossevo.search.engine import Plan, Problem, Search
from lossevo.search.folder import locked, read_json, write_json
from lossevo.search.ledger import Ledger
from lossevo.search.progress import Event, Listener
from lossevo.search.space import SearchSpace
from lossevo.search.trainings import OrderedTrainings
from lossevo.training import DEFAULT_PATCH_CACHE_BYTES, TaskSettings, TrainingData, make_training_data

FORMAT: Literal["lossevo.run/1"] = "lossevo.run/1"
TRAINING_WORKER = "lossevo.training.worker:TrainingWorker"

PrepareProgress = Callable[[int, int, str], None]


class CohortSource(BaseModel):
    """Where the cohort comes from: a data set, its format detected if None, or the embedded phantom of so many
    cases.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

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


class RunConfig(BaseModel):
    """Everything that the course of a search depends on."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal["lossevo.run/1"] = FORMAT
    space: SearchSpace
    task: TaskSettings
    cohort: CohortSource
    labels: LabelScheme = MERGED
    spacing_mm: tuple[float, float, float] | None = None
    seed: int = 0

    @property
    def plan(self) -> Plan:
        """How the budget is shared out."""
        return Plan.of(self.space.budget, len(self.space.seeds))


@dataclass(frozen=True, slots=True)
class Subjects:
    """Who a search trained on, validated on, and never touched; ``hashes`` recognises a subject in a renamed copy of
    the cohort.
    """

    train: tuple[str, ...]
    validation: tuple[str, ...]
    untouched: tuple[str, ...]
    hashes: Mapping[str, str]

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
        try:
            parts = {part: tuple(document[part]) for part in ("train", "validation", "untouched")}
            return cls(**parts, hashes=dict(document["hashes"]))
        except (KeyError, TypeError, ValueError) as problem:
            raise LossevoError(
                f"{folder / 'subjects.json'}: damaged ({problem!r}); without it leakage cannot be ruled out"
            ) from None


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
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            hint = (
                f"go on with 'lossevo search --resume {folder}', or"
                if (folder / "run.json").is_file()
                else "nothing is overwritten;"
            )
            raise LossevoError(f"{folder}: exists already; {hint} give another folder")
        config.plan  # noqa: B018 - raises on a budget that is too small, before the cohort is read
        prepared = _prepare(config, progress)
        split = split_subjects([volume.subject for volume in prepared.volumes], seed=config.seed)
        labelled = {volume.subject for volume in prepared.volumes if volume.label.any()}
        for part, subjects in (("train", split.train), ("validate", split.validation)):
            if not labelled & {*subjects}:
                raise LossevoError(
                    f"{config.cohort}: none of the subjects to {part} on ({', '.join(subjects)}) has a labelled voxel; "
                    "another seed draws others"
                )
        data = make_training_data(prepared, config.task, patch_cache_bytes=patch_cache_bytes)
        run = cls(folder, config, Subjects.of(split, prepared), data)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            Ledger(folder / "ledger.sqlite", create=True).close()
            write_json(folder / "subjects.json", {**asdict(run.subjects), "task_fingerprint": run.data.fingerprint})
            write_json(folder / "preprocessing.json", prepared.recipe)
            write_json(folder / "run.json", config.model_dump(mode="json"))
        except OSError as problem:
            raise LossevoError(f"{folder}: cannot be written ({problem.strerror or problem})") from None
        return run

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
        subjects = Subjects.read(folder)
        prepared = _prepare(config, progress)
        data = make_training_data(prepared, config.task, patch_cache_bytes=patch_cache_bytes)
        recorded = read_json(folder / "subjects.json").get("task_fingerprint")
        if data.fingerprint != recorded:
            raise LossevoError(
                f"{folder}: the cohort ({config.cohort}) or lossevo's training recipe has changed since this run "
                "began, so it cannot go on; restore the cohort or start a new run"
            )
        return cls(folder, config, subjects, data)

    def search(
        self, executor: Callable[[WorkerSpec], Executor], *, listener: Listener = lambda event: None
    ) -> list[hall_of_fame.Entry]:
        """Search, or go on searching; returns the hall of fame. ``executor`` makes the executor for a worker spec.

        Raises:
            LossevoError: another process works on this folder, or the ledger does not fit.
        """
        # The screening works on tiny tensors beside workers that keep all cores busy.
        torch.set_num_threads(1)
        spec = WorkerSpec(TRAINING_WORKER, self.data)
        steps = self.config.task.budget_steps
        with locked(self.folder), Ledger(self.folder / "ledger.sqlite") as ledger:
            trainings = OrderedTrainings(ledger, lambda: executor(spec))
            search = Search(
                space=self.config.space,
                problem=Problem(self.subjects.train, self.subjects.validation, len(self.data.class_names), steps),
                seed=self.config.seed,
                ledger=ledger,
                trainings=trainings,
                listener=listener,
                changed=lambda entries: hall_of_fame.write(entries, self.folder),
            )
            try:
                return search.run()
            finally:
                trainings.close()


def read_config(folder: Path) -> RunConfig:
    """The configuration of a run folder.

    Raises:
        LossevoError: not a run folder, damaged, or of a newer lossevo.
    """
    if not (folder / "run.json").is_file():
        raise LossevoError(
            f"{folder}: not a run folder (it has no run.json); give one that 'lossevo search --run' made"
        )
    document = read_json(folder / "run.json")
    if document.get("format") != FORMAT:
        raise LossevoError(
            f"{folder / 'run.json'}: format {document.get('format')!r}, but this lossevo reads {FORMAT!r}; "
            "use the version that made it"
        )
    try:
        return RunConfig.model_validate(document)
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(str(part) for part in problem["loc"])
        raise LossevoError(f"{folder / 'run.json'}: {where}: {problem['msg']}") from None


def _prepare(config: RunConfig, progress: PrepareProgress | None) -> PreparedCohort:
    cohort = config.cohort.open(config.spacing_mm, config.labels)
    return prepare(
        cohort,
        spacing_mm=config.spacing_mm,
        settings=config.task.preprocessing,
        cache=default_cache(),
        progress=progress,
    )


__all__ = ["CohortSource", "Event", "Run", "RunConfig", "Subjects", "read_config"]
