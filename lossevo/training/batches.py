"""Batches of patches: which ones, in which order, mirrored or augmented how, decided by the seed alone."""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lossevo.data.augmentation import Augmentation, Draws
from lossevo.data.patches import ArrayName, PatchBank, StoredPatchBank

LEFT_RIGHT_AXIS = 2  # of (B, channels, X, Y, Z): X runs left to right in RAS
BATCHES_AHEAD = 4


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
    """A patch bank that hands out batches on ``device``.

    One in memory becomes tensors: views of its own memory on a CPU, copied once to a GPU. Of one on disk a background
    thread reads a few batches ahead, in the order asked for: which batches there are never depends on how fast it is.

    Args:
        bank: in memory or on disk.
        augmentation: what ``full`` augmentation does; without it patches are mirrored only.
        mirrored: what each class becomes in a mirror (:class:`lossevo.data.mirror.Mirror`); by default itself.

    Raises:
        LossevoError: a bank on disk is not on this machine's disk.
    """

    def __init__(
        self,
        bank: PatchBank | StoredPatchBank,
        device: torch.device,
        augmentation: Augmentation | None = None,
        mirrored: Sequence[int] | None = None,
    ) -> None:
        self.device = device
        self._mirrored = torch.tensor(mirrored, device=device) if mirrored and [*mirrored] != sorted(mirrored) else None
        self._augmentation = augmentation
        self._bank = bank
        self._held: dict[ArrayName, Tensor] = {}
        if isinstance(bank, PatchBank):
            self._held = {name: _tensor(getattr(bank, name), device) for name in get_args(ArrayName)}
        else:
            bank.read([0], "label")  # a worker without the shared disk fails now, not in every training

    def batches(
        self,
        rows: NDArray[np.int64],
        flips: NDArray[np.bool_],
        *,
        with_distance: bool,
        draws: Draws | None = None,
        first: int = 0,
    ) -> Generator[Batch]:
        """One batch per line of ``rows`` and ``flips`` (steps, batch_size).

        Args:
            rows: patch indices.
            flips: which of them are mirrored.
            with_distance: read distance maps too.
            draws: of the whole training, for the augmentation.
            first: the step that the first line belongs to, 0, 1, …
        """
        names: tuple[ArrayName, ...] = ("image", "label", "distance_mm") if with_distance else ("image", "label")
        mirrored = torch.from_numpy(flips).to(self.device)[:, :, None, None, None, None]
        with closing(self._picked(rows, names)) as picked:
            for step, (parts, mirror) in enumerate(zip(picked, mirrored, strict=True), start=first):
                image, label, *rest = (
                    torch.where(mirror, self._in_mirror(name, part.flip(LEFT_RIGHT_AXIS)), part)
                    for name, part in zip(names, parts, strict=True)
                )
                distance_map = rest[0] if rest else None
                if self._augmentation is not None and draws is not None:
                    image, label, distance_map = self._augmentation(image, label, distance_map, draws, step)
                yield Batch(image, label.long(), None if distance_map is None else distance_map.float())

    def _in_mirror(self, name: ArrayName, part: Tensor) -> Tensor:
        """A part of a batch with the classes of left and right exchanged."""
        if self._mirrored is None or name == "image":
            return part
        return self._mirrored[part.long()].to(part.dtype) if name == "label" else part[:, self._mirrored]

    def _picked(self, rows: NDArray[np.int64], names: Sequence[ArrayName]) -> Generator[list[Tensor]]:
        """The arrays of the patches of each line of ``rows``, on the device; labels with an axis for the channel."""
        if isinstance(self._bank, PatchBank):
            for index in torch.from_numpy(rows).to(self.device):
                yield [_with_channel(name, self._held[name][index]) for name in names]
            return
        bank = self._bank

        def read(line: NDArray[np.int64]) -> list[Tensor]:
            return [_with_channel(name, torch.from_numpy(bank.read(line, name))) for name in names]

        reader = ThreadPoolExecutor(1, thread_name_prefix="lossevo-patches")
        try:
            ahead = deque(reader.submit(read, line) for line in rows[:BATCHES_AHEAD])
            for step in range(len(rows)):
                if step + BATCHES_AHEAD < len(rows):
                    ahead.append(reader.submit(read, rows[step + BATCHES_AHEAD]))
                yield [part.to(self.device) for part in ahead.popleft().result()]
        finally:
            reader.shutdown(cancel_futures=True)


def _with_channel(name: ArrayName, part: Tensor) -> Tensor:
    return part[:, None] if name == "label" else part


def _tensor(array: NDArray[Any], device: torch.device) -> Tensor:
    with warnings.catch_warnings():
        # Arrays out of an object store are read-only, which torch warns of; nothing here writes to them.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable", category=UserWarning)
        return torch.from_numpy(array).to(device)
