"""Figures of what moved in a loss that adapts: its weights and parameters over the steps of every training."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import sha256
from itertools import groupby

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lossevo.comparison import LossTrajectory
from lossevo.report.style import COLOURS, Picture, logarithmic, note, shortened, styled

_LOG_RATIO = 20.0
"""Weights that differ by more than this factor are drawn on a logarithmic axis."""
_LEAST_SPAN = 0.2
"""Of a linear axis, as a share of what it shows."""
_LABEL_GAP = 0.055
"""Between names at the ends of lines, as a share of the axes' height."""


def trajectory_pictures(trajectories: Iterable[LossTrajectory]) -> list[Picture]:
    """A picture for each loss, in the order of the names."""
    by_loss = sorted(trajectories, key=lambda trajectory: trajectory.loss)
    with styled():
        return [_picture(loss, list(of_loss)) for loss, of_loss in groupby(by_loss, key=lambda one: one.loss)]


def _picture(loss: str, trajectories: Sequence[LossTrajectory]) -> Picture:
    panels = _panels(trajectories[0].quantities)
    figure = Figure(figsize=(0.6 + 4.6 * len(panels), 3.5), layout="constrained")
    for axes, (title, quantities) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        _draw(axes, quantities, trajectories)
        axes.set_title(title)
        axes.set_xlabel("optimiser step")
    figure.suptitle(shortened(loss, 60), fontweight="bold")
    count, names = len(trajectories), ", ".join(trajectories[0].quantities)
    thin = f"Thin: {count} trainings, one per fold and seed. Thick: their mean."
    note(figure, thin if count > 1 else "One training.")
    alt = f"Line chart over the steps of {count} trainings with {loss}: {names}. The values are in trajectories.csv."
    return Picture(f"trajectory-{_file_name(loss)}", "trajectories", f"Trajectory of {loss}", alt, figure)


def _panels(names: Iterable[str]) -> list[tuple[str, list[str]]]:
    """Weights, which are of one kind, together; every other parameter on its own."""
    weights = [name for name in names if name.startswith("w_")]
    others = [(name, [name]) for name in names if not name.startswith("w_")]
    return [*([("weights" if len(weights) > 1 else weights[0], weights)] if weights else []), *others]


def _draw(axes: Axes, names: Sequence[str], trajectories: Sequence[LossTrajectory]) -> None:
    # Of trainings with the same steps; of others, which only another number of steps could give, the common ones.
    steps = sorted(set.intersection(*(set(one.steps) for one in trajectories)))
    last = max(steps)
    ends = []
    for name, colour in zip(names, _colours(len(names)), strict=True):
        for one in trajectories:
            axes.step(one.steps, one.quantities[name], where="post", color=colour, linewidth=0.8, alpha=0.45)
        mean = np.mean([np.interp(steps, one.steps, one.quantities[name]) for one in trajectories], axis=0)
        axes.step(steps, mean, where="post", color=colour, linewidth=2.4)
        ends.append((float(mean[-1]), name, colour))
    values = np.array([value for one in trajectories for name in names for value in one.quantities[name]])
    if values.min() > 0 and values.max() > _LOG_RATIO * values.min():
        logarithmic(axes, "y")
    else:
        # What hardly moves shall look so.
        middle = (values.min() + values.max()) / 2
        half = max(0.54 * np.ptp(values), _LEAST_SPAN / 2 * abs(middle), 1e-6)
        axes.set_ylim(middle - half, middle + half)
    axes.set_xlim(0, max(1.0, last))
    if len(names) > 1:
        _label(axes, ends)


def _label(axes: Axes, ends: Sequence[tuple[float, str, str]]) -> None:
    """The names at the right ends of the lines, moved apart where they would meet."""
    to_share = axes.transData + axes.transAxes.inverted()
    heights: list[float] = []
    for value, name, colour in sorted(ends):
        height = float(to_share.transform((0, value))[1])
        height = max(height, heights[-1] + _LABEL_GAP) if heights else height
        heights.append(height)
        axes.annotate(
            name,
            (1, height),
            xycoords="axes fraction",
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
            color=colour,
            fontweight="bold",
            annotation_clip=False,
        )


def _colours(count: int) -> list[str]:
    return [COLOURS[index % len(COLOURS)] for index in range(count)]


def _file_name(loss: str) -> str:
    clean = "".join(letter if letter.isalnum() or letter in "._-" else "_" for letter in loss)
    # Names that differ only in what a file name cannot hold.
    return clean if clean == loss else f"{clean}-{sha256(loss.encode()).hexdigest()[:6]}"
