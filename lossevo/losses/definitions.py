"""What defines a loss that was found rather than taken from the literature: plain data that can be exported.

An evolved loss is an expression of the loss language, a meta-learned one a loss network. Both have ``hash`` and
``to_json()``; a loss specification (:func:`lossevo.losses.from_spec`) names which of the two it holds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lossevo.errors import LossevoError, shown
from lossevo.expression import Expression, unicode
from lossevo.losses.neural import LearnedLoss, LossNetwork
from lossevo.losses.symbolic import ExpressionLoss

Definition = Expression | LossNetwork

KINDS = ("expression", "learned")
"""The keys of a specification that hold a definition."""


def definition_in(spec: Mapping[str, Any]) -> Definition:
    """The definition that ``{"expression": …}`` or ``{"learned": …}`` holds.

    Raises:
        LossevoError: any other specification, or what is in it is not such a document.
    """
    if [*spec] == ["learned"]:
        return LossNetwork.from_json(spec["learned"])
    if [*spec] == ["expression"]:
        return Expression.from_json(spec["expression"])
    raise LossevoError(f"expected one of {' and '.join(KINDS)}, found {shown([*spec])}")


def spec_of(definition: Definition) -> dict[str, Any]:
    """The inverse of :func:`definition_in`."""
    return {"learned" if isinstance(definition, LossNetwork) else "expression": definition.to_json()}


def formula_of(definition: Definition) -> str:
    """The formula as a reader sees it; that of a network says what it takes and how large it is."""
    return str(definition) if isinstance(definition, LossNetwork) else unicode(definition)


def loss_of(definition: Definition, *, spacing_mm: Sequence[float] | None = None) -> ExpressionLoss | LearnedLoss:
    """The loss itself, as a module."""
    made = LearnedLoss if isinstance(definition, LossNetwork) else ExpressionLoss
    return made(definition, spacing_mm=spacing_mm)  # type: ignore[arg-type]
