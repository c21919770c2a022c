"""Losses that compare regions, class by class: Dice, generalised Dice, Tversky.

All are built from sums over the voxels of a region, TP = Σ p g, FP = Σ p (1 - g), FN = Σ (1 - p) g, by four rules:

- *Region*: one class of one image; ``batch=True`` sums over the whole batch too, so a class is one region per batch.
- *Mean* of 1 - ratio over the regions. The background is left out unless ``include_background``.
- *Smoothing*: ``smooth`` is added to the denominator only. With 0, a class neither present nor predicted gives 0/0.
- *Absent classes*: a class that the target lacks still counts. Its TP is 0, so its ratio is 0/(… + smooth): its loss is
  exactly 1 and its gradient exactly 0, whatever is predicted. False positives of such a class are punished only
  through the classes that are present (by the softmax) and by a distribution loss beside. With ``batch=True`` a class
  is absent only if the whole batch lacks it. A class that fills the image is nothing special.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from lossevo.losses import arguments
from lossevo.losses.base import SMOOTH, Description, LossInputs, SegmentationLoss


class RegionLoss(SegmentationLoss):
    """What the region losses share: which voxels and which classes make up a region."""

    def __init__(self, *, batch: bool, include_background: bool, smooth: float) -> None:
        super().__init__()
        self.batch = arguments.flag("batch", batch)
        self.include_background = arguments.flag("include_background", include_background)
        self.smooth = arguments.number("smooth", smooth)

    def classes(self, inputs: LossInputs) -> tuple[Tensor, Tensor]:
        """Probability and target of the classes that count, (B, C or C-1, *spatial)."""
        first = 0 if self.include_background else 1
        return inputs.probability[:, first:], inputs.target[:, first:]

    def sum(self, voxels: Tensor) -> Tensor:
        """Sums over regions: (B, C) per image, or (1, C) over the batch."""
        per_image = voxels.flatten(2).sum(dim=2)
        return per_image.sum(dim=0, keepdim=True) if self.batch else per_image


class Dice(RegionLoss):
    """Soft Dice loss, mean over regions of 1 - 2 Σpg / (Σp + Σg + smooth).

    With ``squared_denominator`` the V-Net form, 1 - 2 Σpg / (Σp² + Σg² + smooth).
    Equals Tversky with w_fp = w_fn = 1/2 and half the ``smooth``.

    Args:
        squared_denominator: squares in the denominator.
        batch: sum over the batch too; else one Dice per image.
        include_background: let class 0 count as the others do.
        smooth: added to the denominator.
    """

    description: ClassVar[Description] = Description(
        name="dice",
        family="region",
        summary="Overlap of each foreground class, whatever its size.",
        formula="mean_c 1 - 2 Σ_i p_ic g_ic / (Σ_i p_ic + Σ_i g_ic + s)",
        source="Milletari, Navab & Ahmadi, V-Net, 3DV 2016; Drozdzal et al., DLMIA 2016",
        purpose="Dice as the metric, classes of very different size, every class in most patches.",
    )

    def __init__(
        self,
        *,
        squared_denominator: bool = False,
        batch: bool = False,
        include_background: bool = False,
        smooth: float = SMOOTH,
    ) -> None:
        super().__init__(batch=batch, include_background=include_background, smooth=smooth)
        self.squared_denominator = arguments.flag("squared_denominator", squared_denominator)

    def compute(self, inputs: LossInputs) -> Tensor:
        """See the class."""
        probability, target = self.classes(inputs)
        true_positive = self.sum(probability * target)
        if self.squared_denominator:
            total = self.sum(probability.square()) + self.sum(target.square())
        else:
            total = self.sum(probability) + self.sum(target)
        return (1 - 2 * true_positive / (total + self.smooth)).mean()


class Tversky(RegionLoss):
    """Tversky loss, mean over regions of 1 - TP / (TP + w_fp FP + w_fn FN + smooth).

    w_fp = w_fn = 1/2 is Dice, w_fp = w_fn = 1 is Jaccard, w_fp + w_fn = 1 are the F-measures. Public implementations
    disagree on which of the paper's α and β weighs what, hence the names: w_fp is the paper's α.

    Args:
        w_fp: weight of false positives.
        w_fn: weight of false negatives.
        batch: sum over the batch too; else one index per image.
        include_background: let class 0 count as the others do.
        smooth: added to the denominator.
    """

    description: ClassVar[Description] = Description(
        name="tversky",
        family="region",
        summary="Overlap in which misses cost more than false alarms (or the other way round).",
        formula="mean_c 1 - TP_c / (TP_c + w_fp FP_c + w_fn FN_c + s)",
        source="Salehi, Erdogmus & Gholipour, Tversky loss function, MLMI 2017",
        purpose="Small lesions whose misses matter more than false alarms: a high recall.",
    )

    def __init__(
        self,
        *,
        w_fp: float = 0.3,
        w_fn: float = 0.7,
        batch: bool = False,
        include_background: bool = False,
        smooth: float = SMOOTH,
    ) -> None:
        super().__init__(batch=batch, include_background=include_background, smooth=smooth)
        self.w_fp = arguments.number("w_fp", w_fp)
        self.w_fn = arguments.number("w_fn", w_fn)

    def index_loss(self, inputs: LossInputs) -> Tensor:
        """1 - Tversky index per region: (B, C) per image, or (1, C) over the batch."""
        probability, target = self.classes(inputs)
        true_positive = self.sum(probability * target)
        false_positive = self.sum(probability) - true_positive
        false_negative = self.sum(target) - true_positive
        errors = self.w_fp * false_positive + self.w_fn * false_negative + self.smooth
        return 1 - true_positive / (true_positive + errors)

    def compute(self, inputs: LossInputs) -> Tensor:
        """See the class."""
        return self.index_loss(inputs).mean()


class GeneralizedDice(RegionLoss):
    """Generalised Dice loss, mean over images of 1 - 2 Σ_c w_c Σ_i pg / (Σ_c w_c (Σ_i p + Σ_i g) + smooth).

    The paper's weight is 1/(Σ_i g_c)², which lets every class count alike. Only the ratios of weights matter, so here
    w_c = (n_min / n_c)² with n_c = Σ_i g_c and n_min the smallest positive n_c: the largest weight is 1, and ``smooth``
    stays small beside the sums. (In MONAI's form the weighted sums of large regions are themselves about 1e-5, the
    size of its smoothing.) An absent class has the largest weight, as in NiftyNet and MONAI, and so is pushed to 0.
    The background takes part by default, as in the paper: without it a two-class problem is plain Dice.

    Args:
        batch: sum over the batch too; else one ratio per image.
        include_background: let class 0 count as the others do.
        smooth: added to the denominator.
    """

    description: ClassVar[Description] = Description(
        name="generalized_dice",
        family="region",
        summary="One Dice over all classes, each weighted by the inverse square of its size.",
        formula="1 - 2 Σ_c w_c Σ_i p_ic g_ic / (Σ_c w_c Σ_i (p_ic + g_ic) + s),  w_c ∝ 1/(Σ_i g_ic)²",
        source="Sudre et al., Generalised Dice overlap, DLMIA 2017",
        purpose="Several classes of very different size, of which none may be lost.",
    )

    def __init__(self, *, batch: bool = False, include_background: bool = True, smooth: float = SMOOTH) -> None:
        super().__init__(batch=batch, include_background=include_background, smooth=smooth)

    def compute(self, inputs: LossInputs) -> Tensor:
        """See the class."""
        probability, target = self.classes(inputs)
        volume = self.sum(target)
        present = volume > 0
        smallest = torch.where(present, volume, torch.inf).amin(dim=1, keepdim=True)
        weight = torch.where(present, (smallest / volume).square(), 1.0)
        true_positive = (weight * self.sum(probability * target)).sum(dim=1)
        total = (weight * (self.sum(probability) + volume)).sum(dim=1)
        return (1 - 2 * true_positive / (total + self.smooth)).mean()
