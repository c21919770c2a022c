"""Hand-crafted losses written in the loss language: the seeds of the search.

Each equals the module of the same name, created with the parameters given here, in value and gradient, up to what
protects the language's arithmetic: a denominator or the base of a power is held above 1e-4 where the modules add 1e-5
to denominators.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from lossevo.errors import LossevoError, nearest
from lossevo.expression import Expression

_DICE = "1 - foreground_mean(2 * sum(p * y) / sum(p + y))"
_CROSS_ENTROPY = "class_sum(mean(y * logp))"
_FOCAL = "class_sum(mean((1 - p) ^ 2.0 * y * logp))"
_TVERSKY = "sum(p * y) / (sum(p * y) + 0.3 * sum(p * (1 - y)) + 0.7 * sum((1 - p) * y))"


@dataclass(frozen=True, slots=True)
class _Written:
    formula: str
    parameters: Mapping[str, Any] = field(default_factory=dict)


_EXPRESSIONS: Mapping[str, _Written] = MappingProxyType(
    {
        "cross_entropy": _Written(f"-{_CROSS_ENTROPY}"),
        "focal": _Written(f"-{_FOCAL}"),
        "dice": _Written(_DICE),
        # The ratio of sums over classes is taken per batch: the language has no value "one number per image".
        "generalized_dice": _Written(
            "1 - 2 * class_sum(batch_mean(p * y) / square(batch_mean(y)))"
            " / class_sum(batch_mean(p + y) / square(batch_mean(y)))",
            {"batch": True},
        ),
        "tversky": _Written(f"1 - foreground_mean({_TVERSKY})"),
        "dice_ce": _Written(f"{_DICE} - 1.0 * {_CROSS_ENTROPY}"),
        "dice_focal": _Written(f"1 - foreground_mean(2 * sum(p * y) / sum(square(p) + square(y))) - 1.0 * {_FOCAL}"),
        "focal_tversky": _Written(f"foreground_mean((1 - {_TVERSKY}) ^ 0.75)"),
        "boundary": _Written("20 * foreground_mean(mean(p * d))"),
        "baikal": _Written("class_mean(mean(y / p - logp))"),
        "baikal_cma": _Written(
            "2.7279 * class_mean(mean(1.1135 * (1.3716 * y / p) / 0.8411 - 0.9863 * (logp + log(1.5352))))"
        ),
    }
)


def expressible_names() -> tuple[str, ...]:
    """Names of the catalogue's losses that are written as expressions."""
    return tuple(_EXPRESSIONS)


def expression_of(name: str) -> Expression:
    """The expression of a hand-crafted loss.

    Raises:
        LossevoError: ``name`` has no expression.
    """
    return Expression.parse(_written(name).formula)


def expression_parameters(name: str) -> dict[str, Any]:
    """The parameters with which ``create(name, …)`` makes the module that ``expression_of(name)`` equals.

    Raises:
        LossevoError: ``name`` has no expression.
    """
    return dict(_written(name).parameters)


def _written(name: str) -> _Written:
    if name not in _EXPRESSIONS:
        raise LossevoError(f"no expression of '{name}'{nearest(name, _EXPRESSIONS)}; known: {', '.join(_EXPRESSIONS)}")
    return _EXPRESSIONS[name]
