"""Figures with one row per loss: where the gradient falls, what errors cost, what a call costs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lossevo.analysis import Analysis
from lossevo.report.style import COLOURS, FAINT, GREY, Picture, family_rows, logarithmic, note

_SHARES = ((0.01, "o", "#9ecae1"), (0.05, "s", "#3182bd"), (0.20, "D", "#08306b"))
_CHANGES = (
    ("shift", "One-voxel shift"),
    ("missing", "One of two objects missing"),
    ("false", "False object far away"),
)

_MOST = 1.2
"""Right end of the axis of responses."""


def share_picture(analysis: Analysis) -> Picture:
    """The foreground's share of the gradient: three points per loss, before training and late in it."""
    figure, grid = _rows(analysis, 2)
    for axes, stage, title in zip(
        grid, ("untrained", "trained"), ("Untrained network (p ≈ ½)", "Good prediction, one voxel off"), strict=True
    ):
        for share, _, colour in _SHARES:
            axes.axvline(100 * share, color=colour, linewidth=1, linestyle=":")
        heights = family_rows(axes, analysis.losses)
        table = analysis.shares[analysis.shares["stage"] == stage]
        for name, height in heights.items():
            mine = table[table["loss"] == name]
            axes.plot([100 * mine["share"].min(), 100 * mine["share"].max()], [height] * 2, color=FAINT, zorder=1)
        for share, marker, colour in _SHARES:
            mine = table[table["foreground"] == share]
            axes.plot(
                100 * mine["share"],
                mine["loss"].map(heights),
                marker,
                color=colour,
                markersize=5,
                label=f"{100 * share:.0f} % foreground",
            )
        axes.set_xlim(-2, 100)
        axes.set_xlabel("% of the total |∂L/∂x|")
        axes.set_title(title)
    grid[0].figure.legend(*grid[0].get_legend_handles_labels(), loc="outside upper right", ncols=3)
    note(
        figure,
        "Dotted: the foreground's share of the voxels, and of the gradient if all voxels pulled alike."
        " No point: no gradient at all.",
    )
    alt = (
        "Dot chart with a row per loss: the percentage of the total absolute gradient that falls on the foreground "
        "when 1, 5 or 20 % of the voxels are foreground, for an untrained network and for a good prediction. "
        "The summary table has the values."
    )
    return Picture("foreground-share", "share", "How much of the gradient falls on the foreground", alt, figure)


def response_picture(analysis: Analysis) -> Picture:
    """The cost of three errors relative to predicting nothing."""
    figure, grid = _rows(analysis, 3)
    for axes, (change, title), colour in zip(grid, _CHANGES, COLOURS, strict=False):
        heights = family_rows(axes, analysis.losses)
        axes.axvline(1, color=GREY, linewidth=0.8)
        axes.set_xlim(0, _MOST)
        axes.set_title(title)
        table = analysis.responses[analysis.responses["change"] == change]
        for name, value in zip(table["loss"], table["response"], strict=True):
            y = heights[name]
            if 0 <= value <= _MOST:
                axes.plot([0, value], [y, y], color=FAINT, zorder=1)
                axes.plot(value, y, "o", color=colour, markersize=5, clip_on=False)
            elif value > _MOST:
                axes.plot([0, _MOST], [y, y], color=FAINT, zorder=1)
                axes.plot(_MOST, y, ">", color=colour, clip_on=False)
                axes.text(_MOST - 0.04, y, f"{value:.3g}", va="center", ha="right", fontsize=7.5, backgroundcolor="w")
            elif value < 0:
                axes.plot(0, y, "<", color=colour, clip_on=False)
                axes.text(0.04, y, f"{value:.2g}", va="center", fontsize=7.5)
    grid[1].set_xlabel("cost of the error; 1 is the cost of predicting nothing")
    note(
        figure,
        "Missing and false object are equally large. Beyond the axis: the value is written."
        " No point: the loss likes the empty prediction no less than the right one.",
    )
    alt = (
        "Dot chart with a row per loss and three columns: cost of a shift by one voxel, of one of two objects missing, "
        "and of a false object far away, relative to the empty prediction. The summary table "
        "has the values."
    )
    return Picture("responses", "responses", "What three typical errors cost", alt, figure)


def cost_picture(analysis: Analysis) -> Picture:
    """Time and memory of one call."""
    figure, grid = _rows(analysis, 2)
    columns = (
        ("milliseconds", "Forward + backward", "ms, logarithmic"),
        ("saved_per_input_byte", "Kept for the backward pass", "bytes per byte of logits, logarithmic"),
    )
    for axes, (column, title, unit), colour in zip(grid, columns, COLOURS, strict=False):
        heights = family_rows(axes, analysis.losses)
        values = analysis.costs[column]
        positive = values[values > 0]
        logarithmic(axes, "x")
        if len(positive):
            axes.set_xlim(0.7 * positive.min(), 1.6 * positive.max())
        left = axes.get_xlim()[0]
        axes.hlines(analysis.costs["loss"].map(heights), left, values.clip(lower=left), color=FAINT, zorder=1)
        axes.plot(values.clip(lower=left), analysis.costs["loss"].map(heights), "o", color=colour, markersize=5)
        axes.set_title(title)
        axes.set_xlabel(unit)
    note(figure, "Logits 2 × 2 × 48³ in float32, one CPU thread, distance map given.")
    alt = (
        "Dot chart with a row per loss: milliseconds of forward and backward pass, and bytes kept for the backward "
        "pass per byte of logits, both on a logarithmic scale. The summary table has the values."
    )
    return Picture("cost", "cost", "What a call costs", alt, figure)


def _rows(analysis: Analysis, columns: int) -> tuple[Figure, Sequence[Axes]]:
    families = len({loss.family for loss in analysis.losses})
    height = 1.5 + 0.19 * (len(analysis.losses) + 1.4 * families)
    figure = Figure(figsize=(9.6, height), layout="constrained")
    return figure, figure.subplots(1, columns, sharey=True, squeeze=False)[0]


OVERVIEWS: tuple[Callable[[Analysis], Picture], ...] = (share_picture, response_picture, cost_picture)
