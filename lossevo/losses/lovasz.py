"""Lovász-softmax: the Jaccard index of sets, extended to probabilities by sorting the errors."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from lossevo.losses.base import Description, one_hot
from lossevo.losses.inputs import LossInputs
from lossevo.losses.region import RegionLoss


class Lovasz(RegionLoss):
    """Lovász-softmax loss, mean over the classes present of the Lovász extension of the Jaccard loss.

    With the errors m_i = 1 - p_i where g_i = 1 and m_i = p_i elsewhere, and π sorting them in descending order,

        Δ(m) = Σ_k m_π(k) (J_{k-1} - J_k),   J_k = |G - M_k| / |G ∪ M_k|,   M_k = {π(1), …, π(k)}:

    J_k is the Jaccard index when the k worst voxels are wrong. Δ is convex and piecewise linear in m, and is
    1 - Jaccard where every p is 0 or 1. Of equal errors the earlier voxel counts as the larger one: that is without
    effect on the value, and chooses one of several subgradients.

    The background counts by default, as in the paper: without it an image that has no foreground supervises nothing.
    Classes that the target lacks are skipped by default, as in the paper; counted, such a class costs its largest
    probability. The mean is over regions (:mod:`lossevo.losses.region`; the authors' code takes it per image first).

    The Jaccard index is a function of sets, so a soft target is taken as labels: the class with the largest share (of
    equal ones the first).

    Args:
        batch: sort the voxels of the whole batch together; else one region per class of each image.
        include_background: let class 0 count as the others do.
        absent: "skip" classes that the target lacks, or "count" their largest probability.
    """

    description: ClassVar[Description] = Description(
        name="lovasz",
        family="region",
        summary="The convex extension of 1 - Jaccard: each error weighs what it would take from the index.",
        formula="mean_c Σ_k m_π(k) (J_{k-1} - J_k),  m = |g - p| sorted: m_π(1) ≥ m_π(2) ≥ …",
        source="Berman, Triki & Blaschko, The Lovász-Softmax loss, CVPR 2018",
        purpose="Jaccard as the metric, optimised by its convex extension; dear, as it sorts the voxels.",
    )

    def __init__(self, *, batch: bool = False, include_background: bool = True, absent: str = "skip") -> None:
        super().__init__(batch=batch, include_background=include_background, absent=absent, smooth=0.0)

    def compute(self, inputs: LossInputs) -> Tensor:
        """See the class."""
        target = inputs.target
        if inputs.labels is None:
            target = one_hot(target.argmax(dim=1, keepdim=True), target.shape[1])
        probability, member = self._regions(inputs.probability), self._regions(target) > 0
        error = torch.where(member, 1 - probability, probability)
        error, order = error.sort(dim=-1, descending=True, stable=True)
        loss = (error * _jaccard_steps(member.gather(-1, order), error.dtype)).sum(dim=-1)
        size = member.sum(dim=-1)
        return self.mean(torch.where(size > 0, loss, error[..., 0]), size)

    def _regions(self, voxels: Tensor) -> Tensor:
        """The voxels of each region: (B, C or C-1, |Ω|) per image, or (1, C or C-1, B|Ω|) over the batch."""
        counted = voxels[:, 0 if self.include_background else 1 :]
        return counted.transpose(0, 1).flatten(1)[None] if self.batch else counted.flatten(2)


def _jaccard_steps(member: Tensor, dtype: torch.dtype) -> Tensor:
    """J_{k-1} - J_k for each rank k, from the membership (bool) of the voxels sorted by error; 0 for an empty class.

    A miss takes one voxel from the intersection I, the step is 1/U; a false alarm adds one to the union U, the step is
    I/(U - 1) - I/U. The differences are written out because those of neighbouring J_k cancel in float32.
    """
    size = member.sum(dim=-1, keepdim=True)
    intersection = (size - member.cumsum(dim=-1)).to(dtype)
    union = (size + (~member).cumsum(dim=-1)).to(dtype)
    return torch.where(member, 1 / union, intersection / union / (union - 1).clamp_min(1))
