"""What a loss asks of the logits at the stages of a training: its gradient field, and how well another one agrees.

Under Adam two losses train alike if their gradients with respect to the logits point the same way: a common positive
factor changes nothing. The fields are compared on *states*, small label volumes with logits as a network gives them at
one stage of its training. With g the field of a formula and h that of the teacher, both divided in each state by the
length of the teacher's, so that late states with small gradients count as much as early ones, the **agreement** is

    1 - min_a≥0 Σ |a g - h|² / Σ |h|²  =  (g·h)² / (|g|² |h|²),  or 0 if g·h < 0.

One factor a for all states, not one for each: Adam divides by the gradients' size over its last thousand steps, so a
loss whose gradient fades sooner than the teacher's trains otherwise within them. What Adam would forgive a slow
training is told beside it, the cosine of each stage.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from lossevo.errors import LossevoError
from lossevo.expression import DISTANCE_SCALE_MM, Expression, compile_with_gradient
from lossevo.expression.neighbourhoods import margin
from lossevo.losses import signed_distance_map
from lossevo.losses.base import SegmentationLoss

STAGES = ("initial", "half learned", "nearly right", "misplaced", "background only")
"""Logits of a new network, small noise; right about half-way; right nearly everywhere; confident, two voxels beside the
target; nothing but background found.
"""
SPACING_MM = (4.0, 2.0, 2.0)
_RIM_MM = 4.0
"""So far from a boundary a network is sure."""


@dataclass(frozen=True, slots=True)
class Volume:
    """Labels (B, 1, *spatial) and their signed distance map in mm, with the logits (B, C, *spatial) of each stage."""

    labels: Tensor
    distance_map: Tensor
    logits: tuple[Tensor, ...]


@cache
def volumes(classes: int) -> tuple[Volume, ...]:
    """What gradient fields are compared on, for ``classes`` classes: ball-like bodies of every class in one batch, rare
    ones beside an image that lacks the last class in another. float64, always the same.
    """
    generator = torch.Generator().manual_seed(20210907)
    along = max(10, 4 * (classes - 1))
    everything = [_bodies((5, 7, along), classes, radius_mm) for radius_mm in (6.5, 4.5)]
    rare, lacking = (_bodies((4, 8, along), classes, radius_mm) for radius_mm in (2.5, 5.5))
    lacking[lacking == classes - 1] = 0
    return tuple(_volume(torch.stack(images)[:, None], classes, generator) for images in (everything, [rare, lacking]))


def _bodies(shape: tuple[int, int, int], classes: int, radius_mm: float) -> Tensor:
    """Labels with a ball for each foreground class, in a row along the last axis, as many as there is room for."""
    positions = torch.meshgrid(
        *(torch.arange(size, dtype=torch.float64) * step for size, step in zip(shape, SPACING_MM, strict=True)),
        indexing="ij",
    )
    room_mm = shape[2] * SPACING_MM[2] / (classes - 1)
    middle = [(size - 1) * step / 2 for size, step in zip(shape[:2], SPACING_MM[:2], strict=True)]
    labels = torch.zeros(shape, dtype=torch.long)
    for label in range(1, classes):
        centre = (*middle, (label - 0.5) * room_mm - SPACING_MM[2] / 2)
        square = sum((position - at) ** 2 for position, at in zip(positions, centre, strict=True))
        labels[square <= max(min(radius_mm, room_mm / 2), SPACING_MM[0] / 2 + 0.1) ** 2] = label
    return labels


def _volume(labels: Tensor, classes: int, generator: torch.Generator) -> Volume:
    target = torch.cat([labels == label for label in range(classes)], dim=1)
    distance_map = signed_distance_map(target.double(), SPACING_MM)
    # A class that an image lacks has no distances; the network is not sure of that.
    right = (2.0 * target - 1) * (distance_map.abs() / _RIM_MM).clamp(0.25, 1)
    background = torch.zeros_like(right)
    background[:, 0] = 3.0

    def noise(scale: float) -> Tensor:
        return scale * torch.randn(right.shape, generator=generator, dtype=torch.float64)

    logits = (
        noise(0.3),
        1.5 * right + noise(1.5),
        3.5 * right + noise(1.5),
        4.0 * right.roll(2, dims=-1) + noise(1.0),
        background + noise(1.0),
    )
    return Volume(labels, distance_map, logits)


class Teacher:
    """The gradient field of a loss, to compare those of voxel-wise formulas with.

    Args:
        loss: as it stands; a copy is asked, in evaluation mode.
        classes: at least two, background included.

    Raises:
        LossevoError: one class; a gradient that is not finite, or zero everywhere.
    """

    def __init__(self, loss: SegmentationLoss, classes: int) -> None:
        if classes < 2:
            raise LossevoError(f"gradient fields need at least two classes, background included, not {classes}")
        self._volumes = volumes(classes)
        loss = copy.deepcopy(loss).eval()
        gradients = [torch.stack([_gradient(loss, volume, x) for x in volume.logits]) for volume in self._volumes]
        if not all(bool(torch.isfinite(gradient).all()) for gradient in gradients):
            raise LossevoError("the loss has a gradient that is not finite: there is nothing to compare a formula with")
        lengths = [gradient.flatten(1).norm(dim=1) for gradient in gradients]
        if not any(bool(length.any()) for length in lengths):
            raise LossevoError(
                "the gradient of the loss is zero everywhere: there is nothing to compare a formula with"
            )
        # What has no gradient in a state is not compared there.
        self._weights = [torch.where(length > 0, 1 / length, 0.0) for length in lengths]
        self.field = self._flat(gradients)
        self._square = self.field @ self.field
        self._inputs = [_inputs(volume) for volume in self._volumes]

    def _flat(self, gradients: Sequence[Tensor]) -> Tensor:
        """Gradients (stages, B, C, *spatial) of each volume, divided by the teacher's lengths, as one vector."""
        weighted = (
            gradient.flatten(1) * weight[:, None] for gradient, weight in zip(gradients, self._weights, strict=True)
        )
        return torch.cat([part.flatten() for part in weighted])

    def field_of(self, expression: Expression, coefficients: Tensor | None = None) -> Tensor | None:
        """The field of a formula, a vector as :attr:`field`; None if it is not finite.

        The formula must be voxel-wise but for class frequencies: the stages of a volume go through it as one batch.
        """
        if coefficients is None:
            coefficients = torch.tensor(expression.coefficients, dtype=torch.float64)
        loss, gradients = compile_with_gradient(expression), []
        with torch.no_grad():
            for volume, inputs in zip(self._volumes, self._inputs, strict=True):
                _, gradient = loss(inputs, coefficients)
                # The mean over the images of all stages is that many times smaller than over those of one.
                stages = len(volume.logits)
                whole = stages * torch.as_tensor(gradient, dtype=torch.float64).expand_as(inputs["logits"])
                gradients.append(whole.view(stages, *volume.logits[0].shape))
        field = self._flat(gradients)
        return field if bool(torch.isfinite(field @ field)) else None

    def agreement(self, field: Tensor | None) -> float:
        """1 - error after the best factor, see the module; 0 for a field that is zero or not finite."""
        return max(self.signed_agreement(field), 0.0)

    def signed_agreement(self, field: Tensor | None) -> float:
        """The agreement, and where the negative of ``field`` has one, the negative of that."""
        if field is None or not bool(square := field @ field):
            return 0.0
        product = field @ self.field
        return min(float(product * product.abs() / square / self._square), 1.0)

    def scale(self, field: Tensor) -> float:
        """What a formula is to be multiplied by to have gradients as long as the teacher's, the best factor a."""
        return float(field @ self.field / (field @ field))

    def cosines(self, field: Tensor) -> dict[str, float]:
        """The cosine with the teacher at each of the :data:`STAGES`, a mean over the volumes."""
        return {
            stage: float(
                torch.stack(
                    [
                        torch.nn.functional.cosine_similarity(ours[index], theirs[index], dim=0, eps=1e-30)
                        for ours, theirs in zip(self._by_stage(field), self._by_stage(self.field), strict=True)
                    ]
                ).mean()
            )
            for index, stage in enumerate(STAGES)
        }

    def _by_stage(self, field: Tensor) -> list[Tensor]:
        """A field by volume, as matrices with one row for each stage."""
        sizes = [inputs["logits"].numel() for inputs in self._inputs]
        return [part.view(len(STAGES), -1) for part in torch.split(field, sizes)]


def _gradient(loss: SegmentationLoss, volume: Volume, logits: Tensor) -> Tensor:
    logits = logits.clone().requires_grad_()
    value = loss(logits, volume.labels, volume.distance_map)
    if not value.requires_grad:
        return torch.zeros_like(logits)
    (gradient,) = torch.autograd.grad(value, logits)
    return gradient


def _inputs(volume: Volume) -> Mapping[str, Tensor]:
    """What generated code is given: the stages of a volume as one batch."""
    logits = torch.cat(volume.logits)
    target = torch.cat([volume.labels == label for label in range(logits.shape[1])], dim=1).double()
    distance_map = (volume.distance_map / DISTANCE_SCALE_MM).clamp(-1, 1)
    repeats = (len(volume.logits), *[1] * (logits.ndim - 1))
    return {
        "logits": logits,
        "p": logits.softmax(1),
        "logp": logits.log_softmax(1),
        "m": margin(logits),
        "y": target.repeat(repeats),
        "d": distance_map.repeat(repeats),
    }
