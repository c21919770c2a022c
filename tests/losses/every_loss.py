"""What the tests over the whole catalogue share: every loss, with some of its parameters too, examples, comparison."""

from __future__ import annotations

import pytest
import torch

from lossevo import losses
from lossevo.losses import describe, names

VARIANTS = [
    ("cross_entropy", {"label_smoothing": 0.1}),
    ("focal", {"gamma": 0.5}),
    ("focal", {"alpha": 0.25}),
    ("dice", {"batch": True, "include_background": True}),
    ("dice", {"absent": "skip"}),
    ("generalized_dice", {"include_background": False}),
    ("lovasz", {"absent": "count", "batch": True}),
    ("focal_tversky", {"gamma": 3.0, "batch": True}),
    ("dice_hausdorff", {"hausdorff": "convolution"}),
    ("unified_focal", {"asymmetric": False, "gamma": 0.9}),
    ("cldice", {"iterations": 2, "include_background": True}),
    ("cov_weighting", {"parts": ("dice", "focal", "boundary")}),
    ("adaptive", {"loss": ("focal_tversky", "boundary")}),
]
LOSSES = [*((name, {}) for name in names()), *VARIANTS]


def name_of(case):
    """The loss and the parameters that are chosen, as the name of a test."""
    name, parameters = case
    return "-".join([name, *parameters])


every_loss = pytest.mark.parametrize(("name", "parameters"), LOSSES, ids=[name_of(case) for case in LOSSES])


def create(name, **parameters):
    """The loss; one whose weights adapt to every call in evaluation mode, where they stand still."""
    loss = losses.create(name, **parameters)
    return loss.eval() if describe(name).family == "adaptive" else loss


def example(classes, spatial, *, batch=2, dtype=torch.float64, seed=0):
    """Normally distributed logits and random labels."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(batch, classes, *spatial, generator=generator, dtype=dtype, requires_grad=True)
    target = torch.randint(0, max(2, classes), (batch, 1, *spatial), generator=generator)
    return logits, target


def value_and_gradient(loss, logits, *arguments):
    """The loss, and its gradient by the logits."""
    logits = logits.detach().requires_grad_()
    value = loss(logits, *arguments)
    return value.detach(), *torch.autograd.grad(value, logits)


def assert_same(first, second, **tolerance):
    """Equal tensor by tensor, up to rounding."""
    for a, b in zip(first, second, strict=True):
        torch.testing.assert_close(a, b, **tolerance)
