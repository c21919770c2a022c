"""Where the patient is in a volume: a mask without a threshold to set, and the box around it."""

from __future__ import annotations

import numpy as np
import scipy
from numpy.typing import NDArray

from lossevo.data.resampling import Spacing, resample

Box = tuple[slice, slice, slice]

COARSE_MM = 4.0
MARGIN_MM = 8.0


def body_mask(image: NDArray[np.float32]) -> NDArray[np.bool_]:
    """The largest connected part of ``image`` (M, X, Y, Z) above Li's threshold, its holes filled: (X, Y, Z).

    Each channel is scaled to [0, 1] between its minimum and its 99.5 percentile, and the threshold taken of their mean.
    Otsu's threshold, more common, parts bright fat from muscle instead of the patient from the air. An image of one
    value is all body.
    """
    signal = np.zeros(image.shape[1:], np.float32)
    for channel in image:
        low, high = float(channel.min()), float(np.percentile(channel, 99.5))
        signal += np.clip((channel - low) / (high - low if high > low else 1.0), 0, 1)
    if not signal.any():
        return np.ones(signal.shape, bool)
    parts, count = scipy.ndimage.label(signal > li_threshold(signal))
    if count > 1:
        parts = parts == 1 + np.argmax(np.bincount(parts.ravel())[1:])
    mask: NDArray[np.bool_] = scipy.ndimage.binary_fill_holes(parts > 0)
    return mask


def li_threshold(signal: NDArray[np.float32]) -> float:
    """The threshold with the least cross-entropy between an image (values from 0) and its two means.

    The fixed point t = (m₁ - m₀) / (ln m₁ - ln m₀) with m₀ and m₁ the means of the values up to t and above, from the
    mean on (Li & Tam, An iterative algorithm for minimum cross entropy thresholding, Pattern Recogn Lett 1998;19:771).
    """
    threshold = float(signal.mean(dtype=np.float64))
    for _ in range(100):
        above = signal > threshold
        if not above.any() or above.all():
            break
        low, high = (float(signal[part].mean(dtype=np.float64)) for part in (~above, above))
        if low <= 0:  # nothing but 0 below: no air to tell from tissue
            break
        last, threshold = threshold, (high - low) / float(np.log(high / low))
        if abs(threshold - last) <= 1e-4 * last:
            break
    return threshold


def body_box(image: NDArray[np.float32], label: NDArray[np.uint8], spacing_mm: Spacing) -> Box:
    """The box around the body and every labelled voxel, 8 mm wider on each side where the volume goes on.

    The body is looked for at 4 mm, where noise has averaged out.
    """
    coarse_mm = tuple(max(side, COARSE_MM) for side in spacing_mm)
    body = body_mask(resample(image, spacing_mm, coarse_mm))  # type: ignore[arg-type]
    box = []
    for axis, others in enumerate(((1, 2), (0, 2), (0, 1))):
        size, side_mm = label.shape[axis], spacing_mm[axis]
        inside, labelled = (np.flatnonzero(mask.any(axis=others)) for mask in (body, label))
        # Both grids have the same centre; a coarse voxel reaches half its side beyond its own.
        edges_mm = (inside[[0, -1]] - (body.shape[axis] - 1) / 2 + [-0.5, 0.5]) * coarse_mm[axis] + [
            -MARGIN_MM,
            MARGIN_MM,
        ]
        low, high = edges_mm / side_mm + size / 2
        if labelled.size:
            low, high = min(low, labelled[0]), max(high, labelled[-1] + 1)
        box.append(slice(max(0, int(np.floor(low))), min(size, int(np.ceil(high)))))
    x, y, z = box
    return x, y, z
