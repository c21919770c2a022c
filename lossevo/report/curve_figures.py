"""Figure of the learning curves of a comparison: mean Dice of each loss over the steps of its trainings."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from lossevo.comparison import Speed
from lossevo.report.style import COLOURS, DASHES, Picture, note, shortened, styled

_MOST = len(COLOURS)


def curve_picture(found: Sequence[Speed]) -> Picture:
    """The curves of the losses with the largest areas under them."""
    shown = found[:_MOST]
    with styled():
        figure = Figure(figsize=(7.2, 3.8), layout="constrained")
        axes = figure.subplots()
        for number, speed in enumerate(shown):
            steps, dice = zip((0, 0.0), *speed.curve, strict=True)
            axes.plot(
                steps,
                dice,
                color=COLOURS[number % len(COLOURS)],
                linestyle=DASHES[number % len(DASHES)],
                linewidth=1.8,
                label=shortened(speed.loss, 32),
            )
        axes.set_xlabel("optimiser step")
        axes.set_ylabel("mean Dice, working spacing")
        axes.set_xlim(left=0)
        axes.set_ylim(bottom=0)
        axes.legend(fontsize=7.5, loc="best")
        left_out = f" {len(found) - len(shown)} losses of smaller area are left out." if len(found) > len(shown) else ""
        note(figure, f"Mean over folds and seeds; a failed training has 0.{left_out}")
    alt = f"Line chart of the mean Dice over the steps of trainings with {', '.join(one.loss for one in shown)}."
    return Picture("learning-curves", "speed", "Learning curves", alt, figure)
