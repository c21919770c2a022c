"""What protects the arithmetic of generated losses, where PyTorch has no one operation for it.

The source of this file's functions is copied into every exported ``loss.py``: torch only.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lossevo.expression.primitives import EPSILON


def guard(denominator: Tensor) -> Tensor:
    """The denominator, kept away from 0 by ``EPSILON`` on its own side; 0 is positive."""
    return torch.where(denominator < 0, denominator.clamp(max=-EPSILON), denominator.clamp(min=EPSILON))
