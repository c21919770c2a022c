"""The integers of a label file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lossevo.data.segments import one_layer
from lossevo.data.stored import Stored, UnusableFile

# Of values that are not scaled; interpolation leaves them off by much more.
INTEGER_TOLERANCE = 1e-3


def label_map(stored: Stored, file: Path) -> NDArray[Any]:
    """The voxels (X, Y, Z) of a label as integers.

    Label maps that were held as floats are scaled in the header when they are written as integers: 24 becomes 255, and
    each value is off by up to half of the step between two stored integers. Values that differ from integers by no
    more than that are integers.

    Raises:
        UnusableFile: several layers that are not one label map, or values that are no integers.
    """
    voxels = one_layer(stored, file)
    if voxels.dtype.kind in "ui":
        return voxels
    if not np.isfinite(voxels).all():
        raise UnusableFile(f"{file}: the label has NaN or infinite voxels; expected integers", "not-finite")
    whole = np.rint(voxels)
    off = np.abs(voxels - whole)
    step = stored.header.step
    tolerance = INTEGER_TOLERANCE + (step / 2 if step < 1 else 0)
    if count := np.count_nonzero(off > tolerance):
        worst = voxels.flat[off.argmax()]
        scaled = f" (which its header scales in steps of {step:.3g})" if step else ""
        raise UnusableFile(
            f"{file}: {count} voxel(s) are not integers, such as {worst:.4g}{scaled}; was the label interpolated? "
            "Resample labels with nearest neighbour",
            "label-not-integer",
        )
    limits = np.iinfo(np.int64)
    if (np.abs(whole) > limits.max / 2).any():
        raise UnusableFile(f"{file}: label value {whole.max():.4g} is too large; is it an image?", "label-not-integer")
    integers: NDArray[np.int64] = whole.astype(np.int64)
    return integers


__all__ = ["INTEGER_TOLERANCE", "label_map"]
