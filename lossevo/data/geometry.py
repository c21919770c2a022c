"""Where voxels lie: affines from voxel numbers into RAS millimetres."""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray

Affine = NDArray[np.float64]
Spacing = tuple[float, float, float]

# ITK's own: beyond it, SimpleITK (and with it nnU-Net's reader) refuses an sform.
LARGEST_SKEW = 1e-4


def spacing_of(affine: Affine) -> Spacing:
    """Voxel size in mm: the column norms of an affine."""
    x, y, z = np.linalg.norm(affine[:3, :3], axis=0).tolist()
    return (x, y, z)


def largest_distance_mm(first: Affine, second: Affine, shape: tuple[int, ...]) -> float:
    """Largest distance between where two affines put a voxel; the maximum is at a corner of the volume."""
    return float(np.linalg.norm((corners(shape) @ (first - second).T)[:, :3], axis=1).max())


def corners(shape: tuple[int, ...]) -> NDArray[np.float64]:
    """The voxels at the eight corners of a volume as rows (x, y, z, 1)."""
    sides = ((0, size - 1) for size in shape[:3])
    return np.array([(*corner, 1) for corner in itertools.product(*sides)], dtype=np.float64)


def skew(affine: Affine) -> float:
    """How far axes are from right angles: the largest cosine between two of them."""
    directions = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    return float(np.abs(directions.T @ directions - np.eye(3)).max())


def straightened(affine: Affine, shape: tuple[int, ...]) -> Affine:
    """The nearest affine with axes at right angles (polar decomposition), with the same voxel size and centre."""
    spacing, centre = np.array(spacing_of(affine)), (np.array(shape[:3]) - 1) / 2
    left, _, right = np.linalg.svd(affine[:3, :3] / spacing)
    straight = np.eye(4)
    straight[:3, :3] = left @ right * spacing
    straight[:3, 3] = affine[:3, 3] + (affine[:3, :3] - straight[:3, :3]) @ centre
    return straight
