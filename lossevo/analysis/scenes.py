"""The images on which losses are analysed: small, two classes, the same everywhere, and the predictions made for them.

A prediction is an array of *logits* x of the foreground, the background's logit being 0: p = σ(x) is the foreground's
probability. This is the call convention's C = 1, and a gradient ∂L/∂x is with respect to this one logit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from lossevo.losses import SegmentationLoss, signed_distance_map

Spacing = tuple[float, float, float]

SURE = 0.99
"""Probability that a prediction without blur gives to the class it has decided for."""
EDGE_MM = 1.5
LARGEST_LOGIT = 6.0
"""A blurred prediction's logit is -distance / EDGE_MM, and no larger than this: p = 0.9975."""

BOX_SIZE = 20
BOX_SPACING_MM: Spacing = (3.0, 3.0, 3.0)
BALL_CENTRE_MM = (0.7, 1.1, 1.3)

VERTEBRA_SPACING_MM: Spacing = (4.0, 1.0, 1.0)
VERTEBRA_SHAPE = (18, 56, 60)
VERTEBRA_HALF_MM = (24.0, 14.0, 17.0)
"""Half the width, height and depth of a lumbar vertebral body."""
WAVES = 8
WAVES_SD_MM = 2.0


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """An image of two classes.

    Attributes:
        target: (D, H, W) bool, True in the foreground.
        spacing_mm: distance between voxels.
        distance_mm: (D, H, W) float64, signed distance to the foreground's boundary, negative inside.
    """

    target: Tensor
    spacing_mm: Spacing
    distance_mm: Tensor

    @property
    def foreground_share(self) -> float:
        """The share of voxels that are foreground."""
        return float(self.target.double().mean())


def scene_of(target: Tensor, spacing_mm: Spacing) -> Scene:
    """The scene of a mask (D, H, W)."""
    return Scene(target, spacing_mm, signed_distance_map(target.double()[None, None], spacing_mm)[0, 0])


@cache
def ball(foreground_share: float) -> Scene:
    """A ball in a cube of 20³ voxels of 3 mm: of all voxels the ``foreground_share`` that are nearest to its centre.

    The centre is a little beside the cube's, so that no two voxels are equally near.
    """
    position = torch.stack(grid_mm((BOX_SIZE,) * 3, BOX_SPACING_MM), dim=-1)
    distance_mm = (position - position.new_tensor(BALL_CENTRE_MM)).norm(dim=-1).flatten()
    nearest = distance_mm.argsort()[: round(foreground_share * BOX_SIZE**3)]
    target = torch.zeros(BOX_SIZE**3, dtype=torch.bool)
    target[nearest] = True
    return scene_of(target.view((BOX_SIZE,) * 3), BOX_SPACING_MM)


@cache
def vertebra() -> Scene:
    """A vertebral body in thick sagittal slices, 4 × 1 × 1 mm: a rounded cylinder with concave end-plates."""
    x, z, y = grid_mm(VERTEBRA_SHAPE, VERTEBRA_SPACING_MM)
    half_width, half_height, half_depth = VERTEBRA_HALF_MM
    radius = ((x / half_width).abs() ** 2.5 + (y / half_depth).abs() ** 2.5) ** (1 / 2.5)
    half_height_here = half_height * (0.85 + 0.15 * radius.square())
    return scene_of((radius < 1) & (z.abs() < half_height_here), VERTEBRA_SPACING_MM)


def grid_mm(shape: Sequence[int], spacing_mm: Spacing) -> list[Tensor]:
    """Coordinates of voxel centres in mm, float64, origin in the middle; one (D, H, W) array per axis."""
    axes = [
        (torch.arange(size, dtype=torch.float64) - (size - 1) / 2) * step
        for size, step in zip(shape, spacing_mm, strict=True)
    ]
    return list(torch.meshgrid(*axes, indexing="ij"))


def sure(mask: Tensor) -> Tensor:
    """The logits of a prediction without blur: p = 0.99 where ``mask``, else 0.01."""
    return torch.where(mask, 1.0, -1.0).double() * logit(SURE)


def blurred(distance_mm: Tensor) -> Tensor:
    """The logits of a prediction whose boundary lies where ``distance_mm`` is 0."""
    return (-distance_mm / EDGE_MM).clamp(-LARGEST_LOGIT, LARGEST_LOGIT)


def untrained(scene: Scene) -> Tensor:
    """The logits of a network before its training: p near 1/2, normal with a standard deviation of 0.1, seeded."""
    generator = torch.Generator().manual_seed(0)
    return 0.1 * torch.randn(scene.target.shape, generator=generator, dtype=torch.float64)


def displaced(scene: Scene) -> Tensor:
    """The logits of a good prediction: blurred, and one voxel too far along the last axis."""
    return blurred(scene.distance_mm.roll(1, dims=-1))


def wavy(scene: Scene) -> Tensor:
    """The logits of a plausible prediction: blurred, its boundary now too far out, now too far in.

    The displacement is a sum of eight seeded plane waves 20 to 40 mm long, with a standard deviation of 2 mm.
    """
    generator = torch.Generator().manual_seed(0)
    position = torch.stack(grid_mm(scene.target.shape, scene.spacing_mm), dim=-1)
    direction = torch.randn(WAVES, 3, generator=generator, dtype=torch.float64)
    direction /= direction.norm(dim=1, keepdim=True)
    length_mm, phase = torch.rand(2, WAVES, generator=generator, dtype=torch.float64)
    angle = 2 * math.pi * (position @ (direction / (20 + 20 * length_mm[:, None])).T + phase)
    displacement_mm = WAVES_SD_MM * math.sqrt(2 / WAVES) * angle.sin().sum(dim=-1)
    return blurred(scene.distance_mm + displacement_mm)


def logit(p: float) -> float:
    """log(p / (1 - p))."""
    return math.log(p) - math.log1p(-p)


def value(loss: SegmentationLoss, scene: Scene, logits: Tensor) -> float:
    """The loss of a prediction (D, H, W)."""
    with torch.no_grad():
        return float(loss(*_arguments(scene, logits)))


def value_and_gradient(loss: SegmentationLoss, scene: Scene, logits: Tensor) -> tuple[float, Tensor]:
    """The loss of a prediction (D, H, W), and its gradient with respect to the logits, (D, H, W)."""
    x = logits.detach().clone().requires_grad_()
    result = loss(*_arguments(scene, x))
    if not result.requires_grad:  # an evolved loss may be constant
        return float(result), torch.zeros_like(x)
    (gradient,) = torch.autograd.grad(result, x)
    return float(result.detach()), gradient


def _arguments(scene: Scene, logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return logits[None, None], scene.target.long()[None, None], scene.distance_mm[None, None]
