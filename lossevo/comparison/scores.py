"""The raw scores: one Dice per loss, training, test case and class, and their average per subject, which is what
statistics see.

A training that did not end well (diverged, out of time, crashed) predicts nothing: it scores 0 for every class that
the case has, and is counted as a failure. Dice is undefined, and left out of every mean, where neither prediction nor
label has the class.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from lossevo.cluster import Outcome, Status
from lossevo.csv_files import csv_text
from lossevo.data import AnyVolume

FAILED_DICE = 0.0

_COLUMNS = ("loss", "fold", "seed", "training_seed", "subject", "case", "class", "dice", "status", "leakage")


@dataclass(frozen=True, slots=True)
class CaseScore:
    """A row of ``cases.csv``.

    ``fold`` counts from 1. ``seed`` is the repetition's, ``training_seed`` that of the training's initial weights and
    batches. ``dice`` is None where undefined. ``status`` is the training's, ``leakage`` whether this loss's search
    has seen this subject.
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


def case_scores(
    outcome: Outcome,
    volumes: Iterable[AnyVolume],
    class_names: Sequence[str],
    *,
    loss: str,
    fold: int,
    seed: int,
    training_seed: int,
    leaked: Iterable[str] = (),
) -> list[CaseScore]:
    """The rows of one training: its test ``volumes`` in their order, foreground classes in theirs."""
    leaked = frozenset(leaked)

    def dice(volume: AnyVolume, value: int) -> float | None:
        if outcome.status is Status.DONE and outcome.value is not None:
            found: float | None = outcome.value["cases"][volume.case_id][class_names[value]]
            return found
        return FAILED_DICE if bool((volume.label == value).any()) else None

    return [
        CaseScore(
            loss=loss,
            fold=fold,
            seed=seed,
            training_seed=training_seed,
            subject=volume.subject,
            case=volume.case_id,
            class_name=class_names[value],
            dice=dice(volume, value),
            status=outcome.status,
            leakage=volume.subject in leaked,
        )
        for volume in volumes
        for value in range(1, len(class_names))
    ]


def subject_scores(scores: Iterable[CaseScore]) -> dict[str, dict[str, float]]:
    """Loss → subject → Dice: mean over classes, then over the subject's cases and seeds, leaving out undefined ones."""
    classes: dict[tuple[str, str], dict[tuple[int, str], list[float]]] = defaultdict(lambda: defaultdict(list))
    for score in scores:
        if score.dice is not None:
            classes[score.loss, score.subject][score.seed, score.case].append(score.dice)
    means: dict[str, dict[str, float]] = defaultdict(dict)
    for (loss, subject), cases in classes.items():
        means[loss][subject] = _mean([_mean(values) for values in cases.values()])
    return {loss: dict(sorted(subjects.items())) for loss, subjects in means.items()}


def to_csv(scores: Iterable[CaseScore]) -> str:
    """The text of ``cases.csv``; Dice with six decimals, empty where undefined."""
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
