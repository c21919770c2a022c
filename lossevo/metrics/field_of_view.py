"""The extent of an image in mm: what bounds every distance within it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from lossevo.errors import LossevoError, shown


@dataclass(frozen=True)
class FieldOfView:
    """Shape and voxel size of an image, 2D or 3D.

    Attributes:
        shape: number of voxels along each axis.
        spacing_mm: distance between neighbouring voxels along each axis.

    Raises:
        LossevoError: there are not 2 or 3 axes, an axis has no voxel, or there is not one distance above 0 per axis.
    """

    shape: tuple[int, ...]
    spacing_mm: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.shape) not in (2, 3):
            raise LossevoError(f"images have shape {shown(self.shape)}, expected 2 or 3 axes")
        if 0 in self.shape:
            raise LossevoError(f"images have shape {shown(self.shape)}: there is no voxel to compare")
        if len(self.spacing_mm) != len(self.shape):
            raise LossevoError(
                f"spacing_mm is {shown(self.spacing_mm)}, expected {len(self.shape)} distances, "
                f"one per axis of shape {shown(self.shape)}"
            )
        if not all(math.isfinite(step) and step > 0 for step in self.spacing_mm):
            raise LossevoError(f"spacing_mm is {shown(self.spacing_mm)}, expected numbers of millimetres above 0")

    @classmethod
    def of(cls, shape: Sequence[int], spacing_mm: Iterable[float]) -> FieldOfView:
        """From any sequences of numbers, as of NumPy.

        Raises:
            LossevoError: as the class; or ``spacing_mm`` is no sequence of numbers.
        """
        try:
            spacing = tuple(float(step) for step in spacing_mm)
        except (TypeError, ValueError):
            raise LossevoError(f"spacing_mm is {shown(spacing_mm)}, expected one number of mm per axis") from None
        return cls(tuple(int(size) for size in shape), spacing)

    @property
    def diagonal_mm(self) -> float:
        """Length of the diagonal between outer corners: the largest distance that two surfaces can have."""
        return math.hypot(*(size * step for size, step in zip(self.shape, self.spacing_mm, strict=True)))

    @property
    def voxel_ml(self) -> float:
        """Volume of a voxel in ml; of an image with two axes, as if it were 1 mm thick."""
        return math.prod(self.spacing_mm) / 1000
