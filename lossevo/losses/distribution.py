"""Losses that compare distributions voxel by voxel: cross-entropy, focal loss, top-k loss."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import ClassVar

import torch
from torch import Tensor

from lossevo.expression.primitives import EPSILON
from lossevo.losses import arguments
from lossevo.losses.base import Description, SegmentationLoss
from lossevo.losses.inputs import LossInputs
from lossevo.losses.kernels import focal_term


class CrossEntropy(SegmentationLoss):
    """Cross-entropy, as the mean over all voxels of the batch: -1/|Ω| Σ_i Σ_c g_ic log p_ic.

    With class weights w it is the weighted mean, -Σ_i Σ_c w_c g'_ic log p_ic / Σ_i Σ_c w_c g_ic, and label smoothing ε
    makes g' = (1 - ε) g + ε/C of g. For labels this is ``torch.nn.functional.cross_entropy``; for one-hot targets
    PyTorch divides the weighted sum by |Ω| instead, so that labels and one-hot disagree there: here they agree. If
    every voxel belongs to classes of weight 0, the loss is 0.

    Args:
        weight: one weight >= 0 per class, background first; None is 1 for every class.
        label_smoothing: ε in [0, 1].
    """

    description: ClassVar[Description] = Description(
        name="cross_entropy",
        family="distribution",
        summary="The default of classification: every voxel counts the same, so small classes count little.",
        formula="-1/|Ω| Σ_i Σ_c g_ic log p_ic",
        source="Negative log-likelihood of the categorical distribution",
        purpose="Balanced classes, and calibrated probabilities; the control of every comparison.",
    )
    # PyTorch has this one fused already.
    has_own_gradient = False
    weight: Tensor | None

    def __init__(self, *, weight: Sequence[float] | Tensor | None = None, label_smoothing: float = 0.0) -> None:
        super().__init__()
        self.register_buffer("weight", arguments.class_weights("weight", weight), persistent=False)
        self.label_smoothing = arguments.number("label_smoothing", label_smoothing, maximum=1)

    def compute(self, inputs: LossInputs) -> Tensor:
        """See the class."""
        if self.weight is None and self.label_smoothing == 0:
            return -inputs.log_likelihood
        log_likelihood, log_probability, voxels = inputs.log_probability_sums()
        if self.label_smoothing > 0:
            uniform = log_probability / inputs.logits.shape[1]
            log_likelihood = (1 - self.label_smoothing) * log_likelihood + self.label_smoothing * uniform
        if self.weight is not None:
            weight = arguments.weights_for("weight", self.weight, inputs.logits).flatten()
            log_likelihood, voxels = weight * log_likelihood, weight * voxels
        total = voxels.sum()
        return -log_likelihood.sum() / torch.where(total > 0, total, torch.inf)


class Focal(SegmentationLoss):
    """Focal loss, as the mean over all voxels of the batch: -1/|Ω| Σ_i Σ_c α_c g_ic (1 - p_ic)^γ log p_ic.

    γ = 0 is cross-entropy. With one logit (C = 1) it is Lin et al.'s binary form. 1 - p is computed as -expm1(log p);
    for γ < 1 it is held above 1e-4, since its power has an infinite slope at 0. MONAI's softmax form also divides by C.

    Args:
        gamma: focusing exponent γ >= 0; the paper's best is 2.
        alpha: None is 1 for every class; a number α in [0, 1] weighs the foreground classes by α and the background by
            1 - α (the paper has 0.25); a list has one weight >= 0 per class, background first.
    """

    description: ClassVar[Description] = Description(
        name="focal",
        family="distribution",
        summary="Cross-entropy in which voxels that are right already count less.",
        formula="-1/|Ω| Σ_i Σ_c α_c g_ic (1 - p_ic)^γ log p_ic",
        source="Lin et al., Focal Loss for Dense Object Detection, ICCV 2017",
        purpose="Foreground of a few percent, many easy background voxels.",
    )
    alpha: Tensor | None

    def __init__(self, *, gamma: float = 2.0, alpha: float | Sequence[float] | Tensor | None = None) -> None:
        super().__init__()
        self.gamma = arguments.number("gamma", gamma)
        self.foreground_alpha = arguments.number("alpha", alpha, maximum=1) if isinstance(alpha, int | float) else None
        per_class = None if isinstance(alpha, int | float) else arguments.class_weights("alpha", alpha)
        self.register_buffer("alpha", per_class, persistent=False)

    def compute(self, inputs: LossInputs) -> Tensor:
        """See the class."""
        weight = self._class_weights(inputs.logits)
        # A power below 1 has an infinite slope at 0.
        floor = EPSILON if 0 < self.gamma < 1 else 0.0
        if inputs.labels is not None:
            # Only the true class has a term: a C-th of the work.
            loss = focal_term(inputs.target_log_probability, self.gamma, floor)
            return (loss if weight is None else loss * weight.flatten()[inputs.labels]).mean()
        loss = focal_term(inputs.log_probability, self.gamma, floor) * inputs.target
        return (loss if weight is None else loss * weight).sum(dim=1).mean()

    def _class_weights(self, logits: Tensor) -> Tensor | None:
        """α_c as (1, C, 1, ...), or None where every class counts 1."""
        if self.foreground_alpha is not None:
            class_index = torch.arange(logits.shape[1], device=logits.device).view(1, -1, *[1] * (logits.ndim - 2))
            alpha = torch.as_tensor(self.foreground_alpha, dtype=logits.dtype, device=logits.device)
            return torch.where(class_index == 0, 1 - alpha, alpha)
        return None if self.alpha is None else arguments.weights_for("alpha", self.alpha, logits)


class TopK(SegmentationLoss):
    """Top-k loss: cross-entropy of the hardest voxels, the mean of the k largest of ℓ_i = -Σ_c g_ic log p_ic.

    k = ⌈fraction · |Ω|⌉; ``fraction`` 1 is cross-entropy. Of voxels that tie for the last places each gets the same
    share of them, so that neither value nor gradient depends on the order of voxels: indifferent logits give the
    gradient of cross-entropy. The papers choose a number of pixels, or a bound on p; 10 % is the public code's.

    Args:
        fraction: share of the voxels that count, from 0.0001 to 1.
        batch: the hardest of the whole batch, as in the public code; else of each image.
    """

    description: ClassVar[Description] = Description(
        name="topk",
        family="distribution",
        summary="Cross-entropy of the hardest voxels only; the others do not count at all.",
        formula="1/k Σ_{i ∈ top k} ℓ_i,  ℓ_i = -Σ_c g_ic log p_ic,  k = ⌈fraction · |Ω|⌉",
        source="Wu, Shen & van den Hengel, Bridging category-level and instance-level segmentation, 2016",
        purpose="Many easy background voxels, hard boundaries; beside Dice in dice_topk.",
    )

    def __init__(self, *, fraction: float = 0.1, batch: bool = False) -> None:
        super().__init__()
        self.fraction = arguments.number("fraction", fraction, minimum=EPSILON, maximum=1)
        self.batch = arguments.flag("batch", batch)

    def compute(self, inputs: LossInputs) -> Tensor:
        """See the class."""
        loss = -inputs.target_log_probability.flatten(1)
        if self.batch:
            loss = loss.flatten()[None]
        # Exact, where floating point makes 0.1 · 30 > 3; and in whole numbers, so that the size may be symbolic.
        share = Fraction(str(self.fraction))
        count = -(-loss.shape[1] * share.numerator // share.denominator)
        weight = _share_of_largest(loss.detach(), count)
        return (weight * loss).sum() / (count * loss.shape[0])


def _share_of_largest(values: Tensor, count: int) -> Tensor:
    """Per row 1 for the ``count`` largest values, 0 for the others; values that tie for the last places share them."""
    last = values.topk(count, dim=1, sorted=False).values.amin(dim=1, keepdim=True)
    above, tied = values > last, values == last
    left = count - above.sum(dim=1, keepdim=True)
    return above.to(values.dtype) + tied * (left / tied.sum(dim=1, keepdim=True)).to(values.dtype)
