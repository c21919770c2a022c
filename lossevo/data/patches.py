"""The patch bank: patches cut once before a search, in memory as a few large arrays, or on disk where it is larger."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from lossevo.data.cache import Cache, StoredVolume
from lossevo.data.cohort import AnyVolume, Volume
from lossevo.data.entry import read_array
from lossevo.data.preprocessing import PreparedCohort, reading_pool
from lossevo.errors import LossevoError

# Part of the key of every stored patch: raise it when patches are cut otherwise.
PATCHES_VERSION = 1

ArrayName = Literal["image", "label", "distance_mm"]
Patch = tuple[NDArray[np.float32], NDArray[np.uint8], NDArray[np.float16]]
"""Image (M, *patch), label (*patch) and distances (C, *patch) of one patch."""


@dataclass(frozen=True, slots=True, eq=False)
class PatchBank:
    """Patches of N positions in memory: read-only arrays, patches of one case beside each other, cases in sorted order.

    ``image`` float32 (N, M, *patch); ``label`` uint8 (N, *patch); ``distance_mm`` float16 (N, C, *patch), the signed
    distance to each class (background included) in mm, negative inside; ``subject`` names each patch's subject.
    """

    image: NDArray[np.float32]
    label: NDArray[np.uint8]
    distance_mm: NDArray[np.float16]
    subject: tuple[str, ...]

    @property
    def channels(self) -> int:
        """How many channels an image has."""
        return len(self.image[0])

    def of_subjects(self, subjects: Iterable[str]) -> NDArray[np.int64]:
        """Indices of the patches of ``subjects``, in bank order, whatever the order of ``subjects``.

        Raises:
            ValueError: a subject has no patch in the bank.
        """
        return _of_subjects(self.subject, subjects)


@dataclass(frozen=True, slots=True, eq=False)
class StoredPatchBank:
    """The same patches on disk, one file each: for a bank that does not fit into memory."""

    files: tuple[Path, ...]
    subject: tuple[str, ...]
    channels: int

    def of_subjects(self, subjects: Iterable[str]) -> NDArray[np.int64]:
        """As :meth:`PatchBank.of_subjects`."""
        return _of_subjects(self.subject, subjects)

    def read(self, rows: Iterable[int], name: ArrayName) -> NDArray[Any]:
        """One of the arrays of :class:`PatchBank` for the patches with these indices, in this order.

        Raises:
            LossevoError: a file is gone or damaged.
        """
        return np.stack([read_array(self.files[row], name) for row in rows])


@dataclass(frozen=True, slots=True)
class Cutting:
    """Where patches are cut.

    The first ``foreground_share`` of a volume's patches (rounded) each contain a random foreground voxel, its class
    chosen uniformly among those present; the others lie anywhere. Along an axis where the patch is larger than the
    volume, the volume lies at a random place in the patch, surrounded by its background (the smallest value of each
    image channel, label 0). Distances are measured in the whole volume with that surrounding, not in the patch.

    A volume's positions depend on ``seed`` and its case id alone, so a subject's patches are the same whichever other
    subjects there are.

    Raises:
        LossevoError: ``patch_size``, ``patches_per_volume`` or ``foreground_share`` is out of range.
    """

    patch_size: tuple[int, int, int]
    patches_per_volume: int
    seed: int
    foreground_share: float = 0.67

    def __post_init__(self) -> None:
        if min(self.patch_size) < 1:
            raise LossevoError(f"patch_size must be three sizes of at least 1 voxel, got {self.patch_size}")
        if self.patches_per_volume < 1:
            raise LossevoError(f"patches_per_volume must be at least 1, got {self.patches_per_volume}")
        if not 0 <= self.foreground_share <= 1:
            raise LossevoError(f"foreground_share must be between 0 and 1, got {self.foreground_share}")

    def patch_bytes(self, channels: int, classes: int) -> int:
        """Bytes of one patch in a bank."""
        return math.prod(self.patch_size) * (4 * channels + 1 + 2 * classes)

    def patches(self, volume: Volume, classes: int) -> Iterator[Patch]:
        """The patches of one volume, one after another."""
        # Imported here because torch takes seconds, and reading or splitting a cohort needs none of it.
        import torch

        from lossevo.losses.signed_distance import signed_distance_map

        rng = _generator(self.seed, volume.case_id)
        margin = [max(0, side - size) for side, size in zip(self.patch_size, volume.label.shape, strict=True)]
        image, label = _padded(volume, margin)
        one_hot = torch.from_numpy(np.stack([label == value for value in range(classes)]))
        distances = signed_distance_map(one_hot[None], volume.spacing_mm)[0].numpy()
        foreground_patches = int(self.foreground_share * self.patches_per_volume + 0.5)
        for index in range(self.patches_per_volume):
            start = _start(rng, volume.label, self.patch_size, foreground=index < foreground_patches)
            crop = tuple(
                slice(first + pad, first + pad + side)
                for first, pad, side in zip(start, margin, self.patch_size, strict=True)
            )
            yield image[:, *crop], label[crop], distances[:, *crop].astype(np.float16, order="C")


def build_patch_bank(
    prepared: PreparedCohort,
    *,
    patch_size: tuple[int, int, int],
    patches_per_volume: int,
    seed: int,
    foreground_share: float = 0.67,
) -> PatchBank:
    """Cut ``patches_per_volume`` patches from each volume at random positions, into memory; see :class:`Cutting`."""
    return cut_patch_bank(prepared, Cutting(patch_size, patches_per_volume, seed, foreground_share))


def cut_patch_bank(prepared: PreparedCohort, cutting: Cutting) -> PatchBank:
    """Cut the patches into memory, one volume after another."""
    volumes, classes, size = prepared.volumes, len(prepared.class_names), cutting.patch_size
    count = len(volumes) * cutting.patches_per_volume
    image = np.empty((count, volumes[0].channels, *size), np.float32)
    label = np.empty((count, *size), np.uint8)
    distance_mm = np.empty((count, classes, *size), np.float16)
    cut = (patch for volume in volumes for patch in cutting.patches(volume.read(), classes))
    for row, patch in enumerate(cut):
        image[row], label[row], distance_mm[row] = patch
    for array in (image, label, distance_mm):
        array.setflags(write=False)
    return PatchBank(image, label, distance_mm, _subjects(volumes, cutting.patches_per_volume))


def store_patch_bank(prepared: PreparedCohort, cutting: Cutting, cache: Cache) -> StoredPatchBank:
    """Cut the same patches into ``cache``, a few volumes in memory at a time; what lies there is not cut again.

    Raises:
        LossevoError: the cache cannot be written.
    """
    volumes, classes = prepared.volumes, len(prepared.class_names)
    # One-hot labels and distances of every class, in double precision on the way.
    bytes_per_voxel = 16 + 10 * classes
    with reading_pool(max(volume.voxels for volume in volumes), bytes_per_voxel=bytes_per_voxel) as pool:
        files = list(pool.map(lambda volume: _stored(volume, classes, cutting, cache), volumes))
    subject = _subjects(volumes, cutting.patches_per_volume)
    return StoredPatchBank(tuple(file for part in files for file in part), subject, volumes[0].channels)


def _stored(volume: AnyVolume, classes: int, cutting: Cutting, cache: Cache) -> list[Path]:
    """The files of a volume's patches."""
    if isinstance(volume, StoredVolume):
        content = f"{PATCHES_VERSION} {volume.file.stem} {volume.case_id} {classes} {cutting}"
        keys = [hashlib.sha256(f"{content} {n}".encode()).hexdigest() for n in range(cutting.patches_per_volume)]
        files = [cache.find("patches", key) for key in keys]
        if not all(files):
            names = get_args(ArrayName)
            cut = zip(keys, cutting.patches(volume.read(), classes), strict=True)
            files = [cache.put("patches", key, {}, **dict(zip(names, patch, strict=True))) for key, patch in cut]
        if all(files):
            return [file for file in files if file]
    raise LossevoError(
        f"{cache.folder}: the cohort does not fit into memory (--patch-cache), and the cache cannot be written; "
        "set LOSSEVO_CACHE to a folder with room, or raise --patch-cache"
    )


def _subjects(volumes: Iterable[AnyVolume], patches_per_volume: int) -> tuple[str, ...]:
    return tuple(volume.subject for volume in volumes for _ in range(patches_per_volume))


def _of_subjects(subject_of_patch: tuple[str, ...], subjects: Iterable[str]) -> NDArray[np.int64]:
    wanted = set(subjects)
    if missing := wanted.difference(subject_of_patch):
        raise ValueError(f"no patches of subject(s) {', '.join(sorted(missing))} in the bank")
    return np.flatnonzero([subject in wanted for subject in subject_of_patch]).astype(np.int64)


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
