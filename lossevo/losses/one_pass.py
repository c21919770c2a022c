"""Losses of a few sums in one pass: the gradient is made beside the value, while all that it needs is at hand.

Most losses are a function F of few numbers: sums over regions, and the true class's log p of every voxel. Autograd goes
through the logits' size a dozen times for them, and keeps several tensors of that size between forward and backward
pass. Here F alone is left to autograd. From its derivatives a = ∂F/∂Σpg, b = ∂F/∂Σp, q = ∂F/∂Σp² of each region and
e = ∂F/∂(log p_t) of each voxel follows the gradient with respect to the logits,

    h - p Σ_c h   with   h = a p g + b p + 2 q p² + e g,

in place, in buffers that exist, and it is the only thing kept for the backward pass.

A loss needs to know nothing of it: its ``compute`` is called with inputs whose sums are leaves. Derivatives of the
derivative, torch.func, torch.compile and torch.export take the ordinary way, through autograd and
:mod:`lossevo.losses.kernels`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from lossevo.losses import kernels
from lossevo.losses.inputs import LossInputs


class NeedsMaps(Exception):
    """A loss asked for more than sums."""


def may_have_own_gradient(inputs: LossInputs) -> bool:
    """Whether the gradient may be made beside the value.

    Not if none is wanted, and not where PyTorch has to see the operations: torch.compile, torch.export, torch.func.
    """
    return (
        torch.is_grad_enabled()
        and inputs.logits.requires_grad
        and not inputs.given_target.requires_grad
        and not torch.compiler.is_compiling()
        and not torch._C._are_functorch_transforms_active()
    )


def with_own_gradient(inputs: LossInputs, value: Tensor, gradient: Tensor, compute: Callable[[], Tensor]) -> Tensor:
    """``value`` as a function of the inputs' logits whose derivative is ``gradient``.

    ``compute()`` gives the value of ``inputs`` through autograd; derivatives of the derivative go that way, and are an
    error if the inputs were changed in place since. ``gradient`` (B, C, *spatial) has memory that is nobody else's: the
    backward pass hands it on.
    """
    result: Tensor = _OwnGradient.apply(inputs.logits, inputs, value, gradient, compute)  # type: ignore[no-untyped-call]
    return result


def one_pass(compute: Callable[[LossInputs], Tensor], inputs: LossInputs) -> Tensor:
    """``compute(inputs)``, with a gradient of its own if it is a function of region sums and log p_t alone."""
    if inputs.distance_map is not None:
        return compute(inputs)
    sums = _Sums(inputs)
    try:
        value = compute(sums)
    except NeedsMaps:
        return compute(inputs)
    if any(all(leaf is not own for own in sums.leaves) for leaf in _leaves(value)):
        # A parameter of the loss wants a gradient too.
        return compute(inputs)
    return with_own_gradient(inputs, value.detach(), sums.gradient(value), lambda: compute(inputs))


def _leaves(value: Tensor) -> Iterator[Tensor]:
    """The leaves with a gradient that ``value`` is made of."""
    pending = [value.grad_fn]
    seen: set[object] = set()
    while pending:
        node = pending.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if isinstance(leaf := getattr(node, "variable", None), Tensor):
            yield leaf
        pending.extend(following for following, _ in node.next_functions)


class _OwnGradient(Function):
    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, inputs: LossInputs, value: Tensor, gradient: Tensor, compute: Callable[[], Tensor]
    ) -> Tensor:
        ctx.save_for_backward(gradient)
        ctx.logits, ctx.compute = logits, compute
        ctx.inputs, ctx.versions = inputs, _versions(inputs)
        ctx.is_ours = not _has_hooks(True)
        return value.clone()

    @staticmethod
    def backward(ctx: Any, received: Tensor) -> tuple[Tensor, None, None, None, None]:
        (gradient,) = ctx.saved_tensors
        if torch.is_grad_enabled():
            # A derivative of the derivative is asked for.
            if _versions(ctx.inputs) != ctx.versions:
                raise RuntimeError(
                    "logits, target or distance map of a loss were changed in place before a derivative of its "
                    "derivative was asked for; give the loss copies"
                )
            (gradient,) = torch.autograd.grad(ctx.compute(), ctx.logits, create_graph=True)
        elif ctx.is_ours and _is_last_use(received):
            # New memory costs more than the product. Mostly there is nothing to do: a loss receives 1.
            is_one = received.device.type == "cpu" and type(received) is Tensor and bool(received == 1)
            return gradient if is_one else gradient.mul_(received), None, None, None, None
        return received * gradient, None, None, None, None


def _versions(inputs: LossInputs) -> list[int | None]:
    """How often each tensor was changed in place; None where PyTorch does not count."""
    given = (inputs.logits, inputs.given_target, inputs.distance_map)
    return [None if tensor is None or tensor.is_inference() else tensor._version for tensor in given]


# Private functions of PyTorch; where one is not to be had, it is as if it said yes, and a gradient is always copied.
_keeps_graph: Callable[[], bool] = getattr(torch._C._autograd, "_get_current_graph_task_keep_graph", lambda: True)
# Whether what is saved goes to hooks, which may keep it.
_has_hooks: Callable[[bool], object] = getattr(torch._C._autograd, "_top_saved_tensors_default_hooks", lambda x: True)
_is_batched: Callable[[Tensor], bool] = getattr(torch._C._functorch, "is_legacy_batchedtensor", lambda x: True)


def _is_last_use(received: Tensor) -> bool:
    """Whether a backward pass under way frees what was kept for it, so that there cannot be a second."""
    return (
        not _keeps_graph()
        and not torch._C._are_functorch_transforms_active()
        # ``torch.autograd.grad(…, is_grads_batched=True)``: one pass with many weights.
        and not _is_batched(received)
    )


class _Sums(LossInputs):
    """Inputs of which only sums and log p_t can be had, as leaves; knows the way back from them to the logits."""

    def __init__(self, inputs: LossInputs) -> None:
        # Who computes from the logits themselves leaves a trace, by which it is known that sums are not all.
        super().__init__(inputs.logits.detach().requires_grad_(), inputs.given_target)
        self.hard = inputs.given_target.shape[1] == 1
        self.leaves: list[Tensor] = []
        self._p: Tensor | None = None
        self._product: Tensor | None = None
        self._overlap: Tensor | None = None
        self._predicted: dict[bool, Tensor] = {}
        self._actual: dict[bool, Tensor] = {}
        self._log_p: Tensor | None = None

    def _leaf(self, value: Tensor) -> Tensor:
        self.leaves.append(value.requires_grad_())
        return value

    @torch.no_grad()
    def _softmax(self) -> Tensor:
        if self._p is None:
            self._p = self.logits.softmax(dim=1)
        return self._p

    @property
    def target(self) -> Tensor:
        """Not to be had."""
        raise NeedsMaps

    @property
    def probability(self) -> Tensor:
        """Not to be had."""
        raise NeedsMaps

    @property
    def log_probability(self) -> Tensor:
        """Not to be had."""
        raise NeedsMaps

    def log_probability_sums(self) -> kernels.RegionSums:
        """Not to be had."""
        raise NeedsMaps

    def error_sums(self) -> kernels.ErrorSums:
        """Not to be had."""
        raise NeedsMaps

    @property
    def target_log_probability(self) -> Tensor:
        """Log p_t (B, 1, *spatial), a leaf."""
        if not self.hard:
            raise NeedsMaps
        if self._log_p is None:
            with torch.no_grad():
                log_p = kernels.target_log_probability(self.logits, self._softmax(), self.given_target)
            self._log_p = self._leaf(log_p)
        return self._log_p

    @property
    def log_likelihood(self) -> Tensor:
        """The mean of log p_t."""
        return self.target_log_probability.mean()

    @torch.no_grad()
    def region_sums(self, *, squared: bool = False) -> kernels.RegionSums:
        """Σ p g and Σ p (or Σ p²), leaves, and Σ g (or Σ g²)."""
        p = self._softmax()
        if self._overlap is None:
            logits, target = self.logits, self.given_target
            # As few new tensors as can be: to allocate one costs more than to compute in it.
            out = torch.empty_like(logits) if self.hard else None
            member = kernels.one_hot(target, logits.shape[1], logits.dtype, out=out)
            self._actual[False] = _sum(member)
            self._actual[True] = self._actual[False] if self.hard else _sum(member.square())
            self._product = member.mul_(p) if self.hard else member * p
            self._overlap = self._leaf(_sum(self._product))
        if squared not in self._predicted:
            self._predicted[squared] = self._leaf(_sum(p * p if squared else p))
        return kernels.RegionSums(self._overlap, self._predicted[squared], self._actual[squared])

    @torch.no_grad()
    def gradient(self, value: Tensor) -> Tensor:
        """∂value/∂logits (B, C, *spatial). The buffers are used up."""
        if not value.requires_grad:
            return torch.zeros_like(self.logits)
        p, received = self._softmax(), self._received(value)
        if self._product is None:
            # Nothing but log p_t: e (g - p).
            h = p.mul_(-received["log_p"])
        else:
            h = self._product.mul_(received["overlap"])
            if "squared" in received:
                h.addcmul_(p, p * (2 * received["squared"]))
            if "predicted" in received:
                h.addcmul_(p, received["predicted"])
            across = h.sum(dim=1, keepdim=True)
            if "log_p" in received:
                across += received["log_p"]
            h.addcmul_(p, across, value=-1)
        if "log_p" in received:
            h.scatter_add_(1, self.given_target.long(), received["log_p"])
        return h

    def _received(self, value: Tensor) -> dict[str, Tensor]:
        """∂value/∂sum of what was asked for, ready to stand beside maps."""
        asked = {
            "overlap": self._overlap,
            "predicted": self._predicted.get(False),
            "squared": self._predicted.get(True),
            "log_p": self._log_p,
        }
        leaves = {name: leaf for name, leaf in asked.items() if leaf is not None}
        gradients = torch.autograd.grad(value, [*leaves.values()], materialize_grads=True)
        received = dict(zip(leaves, gradients, strict=True))
        dimensions = self.logits.ndim
        return {name: x.view(*x.shape, *[1] * (dimensions - x.ndim)) for name, x in received.items()}


def _sum(voxels: Tensor) -> Tensor:
    return voxels.flatten(2).sum(dim=2)
