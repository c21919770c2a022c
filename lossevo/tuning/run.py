"""The folder of a tuning: made once, resumed as often as needed.

::

    tuning.json          configuration: losses, task, cohort, seed; the course of the tuning depends on it alone
    ledger.sqlite        every training at each rung, and its outcome
    NAME.yaml            a tuned loss, for ``lossevo evaluate --specs``, when all trainings are done
    table.md, summary.json, confirmed.csv, sensitivity.csv, trials.csv       likewise

and what :mod:`lossevo.experiment.study` describes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field

from lossevo.configuration_file import checked
from lossevo.errors import LossevoError
from lossevo.experiment import study
from lossevo.experiment.events import Listener
from lossevo.experiment.folder import locked, write_text
from lossevo.experiment.kinds import TUNING, read_document
from lossevo.experiment.ledger import Ledger
from lossevo.experiment.study import PrepareProgress, Study, Subjects
from lossevo.losses import create
from lossevo.losses.catalogue import named_spec
from lossevo.training import DEFAULT_PATCH_CACHE_BYTES, TrainingData
from lossevo.tuning.course import Course
from lossevo.tuning.files import specs_yaml, write_files
from lossevo.tuning.problem import Problem
from lossevo.tuning.result import TuningResult
from lossevo.tuning.settings import TuningSettings
from lossevo.tuning.space import Space, require_known
from lossevo.tuning.tuner import Workers, run_courses


class TuningConfig(Study):
    """Everything that the course of a tuning depends on. ``losses`` are names in the catalogue, ``steps`` those of a
    training.
    """

    format: Literal["lossevo.tuning/1"] = "lossevo.tuning/1"
    losses: tuple[str, ...] = Field(min_length=1)
    steps: int = Field(ge=1)
    settings: TuningSettings = TuningSettings()

    def spaces(self) -> tuple[Space, ...]:
        """What is tuned of each loss.

        Raises:
            LossevoError: no such loss, one given twice, nothing to tune of one, or bounds that do not fit.
        """
        found = []
        for number, name in enumerate(self.losses):
            create(name)
            if name in self.losses[:number]:
                raise LossevoError(f"{name} is given twice; leave one out")
            space = Space.of(
                named_spec(name),
                self.settings.what,
                learning_rate=self.task.learning_rate,
                bounds=self.settings.bounds,
            )
            if not space.dimensions:
                raise LossevoError(f"{name} has no bounded parameter to tune; tune its learning rate: --tune lr")
            found.append(space)
        require_known(self.settings.bounds, found)
        return tuple(found)

    @property
    def foreign(self) -> tuple[Mapping[str, Any], ...]:
        """The losses that installed packages bring: a worker that has not the package is none.

        Raises:
            LossevoError: as :meth:`spaces`.
        """
        return tuple(space.spec for space in self.spaces() if "distribution" in space.spec)


@dataclass(frozen=True, slots=True)
class Tuning:
    """The folder of a tuning with its data in memory, ready to run."""

    folder: Path
    config: TuningConfig
    subjects: Subjects
    data: TrainingData

    @classmethod
    def create(
        cls,
        folder: Path,
        config: TuningConfig,
        *,
        patch_cache_bytes: int = DEFAULT_PATCH_CACHE_BYTES,
        progress: PrepareProgress | None = None,
    ) -> Self:
        """Read and split the cohort and make the folder; nothing is left of it if anything is wrong.

        Raises:
            LossevoError: as :meth:`TuningConfig.spaces`; the folder is in use, the cohort is no cohort, too small to be
                split, or a part of it has no foreground.
        """
        foreign = config.foreign
        subjects, data = study.create_folder(
            folder, config, kind=TUNING, patch_cache_bytes=patch_cache_bytes, progress=progress
        )
        return cls(folder, config, subjects, replace(data, foreign_losses=foreign))

    @classmethod
    def open(
        cls,
        folder: Path,
        *,
        patch_cache_bytes: int = DEFAULT_PATCH_CACHE_BYTES,
        progress: PrepareProgress | None = None,
    ) -> Self:
        """Open the folder of a tuning to go on with it.

        Raises:
            LossevoError: no such folder, damaged, or the cohort is no longer what it was.
        """
        config = read_config(folder)
        subjects, data = study.open_folder(folder, config, patch_cache_bytes=patch_cache_bytes, progress=progress)
        return cls(folder, config, subjects, replace(data, foreign_losses=config.foreign))

    def courses(self) -> list[Course]:
        """The courses of all losses, from their beginning."""
        config = self.config
        scoring = study.scoring_of(config, self.subjects, self.data)
        return [
            Course(
                Problem(
                    name=name,
                    fold=None,
                    space=space,
                    split=self.subjects.split,
                    scoring=scoring,
                    study=self.data.fingerprint,
                    steps=config.steps,
                    one_cycle=config.task.schedule == "one_cycle",
                    seed=config.seed,
                ),
                config.settings,
            )
            for name, space in zip(config.losses, config.spaces(), strict=True)
        ]

    def run(self, workers: Workers, *, listener: Listener = lambda event: None) -> list[TuningResult]:
        """Tune, or go on tuning; writes all files. A finished tuning needs no worker.

        Raises:
            LossevoError: another process works on this folder, Ray cannot be had, a file cannot be written, or all
                trainings of a loss were lost.
        """
        courses = self.courses()
        with locked(self.folder), Ledger(self.folder / "ledger.sqlite") as ledger:
            run_courses(courses, self.data, ledger, workers=workers, listener=listener)
            results = [TuningResult.of(course) for course in courses]
            for result in results:
                write_text(self.folder / f"{result.name}.yaml", specs_yaml(result))
            write_files(self.folder, results)
        return results


def read_config(folder: Path) -> TuningConfig:
    """The configuration of a tuning's folder.

    Raises:
        LossevoError: no such folder, damaged, or of another version of lossevo.
    """
    return checked(TuningConfig, read_document(folder, TUNING), str(folder / TUNING.file))
