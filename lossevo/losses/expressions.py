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


def _regions(formula: str, batch: bool, include_background: bool) -> str:
    """A formula over the sums of an image's foreground classes, with other regions: see lossevo.losses.region."""
    formula = formula.replace("sum(", "batch_sum(") if batch else formula
    return formula.replace("foreground_mean(", "class_mean(") if include_background else formula


def _dice(squared_denominator: bool, batch: bool, include_background: bool) -> str:
    sizes = "sum(square(p) + square(y))" if squared_denominator else "sum(p + y)"
    return _regions(f"1 - foreground_mean(2 * sum(p * y) / {sizes})", batch, include_background)


def _jaccard(batch: bool, include_background: bool) -> str:
    return _regions("1 - foreground_mean(sum(p * y) / (sum(p + y) - sum(p * y)))", batch, include_background)


def _dice_ce(w_dice: float, w_ce: float, squared_denominator: bool, batch: bool, include_background: bool) -> str:
    dice = _weighted(w_dice, _dice(squared_denominator, batch, include_background))
    return f"{dice} - {_number(w_ce)} * {_CROSS_ENTROPY}"


def _focal(gamma: float) -> str:
    return f"class_sum(mean((1 - p) ^ {_number(gamma)} * y * logp))"


def _index(w_fp: float, w_fn: float) -> str:
    return f"sum(p * y) / (sum(p * y) + {_number(w_fp)} * sum(p * (1 - y)) + {_number(w_fn)} * sum((1 - p) * y))"


def _tversky(w_fp: float, w_fn: float, batch: bool, include_background: bool) -> str:
    return _regions(f"1 - foreground_mean({_index(w_fp, w_fn)})", batch, include_background)


def _focal_tversky(w_fp: float, w_fn: float, gamma: float, batch: bool, include_background: bool) -> str:
    formula = f"foreground_mean((1 - {_index(w_fp, w_fn)}) ^ {_number(1 / gamma)})"
    return _regions(formula, batch, include_background)


def _asymmetric_similarity(beta: float, batch: bool, include_background: bool) -> str:
    square = beta**2  # (1 + β²) TP / (β² Σy + Σp)
    formula = f"1 - foreground_mean({_number(1 + square)} * sum(p * y) / ({_number(square)} * sum(y) + sum(p)))"
    return _regions(formula, batch, include_background)


def _sensitivity_specificity(w_sensitivity: float, batch: bool, include_background: bool) -> str:
    formula = (
        f"foreground_mean({_number(w_sensitivity)} * (sum(square(y - p) * y) / sum(y))"
        f" + {_number(1 - w_sensitivity)} * (sum(square(y - p) * (1 - y)) / sum(1 - y)))"
    )
    return _regions(formula, batch, include_background)


def _dice_focal(
    w_dice: float, w_focal: float, gamma: float, squared_denominator: bool, batch: bool, include_background: bool
) -> str:
    dice = _weighted(w_dice, _dice(squared_denominator, batch, include_background))
    return f"{dice} - {_number(w_focal)} * {_focal(gamma)}"


def _exp_log(w_dice: float, w_ce: float, gamma: float, batch: bool, include_background: bool) -> str:
    power = _number(gamma)
    dice = f"foreground_mean((-log((2 * sum(p * y) + 1) / (sum(p + y) + 1))) ^ {power})"
    # batch_mean(y) is the frequency of a class in the batch.
    cross_entropy = f"class_sum(mean(y * (-logp) ^ {power}) / batch_mean(y) ^ 0.5)"
    return f"{_number(w_dice)} * {_regions(dice, batch, include_background)} + {_number(w_ce)} * {cross_entropy}"


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
        "dice": _Written(_dice),
        "generalized_dice": _Written(lambda: _GENERALIZED_DICE, {"batch": True}),
        "jaccard": _Written(_jaccard),
        "tversky": _Written(_tversky),
        "asymmetric_similarity": _Written(_asymmetric_similarity),
        "sensitivity_specificity": _Written(_sensitivity_specificity),
        "dice_ce": _Written(_dice_ce),
        "dice_focal": _Written(_dice_focal),
        "focal_tversky": _Written(_focal_tversky),
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


def expression_of(name: str, /, **chosen: bool | float) -> Expression:
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
