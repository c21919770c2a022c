"""Losses that compare regions, class by class: Dice, Jaccard, Tversky and their relatives.

All are built from sums over the voxels of a region, TP = Σ p g, FP = Σ p (1 - g), FN = Σ (1 - p) g, by four rules:

- *Region*: one class of one image; ``batch=True`` sums over the whole batch too, so a class is one region per batch.
- *Mean* of 1 - ratio over the regions. The background is left out unless ``include_background``.
- *Smoothing*: ``smooth`` is added to the denominator only. With 0, a class neither present nor predicted gives 0/0.
- *Absent classes*: a class that the target lacks has TP = 0, so its ratio is 0/(… + smooth): its loss is exactly 1 and
  its gradient exactly 0, whatever is predicted. ``absent`` says what becomes of it in the mean. With ``batch=True`` a
  class is absent only if the whole batch lacks it. A class that fills the image is nothing special.

``absent="count"``, the default, takes the mean over all regions: in training every region that is there weighs the
same, however many classes its patch lacks. ``absent="skip"`` takes the mean over the regions that are there (0, with
gradient 0, if there are none): the value says how good the prediction is, 0 when perfect, but a region weighs more the
fewer classes its patch has. In neither does a false positive of an absent class cost anything by itself: it is punished
through the classes that are present (by the softmax) and by a distribution loss beside. (Generalised Dice and the
sensitivity-specificity loss, which are no means of such ratios, say what they do.)
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from lossevo.losses import arguments
from lossevo.losses.base import SMOOTH, Description, SegmentationLoss
from lossevo.losses.inputs import LossInputs
from lossevo.losses.kernels import RegionSums

ABSENT = ("count", "skip")


class RegionLoss(SegmentationLoss):
    """What the region losses share: which voxels and classes make up a region, and the mean over the regions."""

    def __init__(
        self,
        *,
        batch: bool = False,
        include_background: bool = False,
        absent: str = "count",
        smooth: float = SMOOTH,
    ) -> None:
        super().__init__()
        self.batch = arguments.flag("batch", batch)
        self.include_background = arguments.flag("include_background", include_background)
        self.absent = arguments.choice("absent", absent, ABSENT)
        self.smooth = arguments.number("smooth", smooth)

    def classes(self, inputs: LossInputs) -> tuple[Tensor, Tensor]:
        """Probability and target of the classes that count, (B, C or C-1, *spatial)."""
        first = 0 if self.include_background else 1
        return inputs.probability[:, first:], inputs.target[:, first:]

    def sum(self, voxels: Tensor) -> Tensor:
        """Sums of the classes that :meth:`classes` gives, over regions: (B, C) per image, or (1, C) over the batch."""
        per_image = voxels.flatten(2).sum(dim=2)
        return per_image.sum(dim=0, keepdim=True) if self.batch else per_image

    def sums(self, inputs: LossInputs, *, squared: bool = False) -> RegionSums:
        """Σ p g, Σ p and Σ g of every region that counts."""
        return RegionSums(*map(self.counted, inputs.region_sums(squared=squared)))

    def counted(self, per_class: Tensor) -> Tensor:
        """Of sums (B, C) per image those of the classes that count, (B, C or C-1), or (1, …) over the batch."""
        per_class = per_class if self.include_background else per_class[:, 1:]
        return per_class.sum(dim=0, keepdim=True) if self.batch else per_class

    def mean(self, losses: Tensor, actual: Tensor) -> Tensor:
        """The mean over regions of size ``actual``, by the rule for absent classes."""
        if self.absent == "count":
            return losses.mean()
        present = actual > 0
        return torch.where(present, losses, 0).sum() / present.sum().clamp_min(1)


class Dice(RegionLoss):
    """Soft Dice loss, mean over regions of 1 - 2 Σpg / (Σp + Σg + smooth).

    With ``squared_denominator`` the V-Net form, 1 - 2 Σpg / (Σp² + Σg² + smooth).
    Equals Tversky with w_fp = w_fn = 1/2 and half the ``smooth``.

    Args:
        squared_denominator: squares in the denominator.
        batch: sum over the batch too; else one Dice per image.
        include_background: let class 0 count as the others do.
        absent: "count" or "skip" classes that the target lacks, see :mod:`lossevo.losses.region`.
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
        absent: str = "count",
        smooth: float = SMOOTH,
    ) -> None:
        super().__init__(batch=batch, include_background=include_background, absent=absent, smooth=smooth)
        self.squared_denominator = arguments.flag("squared_denominator", squared_denominator)

    def compute(self, inputs: LossInputs) -> Tensor:
        """See the class."""
        overlap, predicted, actual = self.sums(inputs, squared=self.squared_denominator)
        return self.mean(1 - 2 * overlap / (predicted + actual + self.smooth), actual)


