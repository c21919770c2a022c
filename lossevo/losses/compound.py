"""Losses made of other losses: sums of a region and a distribution loss, and a power of the Tversky loss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor

from lossevo.expression.primitives import EPSILON
from lossevo.losses import arguments
from lossevo.losses.base import SMOOTH, Description, SegmentationLoss
from lossevo.losses.distribution import CrossEntropy, Focal, TopK
from lossevo.losses.inputs import LossInputs
from lossevo.losses.region import Dice, Tversky


class DiceCE(SegmentationLoss):
    """Dice + cross-entropy, w_dice · Dice + w_ce · CE: the loss of nnU-Net.

    Args:
        w_dice: weight of the Dice loss.
        w_ce: weight of the cross-entropy.
        squared_denominator: of the Dice loss, see :class:`~lossevo.losses.region.Dice`.
        batch: of the Dice loss.
        include_background: of the Dice loss.
        absent: of the Dice loss.
        smooth: of the Dice loss.
        weight: class weights of the cross-entropy, see :class:`~lossevo.losses.distribution.CrossEntropy`.
        label_smoothing: of the cross-entropy.
    """

    description: ClassVar[Description] = Description(
        name="dice_ce",
        family="compound",
        summary="Overlap and likelihood together: the default of nnU-Net, and hard to beat.",
        formula="w_dice · Dice + w_ce · CE",
        source="Isensee et al., nnU-Net, Nature Methods 2021",
        purpose="The first choice for an unknown task.",
    )

    def __init__(
        self,
        *,
        w_dice: float = 1.0,
        w_ce: float = 1.0,
        squared_denominator: bool = False,
        batch: bool = False,
        include_background: bool = False,
        absent: str = "count",
        smooth: float = SMOOTH,
        weight: Sequence[float] | Tensor | None = None,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__()
        self.w_dice = arguments.number("w_dice", w_dice)
        self.w_ce = arguments.number("w_ce", w_ce)
        self.dice = Dice(
            squared_denominator=squared_denominator,
            batch=batch,
            include_background=include_background,
            absent=absent,
            smooth=smooth,
        )
        self.cross_entropy = CrossEntropy(weight=weight, label_smoothing=label_smoothing)

    def compute(self, inputs: LossInputs) -> Tensor:
        """See the class."""
        # Dice first: from its p comes the true class's log p, which needs no softmax of its own then.
        dice = self.w_dice * self.dice.compute(inputs)
        return dice + self.w_ce * self.cross_entropy.compute(inputs)


class DiceFocal(SegmentationLoss):
    """Dice with squared denominator + focal loss, unweighted sum: the winner of HECKTOR 2020.

    Iantsen et al. smooth the Dice ratio by 1 in numerator and denominator, take one ratio over all channels, and hold
    p in [1e-3, 1 - 1e-3] for the focal loss; here the Dice loss keeps to the rules of :mod:`lossevo.losses.region`, and
    the focal loss works on log p without such bounds.

    Args:
        w_dice: weight of the Dice loss.
        w_focal: weight of the focal loss.
        squared_denominator: of the Dice loss, see :class:`~lossevo.losses.region.Dice`.
        batch: of the Dice loss.
        include_background: of the Dice loss.
        absent: of the Dice loss.
        smooth: of the Dice loss.
        gamma: of the focal loss, see :class:`~lossevo.losses.distribution.Focal`.
        alpha: class weights of the focal loss.
    """

    description: ClassVar[Description] = Description(
        name="dice_focal",
        family="compound",
        summary="Overlap together with a likelihood that looks at the hard voxels; robust under imbalance.",
        formula="w_dice · Dice(p², g²) + w_focal · Focal(γ)",
        source="Iantsen, Visvikis & Hatt, Squeeze-and-excitation normalization, HECKTOR 2020",
        purpose="Small or uneven foreground, where Dice+CE leaves hard voxels behind.",
    )

    def __init__(
        self,
        *,
        w_dice: float = 1.0,
        w_focal: float = 1.0,
        squared_denominator: bool = True,
        batch: bool = False,
        include_background: bool = False,
        absent: str = "count",
        smooth: float = SMOOTH,
        gamma: float = 2.0,
        alpha: float | Sequence[float] | Tensor | None = None,
    ) -> None:
        super().__init__()
        self.w_dice = arguments.number("w_dice", w_dice)
        self.w_focal = arguments.number("w_focal", w_focal)
        self.dice = Dice(
            squared_denominator=squared_denominator,
            batch=batch,
            include_background=include_background,
            absent=absent,
            smooth=smooth,
        )
        self.focal = Focal(gamma=gamma, alpha=alpha)

    def compute(self, inputs: LossInputs) -> Tensor:
        """See the class."""
        # Dice first, as in DiceCE.
        dice = self.w_dice * self.dice.compute(inputs)
        return dice + self.w_focal * self.focal.compute(inputs)


class DiceTopK(SegmentationLoss):
    """Dice + top-k loss, w_dice · Dice + w_topk · TopK: overlap, and cross-entropy of the hardest voxels.

    Args:
        w_dice: weight of the Dice loss.
        w_topk: weight of the top-k loss.
        fraction: share of the voxels that count, see :class:`~lossevo.losses.distribution.TopK`.
        squared_denominator: of the Dice loss, see :class:`~lossevo.losses.region.Dice`.
        batch: of both losses: one Dice per batch, and the hardest voxels of the batch.
        include_background: of the Dice loss.
        absent: of the Dice loss.
        smooth: of the Dice loss.
    """

    description: ClassVar[Description] = Description(
        name="dice_topk",
        family="compound",
        summary="Overlap together with the likelihood of the hardest voxels.",
        formula="w_dice · Dice + w_topk · TopK(fraction)",
        source="Ma et al., Loss odyssey in medical image segmentation, MedIA 2021",
        purpose="Small objects in large volumes, where Dice+CE leaves boundaries behind.",
    )

    def __init__(
        self,
        *,
        w_dice: float = 1.0,
        w_topk: float = 1.0,
        fraction: float = 0.1,
        squared_denominator: bool = False,
        batch: bool = False,
        include_background: bool = False,
        absent: str = "count",
        smooth: float = SMOOTH,
    ) -> None:
        super().__init__()
        self.w_dice = arguments.number("w_dice", w_dice)
        self.w_topk = arguments.number("w_topk", w_topk)
        self.dice = Dice(
            squared_denominator=squared_denominator,
            batch=batch,
            include_background=include_background,
            absent=absent,
            smooth=smooth,
        )
        self.topk = TopK(fraction=fraction, batch=batch)

    def compute(self, inputs: LossInputs) -> Tensor:
        """See the class."""
        # Dice first, as in DiceCE.
        dice = self.w_dice * self.dice.compute(inputs)
        return dice + self.w_topk * self.topk.compute(inputs)


class FocalTversky(Tversky):
    """Focal Tversky loss, mean over regions of (1 - T)^(1/γ) with the Tversky index T.

    1 - T is held above 1e-4, since with γ > 1 the power has an infinite slope at 0. The power is taken per region,
    before the mean (one public implementation takes it after). The best γ = 4/3, i.e. exponent 3/4, and 0.7 on false
    negatives are as recalled, not checked against the paper; the authors' code has the same exponent and weights.

    Args:
        gamma: γ > 0; above 1 a region that is nearly right keeps a larger share of the gradient.
        w_fp: weight of false positives.
        w_fn: weight of false negatives.
        batch: sum over the batch too; else one index per image.
        include_background: let class 0 count as the others do.
        absent: "count" or "skip" classes that the target lacks, see :mod:`lossevo.losses.region`.
        smooth: added to the denominator.
    """

    description: ClassVar[Description] = Description(
        name="focal_tversky",
        family="compound",
        summary="Tversky loss bent by a power, so that the last errors of a nearly right region keep a gradient.",
        formula="mean_c (1 - TP_c / (TP_c + w_fp FP_c + w_fn FN_c + s))^(1/γ)",
        source="Abraham & Khan, A novel focal Tversky loss function, ISBI 2019",
        purpose="Small structures, late in training: nearly right regions keep a gradient.",
    )

    def __init__(
        self,
        *,
        gamma: float = 4 / 3,
        w_fp: float = 0.3,
        w_fn: float = 0.7,
        batch: bool = False,
        include_background: bool = False,
        absent: str = "count",
        smooth: float = SMOOTH,
    ) -> None:
        super().__init__(
            w_fp=w_fp, w_fn=w_fn, batch=batch, include_background=include_background, absent=absent, smooth=smooth
        )
        self.gamma = arguments.number("gamma", gamma, minimum=EPSILON)

    def compute(self, inputs: LossInputs) -> Tensor:
        """See the class."""
        sums = self.sums(inputs)
        return self.mean(self.one_minus_index(sums).clamp_min(EPSILON).pow(1 / self.gamma), sums.actual)
