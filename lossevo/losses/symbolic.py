"""A loss that is an expression of the loss language: what the search trains, and what a ``loss.json`` holds."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from lossevo.expression import (
    DISTANCE_SCALE_MM,
    INPUTS,
    Expression,
    compile_expression,
    compile_with_gradient,
    unicode,
)
from lossevo.expression.cost import labels_pay
from lossevo.expression.memory import map_like, release
from lossevo.expression.neighbourhoods import margin
from lossevo.losses import kernels
from lossevo.losses.base import SegmentationLoss
from lossevo.losses.inputs import LossInputs
from lossevo.losses.one_pass import with_own_gradient


def _distance(inputs: LossInputs) -> Tensor:
    assert inputs.distance_map is not None
    return (inputs.distance_map / DISTANCE_SCALE_MM).clamp(-1, 1)


_READ: Mapping[str, Callable[[LossInputs], Tensor]] = {
    "logp": lambda inputs: inputs.log_probability,
    "p": lambda inputs: inputs.probability,
    "y": lambda inputs: inputs.target,
    "d": _distance,
    "m": lambda inputs: margin(inputs.logits),
}
"""How each map of the language is read."""

assert {*_READ, "t"} == {*INPUTS}

EPOCHS = 100
"""In so many steps the progress of a training goes from 0 to 1."""


class _OnDemand(Mapping[str, Tensor]):
    """What generated code asks for, made when it does."""

    def __init__(self, inputs: LossInputs, progress: Tensor | None) -> None:
        self._inputs = inputs
        self._progress = progress

    def __getitem__(self, name: str) -> Tensor:
        match name:
            case "logits":
                return self._inputs.logits
            case "labels":
                assert self._inputs.labels is not None
                return self._inputs.labels
            case "t":
                assert self._progress is not None
                return self._progress.to(self._inputs.logits)
        return self._map(name)

    def _map(self, name: str) -> Tensor:
        return _READ[name](self._inputs)

    def __iter__(self) -> Iterator[str]:
        return iter(("logits", "labels", *INPUTS))

    def __len__(self) -> int:
        return 2 + len(INPUTS)


class _Borrowed(_OnDemand):
    """The same without a gradient, in memory that goes to later maps after :meth:`release`."""

    def __init__(self, inputs: LossInputs, progress: Tensor | None) -> None:
        super().__init__(inputs, progress)
        self._maps: dict[str, Tensor] = {}

    def _map(self, name: str) -> Tensor:
        inputs, logits = self._inputs, self._inputs.logits
        if name == "m" or (name == "y" and inputs.given_target.shape[1] != 1):
            return super()._map(name)
        made = self._maps[name] = map_like(logits)
        match name:
            case "p" if "logp" in self._maps:
                # PyTorch's exp goes through MKL, and takes four times as long as exp2 on an AMD processor.
                torch.mul(self._maps["logp"], 1 / math.log(2), out=made).exp2_()
            case "p":
                torch.softmax(logits, 1, out=made)
            case "logp":
                torch.log_softmax(logits, 1, out=made)
            case "y":
                kernels.one_hot(inputs.given_target, logits.shape[1], logits.dtype, out=made)
            case "d":
                assert inputs.distance_map is not None
                torch.div(inputs.distance_map, DISTANCE_SCALE_MM, out=made).clamp_(-1, 1)
        return made

    def release(self) -> None:
        """End of use."""
        for made in self._maps.values():
            release(made)


class ExpressionLoss(SegmentationLoss):
    """The loss that ``expression`` describes, with its coefficients as a buffer.

    The formula's p, log p and y are the call convention's probability, log-probability and one-hot target; d is the
    signed distance map divided by 20 mm and clamped to [-1, 1]; t is the training's progress, which :meth:`step` moves
    from 0 to 1 in a hundred calls, a buffer of the state.

    Value and gradient are computed together, from one generated function (:mod:`lossevo.expression.codegen`), and the
    gradient is all that is kept for the backward pass.
    """

    coefficients: Tensor
    progress: Tensor | None

    def __init__(self, expression: Expression, *, spacing_mm: Sequence[float] | None = None) -> None:
        super().__init__(spacing_mm=spacing_mm)
        self.expression = expression
        self.uses_distance_map = "d" in expression.terminals
        self.register_buffer("coefficients", torch.tensor(expression.coefficients, dtype=torch.float64))
        changes = "t" in expression.terminals
        self.register_buffer("progress", torch.zeros((), dtype=torch.float64) if changes else None)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> ExpressionLoss:
        """The loss of an expression document.

        Raises:
            ExpressionError: the document is not one.
        """
        return cls(Expression.from_json(document))

    def compute(self, inputs: LossInputs, progress: Tensor | None = None, coefficients: Tensor | None = None) -> Tensor:
        """The formula's value, a scalar tensor; ``progress`` and ``coefficients`` are by default as they stand."""
        values = _OnDemand(inputs, self._progress() if progress is None else progress)
        coefficients = self._coefficients(inputs) if coefficients is None else coefficients
        result = compile_expression(self.expression)(values, coefficients)
        return torch.as_tensor(result, dtype=inputs.logits.dtype, device=inputs.logits.device)

    def compute_with_gradient(self, inputs: LossInputs) -> Tensor:
        """The formula's value, with a gradient that was made beside it."""
        coefficients = self._coefficients(inputs)
        if coefficients.requires_grad or (inputs.distance_map is not None and inputs.distance_map.requires_grad):
            return self.compute(inputs)
        progress = self._progress()
        found = self._value_and_gradient(inputs, progress, coefficients)
        if found is None:
            return self.compute(inputs)
        # With the coefficients of this call: torch.func.functional_call puts others in their place for its time alone.
        return with_own_gradient(inputs, *found, lambda: self.compute(inputs, progress, coefficients))

    def value_and_gradient(self, inputs: LossInputs) -> tuple[Tensor, Tensor] | None:
        """The formula's value and its gradient with respect to the logits, without autograd and its cost.

        None if the formula does not depend on the logits.
        """
        return self._value_and_gradient(inputs, self._progress(), self._coefficients(inputs))

    def _value_and_gradient(
        self, inputs: LossInputs, progress: Tensor | None, coefficients: Tensor
    ) -> tuple[Tensor, Tensor] | None:
        logits = inputs.logits.detach()
        # What concerns a voxel's true class alone is computed there alone, where that pays; on a GPU it would be added
        # up in no fixed order.
        has_labels = inputs.given_target.shape[1] == 1 and logits.device.type == "cpu"
        hard = has_labels and labels_pay(self.expression.root, logits.shape[1])
        with torch.no_grad():
            needed = _Borrowed(LossInputs(logits, inputs.given_target, inputs.distance_map), progress)
            value, gradient = compile_with_gradient(self.expression, hard=hard)(needed, coefficients)
            needed.release()
        if not isinstance(value, Tensor) or not isinstance(gradient, Tensor):
            return None
        return value, gradient if gradient.shape == logits.shape else gradient.expand_as(logits).clone()

    def _progress(self) -> Tensor | None:
        """The progress now: the buffer itself moves on, perhaps before a backward pass."""
        return None if self.progress is None else self.progress.clone()

    def step(self) -> None:
        """Move the progress of the training on by a hundredth; it stays at 1."""
        if self.progress is not None:
            # Counted in whole steps: a hundred hundredths added up are not 1.
            self.progress.copy_(((self.progress * EPOCHS).round() + 1).clamp(max=EPOCHS) / EPOCHS)

    def _coefficients(self, inputs: LossInputs) -> Tensor:
        return self.coefficients.to(device=inputs.logits.device, dtype=inputs.logits.dtype)

    def extra_repr(self) -> str:
        """The formula, shown by ``print(loss)``."""
        return unicode(self.expression)
