"""The raw scores: one Dice per loss, training, test case and class, and their average per subject, which is what
statistics see.

The label alone decides whether a class of a case has a Dice. Where the label lacks the class there is none, for no
loss; what a loss predicts there is a false alarm, counted beside the Dice. So means and pairs of all losses are over
the same subjects. A training that did not end well (diverged, out of time, crashed) predicts nothing: it scores 0
wherever there is a Dice, raises no false alarm, and is counted as a failure.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from lossevo.cluster import Status
from lossevo.csv_files import csv_text
from lossevo.errors import LossevoError
from lossevo.training import Measurement
from lossevo.training.reference import ReferenceCase

FAILED_DICE = 0.0

_COLUMNS = (
    *("loss", "fold", "seed", "training_seed", "subject", "case", "class", "dice", "false_voxels", "status"),
    "leakage",
)


@dataclass(frozen=True, slots=True)
class CaseScore:
    """A row of ``cases.csv``.

    ``fold`` counts from 1. ``seed`` is the repetition's, ``training_seed`` that of the training's initial weights and
    batches. ``dice`` is None where the label lacks the class; ``false_voxels`` are then the voxels predicted of it, and
    None elsewhere. ``status`` is the training's, ``leakage`` whether this loss's search has seen this subject.
    """

    loss: str
    fold: int
    seed: int
    training_seed: int
    subject: str
    case: str
    class_name: str
    dice: float | None
    status: Status
    leakage: bool
    false_voxels: int | None = None


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

    def measured(case: ReferenceCase, value: int) -> tuple[float | None, int | None]:
        name = class_names[value]
        if value in case.classes:
            return (FAILED_DICE if measurement is None else measurement.values["dice"][case.case_id][name]), None
        return None, (0 if measurement is None else measurement.false_voxels[case.case_id][name])

    rows = []
    for case in cases:
        for value in range(1, len(class_names)):
            dice, false_voxels = measured(case, value)
            rows.append(
                CaseScore(
                    loss=loss,
                    fold=fold,
                    seed=seed,
                    training_seed=training_seed,
                    subject=case.subject,
                    case=case.case_id,
                    class_name=class_names[value],
                    dice=dice,
                    status=status,
                    leakage=case.subject in leaked,
                    false_voxels=false_voxels,
                )
            )
    return rows


def subject_scores(scores: Iterable[CaseScore]) -> dict[str, dict[str, float]]:
    """Loss → subject → Dice: mean over the classes that a case has, then over the subject's cases and seeds.

    Every loss has the same subjects: those with a class in one of their labels.

    Raises:
        LossevoError: one loss has a Dice where another has none.
    """
    scores = list(scores)
    _require_the_same_cells(scores)
    classes: dict[tuple[str, str], dict[tuple[int, str], list[float]]] = defaultdict(lambda: defaultdict(list))
    for score in scores:
        if score.dice is not None:
            classes[score.loss, score.subject][score.seed, score.case].append(score.dice)
    means: dict[str, dict[str, float]] = {score.loss: {} for score in scores}
    for (loss, subject), cases in classes.items():
        means[loss][subject] = _mean([_mean(values) for values in cases.values()])
    return {loss: dict(sorted(subjects.items())) for loss, subjects in means.items()}


def seed_scores(scores: Iterable[CaseScore]) -> dict[int, dict[str, dict[str, float]]]:
    """Seed → loss → subject → Dice, as :func:`subject_scores` of each repetition alone.

    Raises:
        LossevoError: as :func:`subject_scores`.
    """
    by_seed: dict[int, list[CaseScore]] = defaultdict(list)
    for score in scores:
        by_seed[score.seed].append(score)
    return {seed: subject_scores(found) for seed, found in sorted(by_seed.items())}


def _require_the_same_cells(scores: Iterable[CaseScore]) -> None:
    """Every loss must have a Dice in the same cases and classes, in every repetition: else means compare subjects."""
    cells: dict[tuple[str, int], set[tuple[str, str, str]]] = {}
    for score in scores:
        scored = cells.setdefault((score.loss, score.seed), set())
        if score.dice is not None:
            scored.add((score.subject, score.case, score.class_name))
    for (loss, seed), scored in cells.items():
        (first, first_seed), expected = next(iter(cells.items()))
        if differing := sorted(scored ^ expected):
            subject, case, class_name = differing[0]
            having, lacking = (f"{loss} (seed {seed})", f"{first} (seed {first_seed})")[
                :: 1 if differing[0] in scored else -1
            ]
            raise LossevoError(
                f"subject {subject}, case {case}, class {class_name}: {having} has a Dice there, {lacking} has none; "
                "the label decides whether there is a Dice, so all losses have it or none has. Where a label lacks the "
                "class leave the Dice of every loss undefined, and count what is predicted as a false alarm"
            )


def false_alarms(scores: Iterable[CaseScore], *, voxel_mm3: float) -> dict[str, FalseAlarms]:
    """Loss → its false alarms, over all cases, classes and seeds."""
    counts: dict[str, list[int]] = defaultdict(list)
    for score in scores:
        counts[score.loss] += [score.false_voxels or 0] if score.dice is None else []
    return {
        loss: FalseAlarms(
            false_alarms=sum(voxels > 0 for voxels in found),
            without_class=len(found),
            false_ml=sum(found) * voxel_mm3 / 1000 / len(found) if found else None,
        )
        for loss, found in counts.items()
    }


def to_csv(scores: Iterable[CaseScore]) -> str:
    """The text of ``cases.csv``; Dice with six decimals, empty where the label lacks the class."""
    return csv_text(
        _COLUMNS,
        (
            {
                **{name: getattr(score, name) for name in _COLUMNS if name not in ("class", "dice", "leakage")},
                "class": score.class_name,
                "dice": None if score.dice is None else f"{score.dice:.6f}",
                "leakage": score.leakage,
            }
            for score in scores
        ),
    )


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
