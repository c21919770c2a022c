"""Hand-crafted losses written in the loss language: the seeds of the search.

Each equals the module of the same name, created with the same parameters, in value and gradient, up to what protects
the language's arithmetic: a denominator or the base of a power is held above 1e-4 where the modules add 1e-5 to
denominators; and distances beyond 20 mm count as 20 mm.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from lossevo.errors import LossevoError, nearest
from lossevo.expression import Expression
from lossevo.losses.catalogue import parameters

_DICE = "1 - foreground_mean(2 * sum(p * y) / sum(p + y))"
_DICE_OF_SQUARES = "1 - foreground_mean(2 * sum(p * y) / sum(square(p) + square(y)))"
_CROSS_ENTROPY = "class_sum(mean(y * logp))"
# The ratio of sums over classes is taken per batch: the language has no value "one number per image".
_GENERALIZED_DICE = (
    "1 - 2 * class_sum(batch_mean(p * y) / square(batch_mean(y)))"
    " / class_sum(batch_mean(p + y) / square(batch_mean(y)))"
)
_BOUNDARY = "20 * foreground_mean(mean(p * d))"


def _number(value: float) -> str:
    """A coefficient: six digits, and a point, without which it would be a constant."""
    text = f"{value:.6g}"
    return text if {".", "e"} & {*text} else f"{text}.0"


def _weighted(weight: float, formula: str) -> str:
    """A formula with a weight, which is left out if it is 1."""
    return formula if weight == 1 else f"{_number(weight)} * ({formula})"


def _focal(gamma: float) -> str:
    return f"class_sum(mean((1 - p) ^ {_number(gamma)} * y * logp))"


def _tversky(w_fp: float, w_fn: float) -> str:
    return f"sum(p * y) / (sum(p * y) + {_number(w_fp)} * sum(p * (1 - y)) + {_number(w_fn)} * sum((1 - p) * y))"


def _asymmetric_similarity(beta: float) -> str:
    square = beta**2  # (1 + β²) TP / (β² Σy + Σp)
    return f"1 - foreground_mean({_number(1 + square)} * sum(p * y) / ({_number(square)} * sum(y) + sum(p)))"


def _sensitivity_specificity(w_sensitivity: float) -> str:
    return (
        f"foreground_mean({_number(w_sensitivity)} * (sum(square(y - p) * y) / sum(y))"
        f" + {_number(1 - w_sensitivity)} * (sum(square(y - p) * (1 - y)) / sum(1 - y)))"
    )


def _dice_focal(w_dice: float, w_focal: float, gamma: float) -> str:
    return f"{_weighted(w_dice, _DICE_OF_SQUARES)} - {_number(w_focal)} * {_focal(gamma)}"


def _exp_log(w_dice: float, w_ce: float, gamma: float) -> str:
    # batch_mean(y) is the frequency of a class in the batch.
    power = _number(gamma)
    return (
        f"{_number(w_dice)} * foreground_mean((-log((2 * sum(p * y) + 1) / (sum(p + y) + 1))) ^ {power})"
        f" + {_number(w_ce)} * class_sum(mean(y * (-logp) ^ {power}) / batch_mean(y) ^ 0.5)"
    )


@dataclass(frozen=True, slots=True)
class _Written:
    """How a loss is written, with those of its parameters that ``formula`` takes.

    ``parameters`` are others with which the module has to be made to be equal.
    """

    formula: Callable[..., str]
    parameters: Mapping[str, Any] = field(default_factory=dict)

    @property
    def takes(self) -> tuple[str, ...]:
        return tuple(inspect.signature(self.formula).parameters)


_EXPRESSIONS: Mapping[str, _Written] = MappingProxyType(
    {
        "cross_entropy": _Written(lambda: f"-{_CROSS_ENTROPY}"),
        "focal": _Written(lambda gamma: f"-{_focal(gamma)}"),
        "dice": _Written(lambda: _DICE),
        "generalized_dice": _Written(lambda: _GENERALIZED_DICE, {"batch": True}),
        "jaccard": _Written(lambda: "1 - foreground_mean(sum(p * y) / (sum(p + y) - sum(p * y)))"),
        "tversky": _Written(lambda w_fp, w_fn: f"1 - foreground_mean({_tversky(w_fp, w_fn)})"),
        "asymmetric_similarity": _Written(_asymmetric_similarity),
        "sensitivity_specificity": _Written(_sensitivity_specificity),
        "dice_ce": _Written(lambda w_dice, w_ce: f"{_weighted(w_dice, _DICE)} - {_number(w_ce)} * {_CROSS_ENTROPY}"),
        "dice_focal": _Written(_dice_focal),
        "focal_tversky": _Written(
            lambda w_fp, w_fn, gamma: f"foreground_mean((1 - {_tversky(w_fp, w_fn)}) ^ {_number(1 / gamma)})"
        ),
        "boundary": _Written(lambda: _BOUNDARY),
        "hausdorff_dt_one_sided": _Written(lambda: "400 * foreground_mean(mean(square(p - y) * square(d)))"),
        "exp_log": _Written(_exp_log),
        # A hundredth of a training is the module's epoch.
        "generalized_dice_boundary": _Written(
            lambda: f"max(1 - t, 0.1) * ({_GENERALIZED_DICE}) + (0.01 + t) * ({_BOUNDARY})", {"batch": True}
        ),
        "baikal": _Written(lambda: "class_mean(mean(y / p - logp))"),
        "baikal_cma": _Written(
            lambda: "2.7279 * class_mean(mean(1.1135 * (1.3716 * y / p) / 0.8411 - 0.9863 * (logp + log(1.5352))))"
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


def expression_of(name: str, /, **chosen: float) -> Expression:
    """The expression of a hand-crafted loss; its parameters are the published ones where none are chosen.

    Raises:
        LossevoError: ``name`` has no expression, or not with a parameter that was chosen.
    """
    written = _written(name)
    for key in chosen:
        if key not in written.takes:
            takes = f"it can with {', '.join(written.takes)}" if written.takes else "it has no parameter that it could"
            raise LossevoError(
                f"'{name}' cannot be written as an expression with another {key}{nearest(key, written.takes)}; {takes}"
            )
    published = parameters(name)
    return Expression.parse(written.formula(**{key: chosen.get(key, published[key]) for key in written.takes}))


def expression_takes(name: str) -> tuple[str, ...]:
    """The parameters that :func:`expression_of` takes for a loss.

    Raises:
        LossevoError: ``name`` has no expression.
    """
    return _written(name).takes


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