class GeneralizedDice(RegionLoss):
    """Generalised Dice loss, mean over images of 1 - 2 Σ_c w_c Σ_i pg / (Σ_c w_c (Σ_i p + Σ_i g) + smooth).

    The paper's weight is 1/(Σ_i g_c)², which lets every class count alike. Only the ratios of weights matter, so here
    w_c = (n_min / n_c)² with n_c = Σ_i g_c and n_min the smallest positive n_c: the largest weight is 1, and ``smooth``
    stays small beside the sums. (In MONAI's form the weighted sums of large regions are themselves about 1e-5, the
    size of its smoothing.) With ``absent="count"`` an absent class has the largest weight, as in NiftyNet and MONAI,
    and so is pushed to 0; with "skip" it has weight 0, and an image without any class that counts costs 0.
    The background takes part by default, as in the paper: without it a two-class problem is plain Dice.

    Args:
        batch: sum over the batch too; else one ratio per image.
        include_background: let class 0 count as the others do.
        absent: "count" classes that the target lacks with the largest weight, or "skip" them.
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

    def __init__(
        self,
        *,
        batch: bool = False,
        include_background: bool = True,
        absent: str = "count",
        smooth: float = SMOOTH,
    ) -> None:
        super().__init__(batch=batch, include_background=include_background, absent=absent, smooth=smooth)

    def compute(self, inputs: LossInputs) -> Tensor:
        """See the class."""
        overlap, predicted, actual = self.sums(inputs)
        present = actual > 0
        smallest = torch.where(present, actual, torch.inf).amin(dim=1, keepdim=True)
        weight = torch.where(present, (smallest / actual).square(), 1.0 if self.absent == "count" else 0.0)
        total = (weight * (predicted + actual)).sum(dim=1)
        return self.mean(1 - 2 * (weight * overlap).sum(dim=1) / (total + self.smooth), actual.sum(dim=1))


class Jaccard(RegionLoss):
    """Soft Jaccard (IoU) loss, mean over regions of 1 - Σpg / (Σp + Σg - Σpg + smooth).

    Equals Tversky with w_fp = w_fn = 1. With Dice's index D, Jaccard's is D / (2 - D): both order predictions of one
    region alike, and Jaccard's slope is steeper near the optimum.

    Args:
        batch: sum over the batch too; else one index per image.
        include_background: let class 0 count as the others do.
        absent: "count" or "skip" classes that the target lacks, see :mod:`lossevo.losses.region`.
        smooth: added to the denominator.
    """

    description: ClassVar[Description] = Description(
        name="jaccard",
        family="region",
        summary="Intersection over union of each foreground class.",
        formula="mean_c 1 - Σ_i p_ic g_ic / (Σ_i p_ic + Σ_i g_ic - Σ_i p_ic g_ic + s)",
        source="Rahman & Wang, Optimizing intersection-over-union in deep neural networks, ISVC 2016",
        purpose="Jaccard as the metric; else as Dice, with more weight on the last errors.",
    )

    def compute(self, inputs: LossInputs) -> Tensor:
        """See the class."""
        overlap, predicted, actual = self.sums(inputs)
        return self.mean(1 - overlap / (predicted + actual - overlap + self.smooth), actual)


class Tversky(RegionLoss):
    """Tversky loss, mean over regions of 1 - TP / (TP + w_fp FP + w_fn FN + smooth).

    w_fp = w_fn = 1/2 is Dice, w_fp = w_fn = 1 is Jaccard, w_fp + w_fn = 1 are the F-measures. Public implementations
    disagree on which of the paper's α and β weighs what, hence the names: w_fp is the paper's α.

    Args:
        w_fp: weight of false positives.
        w_fn: weight of false negatives.
        batch: sum over the batch too; else one index per image.
        include_background: let class 0 count as the others do.
        absent: "count" or "skip" classes that the target lacks, see :mod:`lossevo.losses.region`.
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
        absent: str = "count",
        smooth: float = SMOOTH,
    ) -> None:
        super().__init__(batch=batch, include_background=include_background, absent=absent, smooth=smooth)
        self.w_fp = arguments.number("w_fp", w_fp)
        self.w_fn = arguments.number("w_fn", w_fn)

    def one_minus_index(self, sums: RegionSums) -> Tensor:
        """1 - Tversky index of each region, from its sums: (B, C) per image, or (1, C) over the batch."""
        overlap, predicted, actual = sums
        errors = self.w_fp * (predicted - overlap) + self.w_fn * (actual - overlap) + self.smooth
        return 1 - overlap / (overlap + errors)

    def compute(self, inputs: LossInputs) -> Tensor:
        """See the class."""
        sums = self.sums(inputs)
        return self.mean(self.one_minus_index(sums), sums.actual)


