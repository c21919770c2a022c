"""What a loss says to three typical errors: a shift, a missing object, a false object far away."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import Literal

import torch
from torch import Tensor

from lossevo.analysis import scenes
from lossevo.analysis.losses import AnalysedLoss

SHAPE = (40, 20, 20)
RADIUS_VOXELS = 4.2
OBJECTS_AT = (7, 18)
FALSE_OBJECT_AT = 33
"""Where the balls' centres are along the first axis, in voxels of 3 mm; on the other axes they are at voxel 9."""

Change = Literal["shift", "missing", "false"]
CHANGES: tuple[Change, ...] = ("shift", "missing", "false")


@dataclass(frozen=True, slots=True)
class Response:
    """How much an error costs, (L(with the error) - L(right)) / (L(empty) - L(right)).

    1 is the cost of predicting nothing at all; NaN if the loss does not prefer the right prediction to the empty one.

    Attributes:
        loss: name.
        change: "shift" of the whole prediction by one voxel, one of the two objects "missing", or a "false" object.
        loss_value: the loss with the error.
        response: as above.
    """

    loss: str
    change: Change
    loss_value: float
    response: float


def responses(loss: AnalysedLoss) -> list[Response]:
    """The responses of a loss on two equal balls; missing and false object have the same number of voxels."""
    scene = two_balls()
    module = loss.module(scene.spacing_mm)

    def value_of(mask: Tensor) -> float:
        return scenes.value(module, scene, scenes.sure(mask))

    right = value_of(scene.target)
    scale = value_of(torch.zeros_like(scene.target)) - right
    result = []
    for change in CHANGES:
        value = value_of(predicted(change))
        result.append(Response(loss.name, change, value, (value - right) / scale if scale > 0 else math.nan))
    return result


@cache
def two_balls() -> scenes.Scene:
    """Two balls of 12.6 mm radius with their centres 33 mm apart, in 40 × 20 × 20 voxels of 3 mm."""
    return scenes.scene_of(_ball(OBJECTS_AT[0]) | _ball(OBJECTS_AT[1]), scenes.BOX_SPACING_MM)


def predicted(change: Change) -> Tensor:
    """The predicted mask (D, H, W) with an error; everything else is right."""
    right = two_balls().target
    if change == "shift":
        return right.roll(1, dims=-1)
    if change == "missing":
        return _ball(OBJECTS_AT[0])
    return right | _ball(FALSE_OBJECT_AT)


def _ball(at: int) -> Tensor:
    index = torch.meshgrid(*(torch.arange(size) for size in SHAPE), indexing="ij")
    squared = sum((axis - centre) ** 2 for axis, centre in zip(index, (at, 9, 9), strict=True))
    return torch.as_tensor(squared) <= RADIUS_VOXELS**2
