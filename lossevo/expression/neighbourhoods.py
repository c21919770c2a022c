"""What generated code calls on whole maps: neighbourhoods of voxels, and where the largest values are.

Maps are (B, C, *spatial), 2D or 3D. A neighbourhood is 3 voxels long along each axis; beyond the image is its nearest
voxel, as in ``scipy.ndimage`` with ``mode="nearest"``. The source of this file's functions is copied into every
exported ``loss.py``: torch only.
"""

from __future__ import annotations

import torch
from torch import Tensor


def _padded(x: Tensor, axis: int) -> Tensor:
    return torch.cat([x.narrow(axis, 0, 1), x, x.narrow(axis, -1, 1)], axis)


def avg_pool(x: Tensor) -> Tensor:
    """Mean of each neighbourhood."""
    for axis in range(2, x.ndim):
        padded, size = _padded(x, axis), x.shape[axis]
        x = padded.narrow(axis, 0, size) + x + padded.narrow(axis, 2, size)
    return x / float(3 ** (x.ndim - 2))


def gaussian(x: Tensor) -> Tensor:
    """Mean of each neighbourhood with weights 1:2:1 along each axis: a Gaussian of σ² = 1/2."""
    for axis in range(2, x.ndim):
        padded, size = _padded(x, axis), x.shape[axis]
        x = padded.narrow(axis, 0, size) + 2 * x + padded.narrow(axis, 2, size)
    return x / float(4 ** (x.ndim - 2))


def max_pool(x: Tensor) -> Tensor:
    """Largest value of each neighbourhood."""
    for axis in range(2, x.ndim):
        x = _largest(x, axis)
    return x


def _largest(x: Tensor, axis: int) -> Tensor:
    padded, size = _padded(x, axis), x.shape[axis]
    return torch.maximum(torch.maximum(padded.narrow(axis, 0, size), x), padded.narrow(axis, 2, size))


def max_pool_gradient(received: Tensor, x: Tensor) -> Tensor:
    """What x receives if its :func:`max_pool` receives ``received``: as autograd has it, equal values share."""
    inputs = [x]
    for axis in range(2, x.ndim - 1):
        inputs.append(_largest(inputs[-1], axis))
    gradient = received.expand_as(x)
    for axis in range(x.ndim - 1, 1, -1):
        x = inputs.pop()
        padded, last = _padded(x, axis), x.shape[axis] - 1
        before, after = padded.narrow(axis, 0, last + 1), padded.narrow(axis, 2, last + 1)
        from_after = gradient * _share(after, torch.maximum(before, x))
        gradient = gradient - from_after
        from_before = gradient * _share(before, x)
        gradient = gradient - from_before
        gradient.narrow(axis, 0, 1).add_(from_before.narrow(axis, 0, 1))
        gradient.narrow(axis, 0, last).add_(from_before.narrow(axis, 1, last))
        gradient.narrow(axis, last, 1).add_(from_after.narrow(axis, last, 1))
        gradient.narrow(axis, 1, last).add_(from_after.narrow(axis, 0, last))
    return gradient


def _share(a: Tensor, b: Tensor) -> Tensor:
    """1 where a is the larger, 1/2 where both are equal."""
    return ((a > b).type_as(a) + (a >= b).type_as(a)) / 2


def margin(logits: Tensor) -> Tensor:
    """Each logit minus the largest of the other classes'."""
    largest, first = logits.max(1, keepdim=True)
    second = logits.scatter(1, first, float("-inf")).max(1, keepdim=True).values
    return logits - largest.expand_as(logits).scatter(1, first, second)


def margin_gradient(received: Tensor, logits: Tensor) -> Tensor:
    """What the logits receive if their :func:`margin` receives ``received``.

    It is taken from the largest of the others: the largest of all, and the second largest for that one.
    """
    received = received.expand_as(logits)
    first = logits.max(1, keepdim=True).indices
    second = logits.scatter(1, first, float("-inf")).max(1, keepdim=True).indices
    by_first = received.gather(1, first)
    by_others = received.sum(1, keepdim=True) - by_first
    return received.scatter_add(1, torch.cat([first, second], 1), -torch.cat([by_others, by_first], 1))


def top_weights(x: Tensor, batch: bool = False) -> Tensor:
    """What each voxel weighs in the mean of the largest tenth of a class's values, in its image or in the batch.

    1/k for the k largest values; those equal to the k-th share what is left of them.
    """
    # Copied, since whether the transposed map could be viewed depends on the sizes, which torch.export must not ask.
    values = x.detach().transpose(0, 1).clone(memory_format=torch.contiguous_format) if batch else x.detach()
    values = values.flatten(1 if batch else 2)
    count = (values.shape[-1] + 9) // 10
    least = values.topk(count, dim=-1).values[..., -1:]
    above, ties = (values > least).type_as(x), (values == least).type_as(x)
    share = (count - above.sum(-1, keepdim=True)) / ties.sum(-1, keepdim=True)
    weights = (above + share * ties) / count
    return weights.view(x.shape[1], x.shape[0], *x.shape[2:]).transpose(0, 1) if batch else weights.view(x.shape)


def max_weights(r: Tensor) -> Tensor:
    """(B, C): 1 for the class with the largest value of each row; equal ones share it."""
    largest = (r == r.detach().amax(1, keepdim=True)).type_as(r)
    return largest / largest.sum(1, keepdim=True)
