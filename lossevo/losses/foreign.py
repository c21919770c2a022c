"""Losses that are not lossevo's: how they are made, fitted to the call convention, and checked before any training.

A loss of somebody else's comes from a *factory*: a class, or a function, that is called without arguments (or with the
parameters chosen) and makes a new ``torch.nn.Module`` for each training. That module is a
:class:`~lossevo.losses.SegmentationLoss`, or has ``forward(logits, labels)`` with

========  ==================  ============================================================================
logits    (N, C, *spatial)    float32, before softmax; C counts the background
labels    (N, 1, *spatial)    int64 labels 0 … C-1, or a target (N, C, *spatial) as whoever calls gave it
========  ==================  ============================================================================

and returns a scalar, as MONAI's losses do. Its own parameters are not trained.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lossevo.cluster.job import describe as told
from lossevo.errors import LossevoError, nearest, shown
from lossevo.losses.base import SegmentationLoss
from lossevo.losses.inputs import LossInputs

Factory = Callable[..., object]

_LARGEST_SIDE = 32
_EXPECTED = "a subclass of torch.nn.Module or of lossevo.losses.SegmentationLoss, or a function that makes such a loss"


class ForeignLoss(SegmentationLoss):
    """A ``torch.nn.Module`` called with logits and labels, as one of lossevo's losses."""

    has_own_gradient = False

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def compute(self, inputs: LossInputs) -> Tensor:
        """What the module returns."""
        value: Tensor = self.module(inputs.logits, inputs.given_target if inputs.labels is None else inputs.labels)
        return value


def require_factory(factory: object, named: str) -> Factory:
    """What may be a factory; ``named`` says of what, for messages.

    Raises:
        LossevoError: it makes no loss, or is a loss already.
    """
    if isinstance(factory, nn.Module):
        raise LossevoError(
            f"{named} is a loss that is made already; expected a class, or a function that makes a new one for each "
            f"training: def loss(): return {type(factory).__name__}(...)"
        )
    if not callable(factory) or (isinstance(factory, type) and not issubclass(factory, nn.Module)):
        raise LossevoError(f"{named} is {shown(factory)}, expected {_EXPECTED}")
    return factory


def parameters_of(factory: Factory) -> dict[str, Any] | None:
    """The parameters that can be chosen by name, with their defaults; None if any name can."""
    try:
        found = inspect.signature(factory).parameters.values()
    except (TypeError, ValueError):  # made in C, without a signature
        return None
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in found):
        return None
    return {
        parameter.name: parameter.default
        for parameter in found
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    }


def made_by(factory: Factory, named: str, chosen: Mapping[str, Any] | None = None) -> SegmentationLoss:
    """A new loss of the factory's, with the parameters ``chosen``.

    Raises:
        LossevoError: there is no such parameter, one is missing, the factory fails, or it makes no loss.
    """
    chosen, known = chosen or {}, parameters_of(factory)
    for key in chosen:
        if known is not None and key not in known:
            takes = f"it takes {', '.join(known)}" if known else "it takes none"
            raise LossevoError(f"{named} has no parameter {shown(key)}{nearest(key, known)}; {takes}")
    missing = [key for key, default in (known or {}).items() if default is inspect.Parameter.empty]
    if missing := [key for key in missing if key not in chosen]:
        raise LossevoError(
            f"{named} takes arguments ({', '.join(missing)}), expected {_EXPECTED}, that is called without any"
        )
    try:
        made = factory(**chosen)
    except (Exception, SystemExit) as error:
        raise LossevoError(f"{named} cannot be made: {told(error)}") from error
    if isinstance(made, SegmentationLoss):
        return made
    if isinstance(made, nn.Module):
        return ForeignLoss(made)
    raise LossevoError(f"{named} makes {shown(made)}, expected {_EXPECTED}")


def check(loss: SegmentationLoss, named: str, *, classes: int, patch: Sequence[int], batch: int = 2) -> None:
    """Call a loss as a training does, on a small random batch, and look at what comes back.

    Raises:
        LossevoError: it fails, is no finite scalar, or no finite gradient reaches the logits.
    """
    generator = torch.Generator().manual_seed(0)
    sides = [min(side, _LARGEST_SIDE) for side in patch]
    logits = torch.randn(batch, classes, *sides, generator=generator).requires_grad_()
    labels = torch.randint(classes, (batch, 1, *sides), generator=generator)
    given = f"on logits {tuple(logits.shape)} and labels {tuple(labels.shape)}"
    try:
        value: object = loss(logits, labels)
    except (Exception, SystemExit) as error:
        raise LossevoError(f"{named} fails {given}: {told(error)}") from error
    if not isinstance(value, Tensor):
        raise LossevoError(f"{named} returns {shown(value)} {given}, expected a scalar tensor")
    if value.ndim:
        raise LossevoError(
            f"{named} returns a tensor {tuple(value.shape)} {given}, expected a scalar; return its mean or its sum"
        )
    if not value.isfinite():
        raise LossevoError(f"{named} is {value.item():g} {given}, expected a finite number")
    _check_gradient(value, logits, named, given)


def _check_gradient(value: Tensor, logits: Tensor, named: str, given: str) -> None:
    gradient = None
    if value.requires_grad:
        try:
            (gradient,) = torch.autograd.grad(value, [logits], allow_unused=True)
        except (Exception, SystemExit) as error:
            raise LossevoError(f"{named} has no gradient {given}: {told(error)}") from error
    if gradient is None or not gradient.any():
        raise LossevoError(
            f"{named} sends no gradient back to the logits, {given}; compute it from them with operations of torch, "
            "without argmax, detach(), item() or NumPy"
        )
    if not gradient.isfinite().all():
        raise LossevoError(f"{named} has a gradient that is not finite everywhere, {given}; expected finite numbers")
