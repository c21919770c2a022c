"""Looking one optimiser step ahead: what a loss that learns its parameters learns from.

The batch that shows what the step was worth is the one that comes next, which it has not been made on. Nothing need be
set aside for it: such a loss trains on the same subjects and the same batches in the same order as any other, and a
comparison stays one of losses. Held-out subjects never take part. That the next batch may have been trained on an epoch
ago makes the judgement the milder, but hardly biases it: it has to say which way of weighing errors raises Dice, for a
parameter or three, not how well the network does on new subjects.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from lossevo.errors import LossevoError
from lossevo.losses import create
from lossevo.training.batches import Batch
from lossevo.training.differentiable import DifferentiableTraining, InnerLoss, State, Tensors
from lossevo.training.schedule import Rates

OUTER = create("dice_ce", batch=True, absent="skip")
"""What a step is judged by: soft Dice, mean over the foreground classes in the batch, and cross-entropy, as losses.

One step is short-sighted, and by Dice alone the more so: focal's γ went up, which cost Dice later. Of Dice,
cross-entropy and their sum, this one did best (docs/losses/adaptive.md).
"""


@runtime_checkable
class LearningLoss(Protocol):
    """A loss with parameters that looking ahead can move.

    Attributes:
        free: the numbers x (k,) that the parameters follow from.
    """

    free: Tensor

    def wants_lookahead(self, steps: int) -> bool:
        """Whether to look ahead now that ``steps`` steps have been made."""

    def at(self, free: Tensor, logits: Tensor, target: Tensor, distance_map: Tensor | None = None) -> Tensor:
        """The loss at other numbers, whose gradient by the logits can be differentiated by ``free``."""

    def learn(self, gradient: Tensor, steps: int) -> None:
        """Take the hyper-gradient (k,) after ``steps`` steps."""


def look_ahead(
    loss: LearningLoss, network: nn.Module, optimiser: torch.optim.Optimizer, batch: Batch, following: Batch, steps: int
) -> None:
    """Let the loss learn from a step on ``batch``, judged on ``following``; neither network nor optimiser changes.

    Costs as much as three to four steps. To be called before the step, ``steps`` of which have been made already.

    Raises:
        LossevoError: as :func:`hyper_gradient`.
    """
    loss.learn(hyper_gradient(loss, network, optimiser, batch, following), steps)


def hyper_gradient(
    loss: LearningLoss, network: nn.Module, optimiser: torch.optim.Optimizer, batch: Batch, following: Batch
) -> Tensor:
    """d/dx :data:`OUTER` (k,) on ``following`` after one step on ``batch``, x the loss's free numbers.

    The step is the optimiser's own, with its moments and rates, but that the loss's gradient by the logits is brought
    to the length that it has now: to scale the loss is no way to change the step.

    Raises:
        LossevoError: the optimiser is not AdamW (or Adam without weight decay) with one group of parameters.
    """
    training = DifferentiableTraining(network, _direction_of(loss))
    state, rates = _state_of(optimiser, network)
    free = loss.free.detach().requires_grad_()
    with torch.enable_grad():
        after = training.advance(state, batch, (free,), rates, differentiable=True)
        value = OUTER(training.logits(after.weights, following.image), following.label)
    (gradient,) = torch.autograd.grad(value, free, allow_unused=True, materialize_grads=True)
    return gradient


def _direction_of(loss: LearningLoss) -> InnerLoss:
    """Σ logits · Ĝ, whose gradient by the logits, Ĝ, is the loss's, brought to the length that it has just now."""

    def inner(logits: Tensor, batch: Batch, parameters: Tensors) -> Tensor:
        at = logits.detach().requires_grad_()
        value = loss.at(parameters[0], at, batch.label, batch.distance_map)
        (gradient,) = torch.autograd.grad(value, at, create_graph=True)
        length = torch.linalg.vector_norm(gradient)
        # A loss that has no gradient has no direction either.
        length = torch.where(length > 0, length, 1.0)
        return (logits * (gradient * (length.detach() / length))).sum()

    return inner


def _state_of(optimiser: torch.optim.Optimizer, network: nn.Module) -> tuple[State, Rates]:
    """Where the optimiser stands, its weights as leaves, and the rates of its next step."""
    group, *others = optimiser.param_groups
    decoupled = isinstance(optimiser, torch.optim.AdamW) or (
        isinstance(optimiser, torch.optim.Adam) and not group["weight_decay"]
    )
    if not decoupled or others or group.get("amsgrad") or group.get("maximize"):
        raise LossevoError(
            f"cannot look ahead a step of {type(optimiser).__name__}, expected AdamW, or Adam without weight decay, "
            "with one group of parameters and neither amsgrad nor maximize"
        )
    parameters = list(network.parameters())
    if {id(p) for p in parameters} != {id(p) for p in group["params"]} or not all(p.requires_grad for p in parameters):
        raise LossevoError(
            "cannot look ahead where an optimiser does not move all parameters of the network and nothing else; "
            "unfreeze them, or train with the wrapped loss itself"
        )
    known = [optimiser.state.get(parameter, {}) for parameter in parameters]
    first, second = (
        tuple(
            state[key].detach() if key in state else torch.zeros_like(parameter)
            for state, parameter in zip(known, parameters, strict=True)
        )
        for key in ("exp_avg", "exp_avg_sq")
    )
    steps = max((int(state["step"]) for state in known if "step" in state), default=0)
    beta1, beta2 = (float(beta) for beta in group["betas"])
    rates = Rates(float(group["lr"]), beta1, beta2, float(group["weight_decay"]), float(group["eps"]))
    weights = tuple(parameter.detach().requires_grad_() for parameter in parameters)
    return State(weights, first, second, steps), rates
