"""A loss that is an expression of the loss language: what the search trains, and what a ``loss.json`` holds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from lossevo.expression import (
    DISTANCE_SCALE_MM,
    TERMINALS,
    Expression,
    compile_expression,
    compile_gradient,
    compile_with_gradient,
    unicode,
)
from lossevo.losses.base import LossInputs, SegmentationLoss


def _distance(inputs: LossInputs) -> Tensor:
    assert inputs.distance_map is not None
    return (inputs.distance_map / DISTANCE_SCALE_MM).clamp(-1, 1)


_READ: Mapping[str, Callable[[LossInputs], Tensor]] = {
    "logp": lambda inputs: inputs.log_probability,
    "p": lambda inputs: inputs.probability,
    "y": lambda inputs: inputs.target,
    "d": _distance,
}
"""How each terminal of the language is read; log p comes first because p is then one exponential away."""

assert _READ.keys() == TERMINALS.keys()


class _Terminals(Mapping[str, Tensor]):
    """What generated code may ask for, made when it does."""

    def __init__(self, inputs: LossInputs) -> None:
        self._inputs = inputs

    def __getitem__(self, name: str) -> Tensor:
        if name == "logits":
            return self._inputs.logits
        if name == "labels":
            assert self._inputs.labels is not None
            return self._inputs.labels
        return _READ[name](self._inputs)

    def __iter__(self) -> Iterator[str]:
        return iter(("logits", "labels", *_READ))

    def __len__(self) -> int:
        return 2 + len(_READ)


class _ValueAndGradient(Function):
    """The loss with a gradient of its own: what both need is computed once, and the gradient is all that is kept.

    A derivative of the derivative goes through the formula of the gradient.
    """

    @staticmethod
    def forward(
        logits: Tensor, target: Tensor, distance_map: Tensor | None, coefficients: Tensor, expression: Expression
    ) -> tuple[Tensor, Tensor]:
        inputs = LossInputs(logits, target, distance_map)
        # Sums by label are not deterministic on a GPU.
        hard = target.shape[1] == 1 and logits.device.type == "cpu"
        function = compile_with_gradient(expression, hard=hard)
        value, gradient = function(_Terminals(inputs), coefficients)
        return torch.as_tensor(value, dtype=logits.dtype), torch.as_tensor(gradient, dtype=logits.dtype).expand_as(
            logits
        )

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        logits, target, distance_map, coefficients, ctx.expression = inputs
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(output[1], logits, target, distance_map, coefficients)

    @staticmethod
    def backward(ctx: Any, *received: Tensor) -> tuple[Tensor | None, ...]:
        gradient, logits, target, distance_map, coefficients = ctx.saved_tensors
        if torch.is_grad_enabled():
            inputs = LossInputs(logits, target, distance_map)
            gradient = compile_gradient(ctx.expression)(_Terminals(inputs), coefficients)
        return received[0] * gradient, None, None, None, None


class ExpressionLoss(SegmentationLoss):
    """The loss that ``expression`` describes, with its coefficients as a buffer.

    The formula's p, log p and y are the call convention's probability, log-probability and one-hot target; d is the
    signed distance map divided by 20 mm and clamped to [-1, 1].
    """

    coefficients: Tensor

    def __init__(self, expression: Expression, *, spacing_mm: Sequence[float] | None = None) -> None:
        super().__init__(spacing_mm=spacing_mm)
        self.expression = expression
        self.uses_distance_map = "d" in expression.terminals
        self.register_buffer("coefficients", torch.tensor(expression.coefficients, dtype=torch.float64))

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> ExpressionLoss:
        """The loss of an expression document.

        Raises:
            ExpressionError: the document is not one.
        """
        return cls(Expression.from_json(document))

    def compute(self, inputs: LossInputs) -> Tensor:
        """The formula's value, a scalar tensor."""
        coefficients = self.coefficients.to(device=inputs.logits.device, dtype=inputs.logits.dtype)
        if self._gradient_is_of_the_logits_alone(inputs, coefficients):
            value: Tensor
            value, _ = _ValueAndGradient.apply(  # type: ignore[no-untyped-call]
                inputs.logits, inputs.given_target, inputs.distance_map, coefficients, self.expression
            )
            return value
        result = compile_expression(self.expression)(_Terminals(inputs), coefficients)
        return torch.as_tensor(result, dtype=inputs.logits.dtype, device=inputs.logits.device)

    @staticmethod
    def _gradient_is_of_the_logits_alone(inputs: LossInputs, coefficients: Tensor) -> bool:
        """Whether the loss may bring its own gradient; torch.compile and torch.export make one themselves."""
        others = (inputs.given_target, inputs.distance_map, coefficients)
        return (
            torch.is_grad_enabled()
            and inputs.logits.requires_grad
            and not any(other is not None and other.requires_grad for other in others)
            and not torch.compiler.is_compiling()
        )

    def extra_repr(self) -> str:
        """The formula, shown by ``print(loss)``."""
        return unicode(self.expression)
