"""Unified focal loss: focal Tversky and focal loss under one set of parameters, symmetric or asymmetric."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from lossevo.expression.primitives import EPSILON
from lossevo.losses import arguments
from lossevo.losses.base import SMOOTH, Description, SegmentationLoss
from lossevo.losses.distribution import Focal
from lossevo.losses.inputs import LossInputs
from lossevo.losses.kernels import focal_term
from lossevo.losses.region import Tversky


class UnifiedFocal(SegmentationLoss):
    """Unified focal loss, λ · mFTL + (1 - λ) · mFL with λ = ``w_tversky``, for any number of classes.

    With the Tversky index T_c of class c, in which false negatives weigh δ and false positives 1 - δ, and the class
    weight w_c, which is 1 - δ for the background and δ for each foreground class,

        symmetric:   mFTL = mean_c (1 - T_c)^(1-γ),                mFL = -1/|Ω| Σ_i Σ_c w_c g_ic (1 - p_ic)^γ log p_ic
        asymmetric:  exponent 1 for the background's T_0,          the factor (1 - p_ic)^γ for the background only

    so the asymmetric form damps easy background, enhances the foreground's last errors, and leaves the rest as it is.
    γ = 0 makes both forms Tversky plus weighted cross-entropy.

    The public code is for two classes, and one of its files does not import; this is its formula, with every foreground
    class taken as a rare one. In the paper λ weighs the cross-entropy term (as recalled, not checked against it), in
    the authors' code the Tversky term, as here: at the default 1/2 they agree. The background has a Tversky index of
    its own, as there. Powers below 1 are taken of values held above 1e-4, since their slope at 0 is infinite.

    Args:
        asymmetric: damp the background and enhance the foreground only.
        w_tversky: λ in [0, 1], the weight of the focal Tversky term; the focal term has 1 - λ.
        delta: δ in [0, 1], the weight of false negatives and of foreground.
        gamma: γ in [0, 1], how far easy voxels are damped and nearly right regions enhanced.
        batch: of the Tversky index: sum over the batch too; else one per image.
        include_background: give the background a Tversky index too.
        absent: "count" or "skip" classes that the target lacks in the Tversky term, see :mod:`lossevo.losses.region`.
        smooth: added to the denominator of the Tversky index.
    """

    description: ClassVar[Description] = Description(
        name="unified_focal",
        family="compound",
        summary="Focal Tversky and focal loss with shared parameters; asymmetric, it treats the background apart.",
        formula="λ mean_c (1 - T_c(δ))^(1-γ_c) - (1-λ)/|Ω| Σ_i Σ_c w_c(δ) g_ic (1 - p_ic)^γ'_c log p_ic",
        source="Yeung et al., Unified Focal loss, Computerized Medical Imaging and Graphics 2022",
        purpose="Strong imbalance: a Tversky and a focal term tuned together, by three parameters.",
    )

    def __init__(
        self,
        *,
        asymmetric: bool = True,
        w_tversky: float = 0.5,
        delta: float = 0.6,
        gamma: float = 0.5,
        batch: bool = False,
        include_background: bool = True,
        absent: str = "count",
        smooth: float = SMOOTH,
    ) -> None:
        super().__init__()
        self.asymmetric = arguments.flag("asymmetric", asymmetric)
        self.w_tversky = arguments.number("w_tversky", w_tversky, maximum=1)
        self.delta = arguments.number("delta", delta, maximum=1)
        self.gamma = arguments.number("gamma", gamma, maximum=1)
        self.tversky = Tversky(
            w_fp=1 - self.delta,
            w_fn=self.delta,
            batch=batch,
            include_background=include_background,
            absent=absent,
            smooth=smooth,
        )
        self.focal = Focal(gamma=self.gamma, alpha=self.delta)

    def compute(self, inputs: LossInputs) -> Tensor:
        """See the class."""
        # The term with log p comes first, so that p needs no softmax of its own.
        focal = self._asymmetric_focal(inputs) if self.asymmetric else self.focal.compute(inputs)
        return (1 - self.w_tversky) * focal + self.w_tversky * self._focal_tversky(inputs)

    def _focal_tversky(self, inputs: LossInputs) -> Tensor:
        sums = self.tversky.sums(inputs)
        error = enhanced = self.tversky.one_minus_index(sums)
        if self.gamma > 0:
            enhanced = error.clamp_min(EPSILON).pow(1 - self.gamma)
            if self.asymmetric and self.tversky.include_background:
                enhanced = torch.cat([error[:, :1], enhanced[:, 1:]], dim=1)
        return self.tversky.mean(enhanced, sums.actual)

    def _asymmetric_focal(self, inputs: LossInputs) -> Tensor:
        if inputs.labels is not None:
            # Only the true class has a term: a C-th of the work.
            true = inputs.target_log_probability
            return torch.where(inputs.labels == 0, (1 - self.delta) * self._damped(true), -self.delta * true).mean()
        background, log_probability = inputs.target[:, :1], inputs.log_probability[:, :1]
        foreground = background * log_probability - inputs.target_log_probability
        return ((1 - self.delta) * background * self._damped(log_probability) + self.delta * foreground).mean()

    def _damped(self, log_probability: Tensor) -> Tensor:
        """-(1 - p)^γ log p."""
        return focal_term(log_probability, self.gamma, EPSILON if self.gamma < 1 else 0.0)
