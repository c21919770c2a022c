"""Checks of the parameters that a loss is constructed with."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from lossevo.errors import LossevoError, shown


def number(name: str, value: Any, *, minimum: float = 0.0, maximum: float = math.inf) -> float:
    """``value`` as a float if it is a finite number in [minimum, maximum], else LossevoError."""
    if isinstance(value, bool) or not isinstance(value, Real) or not minimum <= _float(value) <= maximum:
        raise _refused(name, value, _range("a number", minimum, maximum) + _hint(value))
    if math.isinf(_float(value)):
        raise _refused(name, value, "a finite number")
    return float(value)


def count(name: str, value: Any, *, minimum: int = 0, maximum: float = math.inf) -> int:
    """``value`` if it is a whole number in [minimum, maximum], else LossevoError."""
    if isinstance(value, bool) or not isinstance(value, int) or not minimum <= value <= maximum:
        raise _refused(name, value, _range("a whole number", minimum, maximum) + _hint(value))
    return value


def flag(name: str, value: Any) -> bool:
    """``value`` if it is True or False, else LossevoError."""
    if not isinstance(value, bool):
        raise _refused(name, value, "true or false")
    return value


def choice(name: str, value: Any, allowed: Sequence[str]) -> str:
    """``value`` if it is one of ``allowed``, else LossevoError."""
    if not isinstance(value, str) or value not in allowed:
        raise _refused(name, value, " or ".join(f"'{item}'" for item in allowed))
    return str(value)


def class_weights(name: str, value: Sequence[float] | Tensor | None) -> Tensor | None:
    """One finite weight >= 0 per class, not all 0, as a float64 tensor (C,); None stays None."""
    if value is None:
        return None
    if isinstance(value, Tensor) and value.is_complex():
        raise _refused(name, value, "a list with one number per class")
    try:
        weights = torch.as_tensor(value, dtype=torch.float64).detach().clone()
    except (TypeError, ValueError, RuntimeError, OverflowError):
        raise _refused(name, value, "a list with one number per class") from None
    usable = weights.ndim == 1 and len(weights) >= 2 and bool((weights.isfinite() & (weights >= 0)).all())
    if not usable or not bool(weights.any()):
        raise _refused(name, value, "a list with one number >= 0 per class (background first), not all 0")
    return weights


def spacing(name: str, value: Sequence[float] | None) -> tuple[float, ...] | None:
    """Distances > 0 between voxels, one per axis of a 2D or 3D image, as a tuple; None stays None."""
    if value is None:
        return None
    try:
        steps = tuple(float(step) for step in value)
    except (TypeError, ValueError, OverflowError):
        steps = ()
    if len(steps) not in (2, 3) or not all(0 < step < math.inf for step in steps):
        raise _refused(name, value, "a list with one positive distance in mm per axis")
    return steps


def positive_numbers(name: str, value: Sequence[float]) -> tuple[float, ...]:
    """One or more finite numbers > 0 as a tuple, else LossevoError."""
    try:
        numbers = tuple(float(number) for number in value)
    except (TypeError, ValueError, OverflowError):
        numbers = ()
    if not numbers or not all(0 < number < math.inf for number in numbers):
        raise _refused(name, value, "a list of numbers > 0")
    return numbers


def weights_for(name: str, weights: Tensor, logits: Tensor) -> Tensor:
    """Class weights (C,) as (1, C, 1, ...), to broadcast against ``logits`` (B, C, *spatial)."""
    classes = logits.shape[1]
    if len(weights) != classes:
        raise LossevoError(f"{name} has {len(weights)} values for {classes} classes (background included)")
    return weights.to(logits).view(1, classes, *[1] * (logits.ndim - 2))


def _float(value: Any) -> float:
    try:
        return float(value)
    except OverflowError:  # an integer of hundreds of digits
        return math.inf


def _range(kind: str, minimum: float, maximum: float) -> str:
    if math.isinf(maximum):
        return kind if math.isinf(minimum) else f"{kind} >= {minimum:g}"
    return f"{kind} from {minimum:g} to {maximum:g}"


def _hint(value: Any) -> str:
    """For text that a writer of YAML takes for a number."""
    try:
        is_text = isinstance(value, str) and math.isfinite(float(value))
    except ValueError:
        return ""
    return "; this is text: write it without quotes and an exponent as in 1.0e+9" if is_text else ""


def _refused(name: str, value: Any, expected: str) -> LossevoError:
    return LossevoError(f"{name} is {shown(value)}, expected {expected}")
