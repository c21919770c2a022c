"""Losses that compare distributions voxel by voxel: cross-entropy and focal loss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from lossevo.expression.safe_math import EPSILON
from lossevo.losses import arguments
from lossevo.losses.base import Description, LossInputs, SegmentationLoss


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
    weight: Tensor | None

    def __init__(self, *, weight: Sequence[float] | Tensor | None = None, label_smoothing: float = 0.0) -> None:
        super().__init__()
        self.register_buffer("weight", arguments.class_weights("weight", weight), persistent=False)
        self.label_smoothing = arguments.number("label_smoothing", label_smoothing, maximum=1)

    def compute(self, inputs: LossInputs) -> Tensor:
        """See the class."""
        if self.weight is None:
            loss = -inputs.target_log_probability.mean()
            if self.label_smoothing == 0:
                return loss
            return (1 - self.label_smoothing) * loss - self.label_smoothing * inputs.log_probability.mean()
        weight = arguments.weights_for("weight", self.weight, inputs.logits)
        weighted_target = weight * inputs.target
        total = weighted_target.sum()
        log_likelihood = (weighted_target * inputs.log_probability).sum()
        if self.label_smoothing > 0:
            uniform = (weight * inputs.log_probability).mean(dim=1).sum()
            log_likelihood = (1 - self.label_smoothing) * log_likelihood + self.label_smoothing * uniform
        return -log_likelihood / torch.where(total > 0, total, torch.inf)


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
        if inputs.labels is not None:
            # Only the true class has a term: a C-th of the work.
            loss = self._modulated(inputs.target_log_probability)
            return (loss if weight is None else loss * weight.flatten()[inputs.labels]).mean()
        loss = self._modulated(inputs.log_probability) * inputs.target
        return (loss if weight is None else loss * weight).sum(dim=1).mean()

    def _modulated(self, log_probability: Tensor) -> Tensor:
        """-(1 - p)^γ log p."""
        if self.gamma == 0:
            return -log_probability
        error = -torch.expm1(log_probability)
        if self.gamma < 1:
            error = error.clamp_min(EPSILON)
        return -(error.pow(self.gamma) * log_probability)

    def _class_weights(self, logits: Tensor) -> Tensor | None:
        """α_c as (1, C, 1, ...), or None where every class counts 1."""
        if self.foreground_alpha is not None:
            class_index = torch.arange(logits.shape[1], device=logits.device).view(1, -1, *[1] * (logits.ndim - 2))
            alpha = logits.new_tensor(self.foreground_alpha)
            return torch.where(class_index == 0, 1 - alpha, alpha)
        return None if self.alpha is None else arguments.weights_for("alpha", self.alpha, logits)
