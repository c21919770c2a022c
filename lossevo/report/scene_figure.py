"""The figure of the images on which losses are analysed."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from lossevo.analysis import responses, scenes
from lossevo.analysis.profiles import PROFILE_SHARE
from lossevo.report.style import COLOURS, Picture, note

_TARGET, _ERROR = COLOURS[0], COLOURS[1]


def scenes_picture() -> Picture:
    """One slice of every scene: the prediction in grey, the target's outline in colour."""
    figure = Figure(figsize=(9.6, 2.45), layout="compressed")
    axes = figure.subplots(1, 4, width_ratios=(1, 1, 1.12, 1.85))
    ball, vertebra, two = scenes.ball(PROFILE_SHARE), scenes.vertebra(), responses.two_balls()
    spacing = scenes.BOX_SPACING_MM[1:]
    middle = scenes.BOX_SIZE // 2
    _slice(axes[0], scenes.sure(ball.target)[middle], ball.target[middle], spacing, "Ball")
    _slice(axes[1], scenes.displaced(ball)[middle], ball.target[middle], spacing, "Ball, one voxel off")
    middle = scenes.VERTEBRA_SHAPE[0] // 2
    _slice(
        axes[2],
        scenes.wavy(vertebra)[middle],
        vertebra.target[middle],
        scenes.VERTEBRA_SPACING_MM[1:],
        "Vertebral body, sagittal",
    )
    false = responses.predicted("false")[:, :, 9].T
    _slice(axes[3], scenes.sure(false), two.target[:, :, 9].T, spacing, "Two balls, and a false one")
    _outline(axes[3], false & ~two.target[:, :, 9].T, spacing, _ERROR)
    note(figure, "Grey: predicted probability. Blue: outline of the target. Red: outline of the false object. In mm.")
    alt = (
        "Four slices in millimetres: a ball in the middle of a cube; the same ball with a blurred prediction one voxel "
        "to the side; the sagittal slice of a vertebral body with a prediction whose edge is wavy; two balls in a row "
        "and a third, false one at a distance."
    )
    return Picture("scenes", "scenes", "The scenes", alt, figure)


def _slice(axes: Axes, logits: Tensor, target: Tensor, spacing: tuple[float, float], title: str) -> None:
    axes.imshow(
        logits.sigmoid().numpy(), cmap="Greys", vmin=0, vmax=1.6, extent=_extent(target, spacing), origin="lower"
    )
    _outline(axes, target, spacing, _TARGET)
    axes.set_title(title, fontsize=9)
    axes.grid(False)
    axes.tick_params(labelsize=7.5)


def _outline(axes: Axes, mask: Tensor, spacing: tuple[float, float], colour: str) -> None:
    """The border along voxel faces: what a contour of the centres would cut off is part of the mask."""
    fine = mask.repeat_interleave(8, 0).repeat_interleave(8, 1)
    left, right, bottom, top = _extent(mask, spacing)
    axes.contour(
        fine.double().numpy(), [0.5], colors=[colour], linewidths=1.1, extent=(left, right, bottom, top), origin="lower"
    )


def _extent(mask: Tensor, spacing: tuple[float, float]) -> tuple[float, float, float, float]:
    height, width = (size * step for size, step in zip(mask.shape, spacing, strict=True))
    return (-width / 2, width / 2, -height / 2, height / 2)
