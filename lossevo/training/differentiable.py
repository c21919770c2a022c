"""The step of an optimiser as a differentiable function, and gradients of what several steps of it lead to.

A training is θ_{k+1} = u(θ_k, m_k, v_k, ∇L_φ(θ_k)) with the moments m, v of Adam. :func:`meta_gradient` gives
∂M(θ_K)/∂φ of an outer loss M for the parameters φ of the inner loss L_φ: what a loss whose parameters are learned
descends along.

Gradient checkpointing, a step at a time: no graph of the whole unrolled training is ever built. The states of all
steps are kept, which are small; then, from the last step to the first, the graph of one step is built anew and the
adjoints of its state go back through it. So memory does not grow with the number of steps, beyond three copies of the
weights each.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call

from lossevo.training.batches import Batch
from lossevo.training.schedule import Rates

Tensors = tuple[Tensor, ...]
InnerLoss = Callable[[Tensor, Batch, Tensors], Tensor]
"""Logits, the batch they were made from, and the parameters φ of the loss -> the loss, a scalar."""


@dataclass(frozen=True, slots=True)
class State:
    """Where a training stands: weights θ and the optimiser's moments, and how many steps it has made."""

    weights: Tensors
    first: Tensors
    second: Tensors
    steps: int = 0

    @property
    def tensors(self) -> Tensors:
        """All of them: weights, first and second moments."""
        return *self.weights, *self.first, *self.second

    def replaced(self, tensors: Sequence[Tensor], steps: int) -> State:
        """With other tensors, in the order of :attr:`tensors`."""
        count = len(self.weights)
        return State(tuple(tensors[:count]), tuple(tensors[count : 2 * count]), tuple(tensors[2 * count :]), steps)


def adam(state: State, gradients: Sequence[Tensor], rates: Rates) -> State:
    """One step of AdamW (Loshchilov & Hutter, ICLR 2019), the same as ``torch.optim.AdamW``, out of place."""
    step = state.steps + 1
    correction1, correction2 = 1 - rates.beta1**step, 1 - rates.beta2**step
    weights, first, second = [], [], []
    for weight, m, v, gradient in zip(state.weights, state.first, state.second, gradients, strict=True):
        m = rates.beta1 * m + (1 - rates.beta1) * gradient
        v = rates.beta2 * v + (1 - rates.beta2) * gradient * gradient
        # The derivative of a root at 0 is infinite; such a weight has had no gradient yet, and gets none through v.
        moved = v > 0
        root = torch.where(moved, v, 1.0).sqrt() * moved / math.sqrt(correction2)
        decayed = weight * (1 - rates.learning_rate * rates.weight_decay)
        weights.append(decayed - rates.learning_rate / correction1 * m / (root + rates.eps))
        first.append(m)
        second.append(v)
    return State(tuple(weights), tuple(first), tuple(second), step)


def sgd(state: State, gradients: Sequence[Tensor], rates: Rates) -> State:
    """One step of gradient descent with momentum ``beta1`` and decoupled decay; the second moments stay."""
    first = tuple(rates.beta1 * m + g for m, g in zip(state.first, gradients, strict=True))
    decay = 1 - rates.learning_rate * rates.weight_decay
    weights = tuple(decay * w - rates.learning_rate * m for w, m in zip(state.weights, first, strict=True))
    return State(weights, first, state.second, state.steps + 1)


UPDATES: dict[str, Callable[[State, Sequence[Tensor], Rates], State]] = {"adam": adam, "sgd": sgd}


