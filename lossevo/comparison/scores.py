"""The raw scores: the values of all metrics per loss, training, test case and class, and their average per subject,
which is what statistics see.

The label alone decides whether a class of a case has values. Where the label lacks the class there is none, for no
loss; what a loss predicts there is a false alarm, counted beside the metrics. So means and pairs of all losses are over
the same subjects. A training that did not end well (diverged, out of time, crashed) predicts nothing: it scores the
worst value of each metric wherever there is one, raises no false alarm, and is counted as a failure.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from lossevo.cluster import Status
from lossevo.csv_files import csv_text
from lossevo.errors import LossevoError
from lossevo.metrics import Metric
from lossevo.training import Measurement
from lossevo.training.reference import ReferenceCase

_TRAINING_COLUMNS = ("loss", "fold", "seed", "training_seed", "subject", "case")
_ALARM_COLUMNS = ("false_voxels", "false_ml", "status", "leakage")


@dataclass(frozen=True, slots=True)
class CaseScore:
    """A row of ``cases.csv``.

    ``fold`` counts from 1. ``seed`` is the repetition's, ``training_seed`` that of the training's initial weights and
    batches. ``values`` are those of the metrics, by name, None where the label lacks the class. ``false_voxels`` are
    then the voxels predicted of it, and None elsewhere; ``false_ml`` is their volume. ``status`` is the training's,
    ``leakage`` whether this loss's search has seen this subject. ``cut_off`` is whether the border cuts the class off
    in the prediction alone, which a note tells (:mod:`lossevo.comparison.borders`).
    """

    loss: str
    fold: int
    seed: int
    training_seed: int
    subject: str
    case: str
    class_name: str
    values: Mapping[str, float | None]
    status: Status
    leakage: bool
    false_voxels: int | None = None
    false_ml: float | None = None
    cut_off: bool = False


@dataclass(frozen=True, slots=True)
class FalseAlarms:
    """What a loss predicts where there is nothing.

    Attributes:
        false_alarms: how often at least one voxel of a class is predicted in a case whose label lacks the class.
        without_class: how often a label lacks a class, over cases, classes and seeds; the same for every loss.
        false_ml: volume predicted there, the mean over ``without_class``; None if every label has every class.
    """

    false_alarms: int
    without_class: int
    false_ml: float | None


def case_scores(
    status: Status,
    measurement: Measurement | None,
    cases: Iterable[ReferenceCase],
    class_names: Sequence[str],
    metrics: Sequence[Metric],
    *,
    loss: str,
    fold: int,
    seed: int,
    training_seed: int,
    leaked: Iterable[str] = (),
) -> list[CaseScore]:
    """The rows of one training: its test ``cases`` in their order, foreground classes in theirs.

    ``status`` says how the training ended; ``measurement`` is None if it did not end well.
    """
    leaked = frozenset(leaked)

    def measured(case: ReferenceCase, value: int) -> dict[str, float | None]:
        if value not in case.classes:
            return {metric.name: None for metric in metrics}
        if measurement is None:
            return {metric.name: case.worst_value(metric, value) for metric in metrics}
        return {metric.name: measurement.values[metric.name][case.case_id][class_names[value]] for metric in metrics}

    def alarm(case: ReferenceCase, value: int) -> int | None:
        if value in case.classes:
            return None
        return 0 if measurement is None else measurement.false_voxels[case.case_id][class_names[value]]

    cut_off = {} if measurement is None else measurement.cut_off
    rows = []
    for case in cases:
        for value in range(1, len(class_names)):
            false_voxels = alarm(case, value)
            rows.append(
                CaseScore(
                    loss=loss,
                    fold=fold,
                    seed=seed,
                    training_seed=training_seed,
                    subject=case.subject,
                    case=case.case_id,
                    class_name=class_names[value],
                    values=measured(case, value),
                    status=status,
                    leakage=case.subject in leaked,
                    false_voxels=false_voxels,
                    false_ml=None if false_voxels is None else false_voxels * case.view.voxel_ml,
                    cut_off=class_names[value] in cut_off.get(case.case_id, ()),
                )
            )
    return rows


def subject_scores(scores: Iterable[CaseScore], metric: str) -> dict[str, dict[str, float]]:
    """Loss → subject → value of a metric: mean over the classes that a case has, then over its cases and seeds.

    Every loss has the same subjects: those with a class in one of their labels.

    Raises:
        LossevoError: one loss has a value where another has none.
    """
    scores = list(scores)
    _require_the_same_cells(scores, metric)
    classes: dict[tuple[str, str], dict[tuple[int, str], list[float]]] = defaultdict(lambda: defaultdict(list))
    for score in scores:
        if (value := score.values[metric]) is not None:
            classes[score.loss, score.subject][score.seed, score.case].append(value)
    means: dict[str, dict[str, float]] = {score.loss: {} for score in scores}
    for (loss, subject), cases in classes.items():
        means[loss][subject] = _mean([_mean(values) for values in cases.values()])
    return {loss: dict(sorted(subjects.items())) for loss, subjects in means.items()}


def seed_scores(scores: Iterable[CaseScore], metric: str) -> dict[int, dict[str, dict[str, float]]]:
    """Seed → loss → subject → value of a metric, as :func:`subject_scores` of each repetition alone.

    Raises:
        LossevoError: as :func:`subject_scores`.
    """
    by_seed: dict[int, list[CaseScore]] = defaultdict(list)
    for score in scores:
        by_seed[score.seed].append(score)
    return {seed: subject_scores(found, metric) for seed, found in sorted(by_seed.items())}


def _require_the_same_cells(scores: Iterable[CaseScore], metric: str) -> None:
    """Every loss must have a value in the same cases and classes, in every repetition: else means compare subjects."""
    cells: dict[tuple[str, int], set[tuple[str, str, str]]] = {}
    for score in scores:
        scored = cells.setdefault((score.loss, score.seed), set())
        if score.values[metric] is not None:
            scored.add((score.subject, score.case, score.class_name))
    for (loss, seed), scored in cells.items():
        (first, first_seed), expected = next(iter(cells.items()))
        if differing := sorted(scored ^ expected):
            subject, case, class_name = differing[0]
            having, lacking = (f"{loss} (seed {seed})", f"{first} (seed {first_seed})")[
                :: 1 if differing[0] in scored else -1
            ]
            raise LossevoError(
                f"subject {subject}, case {case}, class {class_name}: {having} has a value of {metric} "
                f"there, {lacking} has none; the label decides whether there is one, so all losses have it or none "
                "has. Where a label lacks the class leave the value of every loss undefined, and count what is "
                "predicted as a false alarm"
            )


def false_alarms(scores: Iterable[CaseScore]) -> dict[str, FalseAlarms]:
    """Loss → its false alarms, over all cases, classes and seeds."""
    volumes: dict[str, list[float]] = defaultdict(list)
    for score in scores:
        volumes[score.loss] += [] if score.false_ml is None else [score.false_ml]
    return {
        loss: FalseAlarms(
            false_alarms=sum(volume > 0 for volume in found),
            without_class=len(found),
            false_ml=_mean(found) if found else None,
        )
        for loss, found in volumes.items()
    }


def to_csv(
    scores: Iterable[CaseScore], metrics: Sequence[Metric], *, header: bool = True, fraction: float | None = None
) -> str:
    """The text of ``cases.csv``: a column per metric, with six decimals, empty where the label lacks the class.

    Without ``header`` the lines to append to it. ``fraction`` is that of the training subjects, for a first column.
    """
    names = [metric.name for metric in metrics]
    text = csv_text(
        (*(["fraction"] if fraction is not None else []), *_TRAINING_COLUMNS, "class", *names, *_ALARM_COLUMNS),
        (
            {
                **({"fraction": f"{fraction:g}"} if fraction is not None else {}),
                **{name: getattr(score, name) for name in (*_TRAINING_COLUMNS, *_ALARM_COLUMNS)},
                "class": score.class_name,
                **{name: _six_decimals(score.values[name]) for name in names},
                "false_ml": _six_decimals(score.false_ml),
            }
            for score in scores
        ),
    )
    return text if header else text.partition("\n")[2]


def _six_decimals(value: float | None) -> str | None:
    return None if value is None else f"{value:.6f}"


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