class AsymmetricSimilarity(RegionLoss):
    """Asymmetric similarity loss, mean over regions of 1 - (1+β²) TP / ((1+β²) TP + β² FN + FP + smooth).

    The ratio is the F-measure F_β. Equals Tversky with w_fn = β²/(1+β²), w_fp = 1/(1+β²) and ``smooth``/(1+β²); β = 1
    is Dice.

    Args:
        beta: β >= 0; above 1 misses cost more than false alarms; 1.5 for MS lesions is as recalled.
        batch: sum over the batch too; else one F-measure per image.
        include_background: let class 0 count as the others do.
        absent: "count" or "skip" classes that the target lacks, see :mod:`lossevo.losses.region`.
        smooth: added to the denominator.
    """

    description: ClassVar[Description] = Description(
        name="asymmetric_similarity",
        family="region",
        summary="The F-measure: Tversky with one number β in place of two weights.",
        formula="mean_c 1 - (1+β²) TP_c / ((1+β²) TP_c + β² FN_c + FP_c + s)",
        source="Hashemi et al., Asymmetric loss functions and deep densely-connected networks, IEEE Access 2019",
        purpose="Small lesions, precision traded for recall by one number.",
    )

    def __init__(
        self,
        *,
        beta: float = 1.5,
        batch: bool = False,
        include_background: bool = False,
        absent: str = "count",
        smooth: float = SMOOTH,
    ) -> None:
        super().__init__(batch=batch, include_background=include_background, absent=absent, smooth=smooth)
        self.beta = arguments.number("beta", beta)

    def compute(self, inputs: LossInputs) -> Tensor:
        """See the class."""
        overlap, predicted, actual = self.sums(inputs)
        square = self.beta**2
        # (1+β²) TP + β² FN + FP = β² Σg + Σp.
        return self.mean(1 - (1 + square) * overlap / (square * actual + predicted + self.smooth), actual)


class SensitivitySpecificity(RegionLoss):
    """Sensitivity-specificity loss, mean over regions of w Σ(g-p)²g / Σg + (1-w) Σ(g-p)²(1-g) / Σ(1-g).

    The two sums are the squared errors inside and outside the region, each per voxel of its own. ``smooth`` is added to
    both denominators. A class that the target lacks has no first term, but does have the second: with
    ``absent="count"`` its false positives cost. The paper's w = 0.05 (w is its r; it found 0.01 to 0.10 alike) is as
    recalled, not checked against the paper; the paper has one foreground class, the mean over classes is ours.

    Args:
        w_sensitivity: w in [0, 1].
        batch: sum over the batch too; else one region per image.
        include_background: let class 0 count as the others do.
        absent: "count" or "skip" classes that the target lacks.
        smooth: added to the denominators.
    """

    description: ClassVar[Description] = Description(
        name="sensitivity_specificity",
        family="region",
        summary="Squared errors inside and outside the region, each relative to its own size.",
        formula="mean_c w Σ_i (g-p)² g / (Σ_i g + s) + (1-w) Σ_i (g-p)² (1-g) / (Σ_i (1-g) + s)",
        source="Brosch et al., Deep convolutional encoder networks for MS lesion segmentation, MICCAI 2015",
        purpose="Small lesions, with sensitivity and specificity weighed by one number.",
    )

    def __init__(
        self,
        *,
        w_sensitivity: float = 0.05,
        batch: bool = False,
        include_background: bool = False,
        absent: str = "count",
        smooth: float = SMOOTH,
    ) -> None:
        super().__init__(batch=batch, include_background=include_background, absent=absent, smooth=smooth)
        self.w_sensitivity = arguments.number("w_sensitivity", w_sensitivity, maximum=1)

    def compute(self, inputs: LossInputs) -> Tensor:
        """See the class."""
        inside, outside, actual = map(self.counted, inputs.error_sums())
        voxels = inputs.logits[0, 0].numel() * (inputs.logits.shape[0] if self.batch else 1)
        missed = inside / (actual + self.smooth)
        invented = outside / (voxels - actual + self.smooth)
        return self.mean(self.w_sensitivity * missed + (1 - self.w_sensitivity) * invented, actual)
