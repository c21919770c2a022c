"""One scale for the intensities of all cases: relative for weighted MRI, absolute for quantitative maps."""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lossevo.errors import LossevoError

Mode = Literal["z-score", "quantitative"]

CLIP_PERCENTILES = (0.5, 99.5)

# Fat fractions come as a share, in per cent, or in per mille (vendors' integers).
FAT_FRACTION_UNITS = (1.0, 100.0, 1000.0)

_FAT_FRACTION = re.compile(r"(.*[^a-z])?(pdff|ff|fat[ _-]?fraction)([^a-z].*)?", re.IGNORECASE)


class Scaled(NamedTuple):
    """A channel on the common scale, and by which numbers it got there."""

    channel: NDArray[np.float32]
    numbers: dict[str, float]


def mode_of(channel_name: str) -> Mode:
    """``quantitative`` for a channel that its name makes a fat fraction (``PDFF``, ``fat fraction``, ``FF``)."""
    return "quantitative" if _FAT_FRACTION.fullmatch(channel_name.strip()) else "z-score"


def clip_limits(values: NDArray[np.float32]) -> tuple[float, float]:
    """The 0.5 and 99.5 percentile of ``values``, 0 if there are none. If they are equal there is no image."""
    low, high = np.percentile(values, CLIP_PERCENTILES) if values.size else (0.0, 0.0)
    return float(low), float(high)


def z_score(channel: NDArray[np.float32], tissue: NDArray[np.bool_] | None = None) -> Scaled:
    """Clip to the 0.5 and 99.5 percentile, then zero mean and unit SD, all measured over ``tissue``.

    ``tissue`` (same shape) is by default where the channel is not zero: zero is where there is no signal, air and
    padding, whose share says nothing about the tissue.

    Raises:
        LossevoError: the channel is constant over these voxels.
    """
    values = channel[channel != 0 if tissue is None else tissue]
    low, high = clip_limits(values)
    values = np.clip(values, low, high)
    if not high > low or not (sd := float(values.std(dtype=np.float64))) > 0:
        raise LossevoError("the image is constant")
    mean = float(values.mean(dtype=np.float64))
    scaled = ((np.clip(channel, low, high) - mean) / sd).astype(np.float32)
    return Scaled(scaled, {"low": low, "high": high, "mean": mean, "sd": sd})


def fat_fraction(channel: NDArray[np.float32]) -> Scaled:
    """A fat fraction as a share in [0, 1], whatever its unit; values beyond, which are noise, are clipped.

    The unit is the smallest of 1, 100 and 1000 that the 99.5 percentile stays below (with a tenth to spare). Nothing is
    measured but that: 0.4 means 0.4 in every case.

    Raises:
        LossevoError: the channel goes beyond 1000 or is constant, so that it is no fat fraction.
    """
    highest = float(np.percentile(channel, CLIP_PERCENTILES[1]))
    unit = next((unit for unit in FAT_FRACTION_UNITS if highest <= 1.1 * unit), None)
    if unit is None:
        raise LossevoError(
            f"its 99.5 percentile is {highest:g}, but a fat fraction ends at 1, 100 % or 1000 ‰; name the channel "
            "otherwise in the data set, or set preprocessing.intensity: z-score in the task"
        )
    if not channel.max() > channel.min():
        raise LossevoError("the image is constant")
    return Scaled(np.clip(channel / np.float32(unit), 0, 1), {"low": 0.0, "high": unit})
