"""Schemes of adaptive weighting: SoftAdapt, CoV-Weighting, and uncertainty weighting as the usual control."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from lossevo.expression.primitives import EPSILON
from lossevo.losses import arguments
from lossevo.losses.adaptive import PARTS, AdaptiveWeighting, Parts, shares
from lossevo.losses.base import Description

VARIANTS = ("original", "normalized", "loss_weighted")
MOST_EPOCHS = 1000
RATIO_LIMIT = 10.0
LEAST_MEAN_RATIO = 0.01
_TINY = 1e-30


class SoftAdapt(AdaptiveWeighting):
    """SoftAdapt, Σ w_i L_i with larger weights for the parts that fall more slowly, or rise.

    From the means L̄_i of the parts over the last ``window`` epochs, which ``step()`` ends, and their slopes s_i per
    epoch come the weights, n on the whole for n parts, so that equal ones give the plain sum:

    =============  =================================================
    variant        w_i ∝
    =============  =================================================
    original       exp(β s_i)
    normalized     exp(β s_i / Σ_k abs(s_k))
    loss_weighted  f_i exp(β s_i), f_i = the mean of L̄_i, at least 0
    =============  =================================================

    They are 1 until the first update, at the first multiple of ``period`` that is no less than ``window``; an epoch
    without a call in training mode is none. Where public code errs, this does not follow it:

    - s is the slope at the newest epoch, of the parabola that fits the window best (two points: of the line). The
      authors' coefficients, those of forward differences, give it at the oldest; and differences of high order
      amplify noise.
    - The normalized variant divides by Σ abs(s). By Σ s, which is negative while losses fall, the ranking turns over,
      and the part that falls fastest gets the largest weight.
    - In the loss-weighted variant, which the authors recommend, a negative mean would give a negative weight. Here it
      gives none: that variant is for losses that are not negative, as the boundary loss is.

    Args:
        parts: the losses, each a name or {"name": ..., "parameters": {...}}.
        factors: a fixed number > 0 for each part, which is multiplied by it before all else (default 1).
        variant: original, normalized or loss_weighted.
        beta: β; above 0 the slow parts gain, below 0 the fast ones, and at 0 slopes do not count.
        window: number of epochs, 2 to 1000, that slopes and means are taken from.
        period: number of epochs between updates, 1 to 1000.
        spacing_mm: distance between neighbouring voxels per axis, for parts that measure (default 1 mm).
    """

    description: ClassVar[Description] = Description(
        name="softadapt",
        family="adaptive",
        summary="Weighs each loss by how slowly it falls, anew every few epochs.",
        formula="Σ_i w_i L_i,  w_i ∝ exp(β dL_i/dt)",
        source="Heydari, Thompson & Mehmood, SoftAdapt: techniques for adaptive loss weighting, 2019",
        purpose="Several losses of similar size, of which some stall while others fall.",
    )
    sums: Tensor
    count: Tensor
    history: Tensor
    epochs: Tensor

    def __init__(
        self,
        *,
        parts: Parts = PARTS,
        factors: Sequence[float] | None = None,
        variant: str = "original",
        beta: float = 0.1,
        window: int = 5,
        period: int = 5,
        spacing_mm: Sequence[float] | None = None,
    ) -> None:
        super().__init__(parts, factors, spacing_mm=spacing_mm)
        self.variant = arguments.choice("variant", variant, VARIANTS)
        self.beta = arguments.number("beta", beta, minimum=-math.inf)
        self.window = arguments.count("window", window, minimum=2, maximum=MOST_EPOCHS)
        self.period = arguments.count("period", period, minimum=1, maximum=MOST_EPOCHS)
        parts_count = len(self.weights)
        self.register_buffer("sums", torch.zeros(parts_count, dtype=torch.float64))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))
        self.register_buffer("history", torch.zeros(self.window, parts_count, dtype=torch.float64))
        self.register_buffer("epochs", torch.zeros((), dtype=torch.int64))

    def observe(self, values: Tensor) -> Tensor:
        """Count the values for the epoch's means; the weights stay until it ends."""
        self.sums += values
        self.count += 1
        return self.weights

    def step(self) -> None:
        """End the epoch, and every ``period`` epochs move the weights."""
        super().step()
        if not self.count:
            return
        self.history.copy_(torch.cat([self.history[1:], (self.sums / self.count)[None]]))
        self.sums.zero_()
        self.count.zero_()
        self.epochs += 1
        if self.epochs >= self.window and self.epochs % self.period == 0:
            slopes, means = newest_slopes(self.history), self.history.mean(dim=0)
            self.weights = softadapt_weights(slopes, means, self.variant, self.beta)


