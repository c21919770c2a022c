"""What generated gradients call: numbers per voxel of its true class, gathered and spread, and sums over classes.

``s`` is one number per voxel (B, 1, *spatial), or one for all; ``labels`` (B, 1, *spatial) are of type int64, and
``bins`` number the regions that the voxels belong to, image by image: ``b C + label``, flattened.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
from torch import Tensor

from lossevo.expression.memory import pixels_like

_EXACT = 1e-30
"""A float32 above it has all its digits, and its logarithm is as good as that from the logits."""


def bins_of(labels: Tensor, classes: int) -> Tensor:
    """The region of every voxel (B·N)."""
    first = torch.arange(0, labels.shape[0] * classes, classes, device=labels.device)
    return (labels.flatten(1) + first[:, None]).flatten()


def one_hot(s: Tensor | float, labels: Tensor, out: Tensor) -> Tensor:
    """(B, C, *spatial), written to ``out``: s at the true class, else 0."""
    if isinstance(s, Tensor):
        return out.zero_().scatter_(1, labels, s.expand(labels.shape))
    return out.zero_().scatter_(1, labels, s)


def plus_true(x: Tensor, s: Tensor | float, labels: Tensor) -> Tensor:
    """``x + one_hot(s)``."""
    return plus_true_(x.clone(), s, labels)


def plus_true_(x: Tensor, s: Tensor | float, labels: Tensor) -> Tensor:
    """``x + one_hot(s)`` in the memory of x."""
    return x.scatter_add_(1, labels, torch.as_tensor(s, dtype=x.dtype, device=x.device).expand(labels.shape))


def by_class(s: Tensor | float, bins: Tensor, like: Tensor) -> Tensor:
    """Sums of s over the voxels of each class of each image (B, C), added up in double precision."""
    regions = like.shape[0] * like.shape[1]
    if isinstance(s, Tensor):
        s = s.double().expand(like.shape[0], 1, *like.shape[2:]).flatten()
        sums = torch.bincount(bins, s, minlength=regions)
    else:
        sums = s * torch.bincount(bins, minlength=regions)
    return sums.view(like.shape[:2]).to(like.dtype)


def log_at_true(logits: Tensor, p: Tensor, labels: Tensor) -> Tensor:
    """The true class's log p (B, 1, *spatial); where p_t underflows it is x_t - x_max + log p_max."""
    true = torch.gather(p, 1, labels, out=pixels_like(p))
    # On a GPU, reading a number back would wait for all that is under way.
    if p.device.type == "cpu" and true.amin() > _EXACT:
        return true.log_()
    shifted = torch.gather(logits, 1, labels, out=true).sub_(logits.amax(1, keepdim=True))
    return shifted.add_(p.amax(1, keepdim=True).log_())


def lookup(regions: Tensor, bins: Tensor, labels: Tensor) -> Tensor:
    """The number (B, C) or (1, C) of each voxel's true class, (B, 1, *spatial)."""
    return regions.expand(labels.shape[0], -1).flatten().index_select(0, bins).view(labels.shape)


LABEL_FUNCTIONS: Mapping[str, Callable[..., Tensor]] = MappingProxyType(
    {
        function.__name__: function
        for function in (bins_of, one_hot, plus_true, plus_true_, by_class, log_at_true, lookup)
    }
)
