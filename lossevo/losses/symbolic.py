"""A loss that is an expression of the loss language: what the search trains, and what a ``loss.json`` holds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from lossevo.expression import DISTANCE_SCALE_MM, TERMINALS, Expression, compile_expression, unicode
from lossevo.losses.base import SegmentationLoss
from lossevo.losses.inputs import LossInputs


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
        values = {name: read(inputs) for name, read in _READ.items() if name in self.expression.terminals}
        coefficients = self.coefficients.to(device=inputs.logits.device, dtype=inputs.logits.dtype)
        result = compile_expression(self.expression)(values, coefficients)
        return result if isinstance(result, Tensor) else inputs.logits.new_tensor(result)

    def extra_repr(self) -> str:
        """The formula, shown by ``print(loss)``."""
        return unicode(self.expression)
