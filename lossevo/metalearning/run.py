"""The run folder of a meta-training: made once, resumed as often as needed.

::

    run.json              configuration: settings, task, cohort, seed; the course depends on it alone
    checkpoint.pt         where the loss network's training stands, and what was evaluated
    metalearning.csv      outer loss before and after the inner steps, for each outer step
    evaluations.csv       the objective of whole trainings with the loss as it was after so many outer steps
    ledger.sqlite         every whole training and its outcome
    distillation.json     the formulas that were found for the best loss network
    hall_of_fame.json     the learned loss, its distilled form and the baselines, and hall_of_fame.csv

and what :mod:`lossevo.experiment.study` describes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from lossevo.cluster import Executor, WorkerSpec
from lossevo.configuration_file import checked
from lossevo.experiment import Entry, Ledger, Subjects, study
from lossevo.experiment.events import Listener
from lossevo.experiment.folder import locked
from lossevo.experiment.kinds import META_TRAINING, read_document
from lossevo.experiment.study import PrepareProgress
from lossevo.experiment.trainings import OrderedTrainings
from lossevo.metalearning.course import Course, Workers
from lossevo.metalearning.settings import MetaConfig
from lossevo.training import DEFAULT_PATCH_CACHE_BYTES, TrainingData
from lossevo.training.threads import one_thread

META_WORKER = "lossevo.metalearning.worker:MetaWorker"


@dataclass(frozen=True, slots=True)
class MetaRun:
    """A run folder with its data in memory, ready to learn."""

    folder: Path
    config: MetaConfig
    subjects: Subjects
    data: TrainingData

    @classmethod
    def create(
        cls,
        folder: Path,
        config: MetaConfig,
        *,
        patch_cache_bytes: int = DEFAULT_PATCH_CACHE_BYTES,
        progress: PrepareProgress | None = None,
    ) -> Self:
        """Read and split the cohort and make the folder; nothing is written if anything is wrong.

        Raises:
            LossevoError: the folder is in use, the cohort is no cohort, or too small to be split.
        """
        subjects, data = study.create_folder(
            folder, config, least_trained=2, kind=META_TRAINING, patch_cache_bytes=patch_cache_bytes, progress=progress
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
            LossevoError: not such a folder, damaged, or the cohort is no longer what it was.
        """
        config = checked(MetaConfig, read_document(folder, META_TRAINING), str(folder / META_TRAINING.file))
        subjects, data = study.open_folder(folder, config, patch_cache_bytes=patch_cache_bytes, progress=progress)
        return cls(folder, config, subjects, data)

    def learn(
        self, executor: Callable[[WorkerSpec], Executor], *, listener: Listener = lambda event: None
    ) -> list[Entry]:
        """Learn, or go on learning; returns the hall of fame. ``executor`` makes the executor for a worker spec.

        Raises:
            LossevoError: another process works on this folder, a file of it is damaged or does not fit, or nothing but
                failures.
        """
        # The distillation works here, beside workers, on tensors that one thread is quickest with.
        with one_thread(), locked(self.folder), Ledger(self.folder / "ledger.sqlite") as ledger:
            workers = Workers(lambda: executor(WorkerSpec(META_WORKER, self.data)))
            trainings = OrderedTrainings(ledger, workers.get, self.config.task.step_limit_s)
            try:
                return Course(self.folder, self.config, self.subjects, self.data, trainings, workers, listener).run()
            finally:
                workers.close()
