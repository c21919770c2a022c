"""Figures of a meta-training: its course, and the gradient field that was learned."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lossevo.analysis import AnalysedLoss
from lossevo.analysis.profiles import profile
from lossevo.experiment import Entry
from lossevo.experiment.origin import HandCrafted
from lossevo.metrics import Objective
from lossevo.report.style import COLOURS, DASHES, GREY, Picture, note, styled

_SMOOTHED_OVER = 10
"""Outer steps."""


def metalearning_pictures(folder: Path, entries: Sequence[Entry]) -> list[Picture]:
    """The pictures of a run folder, whose hall of fame has these entries."""
    with styled():
        return [_course(folder, entries), _gradients(entries)]


def _course(folder: Path, entries: Sequence[Entry]) -> Picture:
    steps = _table(folder / "metalearning.csv")
    evaluations = _table(folder / "evaluations.csv")
    figure = Figure(figsize=(9.2, 3.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    for column, label, colour in (
        ("outer_loss_before", "before the inner steps", COLOURS[1]),
        ("outer_loss_after", "after them", COLOURS[0]),
    ):
        values = np.array(steps[column])
        left.plot(steps["outer_step"], values, color=colour, linewidth=0.7, alpha=0.3)
        left.plot(steps["outer_step"], _running_mean(values), color=colour, linewidth=2, label=label)
    left.set_title("Outer loss of a step's tasks")
    left.set_xlabel("outer step")
    left.legend()
    title = Objective.parse(entries[0].objective).title
    _draw_evaluations(right, evaluations, entries, title)
    note(
        figure, f"Outer loss: thick, the mean of {_SMOOTHED_OVER} steps. Right: points, one training each; line, mean."
    )
    alt = f"Outer loss over the outer steps, and validation {title} of whole trainings with the loss as it was then."
    return Picture("metalearning-course", "metalearning", "Course of the meta-training", alt, figure)


def _draw_evaluations(axes: Axes, evaluations: Mapping[str, list[float]], entries: Sequence[Entry], title: str) -> None:
    scores = evaluations[entries[0].objective]
    by_step: dict[float, list[float]] = defaultdict(list)
    for step, score in zip(evaluations["outer_step"], scores, strict=True):
        by_step[step].append(score)
    axes.plot(evaluations["outer_step"], scores, "o", color=COLOURS[0], markersize=3, alpha=0.5)
    axes.plot([*by_step], [np.mean(values) for values in by_step.values()], color=COLOURS[0], linewidth=2)
    baselines = [entry for entry in entries if isinstance(entry.origin, HandCrafted)]
    for entry, dashes in zip(baselines, DASHES[1:], strict=False):
        name = str(entry.origin).partition(": ")[2]
        axes.axhline(entry.selection_score, color=GREY, linestyle=dashes, linewidth=1.2, label=name)
    axes.set_title(f"Validation {title}, same seeds")
    axes.set_xlabel("outer step")
    axes.locator_params(axis="x", integer=True)
    if baselines:
        axes.legend()


def _gradients(entries: Sequence[Entry]) -> Picture:
    """∂L/∂logit over p for the learned loss, its formula and the baselines, all of the same mean size."""
    figure = Figure(figsize=(9.2, 3.5), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    order = sorted(entries, key=lambda entry: isinstance(entry.origin, HandCrafted))
    for entry, colour, dashes in zip(order, COLOURS, DASHES, strict=False):
        loss = AnalysedLoss.found(entry.id, entry.unicode, str(entry.origin), entry.loss)
        points = profile(loss)
        # Of a loss without any gradient the curve is 0.
        size = np.mean([abs(point.gradient) for point in points]) or 1.0
        for target, axes in zip((1, 0), panels, strict=True):
            swept = [point for point in points if point.target == target]
            axes.plot(
                [point.p for point in swept],
                [point.gradient / size for point in swept],
                color=colour,
                linestyle=dashes,
                label=str(entry.origin).partition(",")[0],
            )
    for axes, what in zip(panels, ("of the class", "of the background"), strict=True):
        axes.set_title(f"Voxels {what}")
        axes.set_xlabel("probability of the class")
        axes.axhline(0, color=GREY, linewidth=0.8)
    panels[0].set_ylabel("∂L/∂logit, mean size 1")
    panels[1].legend(fontsize=7.5)
    note(figure, "A ball that fills 5 % of its cube; all voxels but those swept are right with 0.99.")
    alt = "Derivative of each loss by the logit over the probability, for voxels of the class and of the background."
    return Picture("metalearning-gradients", "metalearning", "What was learned", alt, figure)


def _table(path: Path) -> dict[str, list[float]]:
    """The numeric columns of a CSV file."""
    with path.open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    return {name: [float(row[name]) for row in rows] for name in rows[0] if name != "id"}


def _running_mean(values: np.ndarray) -> np.ndarray:
    """The mean of the last steps, of those that there are at the beginning."""
    return np.array([np.nanmean(values[max(0, end - _SMOOTHED_OVER) : end]) for end in range(1, len(values) + 1)])
