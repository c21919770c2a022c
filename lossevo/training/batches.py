"""Batches of patches: which ones, in which order, mirrored or not, decided by the seed alone."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lossevo.data.patches import PatchBank

LEFT_RIGHT_AXIS = 2  # of (B, channels, X, Y, Z): X runs left to right in RAS


@dataclass(frozen=True, slots=True)
class Batch:
    """Image (B, M, X, Y, Z) float32, label (B, 1, X, Y, Z) int64, distance map (B, C, X, Y, Z) float32 in mm."""

    image: Tensor
    label: Tensor
    distance_map: Tensor | None


def draw_order(
    rows: NDArray[np.int64], *, batch_size: int, steps: int, seed: int, flip_probability: float
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Patch indices (steps, batch_size) and left-right flips (steps, batch_size) of a training.

    Patches come in shuffled epochs: each of ``rows`` once before any comes again. A longer training begins with the
    order of a shorter one.
    """
    order, mirror = (np.random.default_rng([seed, stream]) for stream in range(2))
    wanted = steps * batch_size
    epochs = [order.permutation(rows) for _ in range(-(-wanted // len(rows)))]
    flips = mirror.random((steps, batch_size)) < flip_probability
    return np.concatenate(epochs)[:wanted].reshape(steps, batch_size), flips


class PatchStore:
    """A patch bank as tensors on ``device``: views of the bank's own memory on a CPU, copied once to a GPU."""

    def __init__(self, bank: PatchBank, device: torch.device) -> None:
        self.device = device
        self._image = _tensor(bank.image, device)
        self._label = _tensor(bank.label, device)
        self._distance_mm = _tensor(bank.distance_mm, device)

    def batches(self, rows: NDArray[np.int64], flips: NDArray[np.bool_], *, with_distance: bool) -> Iterator[Batch]:
        """One batch per line of ``rows`` and ``flips`` (steps, batch_size)."""
        indices = torch.from_numpy(rows).to(self.device)
        mirrored = torch.from_numpy(flips).to(self.device)[:, :, None, None, None, None]
        for index, mirror in zip(indices, mirrored, strict=True):

            def pick(source: Tensor, index: Tensor = index, mirror: Tensor = mirror) -> Tensor:
                patches = source[index]
                return torch.where(mirror, patches.flip(LEFT_RIGHT_AXIS), patches)

            yield Batch(
                image=pick(self._image),
                label=pick(self._label[:, None]).long(),
                distance_map=pick(self._distance_mm).float() if with_distance else None,
            )


def _tensor(array: NDArray[Any], device: torch.device) -> Tensor:
    with warnings.catch_warnings():
        # Arrays out of an object store are read-only, which torch warns of; nothing here writes to them.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable", category=UserWarning)
        return torch.from_numpy(array).to(device)
