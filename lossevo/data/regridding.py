"""Volumes on other grids; and grids at right angles for volumes whose axes are not.

Rounded headers, and scanners with a tilted gantry, leave such axes. NIfTI can say so in its sform alone, and SimpleITK,
with which nnU-Net reads, refuses it.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import scipy
from numpy.typing import NDArray

from lossevo.data.geometry import Affine, corners, straightened


def upright_grid(affine: Affine, shape: tuple[int, ...]) -> tuple[Affine, tuple[int, ...]]:
    """The grid at right angles with the same voxel size that just holds a sheared one: its affine and shape."""
    grid = straightened(affine, shape)
    inside = (corners(shape) @ (np.linalg.inv(grid) @ affine).T)[:, :3]
    first, last = np.floor(inside.min(axis=0)), np.ceil(inside.max(axis=0))
    grid[:3, 3] += grid[:3, :3] @ first
    return grid, tuple((last - first + 1).astype(int).tolist())


def image_onto(image: NDArray[Any], affine: Affine, grid: Affine, shape: tuple[int, ...]) -> NDArray[Any]:
    """An image (X, Y, Z) on another grid by linear interpolation; its smallest value lies around it."""
    return _onto(image, affine, grid, shape, order=1, around=float(image.min()))


def label_onto(label: NDArray[Any], affine: Affine, grid: Affine, shape: tuple[int, ...]) -> NDArray[Any]:
    """A label (X, Y, Z) on another grid by nearest neighbour; background lies around it."""
    return _onto(label, affine, grid, shape, order=0, around=0)


def _onto(
    voxels: NDArray[Any], affine: Affine, grid: Affine, shape: tuple[int, ...], *, order: Literal[0, 1], around: float
) -> NDArray[Any]:
    matrix = np.linalg.inv(affine) @ grid
    # "grid-constant": a voxel reaches half its side beyond its centre, at the edge too.
    found: NDArray[Any] = scipy.ndimage.affine_transform(
        voxels, matrix, output_shape=shape, order=order, mode="grid-constant", cval=around
    )
    return found
