"""The sums and log-probabilities that losses are made of, with hand-written derivatives.

Plain autograd keeps every intermediate of the logits' size for the backward pass: the one-hot target, products, a
second softmax. The functions here keep the probability and the target as it was given, which exist anyway, and build
the rest anew: a one-hot target costs a fraction of a softmax. What they keep is an input, never an intermediate, so
that derivatives of the derivative are right too.

Reductions are dense, without atomic additions, hence deterministic on every device; PyTorch sums pairwise, so that
10⁶ voxels lose no digit in float32.

Each function has a plain form beside it. It serves soft targets, which may have gradients of their own; torch.compile,
which derives and fuses better by itself; and torch.export, which records the forward pass alone.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function

_EXACT = 1e-30
"""A float32 above it has all its digits, and its logarithm is as good as that from the logits."""


class RegionSums(NamedTuple):
    """Sums over the voxels of each class of each image, (B, C) each.

    Attributes:
        overlap: TP = Σ p g.
        predicted: Σ p, or Σ p².
        actual: Σ g, or Σ g².
    """

    overlap: Tensor
    predicted: Tensor
    actual: Tensor


class ErrorSums(NamedTuple):
    """Sums over the voxels of each class of each image, (B, C) each.

    Attributes:
        inside: Σ (g - p)² g.
        outside: Σ (g - p)² (1 - g).
        actual: Σ g.
    """

    inside: Tensor
    outside: Tensor
    actual: Tensor


def region_sums(probability: Tensor, target: Tensor, *, squared: bool = False) -> RegionSums:
    """Σ p g, Σ p and Σ g (with ``squared`` Σ p g, Σ p² and Σ g²) over the voxels of each class of each image.

    Args:
        probability: p (B, C, *spatial), or log p for the sums of that.
        target: labels (B, 1, *spatial) of any dtype, or g (B, C, *spatial), one-hot or soft.
        squared: squares in the sums of p and of g.
    """
    if _is_hard(target) and not torch.compiler.is_compiling():
        return RegionSums(*_RegionSums.apply(probability, target, squared))  # type: ignore[no-untyped-call]
    target = one_hot(target, probability.shape[1], probability.dtype)
    power = 2 if squared else 1
    return RegionSums(_sum(probability * target), _sum(probability**power), _sum(target**power))


def error_sums(probability: Tensor, target: Tensor) -> ErrorSums:
    """Squared errors inside and outside each class of each image, and its size; arguments as for region_sums."""
    if _is_hard(target) and not torch.compiler.is_compiling():
        return ErrorSums(*_ErrorSums.apply(probability, target))  # type: ignore[no-untyped-call]
    target = one_hot(target, probability.shape[1], probability.dtype)
    error = (target - probability).square()
    return ErrorSums(_sum(error * target), _sum(error * (1 - target)), _sum(target))


def of_target(voxels: Tensor, labels: Tensor) -> Tensor:
    """The true class's value x_it (B, 1, *spatial) of x (B, C, *spatial), with labels t (B, 1, *spatial)."""
    if torch.compiler.is_compiling():
        return voxels.gather(1, labels.long())
    value: Tensor = _OfTarget.apply(voxels, labels)  # type: ignore[no-untyped-call]
    return value


def target_log_probability(logits: Tensor, probability: Tensor, labels: Tensor) -> Tensor:
    """The true class's log p (B, 1, *spatial) from the logits and their softmax, without another softmax.

    Where p_t underflows, log p_t = x_t - x_max + log p_max: the largest p is at least 1/C.

    Args:
        logits: x (B, C, *spatial).
        probability: softmax of the logits over the classes.
        labels: t (B, 1, *spatial) of any dtype.
    """
    if torch.compiler.is_compiling():
        return of_target(torch.log_softmax(logits, dim=1), labels)
    log_probability: Tensor = _TargetLogProbability.apply(logits, probability, labels)  # type: ignore[no-untyped-call]
    return log_probability


def focal_term(log_probability: Tensor, gamma: float | Tensor, floor: float = 0.0) -> Tensor:
    """-(1 - p)^γ log p, voxel by voxel, from log p; 1 - p is held above ``floor``.

    γ as a tensor, a scalar, may want a gradient.
    """
    if gamma == 0:
        return -log_probability
    if torch.compiler.is_compiling() or isinstance(gamma, Tensor):
        return -((-torch.expm1(log_probability)).clamp_min(floor).pow(gamma) * log_probability)
    term: Tensor = _FocalTerm.apply(log_probability, gamma, floor)  # type: ignore[no-untyped-call]
    return term


