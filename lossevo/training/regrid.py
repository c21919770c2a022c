"""From class probabilities at the working spacing to a label on the image's own grid."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lossevo.data.original import OriginalLabel
from lossevo.data.resampling import Between, Spacing, between
from lossevo.training.inference import Prediction

# What interpolation of a part of the grid may take in memory; larger parts are slower, as caches are small.
PART_BYTES = 2**23


@torch.inference_mode()
def label_on_original(
    prediction: Prediction, spacing_mm: Spacing, original: OriginalLabel, *, part_bytes: int = PART_BYTES
) -> NDArray[np.uint8]:
    """The label (X, Y, Z) that a prediction at ``spacing_mm`` gives on the image's own grid.

    Probabilities are interpolated linearly between voxel centres, along one axis after the other, and each voxel gets
    the class with the largest; of equal ones the first. Beyond the outermost voxel centres the outermost value holds.
    Outside of the crop's box all is background. Where no axis was resampled, it is the prediction's own label.
    """
    label = np.zeros(original.shape, np.uint8)
    kept, working = label[original.kept], prediction.label
    grids = zip(working.shape, spacing_mm, kept.shape, original.spacing_mm, strict=True)
    axes = [between(*grid) for grid in grids]
    if not any(axes):
        kept[:] = working
    elif working.any():
        reached = tuple(_reached(working, axis, where) for axis, where in enumerate(axes))
        probabilities, inner = prediction.probabilities, []
        for axis, (where, extent) in enumerate(zip(axes, reached, strict=True), start=1):
            if where is None:
                probabilities = probabilities.narrow(axis, extent.start, extent.stop - extent.start)
            inner.append(where and where.part(extent))
        kept[reached] = _largest(probabilities, inner, part_bytes)
    return label


def _reached(working: NDArray[np.uint8], axis: int, where: Between | None) -> slice:
    """The extent along an axis of the new voxels that have foreground at a corner.

    Where background is the largest at all corners, it is so in between, however values are rounded.
    """
    foreground = np.asarray(working.any(axis=tuple({0, 1, 2} - {axis})))
    if where is not None:
        foreground = foreground[where.lower] | foreground[where.upper]
    inside = np.flatnonzero(foreground)
    return slice(int(inside[0]), int(inside[-1]) + 1) if inside.size else slice(0)


def _largest(probabilities: Tensor, axes: Sequence[Between | None], part_bytes: int) -> NDArray[np.uint8]:
    """The class with the largest interpolated probability, part by part along the first axis."""
    classes, *sizes = probabilities.shape
    x, y, z = (size if where is None else len(where.share) for size, where in zip(sizes, axes, strict=True))
    # Two neighbours of each voxel are in memory at a time; then the largest (float32) and its place (int64).
    rows = max(1, part_bytes // (y * z * (8 * classes + 12)))
    label = np.empty((x, y, z), np.uint8)
    for start in range(0, x, rows):
        stop = min(start + rows, x)
        if axes[0] is None:
            part = probabilities[:, start:stop]
        else:
            part = _interpolated(probabilities, 1, axes[0].part(slice(start, stop)))
        # The last axis, of which voxels are copied one by one, while the second is still short.
        for axis in (3, 2):
            if where := axes[axis - 1]:
                part = _interpolated(part, axis, where)
        label[start:stop] = part.max(dim=0).indices.to(torch.uint8).cpu().numpy()
    return label


def _interpolated(values: Tensor, axis: int, where: Between) -> Tensor:
    lower, upper, share = (torch.from_numpy(part).to(values.device) for part in where)
    share = share.view(-1, *[1] * (values.ndim - 1 - axis))
    # Products and sums are rounded one by one: no value depends on where a part begins.
    mixed = values.index_select(axis, lower).mul_(1 - share)
    return mixed.add_(values.index_select(axis, upper).mul_(share))
