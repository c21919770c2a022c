"""Losses on the signed distance to the boundary of the target."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor

from lossevo.losses import arguments
from lossevo.losses.base import Description, SegmentationLoss
from lossevo.losses.inputs import LossInputs
from lossevo.losses.signed_distance import signed_distance_map

__all__ = ["Boundary", "signed_distance_map"]


class Boundary(SegmentationLoss):
    """Boundary loss, the mean over batch, classes and voxels of φ_c(i) p_c(i), in mm.

    φ is the signed distance to the boundary of the class, negative inside, so the loss is negative when the prediction
    is good. A class that is absent has φ = 0 and supervises nothing, and for a small object the empty prediction is
    nearly as good as the right one: the paper therefore adds this loss to a region loss, with a weight that grows.

    Kervadec's code measures in voxels unless told a resolution, and lessens inside distances by one; here distances are
    in mm and alike on both sides (see :func:`~lossevo.losses.signed_distance.signed_distance_map`). The gradient, φ, is
    in mm too, so beside another loss the weight of this one goes with the voxels' size.

    Args:
        include_background: let class 0 count as the others do.
        spacing_mm: distance between neighbouring voxels per axis, for maps computed from the target (default 1 mm).
    """

    description: ClassVar[Description] = Description(
        name="boundary",
        family="distance",
        summary="Probability times the distance by which a voxel lies outside (inside counts as gain).",
        formula="mean_c 1/|Ω| Σ_i φ_ic p_ic",
        source="Kervadec et al., Boundary loss for highly unbalanced segmentation, MedIA 2021",
        purpose="A second term beside a region loss, where surfaces matter more than overlap.",
    )
    uses_distance_map = True

    def __init__(self, *, include_background: bool = False, spacing_mm: Sequence[float] | None = None) -> None:
        super().__init__(spacing_mm=spacing_mm)
        self.include_background = arguments.flag("include_background", include_background)

    def compute(self, inputs: LossInputs) -> Tensor:
        """See the class."""
        assert inputs.distance_map is not None
        first = 0 if self.include_background else 1
        return (inputs.distance_map[:, first:] * inputs.probability[:, first:]).mean()
