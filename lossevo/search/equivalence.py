"""Whether two expressions are one loss: not only trained alike, but with the same values, also where arithmetic is
protected.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from lossevo.expression import Expression
from lossevo.losses import signed_distance_map
from lossevo.losses.symbolic import ExpressionLoss
from lossevo.search.screening import Screening

TOLERANCE = 1e-6
"""Of values, relative, and of gradients, as a share of the largest: algebra changes the order of rounding."""
_SHAPES = ((2, 7, 6, 5), (3, 4, 5, 6))
"""Images and voxels of the batches: a sum is not the mean times 210."""


def same_loss(expression: Expression, classes: int = 3) -> Callable[[Expression], bool]:
    """Tells whether another expression is the same loss as this one, with so many classes.

    It is if its gradient fingerprints are the same (:meth:`Screening.behaviour`), and so are value and gradient on
    saturated logits, empty, full, one-voxel and incomplete masks, and well into a training.
    """
    screening = Screening(classes)
    samples = list(_samples(classes))
    wanted, behaviour = [_measured(expression, sample) for sample in samples], screening.behaviour(expression)

    def same(other: Expression) -> bool:
        return screening.behaviour(other) == behaviour and all(
            _close(mine, theirs)
            for sample, measured in zip(samples, wanted, strict=True)
            for mine, theirs in zip(measured, _measured(other, sample), strict=True)
        )

    return same


@dataclass(frozen=True, slots=True)
class _Sample:
    logits: Tensor
    labels: Tensor
    distance_map: Tensor
    epoch: int


def _samples(classes: int) -> Iterator[_Sample]:
    generator = torch.Generator().manual_seed(20210907)
    for images, *shape in _SHAPES:
        noise = torch.randn(images, classes, *shape, generator=generator, dtype=torch.float64)
        mixed = torch.randint(0, classes, (images, 1, *shape), generator=generator)
        empty, one_voxel, full = torch.zeros_like(mixed), torch.zeros_like(mixed), torch.full_like(mixed, classes - 1)
        one_voxel[:, 0, 2, 3, 2] = 1
        incomplete = mixed.clone()
        incomplete[0] = 0
        # The last class is in the batch, but not in each image.
        uneven = mixed.clone()
        uneven[0][uneven[0] == classes - 1] = 0
        for labels in (mixed, empty, one_voxel, full, incomplete, uneven):
            one_hot = torch.cat([labels == label for label in range(classes)], dim=1)
            distance_map = signed_distance_map(one_hot, (4.0, 4.0, 4.0)).double()
            for logits, epoch in ((2 * noise, 0), (2 * noise, 37), (50 * noise.sign(), 0)):
                yield _Sample(logits, labels, distance_map, epoch)


def _measured(expression: Expression, sample: _Sample) -> tuple[Tensor, Tensor]:
    """Value and gradient."""
    loss = ExpressionLoss(expression)
    for _ in range(sample.epoch):
        loss.step()
    logits = sample.logits.clone().requires_grad_()
    value = loss(logits, sample.labels, sample.distance_map)
    if not value.requires_grad:
        return value, torch.zeros_like(logits)
    (gradient,) = torch.autograd.grad(value, logits)
    return value.detach(), gradient


def _close(a: Tensor, b: Tensor) -> bool:
    scale = float(a.nan_to_num(0.0, 0.0, 0.0).abs().max())
    return torch.allclose(b, a, rtol=0, atol=TOLERANCE * max(scale, 1e-30), equal_nan=True)
