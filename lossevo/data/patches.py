"""The patch bank: patches cut once before a search, held as a few large arrays that workers share without a copy."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lossevo.data.cohort import Volume
from lossevo.data.preprocessing import PreparedCohort
from lossevo.errors import LossevoError


@dataclass(frozen=True, slots=True, eq=False)
class PatchBank:
    """Patches of N positions: read-only arrays, patches of one case beside each other, cases in sorted order.

    ``image`` float32 (N, M, *patch); ``label`` uint8 (N, *patch); ``distance_mm`` float16 (N, C, *patch), the signed
    distance to each class (background included) in mm, negative inside; ``subject`` names each patch's subject.
    """

    image: NDArray[np.float32]
    label: NDArray[np.uint8]
    distance_mm: NDArray[np.float16]
    subject: tuple[str, ...]

    def of_subjects(self, subjects: Iterable[str]) -> NDArray[np.int64]:
        """Indices of the patches of ``subjects``, in bank order, whatever the order of ``subjects``.

        Raises:
            ValueError: a subject has no patch in the bank.
        """
        wanted = set(subjects)
        if missing := wanted.difference(self.subject):
            raise ValueError(f"no patches of subject(s) {', '.join(sorted(missing))} in the bank")
        return np.flatnonzero([subject in wanted for subject in self.subject]).astype(np.int64)


def build_patch_bank(
    prepared: PreparedCohort,
    *,
    patch_size: tuple[int, int, int],
    patches_per_volume: int,
    seed: int,
    foreground_share: float = 0.67,
) -> PatchBank:
    """Cut ``patches_per_volume`` patches from each volume at random positions.

    The first ``foreground_share`` of a volume's patches (rounded) each contain a random foreground voxel, its class
    chosen uniformly among those present; the others lie anywhere. Along an axis where the patch is larger than the
    volume, the volume lies at a random place in the patch, surrounded by its background (the smallest value of each
    image channel, label 0). Distances are measured in the whole volume with that surrounding, not in the patch.

    A volume's positions depend on ``seed`` and its case id alone, so a subject's patches are the same whichever other
    subjects there are.

    Raises:
        LossevoError: ``patch_size``, ``patches_per_volume`` or ``foreground_share`` is out of range.
    """
    if min(patch_size) < 1:
        raise LossevoError(f"patch_size must be three sizes of at least 1 voxel, got {patch_size}")
    if patches_per_volume < 1:
        raise LossevoError(f"patches_per_volume must be at least 1, got {patches_per_volume}")
    if not 0 <= foreground_share <= 1:
        raise LossevoError(f"foreground_share must be between 0 and 1, got {foreground_share}")
    # Imported here because torch takes seconds, and reading or splitting a cohort needs none of it.
    import torch

    from lossevo.losses.signed_distance import signed_distance_map

    volumes = prepared.volumes
    count, classes = len(volumes) * patches_per_volume, len(prepared.class_names)
    image = np.empty((count, volumes[0].image.shape[0], *patch_size), np.float32)
    label = np.empty((count, *patch_size), np.uint8)
    distance_mm = np.empty((count, classes, *patch_size), np.float16)
    foreground_patches = int(foreground_share * patches_per_volume + 0.5)
    row = 0
    for volume in volumes:
        rng = _generator(seed, volume.case_id)
        margin = [max(0, side - size) for side, size in zip(patch_size, volume.label.shape, strict=True)]
        padded_image, padded_label = _padded(volume, margin)
        one_hot = torch.from_numpy(np.stack([padded_label == value for value in range(classes)]))
        distances = signed_distance_map(one_hot[None], volume.spacing_mm)[0].numpy()
        for index in range(patches_per_volume):
            start = _start(rng, volume.label, patch_size, foreground=index < foreground_patches)
            crop = tuple(
                slice(first + pad, first + pad + side)
                for first, pad, side in zip(start, margin, patch_size, strict=True)
            )
            image[row] = padded_image[:, *crop]
            label[row] = padded_label[crop]
            distance_mm[row] = distances[:, *crop]
            row += 1
    for array in (image, label, distance_mm):
        array.setflags(write=False)
    subject = tuple(volume.subject for volume in volumes for _ in range(patches_per_volume))
    return PatchBank(image, label, distance_mm, subject)


def _padded(volume: Volume, margin: list[int]) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    around = [(pad, pad) for pad in margin]
    channels = [np.pad(channel, around, constant_values=channel.min()) for channel in volume.image]
    return np.stack(channels), np.pad(volume.label, around)


def _start(
    rng: np.random.Generator, label: NDArray[np.uint8], patch_size: tuple[int, int, int], *, foreground: bool
) -> list[int]:
    """First voxel of a patch; negative where the patch reaches over the volume's edge."""
    slack = [size - side for size, side in zip(label.shape, patch_size, strict=True)]
    low, high = np.minimum(slack, 0), np.maximum(slack, 0)
    present = np.unique(label[label > 0]) if foreground else ()
    if len(present):
        voxels = np.argwhere(label == rng.choice(present))
        voxel = voxels[rng.integers(len(voxels))]
        low, high = np.maximum(low, voxel - np.array(patch_size) + 1), np.minimum(high, voxel)
    return [int(first) for first in rng.integers(low, high, endpoint=True)]


def _generator(seed: int, case_id: str) -> np.random.Generator:
    key = int.from_bytes(hashlib.sha256(case_id.encode()).digest()[:8], "little")
    return np.random.default_rng([seed, key])
