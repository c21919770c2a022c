"""The scores of each structure alone: of every class, such as a vertebral level, by loss and metric."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

from lossevo.comparison.scores import CaseScore, subject_scores
from lossevo.csv_files import csv_text
from lossevo.metrics import Metric

_COLUMNS = ("metric", "class", "loss", "mean", "sd", "subjects")


@dataclass(frozen=True, slots=True)
class StructureScore:
    """A loss on one class in one metric: mean and standard deviation over the subjects whose labels have the class.

    A subject's value is its mean over cases and seeds. ``sd`` is None for one subject.
    """

    metric: str
    class_name: str
    loss: str
    mean: float
    sd: float | None
    subjects: int


def structure_scores(scores: Sequence[CaseScore], metrics: Iterable[Metric]) -> tuple[StructureScore, ...]:
    """By metric, class and loss, in the order in which they come; nothing if there is one class alone.

    Raises:
        LossevoError: one loss has a value where another has none.
    """
    by_class: dict[str, list[CaseScore]] = {}
    for score in scores:
        by_class.setdefault(score.class_name, []).append(score)
    if len(by_class) < 2:
        return ()
    return tuple(
        StructureScore(
            metric=metric.name,
            class_name=name,
            loss=loss,
            mean=statistics.fmean(subjects.values()),
            sd=statistics.stdev(subjects.values()) if len(subjects) > 1 else None,
            subjects=len(subjects),
        )
        for metric in metrics
        for name, found in by_class.items()
        for loss, subjects in subject_scores(found, metric.name).items()
        if subjects
    )


def structures_csv(structures: Iterable[StructureScore]) -> str:
    """The text of ``structures.csv``."""
    return csv_text(_COLUMNS, ({**asdict(one), "class": one.class_name} for one in structures))
