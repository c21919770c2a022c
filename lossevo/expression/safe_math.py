"""Protected arithmetic, the one home of numerically careful helpers of generated losses.

Each clamps *inside* the operation, so value and gradient stay finite: the gradient is 0 where the clamp acts. One of
two operands may be a Python number (a constant of the expression). The source of this file is copied into every
exported ``loss.py``: torch only.
"""

from __future__ import annotations

import torch
from torch import Tensor

EPSILON = 1e-4


def safe_divide(numerator: Tensor | float, denominator: Tensor | float) -> Tensor:
    """``numerator / denominator``, the denominator kept away from 0 by ``EPSILON`` on its own side; 0 is positive."""
    if isinstance(denominator, Tensor):
        return numerator / torch.where(denominator < 0, denominator.clamp(max=-EPSILON), denominator.clamp(min=EPSILON))
    assert isinstance(numerator, Tensor)
    return numerator / (min(denominator, -EPSILON) if denominator < 0 else max(denominator, EPSILON))


def safe_power(base: Tensor | float, exponent: Tensor | float) -> Tensor:
    """``max(base, EPSILON) ** exponent``."""
    if isinstance(base, Tensor):
        return base.clamp(min=EPSILON) ** exponent
    assert isinstance(exponent, Tensor)
    return torch.pow(max(base, EPSILON), exponent)


def safe_log(x: Tensor) -> Tensor:
    """``log(max(x, EPSILON))``."""
    return x.clamp(min=EPSILON).log()


def safe_exp(x: Tensor) -> Tensor:
    """``exp(min(x, 20))``."""
    return x.clamp(max=20.0).exp()


def safe_sqrt(x: Tensor) -> Tensor:
    """``sqrt(max(x, EPSILON))``."""
    return x.clamp(min=EPSILON).sqrt()


def minimum(a: Tensor | float, b: Tensor | float) -> Tensor:
    """Elementwise smaller of two, either of which may be a number."""
    if isinstance(a, Tensor):
        return torch.minimum(a, b) if isinstance(b, Tensor) else a.clamp(max=b)
    assert isinstance(b, Tensor)
    return b.clamp(max=a)


def maximum(a: Tensor | float, b: Tensor | float) -> Tensor:
    """Elementwise larger of two, either of which may be a number."""
    if isinstance(a, Tensor):
        return torch.maximum(a, b) if isinstance(b, Tensor) else a.clamp(min=b)
    assert isinstance(b, Tensor)
    return b.clamp(min=a)
