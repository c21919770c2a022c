"""What was done in a comparison, the same for every loss."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import lossevo
from lossevo.comparison.earlier import EarlierComparison
from lossevo.metrics import IMPLEMENTATION, Metric
from lossevo.training.trial import MeasuredOn
from lossevo.tuning.settings import TuningSettings

_CLASSES_TOLD = 3


@dataclass(frozen=True, slots=True)
class Protocol:
    """What was done.

    Attributes:
        cohort: name of the one that is tested.
        class_names: index = label value.
        spacing_mm: working spacing, at which losses are trained.
        folds, steps, seeds, seed: as of the configuration.
        tested: subjects.
        train_only: subjects.
        metrics: what is measured, the main metric first.
        ropes: metric name → largest difference without practical relevance, in the metric's unit.
        grid: on which metrics are measured: at the working spacing, or each image's own.
        unscored: those of ``tested`` whose labels are empty.
        departures: what is otherwise than in the searches of the losses, a sentence each.
        registry: file that counts looks.
        tuning: how losses were tuned inside each fold; None: not at all.
        earlier: comparisons that tested the same subjects before, as far as they are known here or from ``registry``.
        fractions: of the training subjects, with which losses are trained besides all of them, the largest first.
        trained_on: name of the cohort that is trained on, if it is another: an external test, without folds.
        left_out: subjects of the cohort that are neither tested nor trained on, as a compared search has seen them.
    """

    cohort: str
    class_names: tuple[str, ...]
    spacing_mm: tuple[float, float, float]
    folds: int
    steps: int
    seeds: int
    seed: int
    tested: tuple[str, ...]
    train_only: tuple[str, ...]
    metrics: tuple[Metric, ...]
    ropes: Mapping[str, float]
    grid: MeasuredOn = "working"
    unscored: tuple[str, ...] = ()
    departures: tuple[str, ...] = ()
    registry: Path | None = None
    tuning: TuningSettings | None = None
    earlier: tuple[EarlierComparison, ...] = ()
    fractions: tuple[float, ...] = ()
    trained_on: str | None = None
    left_out: tuple[str, ...] = ()

    @property
    def measured_on(self) -> str:
        """Which labels metrics are measured on, for a title."""
        classes = self.class_names[1:]
        which = ", ".join(classes) if len(classes) <= _CLASSES_TOLD else f"{len(classes)} classes"
        return f"labels of {which} {_where(self)[0]}"

    @property
    def measuring(self) -> str:
        """How metrics are measured, and on which grid."""
        return (
            f"A value of a subject is the mean over classes ({', '.join(self.class_names[1:])}), cases and seeds, "
            f"measured {_where(self)[1]}."
        )

    @property
    def tuned(self) -> str:
        """How losses were tuned; empty if they were not."""
        if self.tuning is None:
            return ""
        parts = {"lr": "the learning rate", "parameters": "bounded parameters"}
        what = " and ".join(parts[name] for name in self.tuning.what)
        where = "on the training subjects alone" if self.trained_on else "in each fold, on its training subjects alone"
        parts_told = (
            " A part of the training subjects is trained with the same values, so they owe something to the others."
            if self.fractions
            else ""
        )
        return (
            f"Tuned {where}: {what} of each loss that has any; "
            f"{self.tuning.trials} values tried (TPE, ASHA) by {self.metrics[0].name} at the working spacing, then the "
            f"best {self.tuning.finalists} and the untuned ones confirmed by {self.tuning.seeds} fresh trainings each. "
            f"The values are in tuning/table.md.{parts_told}"
        )

    @property
    def implementation(self) -> str:
        """What the metrics are, and which implementation with which version and options measured them."""
        told = "; ".join(f"{metric.name}: {metric.definition}" for metric in self.metrics)
        return f"Metrics of lossevo {lossevo.__version__}. {told}. Implementation: {IMPLEMENTATION}."

    @property
    def voxel_size(self) -> str:
        """``4 × 4 × 4 mm``."""
        return f"{' × '.join(f'{step:g}' for step in self.spacing_mm)} mm"

    def __str__(self) -> str:
        more = [
            *([f"{len(self.unscored)} of them without a label, so without a score"] if self.unscored else []),
            *([f"{len(self.left_out)} more left out, which a search has seen"] if self.left_out else []),
            *([f"{len(self.train_only)} more only trained on"] if self.train_only and not self.trained_on else []),
        ]
        length = f"{self.steps} steps, {self.seeds} seed{'s' if self.seeds > 1 else ''}"
        if self.trained_on:
            tested = "; ".join([_subjects(self.tested), *more])
            trained = _subjects(self.train_only)
            return f"trained on {self.trained_on} ({trained}), tested on {self.cohort} ({tested}), {length}"
        aside = f" ({'; '.join(more)})" if more else ""
        return f"{self.folds}-fold cross-validation on {_subjects(self.tested)} of {self.cohort}{aside}, {length}"


def _subjects(names: tuple[str, ...]) -> str:
    return f"{len(names)} subject{'s' if len(names) != 1 else ''}"


def _where(protocol: Protocol) -> tuple[str, str]:
    """The grid that metrics are measured on, in short and in full: the one place that says so."""
    if protocol.grid == "original":
        return "on each image's own grid", "on each image's own grid, in its voxel size"
    at = f"at {protocol.voxel_size}"
    return at, f"on labels resampled to the working spacing, {protocol.voxel_size}, not at native resolution"
