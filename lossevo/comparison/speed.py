"""Training speed: how soon a loss gets where the best hand-crafted one ends, and the area under its learning curve.

It is one of the three questions of Gonzalez & Miikkulainen, "Improved training speed, accuracy, and data utilization
through loss function optimization" (arXiv 1905.11528). Curves are of the mean Dice at the working spacing.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from lossevo.csv_files import csv_text

SHARES = (0.9, 0.95, 0.99)
"""Of the best hand-crafted loss's final Dice."""

Point = tuple[int, float]
"""Step and Dice."""


@dataclass(frozen=True, slots=True)
class LearningCurve:
    """The validations of one training, in order. ``fold`` counts from 1; ``points`` is empty if the training failed."""

    loss: str
    fold: int
    seed: int
    points: tuple[Point, ...]


@dataclass(frozen=True, slots=True)
class Speed:
    """How fast a loss trains.

    Attributes:
        loss: its name.
        curve: mean Dice over all trainings at each validated step; a failed training has 0.
        area: mean Dice over the steps of a training: area under the curve, which begins with 0, by its length.
        steps_to: share of the target → the first step at which the curve has it, between two validations by a straight
            line; None if it never has.
    """

    loss: str
    curve: tuple[Point, ...]
    area: float
    steps_to: dict[float, int | None]


def speeds(curves: Sequence[LearningCurve], hand_crafted: Collection[str]) -> tuple[Speed, ...]:
    """The speed of each loss, the largest area first; nothing if no training was validated before its end.

    The target is the best final mean of ``hand_crafted`` losses; of all losses, if none of those is compared.
    """
    steps = max(([step for step, _ in curve.points] for curve in curves), key=len, default=[])
    if len(steps) < 2:
        return ()
    by_loss: dict[str, list[list[float]]] = {}
    for curve in curves:
        values = [dice for _, dice in curve.points] if curve.points else [0.0] * len(steps)
        by_loss.setdefault(curve.loss, []).append(values)
    means = {loss: np.mean(values, axis=0) for loss, values in by_loss.items()}
    judged = [loss for loss in means if loss in hand_crafted] or list(means)
    target = max(float(means[loss][-1]) for loss in judged)
    found = [_speed(loss, steps, [float(value) for value in mean], target) for loss, mean in means.items()]
    return tuple(sorted(found, key=lambda speed: -speed.area))


def _speed(loss: str, steps: Sequence[int], mean: Sequence[float], target: float) -> Speed:
    area = float(np.trapezoid([0.0, *mean], [0, *steps])) / steps[-1]
    reached = {share: _first_step(steps, mean, share * target) for share in SHARES}
    return Speed(loss, tuple(zip(steps, mean, strict=True)), area, reached)


def _first_step(steps: Sequence[int], mean: Sequence[float], wanted: float) -> int | None:
    before_step, before = 0, 0.0
    for step, dice in zip(steps, mean, strict=True):
        if dice >= wanted:
            part = (wanted - before) / (dice - before) if dice > before else 1.0
            return math.ceil(round(before_step + part * (step - before_step), 6))
        before_step, before = step, dice
    return None


def speed_csv(found: Iterable[Speed]) -> str:
    """The text of ``speed.csv``: a row per loss, empty where the curve never gets there."""
    columns = {share: f"steps_to_{100 * share:g}_percent" for share in SHARES}
    return csv_text(
        ("loss", "area", "final_dice", *columns.values()),
        (
            {
                "loss": speed.loss,
                "area": f"{speed.area:.6f}",
                "final_dice": f"{speed.curve[-1][1]:.6f}",
                **{columns[share]: step for share, step in speed.steps_to.items()},
            }
            for speed in found
        ),
    )


def curves_csv(curves: Iterable[LearningCurve]) -> str:
    """The text of ``curves.csv``: a row per training and validated step."""
    return csv_text(
        ("loss", "fold", "seed", "step", "dice"),
        (
            {"loss": curve.loss, "fold": curve.fold, "seed": curve.seed, "step": step, "dice": f"{dice:.6f}"}
            for curve in curves
            for step, dice in curve.points
        ),
    )
