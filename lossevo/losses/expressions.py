"""Hand-crafted losses written in the loss language: the seeds of the search.

Each equals the module of the same name, created with the parameters given here, in value and gradient, up to what
protects the language's arithmetic: a denominator or the base of a power is held above 1e-4 where the modules add 1e-5
to denominators; and distances beyond 20 mm count as 20 mm.
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
# The ratio of sums over classes is taken per batch: the language has no value "one number per image".
_GENERALIZED_DICE = (
    "1 - 2 * class_sum(batch_mean(p * y) / square(batch_mean(y)))"
    " / class_sum(batch_mean(p + y) / square(batch_mean(y)))"
)
_BOUNDARY = "20 * foreground_mean(mean(p * d))"
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
        "generalized_dice": _Written(_GENERALIZED_DICE, {"batch": True}),
        "jaccard": _Written("1 - foreground_mean(sum(p * y) / (sum(p + y) - sum(p * y)))"),
        "tversky": _Written(f"1 - foreground_mean({_TVERSKY})"),
        # β = 1.5: (1 + β²) TP / (β² Σy + Σp).
        "asymmetric_similarity": _Written("1 - foreground_mean(3.25 * sum(p * y) / (2.25 * sum(y) + sum(p)))"),
        "sensitivity_specificity": _Written(
            "foreground_mean(0.05 * (sum(square(y - p) * y) / sum(y))"
            " + 0.95 * (sum(square(y - p) * (1 - y)) / sum(1 - y)))"
        ),
        "dice_ce": _Written(f"{_DICE} - 1.0 * {_CROSS_ENTROPY}"),
        "dice_focal": _Written(f"1 - foreground_mean(2 * sum(p * y) / sum(square(p) + square(y))) - 1.0 * {_FOCAL}"),
        "focal_tversky": _Written(f"foreground_mean((1 - {_TVERSKY}) ^ 0.75)"),
        "boundary": _Written(_BOUNDARY),
        "hausdorff_dt_one_sided": _Written("400 * foreground_mean(mean(square(p - y) * square(d)))"),
        # batch_mean(y) is the frequency of a class in the batch.
        "exp_log": _Written(
            "0.8 * foreground_mean((-log((2 * sum(p * y) + 1) / (sum(p + y) + 1))) ^ 0.3)"
            " + 0.2 * class_sum(mean(y * (-logp) ^ 0.3) / batch_mean(y) ^ 0.5)"
        ),
        # A hundredth of a training is the module's epoch.
        "generalized_dice_boundary": _Written(
            f"max(1 - t, 0.1) * ({_GENERALIZED_DICE}) + (0.01 + t) * ({_BOUNDARY})", {"batch": True}
        ),
        "baikal": _Written("class_mean(mean(y / p - logp))"),
        "baikal_cma": _Written(
            "2.7279 * class_mean(mean(1.1135 * (1.3716 * y / p) / 0.8411 - 0.9863 * (logp + log(1.5352))))"
        ),
    }
)


_NO_SORTING = "the language has no sum over the classes of a voxel, whose true class's log p is sorted by"
_NO_PREDICTED_DISTANCE = "the language has no distance to the prediction's boundary"
_NO_MEMORY = "its weights depend on values of earlier steps, and an expression has no memory but t"
_INEXPRESSIBLE: Mapping[str, str] = MappingProxyType(
    {
        "topk": _NO_SORTING,
        "lovasz": "the language has no sorting, but for the mean of the largest",
        "hausdorff_dt": _NO_PREDICTED_DISTANCE,
        "log_hausdorff_dt": _NO_PREDICTED_DISTANCE,
        "hausdorff_erosion": "its erosion takes the neighbours along the axes alone, and what lies outside for right",
        "hausdorff_convolution": "the language has no convolution with wide kernels",
        "dice_topk": _NO_SORTING,
        "unified_focal": "it weighs the background apart, and the language has no value that is the background's alone",
        "dice_hausdorff": _NO_MEMORY,
        "cldice": "its erosion takes the neighbours along the axes alone",
        **dict.fromkeys(("softadapt", "cov_weighting", "uncertainty_weighting"), _NO_MEMORY),
        "adaptive": "its parameters depend on earlier steps, and an expression has no memory but t",
    }
)


def inexpressible_names() -> Mapping[str, str]:
    """Names of the catalogue's losses that cannot be written as expressions, and why."""
    return _INEXPRESSIBLE


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
    if name in _INEXPRESSIBLE:
        raise LossevoError(f"'{name}' cannot be written as an expression: {_INEXPRESSIBLE[name]}")
    if name not in _EXPRESSIONS:
        raise LossevoError(f"no expression of '{name}'{nearest(name, _EXPRESSIONS)}; known: {', '.join(_EXPRESSIONS)}")
    return _EXPRESSIONS[name]
