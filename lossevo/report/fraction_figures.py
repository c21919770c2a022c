"""Figure of the data utilisation in a comparison: each loss's score over the number of training subjects."""

from __future__ import annotations

from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, NullLocator

from lossevo.comparison import DataUse
from lossevo.metrics import Metric
from lossevo.report.style import COLOURS, DASHES, Picture, note, shortened, styled

_MOST = len(COLOURS)
_BESIDE = 1.012
"""By this factor the points of two losses stand apart, so that their error bars do not hide each other."""


def fraction_picture(found: DataUse, metric: Metric) -> Picture:
    """Mean and standard error in a metric of the losses that are best with all training subjects."""
    by_loss = found.of(metric.name)
    ranked = sorted(by_loss, key=lambda loss: by_loss[loss][found.fractions[-1]].rank)
    shown = ranked[:_MOST]
    with styled():
        figure = Figure(figsize=(7.2, 3.8), layout="constrained")
        axes = figure.subplots()
        axes.set_xscale("log")
        for number, loss in enumerate(shown):
            scores = by_loss[loss].values()
            beside = _BESIDE ** (number - (len(shown) - 1) / 2)
            axes.errorbar(
                [_subjects(score.fewest_training_subjects, score.most_training_subjects) * beside for score in scores],
                [score.mean for score in scores],
                yerr=[score.se or 0.0 for score in scores],
                color=COLOURS[number % len(COLOURS)],
                linestyle=DASHES[number % len(DASHES)],
                linewidth=1.8,
                marker="o",
                markersize=4,
                capsize=2,
                elinewidth=1,
                label=shortened(loss, 32),
            )
        first = by_loss[shown[0]].values()
        ticks = [_subjects(score.fewest_training_subjects, score.most_training_subjects) for score in first]
        axes.set_xticks(ticks, [f"{tick:g}\n{score.fraction:g}" for tick, score in zip(ticks, first, strict=True)])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel("training subjects, and their share")
        axes.set_ylabel(f"mean {metric.heading}")
        axes.legend(fontsize=7.5, loc="best")
        left_out = (
            f" {len(ranked) - len(shown)} losses that rank lower are left out." if len(ranked) > len(shown) else ""
        )
        note(figure, f"Mean and standard error over the tested subjects; a failed training scores the worst.{left_out}")
    alt = f"Line chart of the mean {metric.label} over the number of training subjects with {', '.join(shown)}."
    return Picture("data-fractions", "data", "Data utilisation", alt, figure)


def _subjects(fewest: int, most: int) -> float:
    return (fewest + most) / 2