def one_hot(target: Tensor, classes: int, dtype: torch.dtype, *, out: Tensor | None = None) -> Tensor:
    """One-hot (B, C, *spatial) floats of labels (B, 1, *spatial), written to ``out`` if that is given.

    A target with class channels is converted only.
    """
    target = target.to(dtype)
    if target.shape[1] != 1:
        return target
    index = torch.arange(classes, device=target.device, dtype=dtype).view(-1, *[1] * (target.ndim - 2))
    if out is None:
        out = target.new_empty(target.shape[0], classes, *target.shape[2:])
    # With `out`, eq writes floats: `==` writes bool, and to convert that takes longer than the rest.
    return torch.eq(target, index, out=out)


def _is_hard(target: Tensor) -> bool:
    return target.shape[1] == 1 or not target.is_floating_point()


def _sum(voxels: Tensor) -> Tensor:
    return voxels.flatten(2).sum(dim=2)


def _per_voxel(sums: Tensor, voxels: Tensor) -> Tensor:
    """(B, C) as (B, C, 1, ...), to broadcast against ``voxels``."""
    return sums.view(*sums.shape, *[1] * (voxels.ndim - 2))


class _RegionSums(Function):
    @staticmethod
    def forward(probability: Tensor, target: Tensor, squared: bool) -> tuple[Tensor, Tensor, Tensor]:
        # One buffer for everything: to allocate another costs as much as to compute in it.
        buffer = one_hot(target, probability.shape[1], probability.dtype)
        actual = _sum(buffer)
        overlap = _sum(buffer.mul_(probability))
        return overlap, _sum(torch.mul(probability, probability, out=buffer) if squared else probability), actual

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
        probability, target, squared = inputs
        ctx.save_for_backward(probability if squared else None, target)
        ctx.mark_non_differentiable(output[2])
        # A sum that nobody uses then has the gradient None, and costs no pass.
        ctx.set_materialize_grads(False)
        ctx.classes, ctx.dtype = probability.shape[1], probability.dtype

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor, None, None]:
        probability, target = ctx.saved_tensors
        overlap, predicted, _ = gradients
        gradient = one_hot(target, ctx.classes, ctx.dtype)
        gradient = gradient.zero_() if overlap is None else gradient.mul_(_per_voxel(overlap, gradient))
        if predicted is not None:
            predicted = _per_voxel(predicted, gradient)
            gradient = gradient.add_(predicted if probability is None else 2 * predicted * probability)
        return gradient, None, None


class _ErrorSums(Function):
    @staticmethod
    def forward(probability: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        member = one_hot(target, probability.shape[1], probability.dtype)
        actual = _sum(member)
        error = (member - probability).square_()
        inside = member.mul_(error)
        return _sum(inside), _sum(error.sub_(inside)), actual

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
        ctx.save_for_backward(*inputs)
        ctx.mark_non_differentiable(output[2])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        probability, target = ctx.saved_tensors
        member = one_hot(target, probability.shape[1], probability.dtype)
        inside, outside = (_per_voxel(gradient, member) for gradient in gradients[:2])
        return (probability - member).mul_(2 * (member * (inside - outside)).add_(outside)), None


class _OfTarget(Function):
    @staticmethod
    def forward(voxels: Tensor, labels: Tensor) -> Tensor:
        return voxels.gather(1, labels.long())

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(inputs[1])
        ctx.classes = inputs[0].shape[1]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (labels,) = ctx.saved_tensors
        return one_hot(labels, ctx.classes, gradients[0].dtype).mul_(gradients[0]), None


class _TargetLogProbability(Function):
    @staticmethod
    def forward(logits: Tensor, probability: Tensor, labels: Tensor) -> Tensor:
        labels = labels.long()
        if probability.device.type == "cpu":  # where reading a number back costs nothing
            true = probability.gather(1, labels)
            if true.amin() > _EXACT:
                return true.log_()
        shifted = logits.gather(1, labels).sub_(logits.amax(dim=1, keepdim=True))
        return shifted.add_(probability.amax(dim=1, keepdim=True).log_())

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[1:])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        # The whole derivative, g - p, is given to the logits; p is an input for the sake of the second derivative.
        probability, labels = ctx.saved_tensors
        member = one_hot(labels, probability.shape[1], probability.dtype)
        return member.sub_(probability).mul_(gradients[0]), None, None


class _FocalTerm(Function):
    @staticmethod
    def forward(log_probability: Tensor, gamma: float, floor: float) -> Tensor:
        error = torch.expm1(log_probability).neg_().clamp_min_(floor)
        return error.pow_(gamma).mul_(log_probability).neg_()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        log_probability, ctx.gamma, ctx.floor = inputs
        ctx.save_for_backward(log_probability)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (log_probability,) = ctx.saved_tensors
        error = -torch.expm1(log_probability)
        held = error.clamp_min(ctx.floor)
        slope = ctx.gamma * (1 - error) * log_probability
        if ctx.floor > 0:
            slope = slope * (error >= ctx.floor)
        return gradients[0] * held.pow(ctx.gamma - 1) * (slope - held), None, None
