"""Exponential logarithmic loss: powers of logarithms, of the Dice index and of the probability."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from lossevo.errors import LossevoError
from lossevo.expression.primitives import EPSILON
from lossevo.losses import arguments
from lossevo.losses.base import Description
from lossevo.losses.inputs import LossInputs
from lossevo.losses.region import RegionLoss


class ExpLog(RegionLoss):
    """Exponential logarithmic loss, w_dice · mean_c (-log D_c)^γ + w_ce · 1/|Ω| Σ_i Σ_c g_ic w_c (-log p_ic)^γ.

    D_c = (2 Σpg + smooth) / (Σp + Σg + smooth) is the Dice index of a region, w_c = (Σ_k f_k / f_c)^½ the weight of a
    class by its frequency f. γ < 1 makes both terms steep near the optimum as well as far from it, γ > 1 flat there.

    Here ``smooth`` stands in the numerator too, as in the paper: it keeps the logarithm finite for a class that the
    target lacks. With ``absent="count"`` false positives of such a class cost therefore, the first one most. -log is
    held above 1e-4, since for γ < 1 the power has an infinite slope at 0. The weights 0.8 and 0.2 and γ = 0.3 are
    those of public code. That the paper smooths by 1, takes the mean over all labels (here the background is left out
    by default) and the frequencies of the training set is as recalled, not checked against the paper.

    Args:
        w_dice: weight of the Dice term.
        w_ce: weight of the cross-entropy term.
        gamma: γ > 0 of both terms.
        frequencies: share or number > 0 of voxels of every class in the training set, background first; None takes the
            frequencies in the batch at hand.
        batch: one Dice index per batch; else one per image.
        include_background: let class 0 have a Dice term as the others do.
        absent: "count" or "skip" the Dice terms of classes that the target lacks.
        smooth: added to numerator and denominator of the Dice index.
    """

    description: ClassVar[Description] = Description(
        name="exp_log",
        family="compound",
        summary="Powers of log Dice and log p, so that small regions and rare classes pull as hard as large ones.",
        formula="w_dice mean_c (-log D_c)^γ + w_ce/|Ω| Σ_i Σ_c g_ic (Σ_k f_k / f_c)^½ (-log p_ic)^γ",
        source="Wong et al., Segmentation with exponential logarithmic loss, MICCAI 2018",
        purpose="Many classes, some of them tiny: sizes that differ by orders of magnitude.",
    )
    frequencies: Tensor | None

    def __init__(
        self,
        *,
        w_dice: float = 0.8,
        w_ce: float = 0.2,
        gamma: float = 0.3,
        frequencies: Sequence[float] | Tensor | None = None,
        batch: bool = False,
        include_background: bool = False,
        absent: str = "count",
        smooth: float = 1.0,
    ) -> None:
        super().__init__(batch=batch, include_background=include_background, absent=absent, smooth=smooth)
        self.w_dice = arguments.number("w_dice", w_dice)
        self.w_ce = arguments.number("w_ce", w_ce)
        self.gamma = arguments.number("gamma", gamma, minimum=EPSILON)
        given = arguments.class_weights("frequencies", frequencies)
        if given is not None and not bool(given.all()):
            raise LossevoError(f"frequencies is {frequencies!r}, expected a list with one number > 0 per class")
        self.register_buffer("frequencies", given, persistent=False)

    def compute(self, inputs: LossInputs) -> Tensor:
        """See the class."""
        sums = inputs.region_sums()
        overlap, predicted, actual = map(self.counted, sums)
        dice = (2 * overlap + self.smooth) / (predicted + actual + self.smooth)
        cross_entropy = self._cross_entropy(inputs, voxels=sums.actual.sum(dim=0))
        return self.w_dice * self.mean(self._power(dice.log()), actual) + self.w_ce * cross_entropy

    def _cross_entropy(self, inputs: LossInputs, voxels: Tensor) -> Tensor:
        """Its second term; ``voxels`` (C,) are those of each class in the batch."""
        if self.frequencies is None:
            frequency = voxels.view(1, -1, *[1] * (inputs.logits.ndim - 2))
        else:
            frequency = arguments.weights_for("frequencies", self.frequencies, inputs.logits)
        # A class without a voxel has no term that its weight could count in.
        weight = (frequency.sum() / torch.where(frequency > 0, frequency, torch.inf)).sqrt()
        if inputs.labels is not None:
            return (weight.flatten()[inputs.labels] * self._power(inputs.target_log_probability)).mean()
        return (weight * inputs.target * self._power(inputs.log_probability)).sum(dim=1).mean()

    def _power(self, logarithm: Tensor) -> Tensor:
        """(-log)^γ with -log held above 1e-4."""
        return (-logarithm).clamp_min(EPSILON).pow(self.gamma)
