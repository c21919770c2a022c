"""Soft labels: a target may be the shares of the classes in a voxel, but few losses are smallest where p equals them.

Cross-entropy is, and so are squared errors. The ratios of most region losses are linear in p, hence smallest at 0 or 1:
with a share of 0.3 they lead to p = 1 (MONAI#8094). Whether a loss has its minimum at the target is measured on small
images, by its gradient. So it is known for all parameters, and for losses that were found.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from lossevo.losses.base import SegmentationLoss

LOOKS = 100
"""A loss looks for soft labels in its first batches alone: it takes a pass over the target."""

_VANISHED = 1e-3
"""A gradient this much shorter than beside the target: ``smooth`` keeps it from being 0."""


class SoftTargetWarning(UserWarning):
    """A loss whose minimum does not lie at the target was given soft labels."""


def may_look() -> bool:
    """Whether numbers can be read back, and a gradient taken: not within torch.func."""
    return not torch._C._are_functorch_transforms_active()


def warn_if_minimum_is_elsewhere(loss: SegmentationLoss, logits: Tensor) -> None:
    """Warn if the loss is not smallest where the prediction is a soft target of the classes of ``logits``."""
    if has_minimum_at_target(loss, max(2, logits.shape[1]), logits.ndim - 2, logits.device):
        return
    description = getattr(loss, "description", None)
    name = f"'{description.name}'" if description else type(loss).__name__
    warnings.warn(
        f"the target holds soft labels (shares between 0 and 1), but the loss {name} is not smallest, or not only,"
        " where the prediction equals them; take cross_entropy, or dice_ce with squared_denominator=True, or round"
        " the target to labels (docs/losses/README.md, soft labels)",
        SoftTargetWarning,
        stacklevel=7,
    )


def has_minimum_at_target(loss: SegmentationLoss, classes: int, axes: int, device: torch.device | str = "cpu") -> bool:
    """Whether a loss is smallest where p equals a soft target, and there alone.

    Its gradient by the logits vanishes at random shares, and does not where a small object of share 0.3 has p = 0.2:
    losses that round target and prediction do not see it. Nothing of the loss's state moves.
    """
    generator = torch.Generator().manual_seed(0)
    shape = (2, classes, 4, 5, 6)[: 2 + axes]
    shares, step = (2 * torch.randn(shape, generator=generator) for _ in range(2))
    small, fainter = (_small_object(share, shape) for share in (0.3, 0.2))
    with torch.inference_mode(False), torch.enable_grad(), _as_it_was(loss):
        at_target, beside, beside_small = (
            _slope(loss, target.to(device), prediction.to(device))
            for target, prediction in ((shares, shares), (shares, shares + step), (small, fainter))
        )
    return at_target <= _VANISHED * beside and beside_small > 0


def _small_object(share: float, shape: Sequence[int]) -> Tensor:
    """Logits of an object 2 voxels long along each axis, in which the classes of the foreground share ``share``."""
    logits = torch.full(shape, -8.0)
    inside = logits
    for axis in range(2, logits.ndim):
        inside = inside.narrow(axis, 1, 2)
    inside.fill_(math.log(share / (1 - share) / (shape[1] - 1)))
    logits[:, 0] = 0
    return logits


def _slope(loss: SegmentationLoss, target: Tensor, logits: Tensor) -> float:
    """Length of the gradient, with the softmax of ``target`` as the target."""
    logits = logits.clone().requires_grad_()
    value = loss.compute(loss.prepare(logits, target.softmax(dim=1)))
    if not value.requires_grad:
        return 0.0
    (gradient,) = torch.autograd.grad(value, logits)
    return float(gradient.norm())


@contextmanager
def _as_it_was(loss: SegmentationLoss) -> Iterator[None]:
    """The loss in evaluation mode, in which nothing moves, and without looking for soft labels."""
    modes = [(module, module.training) for module in loss.modules()]
    looks, loss.looks_for_soft_targets = loss.looks_for_soft_targets, 0
    loss.eval()
    try:
        yield
    finally:
        loss.looks_for_soft_targets = looks
        for module, mode in modes:
            module.training = mode
