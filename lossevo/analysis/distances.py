"""The gradient of a loss as a function of the signed distance to the target's boundary."""

from __future__ import annotations

from dataclasses import dataclass

from lossevo.analysis import scenes
from lossevo.analysis.losses import AnalysedLoss

BIN_MM = 2.0
INNERMOST_MM, OUTERMOST_MM = -12.0, 24.0


@dataclass(frozen=True, slots=True)
class DistancePoint:
    """All voxels whose distance to the boundary lies in one interval of 2 mm.

    Attributes:
        loss: name.
        distance_mm: the middle of the interval; negative inside the target.
        voxels: how many there are.
        strength: mean of |∂L/∂x| over them, divided by its mean over all voxels.
        helpful: the same of the part that pushes p towards the target; negative if most of it pushes away.
    """

    loss: str
    distance_mm: float
    voxels: int
    strength: float
    helpful: float


def gradient_by_distance(loss: AnalysedLoss) -> list[DistancePoint]:
    """How strongly a loss pulls at voxels near and far, on a vertebral body that is predicted plausibly."""
    scene = scenes.vertebra()
    _, gradient = scenes.value_and_gradient(loss.module(scene.spacing_mm), scene, scenes.wavy(scene))
    average = gradient.abs().mean()
    towards_target = gradient.where(~scene.target, -gradient)
    # No voxel centre has distance 0: intervals are (0, 2], (2, 4], … outside, mirrored inside.
    interval = ((scene.distance_mm.abs() / BIN_MM).ceil() - 0.5) * scene.distance_mm.sign()
    points = []
    for middle in sorted(set(interval.flatten().tolist())):
        if not INNERMOST_MM < middle * BIN_MM < OUTERMOST_MM:
            continue
        here = interval == middle
        points.append(
            DistancePoint(
                loss.name,
                distance_mm=middle * BIN_MM,
                voxels=int(here.sum()),
                strength=float(gradient[here].abs().mean() / average),
                helpful=float(towards_target[here].mean() / average),
            )
        )
    return points