class DifferentiableTraining:
    """A network and an inner loss whose training steps can be differentiated.

    Args:
        network: its own weights are neither read nor changed after this.
        inner_loss: see :data:`InnerLoss`; twice differentiable in logits and φ.
        optimiser: ``adam`` (AdamW) or ``sgd``.
        fixed_length: let derivatives know nothing of the length of the loss's gradient by the logits, a number a step:
            that φ make it shorter or longer is then worth nothing. Steps are the same.
    """

    def __init__(
        self, network: nn.Module, inner_loss: InnerLoss, *, optimiser: str = "adam", fixed_length: bool = False
    ) -> None:
        self._network = network
        self._names = [name for name, _ in network.named_parameters()]
        self._inner_loss = inner_loss
        self._update = UPDATES[optimiser]
        self._fixed_length = fixed_length

    def initial(self) -> State:
        """The state at the network's own weights."""
        weights = tuple(_canonical(parameter.detach()) for parameter in self._network.parameters())
        return State(weights, tuple(map(torch.zeros_like, weights)), tuple(map(torch.zeros_like, weights)))

    def logits(self, weights: Sequence[Tensor], image: Tensor) -> Tensor:
        """The network's output (B, C, *spatial) with other weights; running statistics stay as they are."""
        buffers = {name: buffer.clone() for name, buffer in self._network.named_buffers()}
        named = dict(zip(self._names, weights, strict=True))
        with torch.autocast(image.device.type, torch.bfloat16, enabled=image.device.type == "cuda"):
            logits: Tensor = functional_call(self._network, {**named, **buffers}, (image,))
        return logits if logits.dtype == torch.float64 else logits.float()

    def advance(
        self, state: State, batch: Batch, parameters: Tensors, rates: Rates, *, differentiable: bool = False
    ) -> State:
        """One step on ``batch``; without ``differentiable`` nothing is known of where the state's tensors come from."""
        weights = state.weights if differentiable else tuple(w.detach().requires_grad_() for w in state.weights)
        with torch.enable_grad():
            logits = self.logits(weights, batch.image)
            value = self._inner_loss(logits, batch, parameters)
            (field,) = torch.autograd.grad(value, logits, create_graph=differentiable)
            if self._fixed_length and differentiable:
                length = torch.linalg.vector_norm(field)
                # A loss that has no gradient has no direction either.
                length = torch.where(length > 0, length, 1.0)
                field = field * (length.detach() / length)
            gradients = torch.autograd.grad(
                logits, weights, field, create_graph=differentiable, allow_unused=True, materialize_grads=True
            )
        if differentiable:
            return self._update(state, gradients, rates)
        with torch.no_grad():
            return self._update(state, gradients, rates)


@dataclass(frozen=True, slots=True)
class MetaGradient:
    """What K steps led to.

    Attributes:
        value: the outer loss M after them.
        gradient: ∂M/∂φ, shaped as φ.
        state: where the training stands after them.
    """

    value: float
    gradient: Tensors
    state: State


def meta_gradient(
    training: DifferentiableTraining,
    state: State,
    batches: Sequence[Batch],
    rates: Sequence[Rates],
    parameters: Sequence[Tensor],
    outer: Sequence[Callable[[Sequence[Tensor]], Tensor]],
) -> MetaGradient:
    """The gradient, by the inner loss's ``parameters``, of the outer loss after one step per batch.

    The outer loss is the mean of ``outer``, functions of the weights that are taken one after another. ``batches`` and
    ``rates`` are as many as steps; ``state`` is where these begin, held fixed: what led there does not depend on φ.
    """
    fixed = tuple(parameter.detach() for parameter in parameters)
    states = [state]
    for batch, rate in zip(batches, rates, strict=True):
        states.append(training.advance(states[-1], batch, fixed, rate))
    last = states[-1]
    value, pull = _mean_with_gradient(outer, last.weights)
    adjoints: Sequence[Tensor] = [*pull, *map(torch.zeros_like, last.first), *map(torch.zeros_like, last.second)]
    total = [torch.zeros_like(parameter) for parameter in fixed]
    for before, batch, rate in zip(reversed(states[:-1]), reversed(batches), reversed(rates), strict=True):
        leaves = [tensor.detach().requires_grad_() for tensor in before.tensors]
        phi = tuple(parameter.detach().requires_grad_() for parameter in fixed)
        with torch.enable_grad():
            after = training.advance(before.replaced(leaves, before.steps), batch, phi, rate, differentiable=True)
        pulled = torch.autograd.grad(
            after.tensors, [*leaves, *phi], adjoints, allow_unused=True, materialize_grads=True
        )
        adjoints = pulled[: len(leaves)]
        for sum_, part in zip(total, pulled[len(leaves) :], strict=True):
            sum_ += part
    return MetaGradient(value, tuple(total), last)


def _canonical(tensor: Tensor) -> Tensor:
    """A copy whose strides are those that steps leave: an axis of length 1 may have any, and convolutions choose their
    algorithm, hence the last bits, by strides. Steps in pieces must be the same as steps at once.
    """
    if tensor.is_contiguous():
        return torch.empty(tensor.shape, dtype=tensor.dtype, device=tensor.device).copy_(tensor)
    return tensor.clone()


def _mean_with_gradient(
    outer: Sequence[Callable[[Sequence[Tensor]], Tensor]], weights: Sequence[Tensor]
) -> tuple[float, list[Tensor]]:
    leaves = [weight.detach().requires_grad_() for weight in weights]
    total = [torch.zeros_like(weight) for weight in leaves]
    value = 0.0
    for each in outer:
        with torch.enable_grad():
            part = each(leaves) / len(outer)
        value += float(part.detach())
        for sum_, gradient in zip(
            total, torch.autograd.grad(part, leaves, allow_unused=True, materialize_grads=True), strict=True
        ):
            sum_ += gradient
    return value, total