def newest_slopes(history: Tensor) -> Tensor:
    """Slopes (n,) per epoch at the last row of ``history`` (epochs, n), of the parabolas of least squares.

    Exact for parabolas; of two rows it is their difference.
    """
    epochs = len(history)
    time = torch.arange(1 - epochs, 1, dtype=history.dtype)
    # a + b t + c t² has the slope b at t = 0, the newest.
    powers = torch.stack([time**k for k in range(min(3, epochs))], dim=1)
    slopes: Tensor = torch.linalg.pinv(powers)[1].to(history) @ history
    return slopes


def softadapt_weights(slopes: Tensor, means: Tensor, variant: str, beta: float) -> Tensor:
    """Weights (n,), 1 on average, from slopes (n,) and, for loss_weighted, means (n,) of the losses."""
    if variant == "normalized":
        slopes = slopes / slopes.abs().sum().clamp_min(_TINY)
    exponents = beta * slopes
    sizes = (exponents - exponents.max()).exp()
    return shares(means.clamp_min(0) * sizes if variant == "loss_weighted" else sizes)


class CoVWeighting(AdaptiveWeighting):
    """CoV-Weighting, Σ w_i L_i with weights by how much each part still varies against its own mean.

    With the ratio l_i = L_i / mean abs(L_i), the mean over the calls before, and its mean and deviation over all calls,

        w_i = n c_i / Σ_k c_k,    c_i = std(l_i) / mean abs(l_i),

    the coefficient of variation, which does not depend on a loss's scale (its share of the sum does). The weights are
    1 in the first two calls, n on the whole for n parts. For positive losses this is the authors' rule (there the
    weights sum to 1). Their ratios break with a loss that is negative, crosses 0 or vanishes; here sizes are compared
    with sizes, a ratio counts as at most 10, its mean as at least 0.01, and a loss that has been 0 so far is its own
    reference. With ``decay`` below 1 the authors' mean forgets but their variance sums up all calls; here both forget
    alike.

    Args:
        parts: the losses, each a name or {"name": ..., "parameters": {...}}.
        factors: a fixed number > 0 for each part, which is multiplied by it before all else (default 1).
        decay: 1 for means over all calls so far; below 1 for exponential means over the last 1 / (1 - decay) or so.
        spacing_mm: distance between neighbouring voxels per axis, for parts that measure (default 1 mm).
    """

    description: ClassVar[Description] = Description(
        name="cov_weighting",
        family="adaptive",
        summary="Weighs each loss by its coefficient of variation: what hardly moves any more counts less.",
        formula="Σ_i w_i L_i,  w_i ∝ std(l_i) / mean|l_i|,  l_i = L_i / mean|L_i|",
        source="Groenendijk, Karaoglu, Gevers & Mensink, Multi-loss weighting with CoV, WACV 2021",
        purpose="Losses of similar scale, some of which reach their floor early.",
    )
    loss_sizes: Tensor
    ratio_means: Tensor
    ratio_sizes: Tensor
    ratio_variances: Tensor

    def __init__(
        self,
        *,
        parts: Parts = PARTS,
        factors: Sequence[float] | None = None,
        decay: float = 1.0,
        spacing_mm: Sequence[float] | None = None,
    ) -> None:
        super().__init__(parts, factors, spacing_mm=spacing_mm)
        self.decay = arguments.number("decay", decay, maximum=1.0)
        for name in ("loss_sizes", "ratio_means", "ratio_sizes", "ratio_variances"):
            self.register_buffer(name, torch.zeros_like(self.weights))

    def observe(self, values: Tensor) -> Tensor:
        """Move the running means; from the second call on the weights follow from them."""
        keep = kept_share(self.calls.to(values), self.decay)
        sizes = values.abs()
        reference = torch.where(self.loss_sizes > 0, self.loss_sizes, sizes).clamp_min(_TINY)
        ratios = (values / reference).clamp(-RATIO_LIMIT, RATIO_LIMIT)
        deviations = ratios - self.ratio_means
        self.ratio_variances.copy_(keep * (self.ratio_variances + (1 - keep) * deviations**2))
        self.ratio_means.lerp_(ratios, 1 - keep)
        self.ratio_sizes.lerp_(ratios.abs(), 1 - keep)
        self.loss_sizes.lerp_(sizes, 1 - keep)
        # As in the authors' code, whose 1e-8 also keeps the noise of rounding from being weighed.
        variations = (self.ratio_variances + 1e-8).sqrt() / self.ratio_sizes.clamp_min(LEAST_MEAN_RATIO)
        return torch.where(self.calls > 0, shares(variations), self.weights)


