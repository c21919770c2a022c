"""Figures of curves: value and gradient over the probability, gradient over the distance to the boundary."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lossevo.analysis import AnalysedLoss, Analysis
from lossevo.report.style import GREY, Picture, line_styles, logarithmic, note, panels_of, shortened

_TARGETS = (1, 0)
_INNER = (0.1, 0.9)
"""What happens nearer to 0 and 1 does not decide how tall an axis is: 1/p would leave nothing to see of the rest."""
_READABLE = (-0.8, 0.5)
"""By how many powers of ten a curve's largest gradient may differ from the median before it is drawn rescaled."""
_WEAKEST, _STRONGEST = 1e-3, 30


def profile_pictures(analysis: Analysis) -> list[Picture]:
    """One figure per family: value above, gradient below, foreground left, background right."""
    styles = line_styles(analysis.losses)
    return [_profile_picture(panel, losses, analysis.profiles, styles) for panel, losses in panels_of(analysis.losses)]


def _profile_picture(
    panel: str, losses: Sequence[AnalysedLoss], profiles: pd.DataFrame, styles: Mapping[str, Mapping[str, Any]]
) -> Picture:
    figure = Figure(figsize=(9.6, 6.0), layout="constrained")
    grid = figure.subplots(2, 2, sharex=True)
    powers = [_powers_of_ten(losses, profiles[profiles["target"] == target]) for target in _TARGETS]
    for column, target in enumerate(_TARGETS):
        for row, quantity in enumerate(("value", "gradient")):
            axes: Axes = grid[row, column]
            axes.axhline(0, color=GREY, linewidth=0.8)
            shown = []
            for loss in losses:
                curve = profiles[(profiles["loss"] == loss.name) & (profiles["target"] == target)]
                y = curve[quantity] / 10.0 ** powers[column][loss.name]
                shown.append(y[curve["p"].between(*_INNER)])
                label = _label(loss.name, [power[loss.name] for power in powers])
                axes.plot(curve["p"], y, label=label, **styles[loss.name])
            _limit(axes, pd.concat(shown))
        grid[0, column].set_title("Foreground voxels (target 1)" if target else "Background voxels (target 0)")
        grid[1, column].set_xlabel("p: predicted probability of foreground")
        grid[1, column].set_xlim(0, 1)
    grid[0, 0].set_ylabel("value per voxel")
    grid[1, 0].set_ylabel("gradient ∂/∂x per voxel")
    handles, labels = grid[0, 0].get_legend_handles_labels()
    legend = figure.legend(handles, labels, loc="outside right upper", title=_title(panel), alignment="left")
    legend.get_title().set_fontweight("bold")
    note(
        figure,
        "A ball of 5 % foreground; one class's voxels have probability p, the other's are right with 0.99."
        " Scaled to one voxel (× |Ω|/n). Curves may leave the axes near p = 0 and 1.",
    )
    title = f"{_title(panel)}: value and gradient over p"
    described = ", ".join(loss.name for loss in losses)
    alt = (
        "Four line charts over the predicted probability p: value and gradient, for voxels of the foreground and of "
        f"the background; one curve each for {described}."
    )
    return Picture(f"profile-{_slug(panel)}", "profiles", title, alt, figure)


def _powers_of_ten(losses: Sequence[AnalysedLoss], curves: pd.DataFrame) -> dict[str, int]:
    """By which power of ten to divide the curves of each loss, so that all can be read from one axis."""
    inner = curves[curves["p"].between(*_INNER)]
    scales = {loss.name: inner[inner["loss"] == loss.name]["gradient"].abs().max() for loss in losses}
    exponents = {name: math.log10(scale) for name, scale in scales.items() if 0 < scale < math.inf}
    middle = statistics.median_low(exponents.values()) if exponents else 0.0
    low, high = _READABLE
    distances = {name: exponents.get(name, middle) - middle for name in scales}
    return {name: 0 if low < distance < high else round(distance) for name, distance in distances.items()}


def _label(name: str, powers: Sequence[int]) -> str:
    """The loss, and by what its curves are divided or multiplied in the left and in the right column."""
    scaled = [
        f"{'÷' if power > 0 else '×'} {10 ** abs(power)} {side}"
        for power, side in zip(powers, ("left", "right"), strict=True)
        if power
    ]
    return shortened(name) + (f"\n({', '.join(scaled)})" if scaled else "")


def _limit(axes: Axes, shown: pd.Series[float]) -> None:
    low, high = min(shown.min(), 0.0), max(shown.max(), 0.0)
    if math.isfinite(low) and math.isfinite(high) and high > low:
        margin = 0.08 * (high - low)
        axes.set_ylim(low - margin, high + margin)


def distance_picture(analysis: Analysis) -> Picture:
    """One panel per family: strength of the gradient over the signed distance to the boundary."""
    styles = line_styles(analysis.losses)
    panels = panels_of(analysis.losses)
    columns = min(len(panels), 2)
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(9.6, 0.5 + 3.1 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for axes in grid.flat[len(panels) :]:
        axes.set_axis_off()
    for axes, (panel, losses) in zip(grid.flat, panels, strict=False):
        axes.axvspan(-100, 0, color="#f3f3f3", linewidth=0, zorder=0)
        axes.axhline(1, color=GREY, linewidth=0.8)
        for loss in losses:
            curve = analysis.distances[analysis.distances["loss"] == loss.name].sort_values("distance_mm")
            line = axes.plot(curve["distance_mm"], curve["strength"], label=shortened(loss.name), **styles[loss.name])
            away = curve[curve["helpful"] < 0]
            axes.plot(away["distance_mm"], away["strength"], "x", color=line[0].get_color(), markersize=5)
        logarithmic(axes, "y")
        axes.set_ylim(_WEAKEST, _STRONGEST)
        axes.set_xlim(-12, 24)
        axes.set_title(_title(panel))
        axes.tick_params(labelbottom=True)
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=7.5, handlelength=2.6)
    for axes in grid.flat[max(0, len(panels) - columns) : len(panels)]:
        axes.set_xlabel("signed distance to the true boundary in mm")
    figure.supylabel("mean |∂L/∂x|, relative to the average voxel", fontsize=9)
    note(
        figure,
        "Grey: inside the vertebral body. × marks where most of the gradient"
        " pushes away from the target. Curves end below 0.001.",
    )
    described = ", ".join(loss.name for loss in analysis.losses)
    alt = (
        "Line charts, one per family of losses, of the strength of the gradient on a logarithmic scale over the signed "
        f"distance from -12 mm inside to 24 mm outside the boundary, for {described}."
    )
    return Picture("gradient-by-distance", "distance", "Gradient over the distance to the boundary", alt, figure)


def _title(panel: str) -> str:
    return panel[0].upper() + panel[1:]


def _slug(panel: str) -> str:
    return panel.replace(" (", "-").removesuffix(")").replace(" of ", "-of-")
