"""What is known of the search that a loss was found by: whom it has seen, and with which settings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from lossevo.data import Fold, LabelScheme
from lossevo.errors import LossevoError
from lossevo.experiment import CohortSource, Ledger, Study, Subjects, read_study
from lossevo.training import TaskSettings

_NAMES_TOLD = 5


class SearchRecord(BaseModel):
    """What is known of the search that a loss was chosen by: who it trained and validated on, and on which cohort.

    ``fold`` is the one inside which it ran, if it did.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    subjects: Subjects
    cohort: CohortSource | None = None
    labels: LabelScheme | None = None
    spacing_mm: tuple[float, float, float] | None = None
    task: TaskSettings | None = None
    fold: Fold | None = None

    @classmethod
    def of_run(cls, run: Path, loss_id: str) -> Self:
        """What a run folder tells of the search, or the learning by gradient, that its loss ``loss_id`` comes from.

        Raises:
            LossevoError: not a run folder, damaged, or its files are not of one run.
        """
        study = read_study(run)
        subjects = Subjects.read(run)
        _require_one_run(run, subjects, f"the hall of fame has the loss {loss_id}", loss_id)
        return cls._of(study, subjects)

    @classmethod
    def of_tuning(cls, folder: Path, loss: str) -> Self:
        """What the folder of a tuning tells of the tuning of its loss ``loss``.

        Raises:
            LossevoError: not the folder of a tuning, damaged, or its files are not of one tuning.
        """
        # Only here: the sampler of a tuning takes half a second to import.
        from lossevo.tuning import read_config

        config = read_config(folder)
        subjects = Subjects.read(folder)
        _require_one_run(folder, subjects, f"a loss {loss} is said to be tuned there", f"{loss}:0")
        return cls._of(config, subjects)

    @classmethod
    def _of(cls, study: Study, subjects: Subjects) -> Self:
        return cls(
            subjects=subjects,
            cohort=study.cohort,
            labels=study.labels,
            spacing_mm=study.spacing_mm,
            task=study.task,
            fold=study.fold,
        )

    @classmethod
    def of_metadata(cls, metadata: Mapping[str, Any], file: Path) -> Self | None:
        """What the metadata of an exported loss tell; None if they do not say whom its search has seen.

        Raises:
            LossevoError: they say it in a way that cannot be read.
        """
        if "subjects" not in metadata:
            return None
        task = metadata.get("task")
        stated = task if isinstance(task, Mapping) else {}
        known = {
            field: stated.get(key)
            for field, key in (
                ("cohort", "source"),
                ("labels", "labels"),
                ("spacing_mm", "spacing_mm"),
                ("task", "settings"),
            )
        }
        try:
            return cls.model_validate({"subjects": metadata["subjects"], **known})
        except ValidationError as error:
            problem = error.errors()[0]
            where = ".".join(str(part) for part in ("metadata", *problem["loc"]))
            raise LossevoError(f"{file}: {where}: {problem['msg']}; without it leakage cannot be ruled out") from None

    def to_metadata(self) -> dict[str, Any]:
        """The inverse of :meth:`of_metadata`: what an exported loss takes along, for a later comparison."""
        document = self.model_dump(mode="json")
        return {
            "task": {
                "cohort": str(self.cohort),
                "source": document["cohort"],
                "labels": document["labels"],
                "spacing_mm": document["spacing_mm"],
                "settings": document["task"],
            },
            "subjects": document["subjects"],
        }


def _require_one_run(run: Path, subjects: Subjects, claim: str, candidate: str) -> None:
    """Hold ``subjects.json`` and a ``claim`` against the ledger, which has the subjects of every training.

    Raises:
        LossevoError: they disagree, so one of them is another run's.
    """
    with Ledger(run / "ledger.sqlite", read_only=True) as ledger:
        trained, validated = ledger.subjects_used()
        known = ledger.has_trial_of(candidate)
    doubt = "leakage cannot be ruled out; take the loss from a run whose files are its own"
    if not known:
        raise LossevoError(
            f"{run}: {claim}, but ledger.sqlite has no training of it, so these are files of different runs and {doubt}"
        )
    differing = (trained ^ {*subjects.train}) | (validated ^ {*subjects.validation})
    if differing:
        raise LossevoError(
            f"{run}: by subjects.json its search trained on {len(subjects.train)} subjects and validated on "
            f"{len(subjects.validation)}, by ledger.sqlite on {len(trained)} and {len(validated)} (they differ in "
            f"{named(differing)}), so these are files of different runs and {doubt}"
        )


def named(names: Iterable[str]) -> str:
    """``a, b, c, d, e and 3 more``, sorted."""
    ordered = sorted(names)
    more = f" and {len(ordered) - _NAMES_TOLD} more" if len(ordered) > _NAMES_TOLD else ""
    return ", ".join(ordered[:_NAMES_TOLD]) + more
