"""Compound losses of a region and a distance term whose weights change during training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor

from lossevo.losses import arguments
from lossevo.losses.base import SMOOTH, Description
from lossevo.losses.distance import Boundary
from lossevo.losses.hausdorff import (
    HausdorffConvolution,
    HausdorffDT,
    HausdorffDTOneSided,
    HausdorffErosion,
    HausdorffLoss,
)
from lossevo.losses.inputs import LossInputs
from lossevo.losses.region import Dice, GeneralizedDice
from lossevo.losses.schedule import LinearWeight, RatioWeight, ScheduledLoss

SCHEDULES = ("rebalance", "increase", "constant")
HAUSDORFF = ("dt_one_sided", "dt", "erosion", "convolution")


class GeneralizedDiceBoundary(ScheduledLoss):
    """Generalised Dice + boundary loss, w_gdl(t) · GDL + w_b(t) · Boundary in epoch t, which ``step()`` ends.

    ==========  ==========================  ======================
    schedule    w_gdl(t)                    w_b(t)
    ==========  ==========================  ======================
    rebalance   max(1 - increment t, 0.1)   alpha + increment t
    increase    1                           alpha + increment t
    constant    1                           alpha
    ==========  ==========================  ======================

    Alone, the boundary loss is content with an empty prediction of a small object: GDL leads at first. The defaults are
    those of the authors' code, made for 100 epochs: there rebalance, which the paper writes (1 - α) GDL + α Boundary,
    starts from weights 1 and 0.01, and goes on until the training ends, but for the floor of GDL.

    The boundary term is in mm, Kervadec's in voxels (see :class:`~lossevo.losses.distance.Boundary`): for his balance
    with voxels of s mm, divide ``alpha`` and ``increment`` by s and mind that the latter also lowers GDL's weight.

    Args:
        schedule: rebalance, increase or constant.
        alpha: weight of the boundary loss in the first epoch.
        increment: what an epoch adds to it.
        batch: of the generalised Dice loss: sum over the batch too; else one ratio per image.
        include_background: of the boundary loss; the generalised Dice loss always counts class 0.
        smooth: of the generalised Dice loss: added to the denominator.
        spacing_mm: distance between neighbouring voxels per axis, for maps computed from the target (default 1 mm).
    """

    description: ClassVar[Description] = Description(
        name="generalized_dice_boundary",
        family="compound",
        summary="Overlap first, then more and more the distance of surfaces.",
        formula="w_gdl(t) · GDL + w_b(t) · Boundary",
        source="Kervadec et al., Boundary loss for highly unbalanced segmentation, MedIA 2021",
        purpose="Small or thin objects whose surface matters, when the training is long enough for a schedule.",
    )
    uses_distance_map = True

    def __init__(
        self,
        *,
        schedule: str = "rebalance",
        alpha: float = 0.01,
        increment: float = 0.01,
        batch: bool = False,
        include_background: bool = False,
        smooth: float = SMOOTH,
        spacing_mm: Sequence[float] | None = None,
    ) -> None:
        super().__init__(spacing_mm=spacing_mm)
        self.schedule = arguments.choice("schedule", schedule, SCHEDULES)
        alpha, increment = arguments.number("alpha", alpha), arguments.number("increment", increment)
        self.w_gdl = LinearWeight(1.0, -increment if schedule == "rebalance" else 0.0, minimum=0.1)
        self.w_boundary = LinearWeight(alpha, 0.0 if schedule == "constant" else increment)
        self.generalized_dice = GeneralizedDice(batch=batch, smooth=smooth)
        self.boundary = Boundary(include_background=include_background)

    def compute(self, inputs: LossInputs) -> Tensor:
        """See the class."""
        region = self.generalized_dice.compute(inputs)
        boundary = self.boundary.compute(inputs)
        return self.w_gdl.weight(region) * region + self.w_boundary.weight(region) * boundary


class DiceHausdorff(ScheduledLoss):
    """Hausdorff + λ · Dice with λ such that both contribute alike: the ratio of their means over the last epoch.

    λ = mean Hausdorff loss / mean Dice loss of the values seen in training mode since the last ``step()``; it is
    ``initial_ratio`` in the first epoch, and takes no part in the gradient. If either mean is 0 (an erosion loss often
    is), λ stays as it was. The rule is as recalled, not checked against the paper. Under torch.func transforms put the
    loss in eval mode: they forbid it to count what it sees.

    Args:
        hausdorff: dt_one_sided, dt, erosion or convolution (see the losses hausdorff_…), with their paper's defaults.
        alpha: exponent of the distance in the Hausdorff loss.
        initial_ratio: λ of the first epoch.
        squared_denominator: of the Dice loss, see :class:`~lossevo.losses.region.Dice`.
        batch: of the Dice loss.
        include_background: let class 0 count as the others do, in both losses.
        absent: of the Dice loss.
        smooth: of the Dice loss.
        spacing_mm: distance between neighbouring voxels per axis (default 1 mm); erosion takes no notice of it.
    """

    description: ClassVar[Description] = Description(
        name="dice_hausdorff",
        family="compound",
        summary="Overlap and far errors in equal parts, balanced anew after every epoch.",
        formula="Hausdorff + λ · Dice,  λ = (mean Hausdorff / mean Dice) of the last epoch",
        source="Karimi & Salcudean, Reducing the Hausdorff distance in medical image segmentation, IEEE TMI 2020",
        purpose="Outliers far from the object that Dice does not feel, without a weight to tune.",
    )

    def __init__(
        self,
        *,
        hausdorff: str = "dt_one_sided",
        alpha: float = 2.0,
        initial_ratio: float = 1.0,
        squared_denominator: bool = False,
        batch: bool = False,
        include_background: bool = False,
        absent: str = "count",
        smooth: float = SMOOTH,
        spacing_mm: Sequence[float] | None = None,
    ) -> None:
        super().__init__(spacing_mm=spacing_mm)
        self.hausdorff: HausdorffLoss
        match arguments.choice("hausdorff", hausdorff, HAUSDORFF):
            case "dt_one_sided":
                self.hausdorff = HausdorffDTOneSided(
                    alpha=alpha, include_background=include_background, spacing_mm=spacing_mm
                )
            case "dt":
                self.hausdorff = HausdorffDT(alpha=alpha, include_background=include_background, spacing_mm=spacing_mm)
            case "erosion":
                self.hausdorff = HausdorffErosion(alpha=alpha, include_background=include_background)
            case "convolution":
                self.hausdorff = HausdorffConvolution(
                    alpha=alpha, include_background=include_background, spacing_mm=spacing_mm
                )
        self.uses_distance_map = self.hausdorff.uses_distance_map
        self.dice = Dice(
            squared_denominator=squared_denominator,
            batch=batch,
            include_background=include_background,
            absent=absent,
            smooth=smooth,
        )
        self.ratio = RatioWeight(arguments.number("initial_ratio", initial_ratio))

    def compute(self, inputs: LossInputs) -> Tensor:
        """See the class."""
        hausdorff, dice = self.hausdorff.compute(inputs), self.dice.compute(inputs)
        self.ratio.observe(hausdorff, dice)
        return hausdorff + self.ratio.weight(dice) * dice