class UncertaintyWeighting(AdaptiveWeighting):
    """Uncertainty weighting, Σ exp(-s_i) L_i + s_i with the log-variance s_i of each part where this is least.

    Kendall et al. train s by the optimiser of the network. Here s_i = log(mean abs(L_i) over past calls), where that
    training would lead if the network stood still: then w_i = exp(-s_i) = 1 / mean abs(L_i), and the gradient is nearly
    that of Σ log L_i, which no scale of a part can change. So there are no parameters that an optimiser has to be told
    of, and a short training, in which Adam moves s by a learning rate per step, is enough. The paper's factors (1/2 of
    all for likelihoods of classes or of numbers) are left out. In the first call s = 0, the plain sum.

    For a negative loss the paper's objective has no minimum; here its size is what counts. Sizes are held above 1e-4.

    Args:
        parts: the losses, each a name or {"name": ..., "parameters": {...}}.
        factors: a fixed number > 0 for each part, which is multiplied by it before all else (default 1).
        decay: of the exponential mean, over the last 1 / (1 - decay) calls or so; 1 for the mean of all.
        spacing_mm: distance between neighbouring voxels per axis, for parts that measure (default 1 mm).
    """

    description: ClassVar[Description] = Description(
        name="uncertainty_weighting",
        family="adaptive",
        summary="Divides each loss by its recent size, the optimum of learned log-variances.",
        formula="Σ_i exp(-s_i) L_i + s_i,  s_i = log mean|L_i|",
        source="Kendall, Gal & Cipolla, Multi-task learning using uncertainty to weigh losses, CVPR 2018",
        purpose="The usual control for adaptive weights, and a cure for losses of different scale.",
    )
    loss_sizes: Tensor

    def __init__(
        self,
        *,
        parts: Parts = PARTS,
        factors: Sequence[float] | None = None,
        decay: float = 0.9,
        spacing_mm: Sequence[float] | None = None,
    ) -> None:
        super().__init__(parts, factors, spacing_mm=spacing_mm)
        self.decay = arguments.number("decay", decay, maximum=1.0)
        self.register_buffer("loss_sizes", torch.zeros_like(self.weights))

    def observe(self, values: Tensor) -> Tensor:
        """Move the running means, and with them the weights."""
        self.loss_sizes.lerp_(values.abs(), 1 - kept_share(self.calls.to(values), self.decay))
        return 1 / self.loss_sizes.clamp_min(EPSILON)

    def regulariser(self) -> Tensor:
        """Σ s_i."""
        return -self.weights.log().sum()


def kept_share(calls: Tensor, decay: float) -> Tensor:
    """What a running mean over ``calls`` values keeps as the next comes: all count alike until ``decay`` is less."""
    return (calls / (calls + 1)).clamp_max(decay)
