"""Images and labels on a grid of another voxel size, around the same centre."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import scipy
from numpy.typing import NDArray

Spacing = tuple[float, float, float]


def resampled_size(shape: tuple[int, ...], from_mm: Spacing, to_mm: Spacing) -> tuple[float, ...]:
    """How many voxels :func:`resample` makes of (X, Y, Z), not rounded; infinite where a spacing is almost 0."""
    return tuple(max(1.0, size * (old / new)) for size, old, new in zip(shape, from_mm, to_mm, strict=True))


def resample(array: NDArray[np.float32], from_mm: Spacing, to_mm: Spacing) -> NDArray[np.float32]:
    """Resample the last three axes of ``array`` (..., X, Y, Z) onto a grid with the same centre.

    Anti-aliased linear interpolation, axis by axis: an old voxel at distance d from a new one weighs
    max(0, 1 - d / max(old spacing, new spacing)), and the weights of a new voxel are scaled to sum to 1. The new size
    is the field of view over the new spacing, rounded, at least 1. An axis that keeps its spacing is left alone.
    """
    for axis, (source_mm, target_mm) in enumerate(zip(from_mm, to_mm, strict=True), start=array.ndim - 3):
        if _differ(source_mm, target_mm):
            array = along(array, axis, _axis_weights(array.shape[axis], source_mm, target_mm))
    return np.ascontiguousarray(array, dtype=np.float32)


def resample_label(label: NDArray[np.uint8], classes: int, from_mm: Spacing, to_mm: Spacing) -> NDArray[np.uint8]:
    """The class with the largest share of each new voxel: :func:`resample` of the one-hot label, then arg max.

    A voxel that background and foreground share alike is foreground: ties are common at whole-number factors, and
    smoothing has shrunk convex objects already. Vertebral bodies of 1×1×4 mm made 4 mm keep their volume within about
    1 % on average, a sphere of their size loses 3 %. One class is in memory at a time, and only where it is.
    """
    if not any(_differ(source_mm, target_mm) for source_mm, target_mm in zip(from_mm, to_mm, strict=True)):
        return np.ascontiguousarray(label, dtype=np.uint8)
    share = resample((label == 0).astype(np.float32), from_mm, to_mm)
    share -= 1e-5  # more than rounding, less than any voxel's weight
    largest = np.zeros(share.shape, np.uint8)
    for value in range(1, classes):
        inside = label == value
        if not inside.any():
            continue
        where = []
        part = inside[_box(inside)].astype(np.float32)
        for axis, (extent, source_mm, target_mm) in enumerate(zip(_box(inside), from_mm, to_mm, strict=True)):
            if _differ(source_mm, target_mm):
                weights = _axis_weights(label.shape[axis], source_mm, target_mm)[:, extent]
                reached = np.flatnonzero(weights.any(axis=1))
                if not reached.size:  # thinner than the gap between two new voxels' reach
                    break
                extent = slice(int(reached[0]), int(reached[-1]) + 1)
                part = along(part, axis, weights[extent])
            where.append(extent)
        else:
            place = tuple(where)
            larger = part > share[place]
            largest[place][larger] = value
            share[place][larger] = part[larger]
    return largest


class Between(NamedTuple):
    """Where voxels lie along an axis of another grid: between two of its voxels, ``share`` of the way to the upper."""

    lower: NDArray[np.int64]
    upper: NDArray[np.int64]
    share: NDArray[np.float32]

    def part(self, extent: slice) -> Between:
        """Those of some of the voxels."""
        return Between(self.lower[extent], self.upper[extent], self.share[extent])


def between(size: int, from_mm: float, new_size: int, to_mm: float) -> Between | None:
    """Where ``new_size`` voxels of ``to_mm`` lie among ``size`` voxels of ``from_mm`` around the same centre.

    It is the way back of :func:`resample`, which has rounded the size: voxels beyond the outermost lie on it. None for
    an axis that kept its spacing, and with it its voxels.
    """
    if not _differ(from_mm, to_mm):
        return None
    places = (np.arange(new_size) - (new_size - 1) / 2) * (to_mm / from_mm) + (size - 1) / 2
    places = places.clip(0, size - 1)
    lower = np.minimum(places.astype(np.int64), max(size - 2, 0))
    return Between(lower, np.minimum(lower + 1, size - 1), (places - lower).astype(np.float32))


def along(array: NDArray[np.float32], axis: int, weights: NDArray[np.float32]) -> NDArray[np.float32]:
    """``array`` with sums over ``axis`` in its place, by ``weights`` (new size, size), most of which are 0.

    Not with BLAS, whose last bits depend on the number of its threads.
    """
    first = np.moveaxis(array, axis, 0)
    mixed: NDArray[np.float32] = scipy.sparse.csr_array(weights) @ first.reshape(len(first), -1)
    return np.moveaxis(mixed.reshape(-1, *first.shape[1:]), 0, axis)


def _axis_weights(size: int, from_mm: float, to_mm: float) -> NDArray[np.float32]:
    """(new size, size) matrix whose rows sum to 1: weight of each old voxel in each new one."""
    new_size = max(1, math.floor(size * from_mm / to_mm + 0.5))
    old_mm = (np.arange(size) - (size - 1) / 2) * from_mm
    new_mm = (np.arange(new_size) - (new_size - 1) / 2) * to_mm
    weights = np.clip(1 - np.abs(new_mm[:, None] - old_mm[None, :]) / max(from_mm, to_mm), 0, None)
    scaled: NDArray[np.float32] = (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
    return scaled


def _box(mask: NDArray[np.bool_]) -> tuple[slice, slice, slice]:
    """The smallest box around the true voxels of a mask that has some."""
    spans = [np.flatnonzero(mask.any(axis=others)) for others in ((1, 2), (0, 2), (0, 1))]
    x, y, z = (slice(int(span[0]), int(span[-1]) + 1) for span in spans)
    return x, y, z


def _differ(first_mm: float, second_mm: float) -> bool:
    return not math.isclose(first_mm, second_mm, rel_tol=1e-4)
