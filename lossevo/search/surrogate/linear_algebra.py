"""Linear algebra of NumPy arrays on one thread, by PyTorch: NumPy's own takes as many threads as there are cores.

The number of threads decides the last bits of a result. And the cores are the workers': two threads beside them take
many times as long as one.
"""

from __future__ import annotations

from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from lossevo.training.threads import one_thread


def product(left: NDArray[Any], right: NDArray[Any]) -> NDArray[Any]:
    """``left @ right``, also of stacks of matrices."""
    with one_thread():
        return _array(_tensor(left) @ _tensor(right))


def cholesky(matrix: NDArray[Any]) -> NDArray[Any]:
    """The lower factor L of L Lᵀ = ``matrix``."""
    with one_thread():
        return _array(torch.linalg.cholesky(_tensor(matrix)))


def solve_lower(factor: NDArray[Any], right: NDArray[Any]) -> NDArray[Any]:
    """L⁻¹ ``right`` of a lower triangular L."""
    with one_thread():
        return _array(torch.linalg.solve_triangular(_tensor(factor), _tensor(right), upper=False))


def _tensor(array: NDArray[Any]) -> Tensor:
    return torch.from_numpy(array)


def _array(tensor: Tensor) -> NDArray[Any]:
    array: NDArray[Any] = tensor.numpy()
    return array
