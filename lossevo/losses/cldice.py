"""clDice: overlap of centrelines, so that a thin structure stays connected."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from functools import reduce
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function

from lossevo.losses import arguments
from lossevo.losses.base import SMOOTH, Description
from lossevo.losses.inputs import LossInputs
from lossevo.losses.region import Dice


class ClDice(Dice):
    """Dice and clDice, mean over regions of (1 - α) · Dice + α · (1 - 2 T_prec T_sens / (T_prec + T_sens + smooth)).

    T_prec = Σ S(p) g / (Σ S(p) + smooth) is the share of the prediction's centreline that lies in the target, T_sens =
    Σ S(g) p / (Σ S(g) + smooth) the share of the target's centreline that the prediction covers. S is the soft skeleton
    (:func:`soft_skeleton`); distances in it are counted in voxels.

    A region without skeleton (an absent class; one that fills the image, or is thicker than ``iterations`` erosions can
    wear down) has T_sens = 0: its clDice part is exactly 1 and has no gradient. The authors' code and MONAI's add 1 to
    numerators too, so that such a region costs less the less is predicted, and take one ratio over all classes.

    Args:
        alpha: α in [0, 1], the weight of clDice; Dice has 1 - α.
        iterations: erosions of the skeleton, at least the largest radius of a structure in voxels. The authors' code
            has 10 (MONAI 3); the cost is proportional.
        batch: sum over the batch too; else one ratio per image.
        include_background: let class 0 count as the others do.
        absent: "count" or "skip" classes that the target lacks, see :mod:`lossevo.losses.region`.
        smooth: added to denominators.
    """

    description: ClassVar[Description] = Description(
        name="cldice",
        family="compound",
        summary="Overlap of volumes and of centrelines: a gap in a vessel costs more than its voxels.",
        formula="(1-α) Dice + α mean_c 1 - 2 T_prec T_sens / (T_prec + T_sens),  T_prec = Σ S(p) g / Σ S(p)",
        source="Shit et al., clDice, CVPR 2021",
        purpose="Tubular structures (vessels, nerves, canals) whose connectedness matters.",
    )

    def __init__(
        self,
        *,
        alpha: float = 0.5,
        iterations: int = 10,
        batch: bool = False,
        include_background: bool = False,
        absent: str = "count",
        smooth: float = SMOOTH,
    ) -> None:
        super().__init__(batch=batch, include_background=include_background, absent=absent, smooth=smooth)
        self.alpha = arguments.number("alpha", alpha, maximum=1)
        self.iterations = arguments.count("iterations", iterations)

    def compute(self, inputs: LossInputs) -> Tensor:
        """See the class."""
        dice = super().compute(inputs)
        if self.alpha == 0:
            return dice
        return (1 - self.alpha) * dice + self.alpha * self._centreline_loss(*self.classes(inputs))

    def _centreline_loss(self, probability: Tensor, target: Tensor) -> Tensor:
        """The mean of 1 - clDice."""
        predicted = soft_skeleton(probability, self.iterations)
        true = soft_skeleton(target, self.iterations)
        precision = self.sum(predicted * target) / (self.sum(predicted) + self.smooth)
        sensitivity = self.sum(true * probability) / (self.sum(true) + self.smooth)
        centreline_dice = 2 * precision * sensitivity / (precision + sensitivity + self.smooth)
        return self.mean(1 - centreline_dice, self.sum(target))


def soft_skeleton(mask: Tensor, iterations: int) -> Tensor:
    """Soft skeleton of masks (B, C, *spatial) in [0, 1], 2D or 3D (Shit et al., algorithm 1).

    S = 1 - Π_k (1 - max(0, x_k - open(x_k))) with x_0 the mask, x_{k+1} = erode(x_k) and k = 0 … iterations: what an
    opening removes from each erosion, united as probabilities are. The paper's sum S + d - S d over k is that product.
    """
    outside = torch.ones_like(mask)
    for _ in range(iterations + 1):
        eroded: Tensor = _Erosion.apply(mask)  # type: ignore[no-untyped-call]
        outside = outside - outside * (mask - _maximum(eroded, range(mask.ndim - 2))).relu()
        mask = eroded
    return 1 - outside


class _Erosion(Function):
    """Minimum over the voxel and its neighbours along each axis; the border of the image erodes nothing.

    Keeps input and output alone, where pooling by axes keeps twelve times the input. Equal minima share the gradient.
    """

    @staticmethod
    def forward(mask: Tensor) -> Tensor:
        return -reduce(torch.maximum, [_maximum(-mask, {axis}) for axis in range(mask.ndim - 2)])

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(inputs[0], output)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        mask, eroded = ctx.saved_tensors
        ties = (mask == eroded).to(mask.dtype)
        for source, result in _neighbours(mask.shape):
            ties[result] += mask[source] == eroded[result]
        share = gradients[0] / ties
        total: Tensor = share * (mask == eroded)
        for source, result in _neighbours(mask.shape):
            total[source] += share[result] * (mask[source] == eroded[result])
        return total


def _neighbours(shape: torch.Size) -> Iterator[tuple[tuple[slice, ...], tuple[slice, ...]]]:
    """For each neighbour along an axis: the voxels that are one, and the voxels whose neighbour they are."""
    for axis in range(2, len(shape)):
        before = (slice(None),) * axis
        low, high = (*before, slice(shape[axis] - 1)), (*before, slice(1, None))
        yield from ((low, high), (high, low))


def _maximum(mask: Tensor, axes: Collection[int]) -> Tensor:
    """Maximum over a window of three voxels along each of the spatial axes."""
    pool = F.max_pool2d if mask.ndim == 4 else F.max_pool3d
    window = [3 if axis in axes else 1 for axis in range(mask.ndim - 2)]
    return pool(mask, window, stride=1, padding=[size // 2 for size in window])
